import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from mirror import make_crawl, make_dump, prose


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    texts = prose()
    make_crawl(folder, texts[::2])
    make_dump(folder, texts[1::2] + texts[1:41:2])  # some articles twice
    flags = [f"CRAWL_URL={folder}", f"WIKI_URL={folder}", "RATIO=1", "VOCAB_SIZE=2000", "VALIDATION=0.1"]
    environment = Path(sys.executable).parent
    return ["make", "-o", f"{environment.parent}/core", f"VENV={environment.parent}", "corpus", *flags]


def test_one_command_makes_a_corpus_and_goes_on_where_it_stopped(command, tmp_path):
    corpus = tmp_path / "corpus"

    def run():
        made = subprocess.run([*command, f"CORPUS={corpus}"], cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert made.returncode == 0, made.stderr[-3000:]
        return made.stdout

    run()
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

    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.parquet")}
    again = run()
    assert again.count("already complete") >= 7
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*.parquet")} == before
