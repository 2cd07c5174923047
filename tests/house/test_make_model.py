"""make model: from documents to a model that fills masks and compares texts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from data_prep.collect_docstrings import DocstringArguments
from data_prep.collect_docstrings import main as collect

HOME = Path(sys.executable).parent.parent
INSTALLED = ["-o", f"{HOME}/core", "-o", f"{HOME}/embeddings", f"VENV={HOME}"]


def make_model(*words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", *INSTALLED, "model", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_second_stage_starts_from_the_first():
    commands = make_model("-n", "INPUT=texts", "CORPUS=data/mine", "FLAGS=--bf16")
    assert "--by year" in commands  # documents of one's own may name a source each
    assert '--packed_dataset "data/mine/packed" --bf16 --output_dir "runs/mine/trunk"\n' in commands
    second = " ".join(commands[commands.index("distil_words.yaml") :].replace("\\\n", " ").split())
    assert '--model_name_or_path "runs/mine/trunk" --teacher_name_or_path "data/mine/word-vectors"' in second
    assert '--bf16 --output_dir "runs/mine/model"' in second


@pytest.mark.faults
def test_documents_become_a_model_and_nothing_is_done_twice(tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import pipeline

    collect(DocstringArguments(output_dir=str(tmp_path / "documents")))
    words = [f"INPUT={tmp_path / 'documents'}", f"CORPUS={tmp_path / 'corpus'}", f"STAGES={tmp_path / 'runs'}"]
    words += ["VOCAB_SIZE=2048", "VALIDATION=0.1", "FLAGS=--max_steps 3 --use_cpu --eval_strategy no"]
    make_model(*words)
    model = tmp_path / "runs" / "model"
    assert len(SentenceTransformer(str(model)).encode("A list of names.")) == 128
    assert len(pipeline("fill-mask", str(model))("A list of [MASK].")) == 5
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    make_model(*words)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == made
