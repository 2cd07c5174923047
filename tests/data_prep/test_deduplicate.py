"""deduplicate.py: what is found, who survives, and that neither kills nor the number of workers change a byte."""

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from data_prep.deduplicate import DeduplicateArguments, main
from data_prep.duplicates import minhash
from data_prep.duplicates.files import listed, read_run
from data_prep.duplicates.minhash import MinHash, hash_of_words, words_of
from data_prep.duplicates.signatures import order_of
from data_prep.engine.stage import StageArguments
from evaluation.bench.deduplicate import BenchArguments, jaccard, planted_pairs, write_corpus
from evaluation.bench.deduplicate import main as bench
from shared.errors import BadRecordsError, InputError

LONG = "The quick brown fox jumps over the lazy dog while {} watches the river flow past the old stone mill in spring."


def write(folder, *files):
    """Write each list of rows as a parquet file of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(files):
        names = dict.fromkeys(name for row in rows for name in row)
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        pq.write_table(table, folder / f"{number}.parquet")
    return str(folder)


def run(tmp_path, *inputs, name="out", workers=1, part_records=2000, **flags):
    stage = StageArguments(str(tmp_path / name), list(inputs), workers=workers, part_records=part_records)
    return main(stage, DeduplicateArguments(**flags))


def rows_of(tmp_path, kind="", name="out"):
    folder = tmp_path / name / kind
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def kept(tmp_path, name="out"):
    return sorted(row["id"] for row in rows_of(tmp_path, name=name))


def bytes_of(folder):
    """All that a user sees of an output folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".state" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# What is compared


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello,  WORLD!\n\t42%", "hello world 42"),
        ("“Ｆｕｌｌ” — Straße…", "full strasse"),
        ("cafe\u0301 café", "café café"),
        ("हिन्दी।", "हिन्दी"),  # vowel signs are part of the word
        ("日本語 abc", "日 本 語 abc"),
        ("ok👍🏽", "ok 👍 🏽"),
        ("a\x00b", "a b"),
        ("C, C++, C# (F#)!", "c c++ c# f#"),  # three languages
        ("2+2 # one ++ a+b c+++ ## Τ+", "2 2 one a b c τ+"),
        ("\u2028 ... \ufeff", ""),
    ],
)
def test_words(text, words):
    assert b" ".join(words_of(text)).decode() == words


def test_a_text_in_pieces_has_the_signature_of_the_whole(monkeypatch):
    text = " ".join(random.Random(1).choices(["alpha", "Béta", "γάμμα", "delta,\n", "漢字"], k=3000))
    whole = MinHash().sign([text, "before", text])
    exact = hash_of_words(text)
    monkeypatch.setattr(minhash, "PIECE", 100)
    monkeypatch.setattr(minhash, "BLOCK", 7)
    pieces = MinHash().sign([text, "before", text])
    assert all((a == b).all() for a, b in zip(whole, pieces, strict=True))
    assert exact == hash_of_words(text) == int(whole[0][0])


def test_signatures_are_the_same_bits_on_every_machine():
    exact, keys, has_words = MinHash(2, 2, 3).sign(["One two, three four five.", "one TWO", "", "?!"])
    assert exact.tolist()[:2] == [12680316496854958627, 17552004791185791800]
    assert keys.tolist()[:2] == [
        [589648769572953288, 12371656826107576018],
        [17649519338908528702, 1806249701131677868],
    ]
    assert has_words.tolist() == [True, True, False, False]
    assert exact[2] != exact[3]  # texts without words are the same only if they are the same


def test_pairs_are_found_as_often_as_the_formula_says():
    """At all similarities together, and recall and precision at 0.8, within sampling error."""
    pairs = list(planted_pairs(2500, 5, seed=7))
    keys = MinHash().sign([text for pair in pairs for text in pair[:2]])[1].reshape(-1, 2, 14)
    found = (keys[:, 0] == keys[:, 1]).any(axis=1)
    similarity = np.array([pair[2] for pair in pairs])
    expected = 1 - (1 - similarity**8) ** 14
    for chosen in (similarity < 0.5, (similarity >= 0.5) & (similarity < 0.8), similarity >= 0.8):
        error = np.sqrt((expected * (1 - expected))[chosen].sum())
        assert abs(found[chosen].sum() - expected[chosen].sum()) < 3.5 * error
    assert found[similarity >= 0.8].mean() > 0.97
    assert found[similarity > 0.95].all()


