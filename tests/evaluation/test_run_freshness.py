import datetime
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from masked_models import count_tokens, save_model

from evaluation.masked.dated_text import (
    Bucket,
    bits_per_byte,
    choose_documents,
    days_of,
    early_and_late,
    freshness_gain,
    parse_date,
    period_of,
)
from evaluation.masked.freshness_page import make_table
from evaluation.masked.new_words import read_new_words
from evaluation.run_freshness import NEW_WORDS, FreshnessArguments, main
from shared.documents import is_held_out
from shared.errors import InputError

OLD_WORDS, NEW_ONES = ["the", "man", "saw", "a", "house"], ["zebra", "quick", "jazz", "vex"]
YEARS = range(2018, 2026)


def dated_rows(seed=0, documents=60):
    """Documents of eight years; from 2022 on half of their words are ones that no earlier text has."""
    rng = np.random.default_rng(seed)
    for year in YEARS:
        for number in range(documents):
            words = OLD_WORDS + NEW_ONES if year >= 2022 else OLD_WORDS
            text = " ".join(rng.choice(words, 40))
            yield {"text": f"{text} {number}", "date": f"{year}-0{1 + number % 9}-15"}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fresh")


@pytest.fixture(scope="module")
def models(folder, wordpiece):
    """Three models that know word counts: of text to 2021, of all of it, and of text to 2021 without any noise."""
    rows = list(dated_rows(seed=1))
    old = count_tokens(wordpiece, [row["text"] for row in rows if row["date"] < "2022"])
    new = count_tokens(wordpiece, [row["text"] for row in rows])
    blurred = old**0.5 + 1.0
    return [
        save_model(folder / name, wordpiece, counts=counts)
        for name, counts in (("old", blurred), ("better", blurred**1.1), ("new", blurred * (new / old) ** 0.7))
    ]


def run(output_dir, models, **flags):
    return main(FreshnessArguments(models=models, output_dir=str(output_dir), **{"new_words": "none"} | flags))


def test_dates_and_periods():
    day = datetime.date
    assert parse_date("2024") == (day(2024, 1, 1), day(2024, 12, 31))
    assert parse_date("2024/2") == (day(2024, 2, 1), day(2024, 2, 29))
    assert parse_date("2023-12") == (day(2023, 12, 1), day(2023, 12, 31))
    assert parse_date(" 2024-02-29T10:00:00Z ") == (day(2024, 2, 29), day(2024, 2, 29))
    assert period_of("2022/06/10", "quarter") == "2022-Q2" and period_of("2022-11-30", "month") == "2022-11"
    assert period_of("2022", "year") == "2022"
    assert days_of("2022-Q4") == (day(2022, 10, 1), day(2022, 12, 31)) and days_of("2022") == parse_date("2022")
    for name in ("2022-Q1", "2022-07", "2022"):
        period = {7: "quarter", 4: "year"}[len(name)] if "07" not in name else "month"
        assert {period_of(str(date), period) for date in days_of(name)} == {name}
    for wrong in ("", "soon", "2022-13", "2023-02-29", "22-01-01", "20220101", "2022-01-01 and later?"[:13], "0000"):
        with pytest.raises(ValueError, match="date"):
            parse_date(wrong)
    with pytest.raises(ValueError, match="which quarter"):
        period_of("2022", "quarter")


def test_a_fresher_model_gains_and_a_better_one_does_not(tmp_path, folder, models):
    source = write_lines(tmp_path / "news.jsonl", dated_rows())
    flags = {"input": [source], "held_out": 1.0, "cutoff": ["2021", "2021", "2025-12"], "max_seq_length": 32}
    report = run(tmp_path / "out", models, **flags)
    text = report["text"]
    better, new = text["gains"]["better"], text["gains"]["new"]
    assert better["early"] == new["early"] == ["2018", "2019", "2020", "2021"]
    assert new["late"] == ["2022", "2023", "2024", "2025"]
    assert new["is_fresher"] and 0 < new["gain_interval"][0] < new["gain"] < new["gain_interval"][1]

    def lead(label, years):
        part = [row["models"] for row in text["periods"] if row["name"] in years]
        return np.mean([row["old"]["bits_per_byte"] - row[label]["bits_per_byte"] for row in part])

    assert new["gain"] == pytest.approx(lead("new", new["late"]) - lead("new", new["early"]))
    assert better["lead_early"] > 0.005 and not better["is_fresher"]
    for row in text["periods"]:
        for model in row["models"].values():
            assert model["bits_per_byte_interval"][0] < model["bits_per_byte"] < model["bits_per_byte_interval"][1]
    for name in ("freshness.png", "matrix.png"):
        assert (tmp_path / "out" / name).stat().st_size > 10_000
    written = json.loads((tmp_path / "out" / "freshness.json").read_text())
    assert (tmp_path / "out" / "freshness.md").read_text() == make_table(written) == make_table(report)
    assert f"**{new['gain']:+.3f}**" in make_table(written)
    assert run(tmp_path / "again", models, **flags)["text"] == text


