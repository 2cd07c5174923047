import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from evaluation.compare_models import CompareArguments, compare, main, make_table, name_words
from evaluation.report.numbers import read_result
from evaluation.run_benchmark import BenchmarkArguments
from evaluation.tasks.bootstrap import Examples, resample
from evaluation.tasks.page import build_report, write_results
from shared.errors import InputError, RunError

ROWS = 400


def save_benchmark(folder, scores, seeds=5, models=("tiny",), rng_seed=0, **settings):
    """A result as run_benchmark.py writes it: `scores` are the accuracies of tasks, on the same made-up examples."""
    args = BenchmarkArguments([f"{name}=x" for name in models], str(folder), [*scores], [*range(1, seeds + 1)])
    results = {}
    for task, accuracy in scores.items():
        rng = np.random.default_rng(list(task.encode()))
        easy = rng.random(ROWS)  # how easy an example is, for every model
        outcomes, examples = {}, {}
        for name in models:
            noise = np.random.default_rng([rng_seed, *task.encode(), *name.encode()]).normal(0, 0.05, (seeds, ROWS))
            right = (easy + noise < accuracy).astype(float)
            outcomes[name] = {
                seed: {"value": float(right[seed - 1].mean()), "metrics": {}} for seed in range(1, seeds + 1)
            }
            examples[name] = Examples(right[..., None], "mean", f"{task} key")
        samples = {name: resample(one, name) for name, one in examples.items()}
        results[task] = (outcomes, examples, samples)
    report = build_report(args, dict.fromkeys(models, "x"), {}, results, [])
    report["settings"] |= settings
    write_results(folder, report, {task: found[1] for task, found in results.items()})
    return str(folder)


def verdicts(before, after, **flags):
    args = CompareArguments(before, after, **flags)
    return {row["name"]: row["verdict"] for row in compare(read_result(before), read_result(after), args)}


def test_a_fall_fails_and_noise_does_not(tmp_path):
    before = save_benchmark(tmp_path / "a", {"mrpc": 0.8, "rte": 0.6})
    same = save_benchmark(tmp_path / "b", {"mrpc": 0.8, "rte": 0.6}, rng_seed=1)
    assert set(verdicts(before, same).values()) == {"as before"}
    fallen = save_benchmark(tmp_path / "c", {"mrpc": 0.74, "rte": 0.6}, rng_seed=1)
    assert verdicts(before, fallen) == {"mrpc": "worse", "rte": "as before", "average": "worse"}
    assert verdicts(fallen, before)["mrpc"] == "better"
    with pytest.raises(RunError, match="2 of 3 numbers got worse or are missing: mrpc, average"):
        main(CompareArguments(before, fallen, output_dir=str(tmp_path / "out")))
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (tmp_path / "out" / "comparison.md").read_text() == make_table(content)
    assert "| **worse** |" in make_table(content)


def test_what_is_allowed_is_allowed(tmp_path):
    before = save_benchmark(tmp_path / "a", {"mrpc": 0.8, "rte": 0.6})
    fallen = save_benchmark(tmp_path / "c", {"mrpc": 0.74, "rte": 0.6}, rng_seed=1)
    assert set(verdicts(before, fallen, max_drop=6).values()) == {"as before"}
    assert verdicts(before, fallen, max_drop=1)["mrpc"] == "worse"
    assert verdicts(before, fallen, allow=["mrpc=6", "average=4"]) == dict.fromkeys(
        ["mrpc", "rte", "average"], "as before"
    )
    assert verdicts(before, fallen, allow=["accuracy=6"])["mrpc"] == "as before"
    with pytest.raises(InputError, match="--allow cola: there are accuracy, average, mrpc, rte"):
        verdicts(before, fallen, allow=["cola=1"])