def test_estimated_similarity_is_unbiased():
    pairs = [pair for pair in planted_pairs(400, 5, seed=3) if pair[2] < 1]
    minima, _ = MinHash().minima([text for pair in pairs for text in pair[:2]])
    estimates = (minima[::2] == minima[1::2]).mean(axis=1)
    similarity = np.array([pair[2] for pair in pairs])
    errors = (estimates - similarity) / np.sqrt(similarity * (1 - similarity) / 112)
    assert abs(errors.mean()) < 4 / len(pairs) ** 0.5 and 0.85 < errors.std() < 1.15


def test_dates_are_compared_as_moments():
    rising = ["2019", "2020-03", "2020-03-01T10:00:00+02:00", "2020-03-01T09:00:00Z", "2020-03-01 09:00:00.5"]
    orders = [order_of(date, False, oldest=True) for date in rising]
    assert orders == sorted(orders) and len(set(orders)) == 5
    newest = [order_of(date, False, oldest=False) for date in rising]
    assert newest == sorted(newest, reverse=True)
    for oldest in (True, False):
        assert order_of("no date", False, oldest) == order_of(None, False, oldest) > max(orders + newest)
        assert order_of(None, True, oldest) < min(orders + newest)  # of the earlier corpus


# Who survives

COPIES = [
    {"id": "a", "url": "https://b.org/", "date": "2026-01-02", "text": LONG.format("Ann")},
    {"id": "b", "url": "https://a.org/", "date": "2026-01-02T00:00:00Z", "text": LONG.format("ann!")},
    {"id": "c", "url": "https://a.org/", "date": "2026-01-01", "text": LONG.format("ANN")},
    {"id": "d", "url": None, "date": "2026-01-02", "text": LONG.format("Ann")},
    {"id": "e", "url": "https://0.org/", "date": None, "text": LONG.format("Ann")},
]


def test_the_newest_then_the_lowest_url_survives_in_any_order(tmp_path):
    for number, order in enumerate([COPIES, COPIES[::-1], COPIES[2:] + COPIES[:2]]):
        source = write(tmp_path / f"in{number}", order[:3], order[3:])
        manifest = run(tmp_path, source, name=f"newest{number}", part_records=2)
        assert kept(tmp_path, f"newest{number}") == ["b"]
        assert manifest["counts"]["dropped"] == {"exact duplicate": 4}
        assert {row["detail"] for row in rows_of(tmp_path, "dropped", f"newest{number}")} == {"https://a.org/"}
        run(tmp_path, source, name=f"oldest{number}", keep="oldest")
        assert kept(tmp_path, f"oldest{number}") == ["c"]


def test_every_dropped_document_says_why_and_for_which(tmp_path):
    base = " ".join(f"word{i}" for i in range(300))
    rows = [
        {"id": "first", "url": None, "text": base},
        {
            "id": "near",
            "url": "https://x.org",
            "text": base.replace("word150", "other"),
            "warc_file": "w",
            "offset": 7,
        },
        {"id": "none", "url": "https://y.org", "text": "nothing to do with it, in any way at all"},
    ]
    manifest = run(tmp_path, write(tmp_path / "in", rows))
    assert kept(tmp_path) == ["near", "none"]  # it has a URL
    rows[1]["url"] = None
    run(tmp_path, write(tmp_path / "in2", rows), name="out2")
    (dropped,) = rows_of(tmp_path, "dropped", "out2")
    assert (dropped["id"], dropped["reason"], dropped["detail"]) == ("near", "near duplicate", "first")
    assert (dropped["warc_file"], dropped["offset"]) == ("w", 7)
    assert manifest["counts"]["in"] == 3 and manifest["counts"]["kept"] == 2


def test_only_what_is_asked_for_is_removed(tmp_path):
    base = " ".join(f"word{i}" for i in range(300))
    rows = [{"id": f"{i}", "text": text} for i, text in enumerate([base, base.upper(), base + " more"])]
    source = write(tmp_path / "in", rows)
    for remove, ids in ((["exact"], ["0", "2"]), (["near"], ["0"]), (["line"], ["0"])):
        run(tmp_path, source, name=remove[0], remove=remove)
        assert kept(tmp_path, remove[0]) == ids if remove != ["line"] else ["0", "2"]


def test_within_a_source_only(tmp_path):
    rows = [{"id": f"{s}{i}", "source": s, "text": LONG.format("Ann")} for s in ("may", "june") for i in range(3)]
    run(tmp_path, write(tmp_path / "in", rows), scope="source")
    assert kept(tmp_path) == ["june0", "may0"]