def test_the_gain_is_a_difference_of_differences_with_its_paired_interval():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1, (4, 1000))  # what makes a sample hard for both models cancels

    def bucket(name, number, values):
        samples = np.stack([v + common[number] + rng.normal(0, 0.01, 1000) for v in values], axis=1)
        return Bucket(name, 10, 100, np.array(values), samples)

    buckets = [bucket("2020", 0, [2.0, 1.5]), bucket("2021", 1, [2.2, 1.7]), bucket("2022", 2, [2.4, 1.8])]
    buckets.append(bucket("2024", 3, [9.0, 1.0]))
    names = [bucket.name for bucket in buckets]
    periods = early_and_late(names, parse_date("2021"), parse_date("2022-06"))
    found = freshness_gain(buckets, 0, 1, *periods)
    assert found["gain"] == pytest.approx(0.1) and found["late"] == ["2022"] and found["is_fresher"]
    low, high = found["gain_interval"]
    assert high - low == pytest.approx(2 * 1.96 * 0.01 * (2 + 1) ** 0.5, rel=0.15)
    low, high = found["periods"][0]["lead_interval"]
    assert low < found["periods"][0]["lead"] < high < low + 2 * 1.96 * 0.01 * 2**0.5 * 1.2
    assert periods == (["2020", "2021"], ["2022"])
    for no_newer in (None, parse_date("2021-12"), parse_date("2020")):
        assert early_and_late(names, parse_date("2021"), no_newer)[1] == ["2022", "2024"]
    assert early_and_late(names, parse_date("2021-06"), None)[0] == ["2020"]  # 2021 is neither
    with pytest.raises(InputError, match="ended by"):
        early_and_late(names, parse_date("2019"), None)
    with pytest.raises(InputError, match="began after"):
        early_and_late(names, parse_date("2030"), None)


def test_bits_per_byte_of_sums():
    # 10 nats on 5 targets are 2 nats a token; 100 tokens in 400 bytes.
    assert bits_per_byte(np.array([[10.0, 5.0, 100.0, 400.0]]))[0] == pytest.approx(2 / np.log(2) / 4)