def test_the_same_examples_are_paired_and_that_sees_more(tmp_path):
    before = save_benchmark(tmp_path / "a", {"mrpc": 0.8})
    fallen = save_benchmark(tmp_path / "b", {"mrpc": 0.76}, rng_seed=1)
    assert verdicts(before, fallen) == {"mrpc": "worse"}
    (tmp_path / "b" / "examples.safetensors").unlink()
    rows = compare(read_result(before), read_result(fallen), CompareArguments(before, fallen))
    assert (
        rows[0]["verdict"] == "as before" and not rows[0]["is_paired"] and "(unpaired)" in make_table({"rows": rows})
    )


def test_an_average_is_paired_whatever_lies_beside_it(tmp_path):
    before = save_benchmark(tmp_path / "a", {"mrpc": 0.8, "rte": 0.6})
    fallen = save_benchmark(tmp_path / "b", {"mrpc": 0.77, "rte": 0.57}, rng_seed=1)
    expected = verdicts(before, fallen)
    assert expected["average"] == "worse"
    for folder in (before, fallen):
        (tmp_path / folder / "mlm_eval.json").write_text(
            json.dumps(
                {
                    "settings": {},
                    "models": {"tiny": {"bits_per_byte": 1.5, "bits_per_byte_interval": [1.4, 1.6]}},
                }
            )
        )
    assert expected.items() < verdicts(before, fallen).items()


def test_a_file_of_another_name_has_the_same_settings(tmp_path):
    paths = [
        save_benchmark(tmp_path / name, {"mrpc": 0.8, "rte": 0.6}, max_samples=7) + "/benchmark.json" for name in "ab"
    ]
    renamed = tmp_path / "b" / "june.json"
    Path(paths[1]).rename(renamed)
    main(CompareArguments(paths[0], str(renamed)))
    content = json.loads(renamed.read_text())
    renamed.write_text(json.dumps(content | {"settings": content["settings"] | {"max_samples": 8}}))
    with pytest.raises(InputError, match="max_samples: 7 -> 8"):
        main(CompareArguments(paths[0], str(renamed)))


def test_a_task_that_is_gone_fails_and_a_new_one_does_not(tmp_path):
    two = save_benchmark(tmp_path / "a", {"mrpc": 0.8, "rte": 0.6})
    one = save_benchmark(tmp_path / "b", {"mrpc": 0.8}, rng_seed=1)
    assert verdicts(two, one)["rte"] == "missing" and verdicts(one, two)["rte"] == "new"
    with pytest.raises(RunError, match="rte"):
        main(CompareArguments(two, one))
    other = save_benchmark(tmp_path / "c", {"cola": 0.5}, overrides=["max_steps=1"])  # and other settings
    with pytest.raises(InputError, match="no number in common"):
        main(CompareArguments(one, other))


def test_averages_of_other_tasks_are_not_compared(tmp_path):
    """A new task that is hard for all would be taken for a fall, and one that is easy would hide one."""
    two, three = {"mrpc": 0.8, "rte": 0.6}, {"mrpc": 0.8, "rte": 0.6, "cola": 0.3}
    before = save_benchmark(tmp_path / "a", two)
    assert verdicts(before, save_benchmark(tmp_path / "b", three))["average"] == "not compared: other tasks"
    assert verdicts(before, save_benchmark(tmp_path / "c", two))["average"] == "as before"


def test_false_alarms_are_rare_over_all_numbers(tmp_path):
    alarms = 0
    scores = dict(zip(("mrpc", "rte", "cola", "sst2", "qnli", "wnli"), (0.6, 0.7, 0.8, 0.5, 0.75, 0.65), strict=True))
    before = [save_benchmark(tmp_path / f"a{i}", scores, seeds=3, rng_seed=i) for i in range(8)]
    for i, first in enumerate(before):
        alarms += "worse" in verdicts(first, before[i - 1]).values()
    assert alarms <= 2