@pytest.mark.parametrize("scope", ["all", "source"])
def test_against_an_earlier_corpus(tmp_path, scope):
    base = [" ".join(f"{name}{i}" for i in range(200)) for name in "pqrst"]
    old = [{"id": f"old{i}", "url": f"u{i}", "source": "may", "date": "2020", "text": base[i]} for i in (0, 1, 2, 2)]
    new = [
        {"id": "same", "source": "june", "text": base[0].upper()},
        {"id": "small change", "source": "june", "text": base[1] + " and more"},
        {"id": "new", "source": "june", "text": base[3]},
        {"id": "newer", "source": "june", "date": "2026", "text": base[3]},
        {"id": "other", "source": "july", "date": "2025", "text": base[3]},
        {"id": "changed", "source": "june", "url": "u2", "text": base[2][:500] + base[4]},
    ]
    earlier = write(tmp_path / "old", old)
    manifest = run(tmp_path, write(tmp_path / "in", new), against=[earlier], scope=scope)
    assert kept(tmp_path) == sorted(["newer", "changed"] + ["other"] * (scope == "source"))
    dropped = {row["id"]: (row["reason"], row["detail"]) for row in rows_of(tmp_path, "dropped")}
    assert dropped["same"] == ("exact duplicate of the earlier corpus", "u0")
    assert dropped["small change"] == ("near duplicate of the earlier corpus", "u1")
    assert dropped["new"][0] == "exact duplicate"
    assert manifest["counts"]["in"] == 6 and manifest["settings"]["against"] == 1 and len(manifest["inputs"]) == 2
    write(tmp_path / "old", old[:3])
    with pytest.raises(InputError, match="other settings or input"):
        run(tmp_path, str(tmp_path / "in"), against=[earlier], scope=scope)


def reference(rows, scope, old, oldest):
    """Which of `rows` survive, straight from the definition: {id of a dropped one: id of the survivor}."""
    exact, bands, has_words = MinHash().sign([row["text"] for row in rows])
    buckets = defaultdict(list)
    for index in range(len(rows)):
        for name in [("exact", exact[index]), *enumerate(bands[index])][: 15 if has_words[index] else 1]:
            buckets[tuple(map(str, name))].append(index)
    group = list(range(len(rows)))

    def root(index):
        return index if group[index] == index else root(group[index])

    for members in buckets.values():
        for i in members:
            for j in members:
                same = scope == "all" or rows[i]["source"] == rows[j]["source"]
                if same or i in old or j in old:
                    group[root(max(i, j))] = root(min(i, j))
    members = defaultdict(list)
    for index in range(len(rows)):
        members[root(index)].append(index)

    def rank(index):
        row = rows[index]
        date = int(row["date"] or 0)
        return index not in old, date == 0, date if oldest else -date, row["url"] is None, row["url"] or "", row["id"]

    best = {index: min(some, key=rank) for some in members.values() for index in some}
    return {rows[i]["id"]: rows[j]["url"] or rows[j]["id"] for i, j in best.items() if i != j and i not in old}


@pytest.mark.parametrize("against", [0, 1])
@pytest.mark.parametrize(("scope", "keep"), [("all", "newest"), ("source", "oldest")])
def test_groups_and_survivors_are_those_of_the_definition(tmp_path, scope, keep, against):
    draw = random.Random(scope + keep)
    rows = []
    for index in range(600):
        words = (
            list(draw.choice(rows)["text"].split()) if rows and draw.random() < 0.6 else draw.choices("abcdefgh", k=60)
        )
        for _ in range(draw.randrange(4)):
            words[draw.randrange(len(words))] = draw.choice("abcdefgh")
        rows.append(
            {
                "id": f"{index:03d}",
                "url": draw.choice([None, "https://a.org", f"https://{draw.random()}.org"]),
                "date": draw.choice([None, "2020", "2021", "2022"]),
                "source": draw.choice(["may", "june"]),
                "text": " ".join(words),
            }
        )
    source = write(tmp_path / "in", rows[:150], rows[150:400])
    earlier = write(tmp_path / "old", rows[400:])
    used = rows if against else rows[:400]
    run(tmp_path, source, scope=scope, keep=keep, against=[earlier] * against, part_records=70)
    found = {row["id"]: row["detail"] for row in rows_of(tmp_path, "dropped")}
    assert 100 < len(found) < 400
    assert found == reference(used, scope, set(range(400, len(used))), keep == "oldest")


# Lines and paragraphs

MENU = "Home | About us | Contact | Terms and conditions"


