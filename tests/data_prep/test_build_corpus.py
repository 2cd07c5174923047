import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_prep import build_corpus
from data_prep.build_corpus import BuildArguments
from data_prep.corpus.contamination import Index, build_index, find_evaluation_sets, read_texts
from data_prep.corpus.records import DATED, TRAIN, UNDATED
from data_prep.corpus.sample import dated_split, plan_mix, sampling_bin
from data_prep.corpus.words import PIECE, count_words, normalised_words, words_in_pieces
from data_prep.engine.stage import StageArguments
from shared.documents import is_held_out
from shared.errors import InputError
from shared.files import sha256_of
from shared.rows import SCHEMA, find_sources, read_rows

SCRIPT = str(Path(build_corpus.__file__))
TEXT = "The committee, which had met in Geneva on Monday, decided that it would not publish its findings before May."
SHORT = "Nobody here has ever seen a purple giraffe."  # 8 words


def documents(count, source, seed, words=(20, 80), **more):
    """Documents of random words: no two share an n-gram."""
    chance = random.Random(seed)
    letters = "bcdfghjklmnpqrstvwxz"
    vocabulary = ["".join(chance.choices(letters, k=7)) for _ in range(5000)]
    return [
        {
            "id": f"{source}/{number}",
            "url": f"https://example.org/{source}/{number}",
            "text": " ".join(chance.choices(vocabulary, k=chance.randint(*words))),
            "date": f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}",
            "language": "en",
            "source": source,
            **more,
        }
        for number in range(count)
    ]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    web = documents(900, "CC-MAIN-2026-43", 1, warc_file="crawl-data/a b/x.warc.gz", offset=7)
    web[3]["text"] = "   "
    web[4]["text"] = f"{web[4]['text']} {TEXT} {web[4]['text']}"
    wiki = documents(300, "enwiki-20261101", 2, metadata='{"revision": 4711}', title="A")
    for start in range(0, 900, 300):
        write(folder / "web" / f"{start}.parquet", web[start : start + 300])
    with gzip.open(folder / "wiki.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps(row) for row in wiki))
    write(folder / "evaluation" / "set" / "validation.parquet", [{"sentence": TEXT.upper(), "label": 1}])
    return folder


def run(inputs, output_dir, *names, workers=1, part_records=100, **flags):
    stage = StageArguments(
        str(output_dir),
        [str(inputs / name) for name in names or ("web", "wiki.jsonl.gz")],
        workers=workers,
        part_records=part_records,
    )
    flags = {"shard_mb": 0.05} | flags
    return build_corpus.main(stage, BuildArguments(**flags))


def rows_of(folder, split=""):
    return [row for path in sorted(Path(folder, split).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def ids_of(folder, split=""):
    return {row["id"] for row in rows_of(folder, split)}


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("time.json", "lock")
    }


FULL = {"validation_fraction": 0.1, "validation_from": "2026-12-01", "weights": [2.0, 1.0], "token_budget": 2.4e4}


@pytest.fixture(scope="module")
def corpus(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "out"
    run(inputs, folder, decontaminate=[str(inputs / "evaluation")], **FULL)
    return folder


def test_everything_is_somewhere(inputs, corpus):
    manifest = json.loads((corpus / "manifest.json").read_text())
    counts = manifest["counts"]
    splits = {name: rows_of(corpus, name) for name in ("", "validation", "validation_dated", "dropped")}
    assert counts["in"] == 1200 == sum(map(len, splits.values()))
    assert counts["kept"] == 1200 - len(splits["dropped"]) == 1200 - sum(counts["dropped"].values())
    ids = {name: {row["id"] for row in rows} for name, rows in splits.items()}
    assert sum(map(len, ids.values())) == 1200  # no document in two places
    reasons = {row["id"]: row["reason"] for row in splits["dropped"]}
    assert reasons["CC-MAIN-2026-43/3"] == "empty text"
    assert reasons["CC-MAIN-2026-43/4"] == "contains evaluation text"
    assert {reason for key, reason in reasons.items() if not key.endswith(("43/3", "43/4"))} == {"not in the sample"}
    assert pq.read_schema(corpus / "00000.parquet") == SCHEMA
    assert all(row["date"] >= "2026-12" for row in splits["validation_dated"])
    assert all(row["date"] < "2026-12" for name in ("", "validation") for row in splits[name])
    assert all(is_held_out(row["text"], 0.1) for row in splits["validation"])
    assert not any(is_held_out(row["text"], 0.1) for row in splits[""])
    assert len(splits["validation"]) > 20
    assert len(splits["validation_dated"]) > 20
    # A stage reads the training documents alone.
    read = [row["id"] for s in find_sources([str(corpus)]) for *_, row, _ in read_rows(s)]
    assert read == [row["id"] for row in splits[""]]
    assert len(find_sources([str(corpus)])) > 2  # several shards


def test_the_budget_and_the_weights_are_met(corpus):
    mix = json.loads((corpus / "reports" / "mix.json").read_text())
    written = {"CC-MAIN-2026-43": 0, "enwiki-20261101": 0}
    for row in rows_of(corpus):
        written[row["source"]] += round(len(row["text"].split()) * 1.3)
    assert [group["tokens_taken"] for group in mix] == list(written.values())
    for tokens, wanted in zip(written.values(), (16_000, 8_000), strict=True):
        assert wanted - 2 * 1.3 * 80 < tokens <= wanted


@pytest.mark.faults
def test_same_bytes_for_any_workers(inputs, corpus, tmp_path):
    run(inputs, tmp_path / "out", workers=4, decontaminate=[str(inputs / "evaluation")], **FULL)
    assert content(tmp_path / "out") == content(corpus)


def test_samples_are_nested_and_do_not_depend_on_order_or_parts(inputs, tmp_path):
    def sample(name, *entries, **flags):
        run(inputs, tmp_path / name, *entries, **flags)
        return ids_of(tmp_path / name)

    small, large = sample("small", token_budget=1e4), sample("large", token_budget=3e4)
    assert small < large
    assert sample("other order", "wiki.jsonl.gz", "web", token_budget=1e4) == small
    assert sample("other parts", token_budget=1e4, part_records=37) == small
    other = sample("other seed", token_budget=1e4, seed=43)
    assert other != small
    assert len(sample("all")) == 1199


def test_weights_alone_take_the_largest_mix(inputs, tmp_path):
    run(inputs, tmp_path / "out", weights=[1, 1])
    web, wiki = json.loads((tmp_path / "out" / "reports" / "mix.json").read_text())
    assert wiki["tokens_taken"] == wiki["tokens"]
    assert web["tokens_taken"] == pytest.approx(wiki["tokens"], abs=110)


def test_repeats(inputs, tmp_path, capsys):
    with pytest.raises(InputError, match=r"entry 2 of --input has .* tokens, .* is enough for .* in all"):
        run(inputs, tmp_path / "once", weights=[1, 3], token_budget=4e4)
    flags = {"weights": [1, 3], "token_budget": 4e4, "max_repeats": 2, "validation_fraction": 0.1}
    manifest = run(inputs, tmp_path / "out", **flags)
    rows = rows_of(tmp_path / "out")
    wiki = [row["id"] for row in rows if row["source"].startswith("enwiki")]
    times = {name: wiki.count(name) for name in wiki}
    assert set(times.values()) == {1, 2}
    assert manifest["counts"]["repeated"] == len(wiki) - len(set(wiki)) > 50
    assert manifest["counts"]["kept"] == len(set(wiki)) + len(rows) - len(wiki) + len(
        rows_of(tmp_path / "out/validation")
    )
    validation = [row["id"] for row in rows_of(tmp_path / "out", "validation")]
    assert len(validation) == len(set(validation))
    assert not set(validation) & set(wiki)
    assert "training rows are repetitions" in (tmp_path / "out" / "README.md").read_text()


def test_plan_mix():
    assert plan_mix([70, 30], [], None, 1) == [70, 30]
    assert plan_mix([70, 30], [], 10, 1) == [7, 3]
    assert plan_mix([70, 30], [1, 1], None, 1) == [30, 30]
    assert plan_mix([70, 30], [1, 1], None, 2) == [60, 60]
    assert plan_mix([70, 30], [3, 1], 40, 1) == [30, 10]
    with pytest.raises(InputError, match="is enough for 100 in all"):
        plan_mix([70, 30], [], 101, 1)
    with pytest.raises(InputError, match="has no document left"):
        plan_mix([70, 0], [1, 1], None, 1)


def test_a_budget_in_exact_tokens(inputs, wordpiece, tmp_path):
    wordpiece.save_pretrained(tmp_path / "tokenizer")
    run(inputs, tmp_path / "out", "wiki.jsonl.gz", tokenizer_name=str(tmp_path / "tokenizer"), token_budget=9000)
    tokens = [len(wordpiece(row["text"], add_special_tokens=False)["input_ids"]) for row in rows_of(tmp_path / "out")]
    assert 9000 - 2 * max(tokens) < sum(tokens) <= 9000


# Contamination


def found_in(tmp_path, text, sets, ngram=13, shortest=8):
    for name, texts in sets.items():
        write(tmp_path / "sets" / name / "test.parquet", [{"text": entry} for entry in texts])
    files = find_evaluation_sets([str(tmp_path / "sets")])
    build_index(files, ngram, shortest, tmp_path / "index.npz")
    return Index(tmp_path / "index.npz").find(text)[0]


def test_a_planted_ngram_is_found_across_case_and_punctuation(tmp_path):
    words = re.findall(r"\w+", TEXT)
    planted = f"Before it. {'; '.join(words[2:15]).upper()}!\n\nAfter it."
    found = found_in(tmp_path, planted, {"a": [TEXT], "b": ["something else"]})
    assert found == {"sets/a": (1, " ".join(words[2:15]).lower())}


def test_twelve_words_are_not_enough(tmp_path):
    words = re.findall(r"\w+", TEXT)
    assert found_in(tmp_path, f"Before it {' '.join(words[2:14])} after it", {"a": [TEXT]}) == {}


@pytest.mark.parametrize(
    "evaluation, text",
    [
        ("it 's a thing they do n't make , because they ca n't", "It’s a thing they don't make because they can't"),
        (
            "Ｆｕｌｌ width ＳＴＲＡＳＳＥ and straße in one line here today",
            "full width strasse and strasse in one line here today",
        ),
        ("東京都千代田区丸の内一丁目九番一号", "住所は東京都千代田区、丸の内一丁目九番一号です"),
    ],
)
def test_the_same_words_written_in_another_way(tmp_path, evaluation, text):
    assert list(found_in(tmp_path, f"Quite so. {text}. And more.", {"a": [evaluation]})) == ["sets/a"]


def test_short_texts_are_found_whole_or_not_at_all(tmp_path):
    assert found_in(tmp_path, f"Well, {SHORT} It is so.", {"a": [SHORT]})["sets/a"][0] == 1
    assert found_in(tmp_path, "Well, nobody here has ever seen a purple dog.", {"a": [SHORT]}) == {}
    assert found_in(tmp_path, "This is far too short.", {"a": ["This is far too short."]}) == {}
    facts = Index(tmp_path / "index.npz").facts
    assert facts == [{"set": "sets/a", "split": "test", "rows": 1, "texts": 1, "too_short": 1}]


def test_text_longer_than_a_piece_is_searched_to_its_end(tmp_path):
    filler = "aaaa bbbb " * (PIECE // 10)
    for cut in (-130, -60, -55, 5):  # the planted text lies across the border of two pieces
        assert list(found_in(tmp_path, filler[:cut] + TEXT + filler, {"a": [TEXT]})) == ["sets/a"]
    once = found_in(tmp_path, filler[:-60] + TEXT + filler, {"a": [TEXT]})
    assert once["sets/a"][0] == len(normalised_words(TEXT)) - 12  # no place is counted twice
    words = [word for piece in words_in_pieces("a" * (3 * PIECE)) for word in piece]
    assert max(map(len, words)) == 64


def test_whitespace_does_not_take_for_ever():
    start = time.process_time()
    normalised_words(" " * PIECE + "n" + "' " * PIECE)
    assert time.process_time() - start < 2


def test_an_evaluation_set_may_hold_any_time(tmp_path):
    seen = pa.array([1714521600000, 1]).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", "b"], "seen": seen}), tmp_path / "test.parquet")
    (file,) = find_evaluation_sets([str(tmp_path)])
    assert list(read_texts(file)) == [(0, "a"), (1, "b")]


def test_the_report_of_contamination(inputs, corpus):
    (report,) = json.loads((corpus / "reports" / "contamination.json").read_text())
    assert (report["set"], report["documents"]) == ("evaluation/set", 1)
    assert report["ngrams"] == report["ngrams_found"] == len(normalised_words(TEXT)) - 12
    facts = {"rows": 1, "rows_checked": 1, "rows_found": 1, "texts": 1, "texts_too_short": 0}
    assert report["splits"] == {"validation": facts}
    first = " ".join(normalised_words(TEXT)[:13])
    key = "CC-MAIN-2026-43/4"
    url = f"https://example.org/{key}"
    assert report["examples"] == [{"ngram": first, "documents": 1, "id": key, "url": url}]
    (hit,) = rows_of(corpus, "contamination")
    assert (hit["id"], hit["set"], hit["ngrams"]) == (key, "evaluation/set", report["ngrams"])


def test_flagged_documents_stay(inputs, tmp_path):
    flags = {"decontaminate": [str(inputs / "evaluation" / "set" / "validation.parquet")], "contamination": "flag"}
    run(inputs, tmp_path / "out", "web", **flags)
    flagged = [row for row in rows_of(tmp_path / "out") if row["metadata"]]
    assert [row["id"] for row in flagged] == ["CC-MAIN-2026-43/4"]
    assert json.loads(flagged[0]["metadata"]) == {"contamination": ["set/validation"]}
    tokens = sum(row["tokens"] for row in json.loads((tmp_path / "out" / "reports" / "mix.json").read_text()))
    run(inputs, tmp_path / "twice", "web", **flags, weights=[1], token_budget=1.9 * tokens, max_repeats=2)
    copies = [row["metadata"] for row in rows_of(tmp_path / "twice") if row["id"] == "CC-MAIN-2026-43/4"]
    assert copies == [flagged[0]["metadata"]] * 2


def test_nested_columns_and_other_formats_are_read(tmp_path):
    (tmp_path / "sets").mkdir()
    row = {"answers": {"text": [TEXT], "start": [3]}, "label": 2, "question": None}
    (tmp_path / "sets" / "train.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "sets" / "test.txt").write_text("one\n" + SHORT + "\n")
    build_index(find_evaluation_sets([str(tmp_path / "sets")]), 13, 8, tmp_path / "index.npz")
    index = Index(tmp_path / "index.npz")
    assert [(facts["split"], facts["rows"]) for facts in index.facts] == [("test", 2), ("train", 1)]
    assert list(index.find(TEXT)[0]) == list(index.find(SHORT)[0]) == ["sets"]


def test_files_of_a_set_that_say_nothing_are_named(tmp_path, capsys):
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": TEXT}) + "\n", encoding="utf-8-sig")
    (tmp_path / "test.csv").write_text(TEXT)
    build_index(find_evaluation_sets([str(tmp_path)]), 13, 8, tmp_path / "index.npz")
    assert Index(tmp_path / "index.npz").find(TEXT)[0]
    assert "test.csv is not read" in capsys.readouterr().out
    (tmp_path / "dev.jsonl").write_text("")
    with pytest.raises(InputError, match=r"--decontaminate .*dev\.jsonl: holds no text"):
        build_index(find_evaluation_sets([str(tmp_path)]), 13, 8, tmp_path / "index.npz")


# Splits


@pytest.mark.parametrize(
    "date, split",
    [
        ("2026-11-20", DATED),
        ("2026-11-20T10:00:00Z", DATED),
        ("2027", DATED),
        ("2026-12", DATED),
        ("2026-11-19T23:59:59Z", TRAIN),
        ("2026-10", TRAIN),
        ("2025", TRAIN),
        ("2026-11", UNDATED),
        ("2026", UNDATED),
        ("", UNDATED),
        (None, UNDATED),
        ("yesterday", UNDATED),
        ("1780000000", UNDATED),  # seconds since 1970: 28 May 2026
        ("20251119", UNDATED),
        ("2025-7-1", TRAIN),
    ],
)
def test_dated_split(date, split):
    assert dated_split(date, "2026-11-20") == split


def test_documents_without_a_date_are_not_guessed(inputs, tmp_path):
    rows = documents(40, "a", 5)
    rows[7]["date"] = None
    write(tmp_path / "in.parquet", rows)
    run(tmp_path, tmp_path / "out", "in.parquet", validation_from="2026-06-15")
    (dropped,) = rows_of(tmp_path / "out", "dropped")
    assert (dropped["id"], dropped["reason"]) == (
        "a/7",
        "no date to compare with --validation_from or --documents_after",
    )


def test_older_documents_are_left_out_and_counted(inputs, tmp_path):
    rows = documents(40, "a", 5)
    rows[7]["date"] = None
    write(tmp_path / "in.parquet", rows)
    run(tmp_path, tmp_path / "out", "in.parquet", documents_after="2026-03-01")
    kept = {row["id"] for row in rows_of(tmp_path / "out", "")}
    assert (
        kept == {row["id"] for row in rows if row["date"] and row["date"][:10] > "2026-03-01"} and 0 < len(kept) < 39
    )
    assert {row["reason"] for row in rows_of(tmp_path / "out", "dropped")} == {
        "not after --documents_after",
        "no date to compare with --validation_from or --documents_after",
    }
    with pytest.raises(InputError, match=r"no document is left for training \(.*not after --documents_after: 39\)"):
        run(tmp_path, tmp_path / "none", "in.parquet", documents_after="2027-01-01")


def test_packing_agrees_with_the_split(inputs, corpus, wordpiece, tmp_path):
    from data_prep.pack_dataset import pack_dataset
    from shared.documents import Documents

    files = [*corpus.glob("*.parquet"), *(corpus / "validation").glob("*.parquet")]
    manifest = pack_dataset(Documents(list(map(str, files))), wordpiece, tmp_path / "packed", 64, 0.1, quiet=True)
    packed = {name: facts["documents"] for name, facts in manifest["splits"].items()}
    assert packed == {"train": len(rows_of(corpus)), "validation": len(rows_of(corpus, "validation"))}


# The card and the way back


def test_the_data_card(inputs, corpus):
    text = (corpus / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["language"] == ["en"]
    assert metadata["license"] == "other"
    assert [entry["split"] for entry in metadata["configs"][0]["data_files"]] == [
        "train",
        "validation",
        "validation_dated",
    ]
    for entry in metadata["configs"][0]["data_files"]:
        split = "" if entry["split"] == "train" else entry["split"]
        assert sum(pq.read_metadata(path).num_rows for path in corpus.glob(entry["path"])) == len(
            rows_of(corpus, split)
        )
    for needed in (
        "| CC-MAIN-2026-43 |",
        "Common Crawl's terms of use",
        "CC BY-SA 4.0",
        "| 2026-03 |",
        "| en |",
        "| build_corpus | 1,200 |",
        "not in the sample",
        'validation_from "2026-12-01"',
        "| evaluation/set | validation | 1 | 1 | 1 | 100.00% | 1 |",
    ):
        assert needed in body
    assert "/tmp" not in text


def test_hostile_names_stay_text_in_the_card(tmp_path):
    rows = documents(30, "x|<script>alert(1)</script>", 6, **{"language": "no\n- evil: true"})
    write(tmp_path / "in.parquet", rows)
    run(tmp_path, tmp_path / "out", "in.parquet", licences=["x=free for all"])
    text = (tmp_path / "out" / "README.md").read_text()
    assert "<script>" not in text
    assert r"x\|\<script\>" in text
    assert "free for all" in text
    assert "language" not in yaml.safe_load(text.split("---\n")[1])


def test_the_card_shows_the_licences_that_documents_state(tmp_path):
    chance = [{"license": "CC BY 4.0"}] * 20 + [{"metadata": '{"license": "CC0"}'}] * 6 + [{"licence": "MIT | x"}] * 3
    rows = [row | more for row, more in zip(documents(30, "x", 6), [*chance, {}], strict=True)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run(tmp_path, tmp_path / "out", "in.jsonl")
    text = (tmp_path / "out" / "README.md").read_text()
    assert r"as stated by the documents: CC BY 4.0 (20 documents), CC0 (6 documents), MIT \| x (3 documents) |" in text
    assert "Not stated" not in text
    run(tmp_path, tmp_path / "named", "in.jsonl", licences=["x=ours"])
    assert "| ours |" in (tmp_path / "named" / "README.md").read_text()


def test_history_of_earlier_stages_is_in_the_card(inputs, tmp_path):
    run(inputs, tmp_path / "first", "wiki.jsonl.gz")
    manifest = run(tmp_path, tmp_path / "second", "first", token_budget=5000)
    assert [step["stage"] for step in manifest["history"]] == ["build_corpus"]
    assert (tmp_path / "second" / "README.md").read_text().count("| build_corpus | 300 |") == 2


def test_every_row_is_traced_to_its_input_file(inputs, corpus):
    manifest = json.loads((corpus / "manifest.json").read_text())
    for number, shard in enumerate(json.loads((corpus / "reports" / "shards.json").read_text())):
        for folder in ("", "validation", "validation_dated", "dropped"):
            path = corpus / folder / f"{number:05d}.parquet"
            rows = pq.read_table(path).to_pylist() if path.exists() else []
            files = [manifest["inputs"][f["source"]]["file"] for f in shard["files"] for _ in range(f["rows"][folder])]
            for row, file in zip(rows, files, strict=True):
                name, page = row["id"].split("/")
                web = f"{int(page) // 300 * 300}.parquet"
                assert file == ("wiki.jsonl.gz" if name.startswith("enwiki") else web)


def test_trace(inputs, corpus, capsys, tmp_path):
    args = StageArguments(str(corpus))
    kept, wiki = (next(row for row in rows_of(corpus) if row["source"].startswith(name)) for name in ("CC", "en"))
    (found,) = build_corpus.main(args, BuildArguments(trace=kept["url"]))["found"]
    assert (
        found["origin"] == "curl -r 7- 'https://data.commoncrawl.org/crawl-data/a b/x.warc.gz' | zcat | head -c 100000"
    )
    assert found["input"] == "web"
    assert found["read_from"]["file"] == f"{int(kept['id'].split('/')[1]) // 300 * 300}.parquet"
    assert found["read_from"]["sha256"] == sha256_of(inputs / "web" / found["read_from"]["file"])
    assert pq.read_table(corpus / found["file"]).slice(found["row"], 1).to_pylist()[0]["id"] == kept["id"]
    (found,) = build_corpus.main(args, BuildArguments(trace=wiki["id"]))["found"]
    assert found["origin"] == "https://example.org/w/index.php?oldid=4711"
    (found,) = build_corpus.main(args, BuildArguments(trace="CC-MAIN-2026-43/4"))["found"]
    assert (found["file"].split("/")[0], found["reason"]) == ("dropped", "contains evaluation text")
    shutil.copytree(corpus, tmp_path / "copy")
    (tmp_path / "copy" / "00000.parquet").unlink()
    with pytest.raises(InputError, match=r"00000\.parquet: cannot be read .* makes it again"):
        build_corpus.main(StageArguments(str(tmp_path / "copy")), BuildArguments(trace="nobody"))
    assert "sha256" in capsys.readouterr().out
    with pytest.raises(InputError, match="no row of"):
        build_corpus.main(args, BuildArguments(trace="nothing like it"))
    with pytest.raises(InputError, match="no corpus"):
        build_corpus.main(StageArguments(str(inputs)), BuildArguments(trace="x"))


# Errors and kills


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"weights": [1.0]}, "--weights: 1 values for 2 entries"),
        ({"weights": [1.0, -1.0]}, "--weights"),
        ({"weights": [1.0, float("nan")]}, "--weights"),
        ({"token_budget": 0.0}, "--token_budget"),
        ({"token_budget": float("inf")}, "--token_budget"),
        ({"token_budget": 1e12}, "--token_budget 1,000,000,000,000: --input has "),
        ({"token_budget": 4e6, "weights": [1.0, 99.0]}, "--token_budget 4,000,000: entry 2 of --input has "),
        ({"decontaminate": ["no/such/set"]}, "--decontaminate no/such/set: no such file"),
        ({"decontaminate": ["shared/launch"]}, "nothing here ends in"),
        ({"decontaminate": ["tests/data", "tests/data"]}, "named twice"),
        ({"ngram": 1}, "--ngram"),
        ({"shortest_text": 14}, "--shortest_text"),
        ({"validation_fraction": 1.0}, "--validation_fraction"),
        ({"validation_from": "soon"}, "--validation_from soon"),
        ({"documents_after": "2026-13-01"}, "--documents_after 2026-13-01"),
        ({"validation_from": "2026-02-31"}, "--validation_from 2026-02-31"),
        ({"shard_mb": 0.0}, "--shard_mb"),
        ({"licences": ["mine"]}, "--licences"),
        ({"max_repeats": 3}, "--max_repeats"),
        ({"tokenizer_name": "no/such/tokenizer"}, "tokenizer no/such/tokenizer: could not be loaded"),
    ],
)
def test_wrong_flags_are_refused_before_work(inputs, tmp_path, flags, message):
    with pytest.raises(InputError, match=re.escape(message)):
        run(inputs, tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


def test_nothing_left_is_an_error(tmp_path):
    write(tmp_path / "in.parquet", documents(20, "a", 3))
    with pytest.raises(InputError, match=r"no document is left for training \(validation_dated: 20\)"):
        run(tmp_path, tmp_path / "out", "in.parquet", validation_from="2020-01-01")


def test_a_budget_below_the_first_document_is_an_error(tmp_path):
    write(tmp_path / "in.parquet", documents(20, "a", 3))
    with pytest.raises(InputError, match=r"--token_budget 2: smaller than the document that would come first; raise"):
        run(tmp_path, tmp_path / "out", "in.parquet", token_budget=2)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_files_of_a_set_are_one_set(tmp_path):
    for name in ("a", "b/x", "z"):
        path = tmp_path / "set" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(json.dumps({"text": f"{TEXT} {name}"}) + "\n")
    write(tmp_path / "in.parquet", documents(20, "a", 3))
    run(tmp_path, tmp_path / "out", "in.parquet", decontaminate=[str(tmp_path / "set")])
    report = json.loads((tmp_path / "out" / "reports" / "contamination.json").read_text())
    assert [len(one["splits"]) for one in report] == [2, 1] and len({one["set"] for one in report}) == 2
    (tmp_path / "set" / "a.txt").write_text("Another text of this split, with rather more than eight words in it.\n")
    run(tmp_path, tmp_path / "more", "in.parquet", decontaminate=[str(tmp_path / "set")])
    report = json.loads((tmp_path / "more" / "reports" / "contamination.json").read_text())
    assert {name: part["rows"] for name, part in report[0]["splits"].items()} == {"a": 2, "z": 1}


def test_damaged_records_are_counted(tmp_path):
    lines = [json.dumps(row) for row in documents(60, "a", 3)]
    lines[9:11] = ["{", '{"text": 5}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    manifest = run(tmp_path, tmp_path / "out", "in.jsonl")
    assert manifest["counts"]["bad"] == {"line is not JSON": 1, "text is not a string": 1}
    assert (manifest["counts"]["in"], manifest["counts"]["kept"]) == (60, 58)
    assert sorted(row["reason"] for row in rows_of(tmp_path / "out", "dropped")) == sorted(manifest["counts"]["bad"])


def test_killed_runs_end_with_the_same_bytes(inputs, corpus, tmp_path):
    command = [
        sys.executable,
        SCRIPT,
        "--output_dir",
        str(tmp_path / "out"),
        "--workers",
        "1",
        "--part_records",
        "100",
    ]
    command += ["--input", str(inputs / "web"), str(inputs / "wiki.jsonl.gz"), "--shard_mb", "0.05"]
    command += ["--decontaminate", str(inputs / "evaluation"), "--validation_fraction", "0.1"]
    command += ["--validation_from", "2026-12-01", "--weights", "2", "1", "--token_budget", "2.4e4"]
    state = tmp_path / "out" / ".state"
    for enough in (7, 15):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(state.glob("*/0*.json"))) < enough:
            time.sleep(0.001)
        process.kill()
        process.wait()
        done = {path: path.stat().st_mtime_ns for path in state.glob("*/0*.json")}
    assert subprocess.run(command, capture_output=True, env=os.environ).returncode == 0
    assert content(tmp_path / "out") == content(corpus)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())  # no work was done twice


def test_sampling_is_uniform_and_count_words_knows_scripts():
    bins = [sampling_bin(f"text {i}", 42) for i in range(4000)]
    assert 0.48 < sum(bins) / len(bins) / 2**20 < 0.52
    assert count_words("three words here") == 3
    assert count_words("東京都 Tokyo") == 5  # 2 runs and 3 characters


@pytest.mark.data
def test_real_articles_that_a_set_was_made_from_are_found(tmp_path):
    folder = os.environ.get("TINY_OLM_DATA")
    if not folder:
        pytest.skip("TINY_OLM_DATA is not set")
    table = next(pq.ParquetFile(f"{folder}/wikipedia_2019_featured_good.parquet").iter_batches(100))
    write(tmp_path / "in.parquet", table.to_pylist())
    run(tmp_path, tmp_path / "out", "in.parquet", decontaminate=[f"{folder}/squad_sample/validation.parquet"])
    titles = {row["id"] for row in rows_of(tmp_path / "out", "contamination") if row["ngrams"] > 100}
    assert 1 <= len(titles) < 10