def test_buckets_and_losses_of_other_results(tmp_path):
    """The forms in which the other scripts of evaluation/ write: an interval or a standard error beside the number."""

    def save(name, bits, accuracy):
        buckets = {
            year: {"bits_per_byte": value, "bits_per_byte_interval": [value - 0.02, value + 0.02], "documents": 9}
            for year, value in bits.items()
        }
        overall = {"accuracy": accuracy, "standard_error": 0.002, "pairs": 67000}
        content = {"models": {"tiny": {"buckets": buckets, "overall": overall}}, "settings": {"max_samples": None}}
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    before = save("a.json", {"2021": 2.00, "2022": 2.10}, 0.60)
    after = save("b.json", {"2021": 2.10, "2022": 2.05}, 0.61)
    assert verdicts(before, after) == {
        "buckets 2021": "worse",
        "buckets 2022": "better",
        "overall": "better",
    }
    assert verdicts(before, after, max_rise=0.1)["buckets 2021"] == "as before"
    assert verdicts(before, after, max_drop=50)["buckets 2021"] == "worse"  # that is for scores


def test_periods_of_several_models(tmp_path):
    """As run_freshness.py writes them: the models stand inside of each period."""

    def save(name, tiny, mini):
        row = {
            label: {"bits_per_byte": value, "bits_per_byte_interval": [value - 0.02, value + 0.02]}
            for label, value in (("tiny", tiny), ("mini", mini))
        }
        periods = [{"name": name, "documents": 9, "models": row} for name in ("2025", "2026")]
        content = {"models": ["tiny", "mini"], "text": {"periods": periods}, "settings": {}}
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    before, after = save("a.json", 1.5, 1.4), save("b.json", 1.4, 1.5)
    assert verdicts(f"{before}:tiny", f"{after}:tiny") == dict.fromkeys(["text 2025", "text 2026"], "better")
    assert set(verdicts(f"{before}:mini", f"{after}:mini").values()) == {"worse"}
    assert set(verdicts(f"{before}:tiny", f"{before}:mini").values()) == {"better"}


def test_two_models_of_one_freshness_result_are_compared_on_its_documents(tmp_path):
    def save(name, lead_2025, gain):
        row = {"old": 2.0, "new": 2.0 - lead_2025}
        row = {label: {"bits_per_byte": v, "bits_per_byte_interval": [v - 0.2, v + 0.2]} for label, v in row.items()}
        found = {"gain": gain, "gain_interval": [gain - 0.02, gain + 0.02], "is_fresher": gain > 0.02}
        found["periods"] = [{"lead": lead_2025, "lead_interval": [lead_2025 - 0.004, lead_2025 + 0.004]}]
        text = {"old": "old", "gains": {"new": found}, "periods": [{"name": "2025", "documents": 9, "models": row}]}
        (tmp_path / name).write_text(json.dumps({"models": ["old", "new"], "text": text, "settings": {}}))
        return [f"{tmp_path / name}:{label}" for label in ("old", "new")]

    fresher = save("a.json", -0.02, 0.05)
    assert verdicts(*fresher, must_be_fresher=True) == {"text 2025": "worse", "freshness gain": "better"}
    assert verdicts(*fresher, max_rise=0.02)["text 2025"] == "as before"
    assert verdicts(*save("b.json", -0.003, 0.01), must_be_fresher=True) == {
        "text 2025": "as before",
        "freshness gain": "worse",
    }
    assert verdicts(*fresher[::-1])["text 2025"] == "as before"  # no gain the other way round: by separate intervals
    with pytest.raises(InputError, match="one call of run_freshness"):
        verdicts(*fresher[::-1], must_be_fresher=True)