def test_lines_stay_in_the_best_document_alone(tmp_path):
    own = [" ".join(f"{name}{i}" for i in range(40)) for name in "xyz"]
    rows = [
        {"id": "1", "date": "2020", "text": f"{MENU}\n{own[0]}\nshort line\n{own[0]}"},
        {"id": "2", "date": "2022", "text": f"{own[1]}\nshort line\n{MENU.upper()}\n\n{own[1][:80]}"},
        {"id": "3", "date": "2021", "text": f"{MENU}.\n{MENU}\nshort line"},
        {"id": "4", "date": "2019", "text": f"{MENU}\n{own[1]} {own[2]}\n"},
    ]
    manifest = run(tmp_path, write(tmp_path / "in", rows[:2], rows[2:]), remove=["exact", "near", "line"])
    texts = {row["id"]: row["text"] for row in rows_of(tmp_path)}
    assert texts == {
        "1": f"{own[0]}\nshort line",
        "2": rows[1]["text"],
        "4": f"{own[1]} {own[2]}",
    }
    (dropped,) = rows_of(tmp_path, "dropped")
    assert (dropped["id"], dropped["reason"]) == ("3", "too little text without repeated lines")
    assert manifest["counts"]["removed_lines"] == 5
    assert manifest["counts"]["removed_bytes"] == 4 * len(MENU) + 1 + len(own[0])
    assert manifest["counts"]["in"] == 4


def test_a_line_of_dropped_documents_only_is_not_lost(tmp_path):
    base = "\n".join(" ".join(f"w{line}x{i}" for i in range(20)) for line in range(20))
    rows = [{"id": "1", "date": "2022", "text": base}, {"id": "2", "date": "2023", "text": base + " end"}]
    run(tmp_path, write(tmp_path / "in", rows), remove=["near", "line"])
    assert [(row["id"], row["text"]) for row in rows_of(tmp_path)] == [("2", base + " end")]


def test_paragraphs_and_sources(tmp_path):
    own = [" ".join(f"{name}{i}" for i in range(40)) for name in "xyz"]
    notice = "Reuse of this text\nis permitted with attribution."
    rows = [
        {"id": s, "source": s[0], "text": f"{own[i]}\n \n{notice}\n\n\nEnd"} for i, s in enumerate(("a1", "a2", "b"))
    ]
    source = write(tmp_path / "in", rows)
    run(tmp_path, source, remove=["paragraph"])
    assert [row["text"] for row in rows_of(tmp_path)] == [rows[0]["text"], f"{own[1]}\n \nEnd", f"{own[2]}\n \nEnd"]
    run(tmp_path, source, remove=["paragraph"], scope="source", name="scoped")
    assert [row["text"] for row in rows_of(tmp_path, name="scoped")][::2] == [rows[0]["text"], rows[2]["text"]]


# Kills, workers, hostile input


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Short documents with duplicates and repeated lines, in two files, and the output of an undisturbed run."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "raw", 1500, file_documents=800)
    (folder / "in").mkdir()
    for file in (folder / "raw").iterdir():
        rows = pq.read_table(file).to_pylist()
        for row in rows:
            words = row["text"].split()
            row["text"] = (
                " ".join(words[:30]) + f"\n{MENU} {len(words[0]) + int(row['id']) % 7}\n" + " ".join(words[30:])
            )
        pq.write_table(pa.Table.from_pylist(rows), folder / "in" / file.name)
    run(folder, str(folder / "in"), remove=["exact", "near", "line"], part_records=150)
    return folder


@pytest.mark.faults
def test_workers_and_memory_change_no_byte(corpus, tmp_path):
    run(tmp_path, str(corpus / "in"), remove=["line", "near", "exact"], part_records=150, workers=2, memory_mb=256)
    assert bytes_of(tmp_path / "out") == bytes_of(corpus / "out")


def test_killed_in_any_phase_it_goes_on_and_writes_the_same_bytes(corpus, tmp_path):
    command = [sys.executable, "data_prep/deduplicate.py", "--input", str(corpus / "in"), "--workers", "1"]
    command += ["--output_dir", str(tmp_path / "out"), "--part_records", "150", "--remove", "exact", "near", "line"]
    state = tmp_path / "out" / ".state"
    for phase in ("signatures", "groups", "documents"):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not list((state / phase).glob("[0-9a]*.json")):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and not (tmp_path / "out" / "manifest.json").exists()
        done = {path: path.stat().st_mtime_ns for path in state.glob("*/[0-9a]*.json")}
    run(tmp_path, str(corpus / "in"), remove=["exact", "near", "line"], part_records=150)
    assert bytes_of(tmp_path / "out") == bytes_of(corpus / "out")
    assert all(path.stat().st_mtime_ns == moment for path, moment in done.items())  # nothing was done twice


