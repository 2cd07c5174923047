"""What has to hold on a GPU: the same tests on the CPU where there is none, but for what a CPU can't do.

`make bench-gpu` runs them on a GPU machine.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from test_attention import PAD, VOCABULARY, changes, make_model
from test_run_mlm import GOLDEN, SMOKE, losses, run

from pretraining.attention import keep_documents_apart
from shared.loss import IGNORED, project_masked_only
from shared.training.checkpoints import verify

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BFLOAT16 = {"atol": 0.1, "rtol": 0}


def make_batch(rows, length):
    numbers = torch.arange(length, device=DEVICE).expand(rows, -1) // 5  # documents of five tokens
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    return {"input_ids": ids, "document_ids": numbers.contiguous()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_the_head_on_masked_positions_is_that_on_all(architecture, dtype):
    stock, ours = (make_model(architecture).to(DEVICE, dtype) for _ in range(2))
    assert project_masked_only(ours)
    ids = make_batch(8, 32)["input_ids"]
    positions = torch.rand(ids.shape, generator=torch.Generator().manual_seed(2)).argsort(1)[:, :5].to(DEVICE)
    labels = torch.full_like(ids, IGNORED).scatter(1, positions, ids.gather(1, positions))
    found = []
    for model, extra in ((stock, {}), (ours, {"masked_positions": positions})):
        logits = model(ids, attention_mask=(ids != PAD).long(), **extra).logits
        if not extra:
            logits = logits.gather(1, positions[..., None].expand(-1, -1, VOCABULARY))
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.gather(1, positions).flatten())
        loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    closeness = {"atol": 2e-5, "rtol": 1e-4} if dtype == torch.float32 else BFLOAT16
    torch.testing.assert_close(found[0][0], found[1][0], **closeness)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, msg=name, **closeness)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_sdpa_keeps_documents_apart(architecture, dtype):
    model = make_model(architecture).to(DEVICE, dtype)
    keep_documents_apart(model)
    for own, others in changes(model, make_batch(3, 32)):
        assert own > 0.1 and others <= 1e-6


@pytest.fixture
def determinism():
    """Undoes --full_determinism, without which the backward pass of attention on a GPU adds in any order."""
    before = dict(os.environ)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    os.environ.clear()
    os.environ.update(before)


def test_a_resumed_run_has_the_same_bits(determinism, tmp_path):
    flags = ["--max_steps", 12, "--save_steps", 6, "--eval_strategy", "no", "--full_determinism"]
    flags += ["--bf16"] if DEVICE == "cuda" else []
    run(tmp_path / "whole", *flags)
    shutil.copytree(tmp_path / "whole" / "checkpoint-6", tmp_path / "resumed" / "checkpoint-6")
    run(tmp_path / "resumed", *flags)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    facts = json.loads((tmp_path / "resumed" / "manifest.json").read_text())
    assert facts["resumed_from"].endswith("checkpoint-6") and bool(facts["hardware"]["gpus"]) == (DEVICE == "cuda")


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_zero_2_in_bf16_learns_as_one_process_in_fp32(tmp_path):
    pytest.importorskip("deepspeed")
    words = ["launch", "--config_file", "shared/launch/zero2.yaml", "--num_processes", 1, "--main_process_port", 0]
    words += ["pretraining/run_mlm.py", "--config", SMOKE, "--bf16", "--output_dir", tmp_path / "run"]
    words = [str(Path(sys.executable).parent / "accelerate"), *map(str, words)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = losses(tmp_path / "run")
    assert {step: found[step] for step in GOLDEN} == pytest.approx(GOLDEN, abs=0.1)
    checkpoint = max((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert verify(checkpoint)["engine"] == "zero2"
