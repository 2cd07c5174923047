"""File names are bytes: one that is no UTF-8 is read like any other, and stands in manifests as Python writes it."""

import json
import os
import sys

import pytest
from conftest import SENTENCES
from forked import Forked

STAGES = [
    ("filter_documents.py", []),
    ("deduplicate.py", []),
    ("build_corpus.py", []),
    ("analyse_corpus.py", []),
    ("train_tokenizer.py", ["--vocab_size", "100", "--reserved_entries", "0"]),
]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such file names")
@pytest.mark.parametrize(("script", "flags"), STAGES)
def test_a_name_that_is_not_utf8_is_read(tmp_path, script, flags):
    name = os.fsdecode(b"caf\xe9.jsonl")
    texts = SENTENCES.read_text().split("\n\n") * 3
    (tmp_path / name).write_text("".join(json.dumps({"text": f"{text} {i}"}) + "\n" for i, text in enumerate(texts)))
    out = tmp_path / "out"
    run = Forked(tmp_path / "log", f"data_prep/{script}", "--input", tmp_path / name, "--output_dir", out, *flags)
    assert run.wait(300) == 0, run.output()[-2000:]
    if (out / "manifest.json").is_file():
        manifest = (out / "manifest.json").read_text(encoding="utf-8")
        assert 'caf\\udce9.jsonl"' in manifest
        assert json.loads('"caf\\udce9.jsonl"') == name  # as JSON escapes it