def test_held_out_documents_are_those_of_packing_whatever_the_order(tmp_path):
    rows = list(dated_rows())
    rows[3]["text"] += "\x00 control characters are part of the hash"
    rows += [
        dict(rows[0]),
        {"text": None, "date": "2020"},
        {"text": "x y", "date": None},
        {"text": "", "date": "2020"},
    ]
    one = write_lines(tmp_path / "one.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows[::-1]), tmp_path / "two.parquet")
    chosen, left_out = choose_documents([one], "year", 0.3, None, 1, 1000)
    expected = {row["text"] for row in rows if row["text"] and row["date"] and is_held_out(row["text"], 0.3)}
    assert {document.text for document in chosen} == expected
    assert left_out["no date"] == 1 and left_out["no text"] == 2
    assert sum(left_out.values()) + len(chosen) == len(rows)
    again, _ = choose_documents([str(tmp_path / "two.parquet")], "year", 0.3, None, 1, 1000)
    assert again == chosen
    few, left_out = choose_documents([one], "year", 0.3, 5, 1, 20)
    assert len(few) == 5 * len(YEARS) and all(len(document.text) <= 20 for document in few)
    assert {document.key for document in few} < {document.key for document in chosen}
    with pytest.raises(InputError, match="no period has 500"):
        choose_documents([one], "year", 0.3, None, 500, 1000)


def test_text_that_a_model_was_trained_on_is_refused(tmp_path, models, wordpiece):
    from shared.files import sha256_of

    source = write_lines(tmp_path / "news.jsonl", dated_rows())
    trained = save_model(tmp_path / "trained", wordpiece)
    inputs = {"validation_fraction": 0.05, "sources": [{"file": "news.jsonl", "sha256": sha256_of(source)}]}
    (tmp_path / "trained" / "manifest.json").write_text(json.dumps({"inputs": inputs}))
    flags = {"input": [source], "max_seq_length": 32, "min_documents": 1}
    with pytest.raises(InputError, match=r"trained on .*news\.jsonl and held out only 0\.05"):
        run(tmp_path / "out", [models[0], trained], held_out=0.2, **flags)
    report = run(tmp_path / "out", [models[0], trained], held_out=0.05, **flags)
    assert report["text"]["held_out_in_training"] == {"old": None, "trained": 0.05}


def test_new_words_are_ranked_beside_old_ones(tmp_path, models):
    source = tmp_path / "words.yaml"
    entry = '- {term: %s, first_use: %s, sentence: "a {} saw the house", controls: {man: 1, house: 2}}\n'
    source.write_text(entry % ("zebra", "2022-05") + entry % ("quick", "2019-01"))
    flags = {"new_words": str(source), "max_seq_length": 32}
    report = run(tmp_path / "out", models, cutoff=["2021", "2021", "2025"], **flags)["new_words"]
    assert [row["term"] for row in report["words"]["old"]] == ["quick", "zebra"]
    for row in report["words"]["old"]:
        assert row["rank"] == 3 and row["advantage"] < 0 and row["chance_rank"] == 2 and row["tokens"] >= 2
    old, new = (report["means"][name] for name in ("old", "new"))
    assert new["advantage"] > old["advantage"] and new["tokens"] == old["tokens"] > old["tokens_controls"]
    zebra = [report["words"][name][1]["advantage"] for name in ("new", "old")]
    assert report["gains"]["new"]["words"] == ["zebra"]
    assert report["gains"]["new"]["gain"] == pytest.approx(zebra[0] - zebra[1]) and zebra[0] > zebra[1]
    assert (tmp_path / "out" / "new_words.png").stat().st_size > 10_000


def test_the_list_of_new_words_holds_to_its_rules():
    import yaml

    words = read_new_words(NEW_WORDS)
    assert len(words) >= 20 and len({word.term for word in words}) == len(words)
    assert {"COVID-19", "omicron", "ChatGPT"} <= {word.term for word in words}
    for entry in yaml.safe_load(Path(NEW_WORDS).read_text()):
        ratios = [entry["per_million"] / float(value) for value in entry["controls"].values()]
        assert min(max(ratio, 1 / ratio) for ratio in ratios) <= 10, entry["term"]
        assert "event" in entry and len(entry["controls"]) >= 2


def test_wrong_input_is_named_before_anything_is_written(tmp_path, models):
    dates = write_lines(tmp_path / "dates.jsonl", [{"text": "a", "date": "2020"}, {"text": "b", "date": "yesterday"}])
    years = write_lines(tmp_path / "years.jsonl", [{"text": "a", "date": "2020"}] * 9)
    no_date = write_lines(tmp_path / "no_date.jsonl", [{"text": "a"}])
    broken = str(tmp_path / "broken.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "date": "2020"}\n{"te')
    good = write_lines(tmp_path / "good.jsonl", dated_rows())
    (tmp_path / "words.yaml").write_text("- {term: x, first_use: someday, sentence: 'a {}', controls: {y: 1}}\n")
    (tmp_path / "words2.yaml").write_text("- {term: x, first_use: 2020, sentence: 'a', controls: {y: 1}}\n")
    cases = [
        ({}, "give at least one of them"),
        ({"input": [dates], "held_out": 1.0}, r"dates\.jsonl, row 2: 'yesterday'"),
        ({"input": [years], "held_out": 1.0, "period": "month"}, r"no period .*'date without a month': 9.*--period"),
        ({"input": [no_date]}, r"no_date\.jsonl, row 1: needs the fields text and date"),
        ({"input": [broken]}, r"broken\.jsonl, row 2: line is not JSON"),
        ({"input": ["nowhere.parquet"]}, r"nowhere\.parquet"),
        ({"input": [good], "held_out": 0.0}, "--held_out 0.0"),
        ({"input": [good], "cutoff": ["2021-02-30", "2022"]}, "--cutoff: '2021-02-30'"),
        ({"input": [good], "cutoff": ["2030"], "held_out": 1.0}, "no period with enough documents began after"),
        ({"input": [good], "cutoff": ["2021"] * 3}, "3 dates for 2 models"),
        ({"new_words": str(tmp_path / "words.yaml")}, "entry 1: first_use: 'someday'"),
        ({"new_words": str(tmp_path / "words2.yaml")}, "must hold {} once"),
    ]
    for flags, message in cases:
        with pytest.raises(InputError, match=message):
            run(tmp_path / "out", models[:2], max_seq_length=32, **flags)
    with pytest.raises(InputError, match="two models or more"):
        run(tmp_path / "out", models[:1], input=[good], cutoff=["2021"])
    assert run(tmp_path / "out", models[:2], input=[good], held_out=1.0, max_seq_length=32, dry_run=True) == {}
    assert not (tmp_path / "out").exists()
