import json
import re
import time
from pathlib import Path

import pytest
import torch
from test_loss import FIELDS, SMALL
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForMaskedLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from shared.loss import project_masked_only
from shared.training import speed
from shared.training.environment import hardware
from shared.training.speed import PHASES, StepClock, flops_per_token, measure_peak, shortest


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "modernbert", "roberta"])
def test_the_formula_counts_the_matrix_products_of_the_model(model_type):
    fields = {name: 4 * value if name not in ("pad_token_id",) else value for name, value in SMALL.items()}
    fields |= {"num_hidden_layers": 2, "pad_token_id": 0} | ({"embedding_size": 48} if model_type == "electra" else {})
    if model_type in ("distilbert", "modernbert"):
        fields |= {
            "n_layers": 2,
            "n_heads": 2,
            "dim": 64,
            "hidden_dim": 96,
            "vocab_size": 4 * FIELDS[model_type]["vocab_size"],
        }
        fields |= dict.fromkeys(("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"), 1)
    config = AutoConfig.for_model(model_type, **fields)
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    project_masked_only(model)
    ids = torch.randint(5, 97, (4, 32))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, masked_positions=torch.arange(8).repeat(4, 1)).logits.sum().backward()
    counted = counter.get_total_flops() / ids.numel()
    assert flops_per_token(config, 32, 8 / 32) == pytest.approx(counted, rel=0.02)


def test_published_figures():
    tiny = AutoConfig.for_model("bert", vocab_size=30522, hidden_size=128, num_hidden_layers=2, intermediate_size=512)
    assert flops_per_token(tiny, 128, 0.15) == pytest.approx(6.3e6, rel=0.01)


@pytest.mark.parametrize("model_type", sorted(MODEL_FOR_MASKED_LM_MAPPING_NAMES))
def test_a_figure_for_a_report_ends_no_run(model_type):
    found = flops_per_token(AutoConfig.for_model(model_type), 128, 0.15)
    assert found is None or found > 0
    clock = StepClock(torch.device("cpu"))
    clock.mark("other")
    clock.mark("forward")
    clock.end_step()
    report = clock.report(100, found, 1e9)
    assert report["tokens_per_second"] > 0 and ("model_flops_utilization" in report) == (found is not None)


def test_the_clock_divides_the_time_and_forgets_pauses_and_first_steps():
    clock = StepClock(torch.device("cpu"))
    assert clock.report(100, 1.0, 1.0) == {}
    naps = {"data": 0.001, "forward": 0.004, "backward": 0.008, "optimizer": 0.002}
    for step in range(12):
        clock.mark("other")
        for phase, seconds in naps.items():
            time.sleep(seconds * (50 if step < 2 else 1))
            clock.mark(phase)
        clock.end_step()
        clock.mark("other")
        time.sleep(0.02)
        clock.mark("")
    found = clock.report(tokens_per_step=150, flops_per_token=2.0, peak_flops=1e6)
    assert sum(found[f"share_{phase}"] for phase in PHASES) == pytest.approx(1)
    assert found["share_backward"] > found["share_forward"] > found["share_optimizer"] > found["share_other"]
    assert found["tokens_per_second"] < 10_000 + 1  # 15 ms a step at least
    assert found["model_flops_utilization"] == pytest.approx(found["tokens_per_second"] * 2 / 1e6)


def test_peak_is_that_of_a_matrix_product():
    measure_peak.cache_clear()  # of the runs of other tests
    a = torch.randn(1024, 1024)
    start = time.perf_counter()
    for _ in range(3):
        a @ a
    assert measure_peak(torch.device("cpu"), torch.float32) > 0.3 * 3 * 2 * 1024**3 / (time.perf_counter() - start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_product_of_a_run_is_faster_than_the_peak(dtype):
    """A model FLOPs utilisation above 1 is none: here for shapes of feed-forward layers."""
    peak = measure_peak(torch.device("cpu"), dtype)
    for rows, width, inner in ((2048, 256, 1024), (1024, 768, 768)):
        a, b = torch.randn(rows, width).to(dtype), torch.randn(width, inner).to(dtype)
        seconds = shortest(lambda a=a, b=b: a @ b, torch.device("cpu"))
        assert 2 * rows * width * inner / seconds < 1.7 * peak  # the cores are shared with other tests


def test_bf16_on_a_cpu_needs_no_other_flag(tmp_path, capsys):
    from test_run_mlm import ROOT, SMOKE, losses, run

    recipe = "".join(line for line in (ROOT / SMOKE).open() if "use_cpu" not in line)
    (tmp_path / "r.yaml").write_text(recipe)
    flags = ("--max_steps", 10, "--eval_strategy", "no")
    run(tmp_path / "fp32", *flags)
    run(tmp_path / "run", "--bf16", *flags, config=str(tmp_path / "r.yaml"))
    assert losses(tmp_path / "run")[10] == pytest.approx(losses(tmp_path / "fp32")[10], abs=0.02)
    said = re.findall(r"--bf16: .* of (\d+ x \d+) tokens takes \d.* of the time here: it ", capsys.readouterr().out)
    on_cpu = not torch.accelerator.is_available()
    assert said == ["16 x 32"] * on_cpu  # blocks and tokens, said once
    assert "use_cpu" not in (tmp_path / "run" / "recipe.yaml").read_text()
    assert ("bf16" in (tmp_path / "run" / "recipe.yaml").read_text()) and json.loads(
        (tmp_path / "run" / "manifest.json").read_text()
    )["hardware"]["cpu_capability"]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about CPUs")
def test_a_dry_run_tells_where_bf16_may_pay(tmp_path, monkeypatch, capsys):
    from test_run_mlm import run

    facts = hardware("cpu")
    for instructions, tries in ((["avx2", "avx512_bf16"], 1), (["amx_bf16", "avx2"], 1), (["avx2"], 0)):
        monkeypatch.setattr(speed, "_SAID", set())
        monkeypatch.setattr(speed, "hardware", lambda kind, names=instructions: facts | {"cpu_instructions": names})
        run(tmp_path / "run", "--dry_run")
        printed = capsys.readouterr().out
        found = re.findall(
            r"^--bf16: .* tokens takes \d\.\d+( and \d\.\d+ with --attn_impl\w+ eager)? of", printed, re.M
        )
        assert [bool(eager) for eager in found] == [True] * tries


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="it is Linux that tells")
def test_the_instructions_of_the_processor_are_recorded():
    known, flags = hardware("cpu"), Path("/proc/cpuinfo").read_text().split()
    assert ("avx2" in known["cpu_instructions"]) == ("avx2" in flags)
    if known["cpu_capability"].startswith("AVX512"):  # torch looks for itself
        assert "avx512f" in known["cpu_instructions"]


def test_a_run_says_where_its_time_went(tmp_path):
    from test_run_mlm import run

    metrics = run(tmp_path / "run", "--max_steps", 30, "--eval_steps", 2)  # evaluations that do not count
    found = json.loads((tmp_path / "run" / "train_results.json").read_text())
    assert sum(found[f"train_share_{phase}"] for phase in PHASES) == pytest.approx(1)
    assert all(found[key] == metrics[key] > 0 for key in ("train_tokens_per_second", "train_model_flops_utilization"))
    rate = found["train_tokens_per_second"]
    assert rate > 1.5 * 30 * 16 * 32 / found["train_runtime"] and found["train_share_data"] < 0.2
    assert found["train_peak_memory_gib"] > 0.1
    assert "model FLOPs utilisation" in (tmp_path / "run" / "README.md").read_text()
