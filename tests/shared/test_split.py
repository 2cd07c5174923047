"""The gradient does not depend on how a step is split, in any task, on any architecture."""

import json

import pytest
import torch
from forked import fork_group
from tasks import CASES, MODELS, STEPS, TASKS, evaluate, make_arguments, make_trainer, train

TOLERANCE = 1e-4
SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8)]
SPLITS_OF_TWO = [(4, 1), (2, 2), (1, 4)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    args = make_arguments(tmp_path_factory.mktemp("one"))
    return {case: train(args, *case, 8, 1) for case in CASES}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    output = folder / "found.json"
    for process in fork_group(folder / "run", 2, "tests/tasks.py", output, json.dumps(SPLITS_OF_TWO)):
        assert process.wait(900) == 0, process.output()[-2000:]
    found = json.loads(output.read_text())
    assert found["processes"] == 2
    return found["found"]


@pytest.mark.parametrize(("task", "model_type"), CASES)
def test_accumulation(one_process, tmp_path, task, model_type):
    expected = one_process[task, model_type]
    assert len(expected) == STEPS and all(norm > 1e-3 for _, norm in expected)
    args = make_arguments(tmp_path)
    for size, accumulation in SPLITS[1:]:
        found = train(args, task, model_type, size, accumulation)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=TOLERANCE), f"{size}x{accumulation}"


@pytest.mark.parametrize(("task", "model_type"), CASES)
def test_two_processes(one_process, two_processes, task, model_type):
    for size, accumulation in SPLITS_OF_TWO:
        found = two_processes[f"{task} {model_type} {size}x{accumulation}"]
        for ours, theirs in zip(found, one_process[task, model_type], strict=True):
            assert ours == pytest.approx(theirs, rel=TOLERANCE), f"{size}x{accumulation}"


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_of_an_evaluation_does_not_depend_on_the_processes(two_processes, tmp_path, task):
    assert two_processes[f"{task} evaluation"] == pytest.approx(evaluate(make_arguments(tmp_path), task), rel=1e-5)


@pytest.mark.parametrize("model_type", MODELS)
def test_the_sparse_head_learns_what_the_stock_head_learns(
    one_process, two_processes, tmp_path, monkeypatch, model_type
):
    monkeypatch.setattr("shared.loss._find_head", lambda _: None)  # project every position
    expected = train(make_arguments(tmp_path), "masked_lm", model_type, 8, 1)
    for found in (one_process["masked_lm", model_type], two_processes[f"masked_lm {model_type} 4x1"]):
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_a_stock_loss_fails_the_comparison(tmp_path):
    """The test can fail: with the mean of the part at hand, as stock heads take it, norms are four times off."""
    norms = {}
    for size, accumulation in [(8, 1), (2, 4)]:
        args = make_arguments(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)
        trainer = make_trainer(args, "single_label", "bert")
        trainer.compute_loss_func = lambda outputs, labels, num_items_in_batch=None: torch.nn.functional.cross_entropy(
            outputs.logits, labels
        )
        trainer.train()
        norms[size] = trainer.state.log_history[0]["grad_norm"]
    assert norms[2] / norms[8] == pytest.approx(4, rel=0.2)