def test_each_probe_is_a_row_and_tokens_are_compared_by_one_tokenizer_alone(tmp_path):
    """As run_probes.py writes them; controls, layers and years are no rows."""

    def part(key, value):
        return {key: value, f"{key}_interval": [value - 0.02, value + 0.02]}

    def save(name, gain, rare, tokenizer):
        frequency = part("accuracy", 0.3) | {"top 100": part("accuracy", 0.4), "rarer": part("accuracy", rare)}
        row = {
            "copy": part("copy_gain", gain) | part("found_with", 0.5),
            "similarity": part("spearman", 0.6)
            | {"layers": [{"layer": 0} | part("spearman", gain)], "controls": {"jaccard": part("spearman", gain)}},
            "frequency": frequency | {"same_tokenizer": tokenizer},
            "blimp": part("accuracy", 0.57),
            "cloze": part("accuracy", 0.1) | {"by_year": [{"year": "2022"} | part("accuracy", gain)]},
        }
        (tmp_path / name).write_text(json.dumps({"models": {"tiny": row}, "settings": {"stsb": "glue"}}))
        return str(tmp_path / name)

    before = save("a.json", 0.40, 0.20, "x")
    same = dict.fromkeys(["similarity", "frequency", "frequency top 100", "blimp", "cloze"], "as before")
    assert verdicts(before, save("b.json", 0.30, 0.19, "x")) == same | {
        "copy": "worse",
        "frequency rarer": "as before",
    }
    assert verdicts(before, save("b.json", 0.39, 0.10, "x"))["frequency rarer"] == "worse"
    found = verdicts(before, save("b.json", 0.50, 0.10, "y"))
    assert found["copy"] == "better" and found["frequency rarer"] == "not compared: other tokenizer"


def test_wrong_input(tmp_path):
    good = save_benchmark(tmp_path / "a", {"mrpc": 0.8}, models=("tiny", "mini"))
    other = save_benchmark(tmp_path / "b", {"mrpc": 0.8}, overrides=["num_train_epochs=1"])
    broken = tmp_path / "broken.json"
    content = json.loads((tmp_path / "a" / "benchmark.json").read_text())
    for text, message in (
        ("no/such", "there is no such result"),
        (good, "more than one model: write .*:MODEL with one of tiny, mini, majority class"),
        (f"{good}:base", "no model base"),
    ):
        with pytest.raises(InputError, match=message):
            read_result(text)
    for text, message in (
        ("{", "is no JSON"),
        ("[]", "holds no result"),
        (json.dumps(content | {"results": {}}), "'tiny' is missing"),
        (json.dumps({key: content[key] for key in content if key != "tasks"}), "'tasks' is missing"),
        (json.dumps({"models": {"tiny": {}}}), "has no settings"),
    ):
        broken.write_text(text)
        with pytest.raises(InputError, match=message):
            read_result(f"{broken}:tiny" if "{" in text[1:] else str(broken))
    with pytest.raises(InputError, match=r"other settings \(overrides: \[\] -> "):
        main(CompareArguments(f"{good}:tiny", other, output_dir=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
    main(CompareArguments(f"{good}:tiny", other, accept_changes=True))
    allowances = [{"allow": [entry]} for entry in ("mrpc", "mrpc=-1", "mrpc=nan", "mrpc=inf")]
    for flags in ({"max_drop": -1}, {"confidence": 1.0}, *allowances):
        with pytest.raises(InputError):
            CompareArguments("a", "b", **flags)


def test_the_command_line_and_its_exit_codes(tmp_path):
    before = save_benchmark(tmp_path / "a", {"mrpc": 0.8})
    fallen = save_benchmark(tmp_path / "b", {"mrpc": 0.7}, rng_seed=1)

    def run(*words):
        command = [sys.executable, "evaluation/compare_models.py", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert run(before, before).returncode == 0
    done = run(before, fallen, "--max_drop", "1")
    assert done.returncode == 1 and "**worse**" in done.stdout and "mrpc" in done.stderr
    assert run(before, str(tmp_path / "no")).returncode == 2
    assert name_words(["a", "b", "--max_drop", "1"]) == ["--before", "a", "--after", "b", "--max_drop", "1"]
    assert name_words(["--help"]) == ["--help"]
