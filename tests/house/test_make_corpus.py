import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SENTENCES
from mirror import make_crawl, make_dump, prose

from data_prep.pack_dataset import PackingArguments
from data_prep.pack_dataset import main as pack

ENVIRONMENT = Path(sys.executable).parent.parent
INSTALLED = ["-o", f"{ENVIRONMENT}/core", f"VENV={ENVIRONMENT}"]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    texts = prose()
    make_crawl(folder, texts[::2])
    make_dump(folder, texts[1::2] + texts[1:41:2])  # some articles twice
    flags = [f"CRAWL_URL={folder}", f"WIKI_URL={folder}", "RATIO=1", "VOCAB_SIZE=2000", "VALIDATION=0.1"]
    return ["make", *INSTALLED, "corpus", *flags]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tmp_path_factory.mktemp("make") / "my corpus"


def make_corpus(command, corpus):
    made = subprocess.run([*command, f"CORPUS={corpus}"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr[-3000:]
    return made.stdout


def test_one_command_makes_a_corpus(command, corpus):
    make_corpus(command, corpus)
    counts = {
        name: json.loads((corpus / name / "manifest.json").read_text())["counts"]
        for name in ("web", "web_filtered", "wikipedia", "wikipedia_filtered", "deduplicated", "corpus")
    }
    texts = prose()
    assert counts["web"]["in"] == len(texts[::2])
    assert counts["wikipedia"]["kept"] == len(texts[1::2]) + 20
    assert counts["wikipedia"]["dropped"] == {"redirect": 1}
    for stage, *before in [
        ("web_filtered", "web"),
        ("wikipedia_filtered", "wikipedia"),
        ("deduplicated", "web_filtered", "wikipedia_filtered"),
        ("corpus", "deduplicated"),
    ]:
        assert counts[stage]["in"] == sum(counts[name]["kept"] for name in before)
        assert counts[stage]["kept"] > 0.5 * counts[stage]["in"]
    assert sum(counts["deduplicated"]["dropped"].values()) >= 10
    rows = [row for path in sorted((corpus / "corpus").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert {row["source"] for row in rows} == {"CC-MAIN-2026-43", "enwiki-20261101"}
    assert len(np.load(corpus / "packed" / "train.npy", mmap_mode="r")) > 100


@pytest.mark.faults
def test_it_does_nothing_twice(command, corpus):
    make_corpus(command, corpus)
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.parquet")}
    again = make_corpus(command, corpus)
    assert again.count("already complete") >= 7
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*.parquet")} == before


def make(*words, **environment):
    """Run make without a word of its own flags, which a make that started these tests would hand down."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | environment
    done = subprocess.run(["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_a_higher_ratio_what_was_made_of_the_smaller_sample_is_set_aside(tmp_path):
    """The stages do nothing here; that fetching goes on is a test of its own."""
    corpus = tmp_path / "my corpus"
    words = [*INSTALLED, "corpus", "STAGE=true data_prep", f"CORPUS={corpus}"]
    for name in ("crawl", "web", "wikipedia", "analysis"):
        (corpus / name).mkdir(parents=True)
        (corpus / name / "kept").touch()
    assert "set aside" not in make(*words, "RATIO=0.5") and (corpus / "web" / "kept").exists()
    assert "RATIO was 0.5" in make(*words, "RATIO=1")
    names = sorted(str(path.relative_to(corpus)) for path in corpus.rglob("kept"))
    assert names == ["crawl/kept", "ratio-0.5/analysis/kept", "ratio-0.5/web/kept", "wikipedia/kept"]
    assert "RATIO was" not in make(*words, "RATIO=1")
    for name in ("tokenizer", "packed"):
        (corpus / name).mkdir()
        (corpus / name / "kept").touch()
    assert "VALIDATION was 0.01" in make(*words, "RATIO=1", "VALIDATION=0.1")
    assert "VALIDATION was" not in make(*words, "RATIO=1.0", "VALIDATION=0.10")  # the same number
    (corpus / "packed").mkdir()
    for _ in range(2):  # there and back again: nothing is lost
        asked = (*words, "RATIO=1", "VALIDATION=0.1")
        assert "VOCAB_SIZE was 30522" in make(*asked, "VOCAB_SIZE=8192") and not (corpus / "tokenizer").exists()
        (corpus / "tokenizer").mkdir()
        assert "VOCAB_SIZE was 8192" in make(*asked) and "VOCAB_SIZE was" not in make(*asked)
        (corpus / "tokenizer").mkdir()
    assert sorted(path.name for path in corpus.glob("v*-*")) == [
        *("validation-0.01", "vocab_size-30522", "vocab_size-30522-before"),
        *("vocab_size-8192", "vocab_size-8192-before"),
    ]
    assert (corpus / "validation-0.01" / "packed" / "kept").exists()
    assert (corpus / "vocab_size-30522" / "tokenizer" / "kept").exists()
    assert "extract_wikipedia" in make(*words, "-n") and "extract_wikipedia" not in make(*words, "-n", "WIKI=")


def test_a_corpus_without_a_record_says_itself_what_it_was_made_with(tmp_path, wordpiece):
    corpus = tmp_path / "my corpus"
    wordpiece.save_pretrained(corpus / "tokenizer")
    arguments = {"input": [str(SENTENCES)], "max_seq_length": 32, "validation_fraction": 0.1}
    pack(PackingArguments(str(corpus / "tokenizer"), str(corpus / "packed"), **arguments))
    words = [*INSTALLED, "corpus", "STAGE=true data_prep", f"CORPUS={corpus}", f"VOCAB_SIZE={len(wordpiece)}"]
    assert "was" not in make(*words, "VALIDATION=0.1")
    for name in ("vocab_size", "validation"):
        (corpus / name).unlink()
    assert f"VALIDATION was 0.1: what was made with it is in {corpus}/validation-0.1" in make(*words)
    (corpus / "vocab_size").unlink()
    assert f"VOCAB_SIZE was {len(wordpiece)}: " in make(*words, "VOCAB_SIZE=8192")
    assert (corpus / f"vocab_size-{len(wordpiece)}" / "tokenizer" / "tokenizer.json").is_file()
    assert (corpus / "validation-0.1" / "packed" / "train.npy").is_file() and not (corpus / "tokenizer").exists()


def test_help_names_every_target_and_variable():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split()
    variables = re.findall(r"^([A-Z_]+) \?=", text, re.MULTILINE)
    shown = make("help")
    assert [name for name in targets if f"\n{name}: " not in f"\n{shown}"] == []
    assert {"CORPUS", "TORCH", "RATIO"} <= set(variables) and all(f"  {name}=" in shown for name in variables)
    page = "".join((ROOT / folder / "README.md").read_text() for folder in ("data_prep", "pretraining"))
    assert [name for name in variables if name not in ("PYTHON", "TORCH") and f"`{name}`" not in page] == []


def test_of_two_makes_at_once_one_installs(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for path in (ROOT / "pyproject.toml", *ROOT.glob("requirements*.txt")):
        (tmp_path / path.name).touch()  # nothing to install
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    words = ["make", "install", f"PYTHON={sys.executable}"]
    makes = [
        subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    shown = [process.communicate(timeout=600)[0] for process in makes]
    assert [process.returncode for process in makes] == [0, 0] and (tmp_path / ".venv" / "core").is_file()
    assert "".join(shown).count("-m venv") == 1 == "".join(shown).count("is up to date")


def wheel(folder, version):
    """An empty package of torch's name in an index as pip reads it."""
    folder = folder / "torch"
    folder.mkdir(parents=True)
    name, facts = f"torch-{version}-py3-none-any.whl", f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        file.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{facts}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{name.replace("+", "%2B")}">{name}</a>')
    return folder.parent.as_uri()


def test_the_build_of_torch_that_is_asked_for_is_taken(tmp_path):
    """pip takes it from the index that make names, since PEP 440 ranks 2.13.0+cpu above the 2.13.0 of PyPI."""
    (pin,) = re.findall(r"^torch==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    pypi, build = wheel(tmp_path / "pypi", pin), wheel(tmp_path / "cpu", f"{pin}+cpu")
    (command,) = [line for line in make("-n", "-B", "install", "TORCH=cpu").splitlines() if "pip install" in line]
    named = command.split("--extra-index-url ")[1].split()[0]
    assert named == "https://download.pytorch.org/whl/cpu"
    for flags, version in (([], pin), (["--extra-index-url", build], f"{pin}+cpu")):
        words = ["download", "--isolated", "--no-deps", "--no-cache-dir", "--index-url", pypi, *flags]
        words += ["--dest", str(tmp_path / version), f"torch=={pin}"]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, timeout=600)
        assert [path.name.split("-")[1] for path in (tmp_path / version).iterdir()] == [version]
    assert "--extra-index-url" not in make("-n", "-B", "install")
    assert f"pip install --extra-index-url {named} -r requirements.txt" in (ROOT / "requirements.txt").read_text()
