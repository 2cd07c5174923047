"""The series of updates: its slices, its steps that are done once, and its table."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mirror import prose

from evaluation.bench.updates import Series, SeriesArguments
from evaluation.report.months import series_table
from shared.errors import InputError, RunError


def save_documents(folder):
    """Documents of Wikipedia, of 2022 to 2024, and of a source that does not span the years."""
    texts = prose()
    dates = ["2014"] * 60 + ["2022-03-01", "2023-12-31", "2024-01-01", "2024-08"] * 15
    rows = [{"text": text, "date": date, "source": "news"} for text, date in zip(texts, dates, strict=False)]
    rows += [{"text": "An abstract.", "date": "2024-05-01", "source": "arXiv abstract (cs.CL)"}]
    rows += [{"text": "Later than all.", "date": "2025-01-01", "source": "news"}]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet")
    return rows


def test_slices_divide_text_by_date_and_a_step_is_done_once(tmp_path):
    rows = save_documents(tmp_path / "in")
    flags = {"input": [str(tmp_path / "in")], "years": [2023, 2024], "old_share": 0.5, "held_out": 0.2}
    flags["vocab_size"] = 1000
    series = Series(SeriesArguments(str(tmp_path / "out"), **flags))
    series.cut()
    dates = {name: pq.read_table(series.text(name))["date"].to_pylist() for name in ("old", 2023, 2024)}
    assert 10 < len(dates["old"]) < 50 and {*dates["old"]} == {"2014"}
    assert {*dates[2023]} == {"2022-03-01", "2023-12-31"} and {*dates[2024]} == {"2024-01-01", "2024-08"}
    assert len(dates[2023]) == len(dates[2024]) == 30 and len(rows) == 122

    tokenizer = series.tokenizer()
    made = (tokenizer / "tokenizer.json").stat().st_mtime_ns
    again = Series(series.args)
    assert again.done["tokenizer"]["seconds"] > 0 and again.tokenizer() == tokenizer
    assert (tokenizer / "tokenizer.json").stat().st_mtime_ns == made
    other = Series(SeriesArguments(str(tmp_path / "out"), **flags | {"held_out": 0.3}))
    with pytest.raises(RunError, match=r"train_tokenizer\.py .*0\.3.* ended with"):
        other.tokenizer()


def test_sentences_with_words_new_in_a_slice_are_held_out_ones(tmp_path):
    old = [{"text": f"Old {i}: treaty. The Quorvex treaty was old.", "date": "2014", "source": ""} for i in range(40)]
    first = [{"text": f"No {i}. A zibbly day. A quorvex?", "date": "2022-05", "source": ""} for i in range(40)]
    later = [{"text": f"No {i}. A ZIBBLY day. It plonked! Old.", "date": "2024-05", "source": ""} for i in range(40)]
    rare = [{"text": f"Few {i} said snorfed.", "date": "2024-06", "source": ""} for i in range(4)]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(old + first + later + rare), tmp_path / "in" / "documents.parquet")
    flags = {"input": [str(tmp_path / "in")], "years": [2023, 2024], "old_share": 1.0, "held_out": 0.3}
    series = Series(SeriesArguments(str(tmp_path / "out"), **flags))
    series.cut()
    found = [pq.read_table(path).to_pylist() for path in series.sentences()]
    assert {row["text"] for row in found[0]} == {"A zibbly day."} and {row["date"] for row in found[0]} == {"2022-05"}
    assert {row["text"] for row in found[1]} == {"It plonked!"} and {row["date"] for row in found[1]} == {"2024-05"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"years": [2024, 2023]}, "--years: name two years or more in their order"),
        ({"first_year": 2023}, "all later than --first_year"),
        ({"weights": [0.5, 0.5]}, "--weights: name three"),
        ({"variants": ["--learning_rate 1e-3"]}, "--variants .*write 'NAME: --flag value'"),
    ],
)
def test_wrong_settings_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        SeriesArguments("out", **flags)


def test_flags_for_all_models_reach_those_from_scratch_and_the_updates(tmp_path, monkeypatch):
    calls = []

    def run(self, script, output, *flags):
        calls.append([script, *map(str, flags)])
        return output

    monkeypatch.setattr(Series, "run", run)
    Series(SeriesArguments(str(tmp_path), train_flags="--learning_rate 1e-3", update_flags="--min_lr 0")).models(1)
    trained = [words for words in calls if words[0] == "pretraining/run_mlm.py"]
    assert len(trained) == 7 and all(words[words.index("--learning_rate") + 1] == "1e-3" for words in trained)
    updates = [words for words in trained if "pretraining/recipes/update.yaml" in words]
    assert [words[-2:] for words in updates] == [["--min_lr", "0"]] * 3


def test_years_without_text_are_named(tmp_path):
    save_documents(tmp_path / "in")
    series = Series(SeriesArguments(str(tmp_path / "out"), [str(tmp_path / "in")], years=[2024, 2025, 2026]))
    with pytest.raises(InputError, match="has no text for the slice 2026"):
        series.cut()


def test_the_table_shows_changes_from_the_first_model():
    def row(year, old, gain=None, accuracy=0.1):
        found = {"lead_early": 0.004, "lead_late": 0.004 + gain, "gain": gain} if gain else None
        if found:
            found["gain_interval"] = [gain - 0.01, gain + 0.01]
        interval, always = [accuracy - 0.05, accuracy + 0.05], {"questions": 20, "most_frequent_answer": 0.05}
        cloze = {"accuracy": accuracy, "accuracy_interval": interval}
        cloze["by_year"] = [{"year": "2024", "accuracy": accuracy} | always]
        return {"text_to": year, "tokens": 8e5, "seconds": 90.0, "old": old, "gain": gain and found, "cloze": cloze}

    models = {"to_2023": row(2023, {"2014": 2.0, "2019": 2.2})}
    models["updated_2024"] = row(2024, {"2014": 2.004, "2019": 2.212}, 0.03, 0.2)
    models["scratch_2024"] = row(2024, {"2014": 1.9, "2019": 2.1}, 0.04)
    for name, gain in (("updated_2024", 0.06), ("scratch_2024", 0.08)):
        lead = {"lead_early": 0.01, "lead_early_interval": [-0.01, 0.03]}
        lead |= {"lead_late": 0.01 + gain, "lead_late_interval": [gain, 0.02 + gain]}
        models[name]["new_words"] = lead | {"gain": gain, "gain_interval": [gain - 0.02, gain + 0.02]}
    result = {"settings": {"years": [2023, 2024]}, "seeds": {"1": models, "2": {"to_2023": models["to_2023"]}}}
    result["tasks"] = {"tasks": {"stsb": {"metric": "pearson"}}, "results": {"to_2023": {"stsb": {"mean": 0.5}}}}
    result["tasks"]["results"]["updated_2024"] = {"stsb": {"mean": 0.51}}
    difference = {"model": "updated_2024", "task": "stsb", "difference": 0.01, "low": -0.01, "high": 0.03}
    result["tasks"]["comparisons"] = [difference]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in series_table(result).splitlines()]
    assert [line[1] for line in lines if line[0] == "to\\_2023"][:2] == ["1", "2"]
    updated, words, cloze, tasks = (line for line in lines if line[0] == "updated\\_2024")
    assert updated[2:7] == ["2024", "0.80M", "1.5", "2.108 (+0.008)", "-0.004"]
    assert updated[7:] == ["-0.034", "+0.030 (+0.020 to +0.040)", "75%"]
    leads = ["-0.010 (-0.030 to +0.010)", "-0.070 (-0.080 to -0.060)", "+0.060 (+0.040 to +0.080)"]
    assert words[1:] == ["1", *leads, "75%"]
    assert cloze[1:] == ["20.0", "20.0 (15.0 to 25.0)"] and tasks[1:] == ["51.0 (+1.0: -1.0 to +3.0)"]