def test_smaller_parts_keep_the_same_documents(corpus, tmp_path):
    run(tmp_path, str(corpus / "in"), remove=["exact", "near", "line"], part_records=37)
    assert rows_of(tmp_path) == rows_of(corpus)


def test_many_copies_cost_no_square(tmp_path):
    rows = [{"id": f"{i:05d}", "text": LONG.format("Ann")} for i in range(10_000)]
    start = time.process_time()
    run(tmp_path, write(tmp_path / "in", rows), part_records=1000)
    assert kept(tmp_path) == ["00000"]
    work = tmp_path / "out" / ".state" / "work"
    assert sum(len(read_run(path, 2, 0, 4096)) for path in listed(work / "signatures", ".run")) == 10 * 15
    pairs = sum(path.stat().st_size for phase in ("signatures", "matches") for path in listed(work / phase, ".pairs"))
    assert pairs // 16 < 10_000 * 2
    assert time.process_time() - start < 60


def test_strange_documents(tmp_path):
    line = " ".join(random.Random(5).choices(["lorem", "ipsum", "dolor", "sit", "amet", "élan"], k=400_000))
    texts = ["", " ", "?!", "?!", "one", "One.", "a\x00b c", "a b c", "x" * 3_000_000, line, line + " end", "a\ud800b"]
    lines = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts)]
    lines += ["not json", json.dumps({"id": "12"}), "", json.dumps({"text": "no id and no url at all"})] * 2
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadRecordsError):
        run(tmp_path, str(tmp_path / "in.jsonl"), remove=["exact", "near", "line"], name="strict")
    stage = StageArguments(str(tmp_path / "out"), [str(tmp_path / "in.jsonl")], workers=1, max_bad_records=0.5)
    manifest = main(stage, DeduplicateArguments(remove=["exact", "near", "line"]))
    assert kept(tmp_path) == ["0", "10", "11", "2", "4", "6", "7", "8", "in.jsonl:15"]
    assert sum(manifest["counts"]["bad"].values()) == 4
    dropped = {row["id"]: (row["reason"], row["detail"]) for row in rows_of(tmp_path, "dropped") if row["detail"]}
    assert dropped["1"] == ("exact duplicate", "0") and dropped["9"] == ("near duplicate", "10")
    assert dropped["in.jsonl:19"] == ("exact duplicate", "in.jsonl:15")


def test_an_input_without_one_good_document(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": null}\n{"text": null}\n')
    stage = StageArguments(str(tmp_path / "out"), [str(tmp_path / "in.jsonl")], workers=1, max_bad_records=1)
    assert main(stage, DeduplicateArguments(remove=["exact", "near", "line"]))["counts"]["kept"] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"remove": ["fuzzy"]}, "--remove fuzzy: name some of"),
        ({"remove": []}, "--remove"),
        ({"remove": ["line", "paragraph"]}, "either paragraph or line"),
        ({"bands": 0}, "--bands 0: must be at least 1"),
        ({"bands": 200, "rows": 100}, "more than 10,000"),
        ({"memory_mb": 16}, "--memory_mb 16: must be at least"),
        ({"against": ["nowhere"]}, "--against nowhere: no such file"),
    ],
)
def test_wrong_flags_are_refused(tmp_path, flags, message):
    source = write(tmp_path / "in", [{"text": "one"}])
    with pytest.raises(InputError, match=message):
        run(tmp_path, source, **flags)


def test_a_file_cannot_be_input_and_earlier_corpus(tmp_path):
    source = write(tmp_path / "in", [{"text": "one"}])
    with pytest.raises(InputError, match="also named by --input"):
        run(tmp_path, source, against=[str(Path(source, "0.parquet"))])


def test_an_earlier_corpus_that_is_cut_is_refused(tmp_path):
    source = write(tmp_path / "in", [{"text": "one"}])
    (tmp_path / "old.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n' * 9)[:-8])
    with pytest.raises(InputError, match=r"--against .*old.jsonl.gz: damaged gzip file: the rest is lost"):
        run(tmp_path, source, against=[str(tmp_path / "old.jsonl.gz")])


def test_the_benchmark_runs(capsys):
    results = bench(BenchArguments(pairs=200, sizes=[300]))
    assert abs(results["finding"]["recall_found"] - results["finding"]["recall_formula"]) < 0.1
    assert 50 < results["memory"][300] < 1024
    assert jaccard(list("abcdef"), list("abcdeg"), 5) == pytest.approx(1 / 3)
    assert "| 300 |" in capsys.readouterr().out
