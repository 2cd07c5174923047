import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from masked_models import count_tokens, save_model

from evaluation import run_blimp
from evaluation.masked.blimp_page import make_table
from evaluation.run_blimp import BlimpArguments, load_pairs, main, summarize
from shared.errors import InputError


def pair(good, bad, uid="one", term="agreement", field="syntax"):
    return {"sentence_good": good, "sentence_bad": bad, "linguistics_term": term, "field": field, "UID": uid, "x": 1}


PAIRS = {
    "one": [pair("the man", "the zebra"), pair("the man", "the man"), pair("a zebra", "the man")],
    "two": [pair("the zebra", "a zebra", "two", "binding", "syntax/semantics")] * 2,
}


def lines(pairs):
    return "".join(json.dumps(row) + "\n" for row in pairs)


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory, wordpiece):
    """A model for which `the` and `man` are likely words and everything else is not."""
    counts = count_tokens(wordpiece, ["the man"] * 1000)
    return save_model(tmp_path_factory.mktemp("models") / "counts", wordpiece, counts=counts)


def test_accuracy_by_phenomenon_and_field_with_ties_as_half(tmp_path, model):
    source = make_zip(
        tmp_path / "b.zip", {"data/": "", **{f"data/{name}.jsonl": lines(PAIRS[name]) for name in PAIRS}}
    )
    report = main(BlimpArguments([model], source, str(tmp_path / "out")))
    scores = report["models"]["counts"]
    # one: right, a tie, wrong (three words against two); two: `the` is likelier than `a`.
    assert scores["paradigms"]["one"] == {
        "accuracy": 0.5,
        "standard_error": pytest.approx(np.std([1, 0.5, 0]) / 3**0.5),
        "pairs": 3,
    }
    assert scores["phenomena"]["binding"]["accuracy"] == scores["fields"]["syntax_semantics"]["accuracy"] == 1
    assert scores["overall"]["accuracy"] == pytest.approx(0.7) and scores["ties"] == 0.2
    assert (tmp_path / "out" / "blimp.md").read_text() == make_table(report)
    assert "| **all pairs** | 5 | 70.0 ± " in make_table(json.loads((tmp_path / "out" / "blimp.json").read_text()))
    assert (tmp_path / "out" / "blimp.png").stat().st_size > 10_000


def test_a_folder_is_read_as_the_zip_file_and_two_runs_agree(tmp_path, model):
    for name, pairs in PAIRS.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.jsonl").write_text(lines(pairs))
    source = make_zip(tmp_path / "b.zip", {f"{name}.jsonl": lines(PAIRS[name]) for name in PAIRS})
    assert load_pairs(str(tmp_path / "data"), None) == load_pairs(source, None)
    assert len(load_pairs(source, 1)) == 2
    reports = [
        main(BlimpArguments([model], input, str(tmp_path / "out"))) for input in (source, str(tmp_path / "data"))
    ]
    for report in reports:
        report["models"]["counts"].pop("seconds")
    assert reports[0]["models"] == reports[1]["models"]


def test_the_standard_error_is_that_of_a_share():
    scores = np.array([1.0] * 30 + [0.0] * 70)
    assert summarize(scores)["standard_error"] == pytest.approx((0.3 * 0.7 / 100) ** 0.5)


def test_a_hostile_zip_file_writes_nothing_and_is_bounded(tmp_path, monkeypatch):
    names = ["../../escaped.jsonl", "/escaped.jsonl", "a/../../b.jsonl"]
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    source = make_zip(folder / "b.zip", {name: lines(PAIRS["one"]) for name in names})
    before = sorted(tmp_path.rglob("*"))
    assert len(load_pairs(source, None)) == 9
    assert sorted(tmp_path.rglob("*")) == before and not Path("/escaped.jsonl").exists()

    monkeypatch.setattr(run_blimp, "MOST_BYTES", 10_000)
    bomb = make_zip(tmp_path / "bomb.zip", {"a.jsonl": " " * 9_000, "b.jsonl": " " * 9_000})
    with pytest.raises(InputError, match="unpacks to more than 10,000 bytes"):
        load_pairs(bomb, None)
    content = bytearray(Path(make_zip(tmp_path / "liar.zip", {"a.jsonl": " " * 10_000_000})).read_bytes())
    place = content.index(b"PK\x01\x02") + 24  # the size that the directory claims
    content[place : place + 4] = struct.pack("<I", 10)
    (tmp_path / "liar.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"liar\.zip"):
        load_pairs(str(tmp_path / "liar.zip"), None)
    monkeypatch.setattr(run_blimp, "MOST_MEMBERS", 2)
    with pytest.raises(InputError, match="3 files"):
        load_pairs(make_zip(tmp_path / "many.zip", dict.fromkeys(("a.jsonl", "b.jsonl", "c.jsonl"), "")), None)


def test_wrong_input_is_named_before_anything_is_written(tmp_path, model):
    good = make_zip(tmp_path / "good.zip", {"a.jsonl": lines(PAIRS["one"])})
    (tmp_path / "cut.zip").write_bytes(Path(good).read_bytes()[:-30])
    broken = bytearray(Path(good).read_bytes())
    broken[60] ^= 0xFF
    (tmp_path / "broken.zip").write_bytes(broken)
    no_field = {key: value for key, value in pair("a", "b").items() if key != "UID"}
    cases = [
        (None, "--input"),
        (str(tmp_path / "nowhere.zip"), "No such file"),
        (str(tmp_path / "cut.zip"), "not a readable zip file"),
        (str(tmp_path / "broken.zip"), r"broken\.zip"),
        (make_zip(tmp_path / "none.zip", {"readme.txt": "x"}), "holds no pairs"),
        (make_zip(tmp_path / "json.zip", {"a.jsonl": lines(PAIRS["one"]) + "{"}), r"a\.jsonl, line 4: not a JSON"),
        (make_zip(tmp_path / "deep.zip", {"a.jsonl": "[" * 100_000}), r"a\.jsonl, line 1"),
        (make_zip(tmp_path / "uid.zip", {"a.jsonl": lines([no_field])}), "line 1: needs text in each of .*UID"),
        (make_zip(tmp_path / "long.zip", {"a.jsonl": lines([pair("word " * 90, "b")])}), "more than counts takes"),
    ]
    for source, message in cases:
        with pytest.raises(InputError, match=message):
            main(BlimpArguments([model], source, str(tmp_path / "out")))
    with pytest.raises(InputError, match="--max_samples 0"):
        BlimpArguments([model], good, max_samples=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
@pytest.mark.skipif("TINY_OLM_DATA" not in os.environ, reason="TINY_OLM_DATA names no data folder")
def test_the_release_of_blimp_is_read_whole():
    pairs = load_pairs(os.environ["TINY_OLM_DATA"] + "/probes/BLiMP.zip", None)
    assert len(pairs) == 67_000 and len({pair["UID"] for pair in pairs}) == 67
    assert {pair["field"] for pair in pairs} == {"morphology", "semantics", "syntax", "syntax_semantics"}
