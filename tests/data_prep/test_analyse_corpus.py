import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import analyse_corpus
from data_prep.analyse_corpus import AnalysisArguments, families, pairs_to_compare
from data_prep.corpus import counts
from data_prep.corpus.analysis_page import similarity
from data_prep.corpus.analysis_pictures import draw_pictures
from data_prep.corpus.counts import Tallies, bin_start, length_bin, month_of, registered_domain, snapshot_of
from data_prep.corpus.statistics import correlations, quantiles, rises
from data_prep.corpus.words import normalised_words
from data_prep.engine.stage import StageArguments
from shared.errors import InputError

SCRIPT = str(Path(analyse_corpus.__file__))
FIRST, LAST = "CC-MAIN-2026-39", "CC-MAIN-2026-43"


def documents():
    """Two snapshots of 300 documents each: 100 URLs and 60 texts are in both, "comet" is news in the second."""
    rows = []
    for snapshot, name in enumerate((FIRST, LAST)):
        for number in range(300):
            page = number + 200 * snapshot
            text = f"Common words w{page * 7 % 41} and w{page * 13 % 53} on page{page}" + "." * snapshot
            if number % 10 == 0:
                text += " harvest moon"
            if number % 3 == 0 and snapshot:
                text += " the COMET, a comet, the Harvest-Moon"
            if 200 <= page < 260:
                text = f"Page {page} of both."
            rows.append(
                {
                    "id": str(number),
                    "url": f"https://www.site{page % 20}.co.uk/{page}",
                    "text": text,
                    "date": f"2026-{9 + snapshot:02d}-{1 + number % 28:02d}",
                    "last_modified": f"20{10 + number % 16}-05-01T00:00:00Z" if number % 2 else None,
                    "language": "en" if number % 4 else "de",
                    "source": name,
                }
            )
    return rows


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rows = documents()
    for start in range(0, 600, 200):  # snapshots do not end where files end
        pq.write_table(pa.Table.from_pylist(rows[start : start + 200]), folder / f"{start}.parquet")
    return folder


def run(inputs, output_dir, workers=1, part_records=90, **flags):
    stage = StageArguments(str(output_dir), [str(inputs)], workers=workers, part_records=part_records)
    flags = {"terms": ["Comet", "harvest moon", "never"], "pictures": False} | flags
    return analyse_corpus.main(stage, AnalysisArguments(**flags))["analysis"]


def content(folder):
    """All files but the pictures, and the page that shows them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".png" and path.name not in ("time.json", "lock", "README.md")
    }


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    run(inputs, folder, pictures=True)
    return folder


@pytest.fixture(scope="module")
def analysis(whole):
    return json.loads((whole / "analysis.json").read_text())


def test_counts_are_exact(analysis):
    rows = documents()
    assert {name: total["documents"] for name, total in analysis["snapshots"].items()} == {FIRST: 300, LAST: 300}
    for name in (FIRST, LAST):
        own = [row for row in rows if row["source"] == name]
        words = [normalised_words(row["text"]) for row in own]
        assert analysis["snapshots"][name]["words"] == sum(map(len, words))
        assert analysis["terms"]["comet"][name]["term_documents"] == sum("comet" in line for line in words)
        phrase = sum(" ".join(line).count("harvest moon") for line in words)
        assert analysis["terms"]["harvest moon"][name]["term_uses"] == phrase
        assert analysis["terms"]["never"][name] == {"term_documents": 0, "term_uses": 0}
        assert analysis["languages"][name] == dict(sorted(Counter(row["language"] for row in own).items()))
        assert analysis["dates"]["date"][name]["months"] == {own[0]["date"][:7]: 300}
        assert analysis["dates"]["last_modified"][name]["unknown"] == 150
        assert sum(analysis["dates"]["last_modified"][name]["months"].values()) == 150
    assert analysis["terms"]["comet"][LAST]["term_documents"] > 50


def test_urls_and_texts_in_both_snapshots(analysis):
    rows = documents()
    for kind in ("url", "text"):
        sets = [{row[kind] for row in rows if row["source"] == name} for name in (FIRST, LAST)]
        facts = analysis["duplicates"][kind]
        assert facts["distinct"] == [len(sets[0]), len(sets[1])]
        assert facts["shared"][0][1] == facts["shared"][1][0] == len(sets[0] & sets[1])
        assert similarity(facts, "jaccard")[0][1] == len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        assert similarity(facts, "containment")[1][0] == len(sets[0] & sets[1]) / len(sets[1])
    assert analysis["duplicates"]["url"]["shared"][0][1] == 100
    assert analysis["duplicates"]["text"]["shared"][0][1] == 60


def test_an_address_within_an_address_is_not_the_whole(tmp_path):
    rows = [
        {"text": f"page {year}", "url": f"https://archive.org/{year}/https://a.org/"} for year in range(2020, 2024)
    ]
    rows.append({"text": "another", "url": "http://archive.org/2020/https://a.org"})  # the first one's again
    pq.write_table(pa.Table.from_pylist([{**row, "source": "a"} for row in rows]), tmp_path / "in.parquet")
    assert run(tmp_path / "in.parquet", tmp_path / "out")["duplicates"]["url"]["distinct"] == [4]


def test_overlaps_are_the_same_in_ranges(whole, analysis, monkeypatch):
    monkeypatch.setattr(counts, "HASHES_AT_ONCE", 70)  # 9 ranges
    for kind, facts in analysis["duplicates"].items():
        assert counts.overlaps(str(whole), kind, [FIRST, LAST]) == facts


def test_a_word_that_is_new_rises_most(analysis):
    (entry,) = analysis["rises"]
    assert (entry["first"], entry["last"]) == (FIRST, LAST)
    assert "comet" in [row["word"] for row in entry["risers"]][:6]
    scores = [row["z"] for row in entry["risers"]]
    assert scores == sorted(scores, reverse=True)


def test_rises_resist_chance_grammar_and_spam():
    table = {
        "war": (2, 400),
        "the": (990, 999),
        "fluke": (0, 3),
        "rare": (1, 24),
        "peace": (300, 40),
        "same": (100, 100),
    }
    ranked = rises(table, 1000, 1000, 20)
    assert [row["word"] for row in ranked] == ["war", "rare", "same", "peace"]
    assert ranked[0]["z"] > 10 > ranked[1]["z"] > 2
    assert ranked[2]["z"] == pytest.approx(0, abs=1e-6)
    assert ranked[-1]["z"] < -10
    assert rises(table, 0, 1000, 20) == rises({}, 10, 10, 1) == []


def test_rises_do_not_depend_on_which_snapshot_is_larger():
    for first, last in ((100, 10_000), (10_000, 100)):
        (row,) = rises({"same": (first // 10, last // 10)}, first, last, 1)
        assert abs(row["z"]) < 0.5


def test_domains_and_their_correlation(analysis):
    top = analysis["domains"]["top"]
    assert len(top) == 20
    assert top[0]["domain"].endswith(".co.uk")
    assert sum(sum(row["documents"].values()) for row in top) == 600
    domains = {f"d{i}": {"a": i + 1, "b": (i + 1) ** 2, "c": 50 - i} for i in range(30)}
    found = correlations(domains, ["a", "b", "c"])
    assert found["spearman"][0][1] == 1.0
    assert found["spearman"][0][2] == -1.0
    logs = [np.log1p([row[name] for row in domains.values()]) for name in ("a", "b")]
    assert found["pearson"][0][1] == pytest.approx(np.corrcoef(*logs)[0, 1], abs=1e-4)
    few = correlations({"x": {"a": 1, "b": 2}}, ["a", "b"])
    assert few["pearson"] == [[None, None], [None, None]]


@pytest.mark.parametrize(
    "url, domain",
    [
        ("https://www.example.org/a?b", "example.org"),
        ("http://News.BBC.co.uk:8080/", "bbc.co.uk"),
        ("https://example.com.br", "example.com.br"),
        ("https://co.uk/", "co.uk"),
        ("https://192.168.2.1/x", "192.168.2.1"),
        ("https://[::1]/x", "::1"),
        ("https://[broken/x", ""),
        ("not a url", ""),
        (None, ""),
        ("https://localhost/", "localhost"),
        ("https://de.wikipedia.org./wiki", "wikipedia.org"),
    ],
)
def test_registered_domain(url, domain):
    assert registered_domain(url) == domain


def test_month_of():
    assert [
        month_of(date)
        for date in ("2026-11-20T10:00:00Z", "2026", "2026-13-01", "0001-01", "", None, "June", "1999999999")
    ] == [
        "2026-11",
        "2026",
        "2026",
        *["unknown"] * 5,
    ]
    snapshots = [snapshot_of({"date": date}, by) for date in ("2026-11-20", None) for by in ("year", "month")]
    assert snapshots == ["2026", "2026-11", "unknown", "unknown"]


def test_quantiles_are_within_a_bin():
    lengths = list(range(1, 2001))
    histogram = Counter(str(length_bin(length)) for length in lengths)
    for percent, value in quantiles(histogram).items():
        assert value == pytest.approx(lengths[int(percent) * 20 - 1], rel=0.05, abs=1)
    assert all(bin_start(length_bin(n)) <= n * (1 + 1e-6) < bin_start(length_bin(n) + 1) + 1e-3 for n in range(5000))


def test_the_largest_keys_are_exact_with_few_buckets(inputs, whole, monkeypatch):
    exact = Tallies(str(whole)).largest("word", 20, {FIRST, LAST})
    count = Counter()
    for row in documents():
        count.update(word for word in set(normalised_words(row["text"])) if word[0].isalpha() and len(word) > 1)
    expected = {word: n for word, n in count.items() if n >= 20}
    assert {word: sum(table.values()) for word, table in exact.items() if sum(table.values()) >= 20} == expected
    monkeypatch.setitem(counts.MOST_KEYS, "word", 5)
    few = Tallies(str(whole)).largest("word", 1, {FIRST, LAST})
    assert len(few) < len(exact)
    assert count.most_common(1)[0][0] in few


@pytest.mark.faults
def test_same_bytes_for_any_workers_and_parts(inputs, whole, tmp_path):
    run(inputs, tmp_path / "four", workers=4)
    assert content(tmp_path / "four") == content(whole)
    run(inputs, tmp_path / "parts", part_records=37)
    assert (tmp_path / "parts" / "analysis.json").read_bytes() == (whole / "analysis.json").read_bytes()
    draw_pictures(tmp_path, json.loads((whole / "analysis.json").read_text()))
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in whole.glob("*.png"))


def test_tables_and_pictures(whole, analysis):
    text = (whole / "README.md").read_text()
    pictures = sorted(path.name for path in whole.glob("*.png"))
    assert pictures == sorted(f"{n}.png" for n in ("terms", "rises", "dates", "domains", "duplicates", "lengths"))
    for name in pictures:
        assert f"]({name})" in text
        assert (whole / name).read_bytes()[:4] == b"\x89PNG"
    assert f"## Risers from {FIRST} to {LAST}" in text
    assert "| CC-MAIN-2026-43 | 300 |" in text


def test_other_snapshots(inputs, tmp_path, capsys):
    by_month = run(inputs, tmp_path / "month", by="month")
    assert list(by_month["snapshots"]) == ["2026-09", "2026-10"]
    assert [(entry["first"], entry["last"]) for entry in by_month["rises"]] == [("2026-09", "2026-10")]
    swapped = run(inputs, tmp_path / "month", by="month", compare=["2026-10", "2026-09"])  # needs no new counting
    assert swapped["rises"][0]["first"] == "2026-10"
    assert "already complete" in capsys.readouterr().out
    with pytest.raises(InputError, match="--compare 2031"):
        run(inputs, tmp_path / "month", by="month", compare=["2031", "2026-09"])


def test_families_are_not_mixed():
    names = [
        "enwiki-20261101",
        "CC-MAIN-2026-43",
        "news",
        "CC-MAIN-2026-47",
        "enwiki-20260901",
        "unknown",
        "dewiki-20261101",
    ]
    assert list(families(names)) == [["CC-MAIN-2026-43", "CC-MAIN-2026-47"], ["enwiki-20260901", "enwiki-20261101"]]
    assert list(families(["2025", "2026", "unknown"])) == [["2025", "2026"]]
    assert pairs_to_compare(names, []) == [
        ("CC-MAIN-2026-43", "CC-MAIN-2026-47"),
        ("enwiki-20260901", "enwiki-20261101"),
    ]


def test_drop_reasons_come_from_the_stages_before(inputs, tmp_path):
    from data_prep import build_corpus

    build = StageArguments(str(tmp_path / "corpus"), [str(inputs)], workers=1)
    build_corpus.main(build, build_corpus.BuildArguments(token_budget=500))
    found = run(tmp_path / "corpus", tmp_path / "out", pictures=True)
    (step,) = found["stages"]
    assert step["stage"] == "build_corpus"
    assert step["counts"]["dropped"]["not in the sample"] > 400
    assert "| build_corpus | not in the sample |" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "stages.png").is_file()


def test_strange_documents(tmp_path):
    rows = [
        {"text": "", "source": "a|b <script>$x^$"},
        {"text": "x", "url": "http://[", "date": "soon", "last_modified": "9999", "source": None},
        {"text": "q" * 100_000 + " \u202e" + "好" * 1000, "source": "a|b <script>$x^$", "language": "|" * 500},
        {"text": 5},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    stage = StageArguments(str(tmp_path / "out"), [str(tmp_path / "in.jsonl")], workers=1, max_bad_records=0.5)
    manifest = analyse_corpus.main(stage, AnalysisArguments(terms=["$5 note"]))
    assert manifest["counts"]["bad"] == {"text is not a string": 1}
    assert set(manifest["analysis"]["snapshots"]) == {"a|b <script>$x^$", "unknown"}
    assert "<script>" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"terms": ["covid", "COVID!"]}, "--terms"),
        ({"terms": ["..."]}, "--terms"),
        ({"compare": ["a"]}, "--compare"),
        ({"compare": ["a", "a"]}, "--compare"),
        ({"top": 0}, "--top"),
        ({"min_documents": 0}, "--min_documents"),
    ],
)
def test_wrong_flags_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        AnalysisArguments(**flags)


def test_no_documents_is_an_error(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="no document"):
        run(tmp_path / "in.parquet", tmp_path / "out")


def test_too_many_snapshots(tmp_path):
    rows = [{"text": "a b c", "source": f"s{number}"} for number in range(201)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"--by source: 201 snapshots, .* --by year, in a new --output_dir"):
        run(tmp_path / "in.parquet", tmp_path / "out")


def test_killed_runs_end_with_the_same_bytes(inputs, whole, tmp_path):
    command = [sys.executable, SCRIPT, "--input", str(inputs), "--output_dir", str(tmp_path / "out"), "--workers", "1"]
    command += ["--part_records", "90", "--terms", "Comet", "harvest moon", "never", "--pictures", "False"]
    state = tmp_path / "out" / ".state"
    for enough in (4,):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(state.glob("count/0*.json"))) < enough:
            time.sleep(0.001)
        process.kill()
        process.wait()
        done = {path: path.stat().st_mtime_ns for path in state.glob("count/0*.json")}
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert content(tmp_path / "out") == content(whole)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
