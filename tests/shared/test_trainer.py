"""What ExactTrainer promises, on tiny models in this process."""

import json
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tasks import CASES, TASKS, collate, make_arguments, make_model, make_samples, make_trainer
from transformers import EarlyStoppingCallback, TrainerCallback

from shared.errors import InputError, RunError
from shared.loss import WeightedLoss
from shared.training.card import draw_curve
from shared.training.checkpoints import checkpoints, verify

BATCH = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
# 17 samples, 8 a step: epochs of three steps. Seven steps end in an epoch's middle.
SAVING = BATCH | {"max_steps": 7, "save_strategy": "steps", "save_steps": 1}


class At(TrainerCallback):
    """Does something when a step ends."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def weights(trainer):
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def resume(folder, step, target, task, model_type, dropout=0.1, callbacks=(), **changes):
    """Go on from a copy of one checkpoint."""
    target.mkdir()
    checkpoint = shutil.copytree(folder / f"checkpoint-{step}", target / f"checkpoint-{step}")
    torch.manual_seed(step)  # whatever the state of the generators
    trainer = make_trainer(
        make_arguments(target, **SAVING | changes), task, model_type, dropout, callbacks=list(callbacks)
    )
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer


@pytest.mark.parametrize(
    ("task", "model_type"),
    [
        pytest.param(task, model, marks=() if task == "masked_lm" or model == "bert" else pytest.mark.faults)
        for task, model in CASES
    ],
)
def test_resume_is_exact_from_every_step(tmp_path, task, model_type):
    whole = make_trainer(make_arguments(tmp_path / "whole", **SAVING), task, model_type, dropout=0.1)
    start = weights(whole)
    whole.train()
    expected = weights(whole)
    assert not same(start, expected)
    for step in (1, 3, 4, 6):  # in the first epoch, at its edge, behind it, at the next edge
        resumed = resume(tmp_path / "whole", step, tmp_path / str(step), task, model_type)
        assert same(weights(resumed), expected), f"from step {step}"


def test_dropout_is_at_work(tmp_path):
    """Or the test above would show less than it says."""
    ends = [make_trainer(make_arguments(tmp_path, **BATCH), "single_label", "bert", p) for p in (0.0, 0.1)]
    for trainer in ends:
        trainer.train()
    assert not same(*map(weights, ends))


@pytest.mark.parametrize("changes", [{"dataloader_num_workers": 2}, {"train_sampling_strategy": "group_by_length"}])
def test_resume_is_exact_with_workers_and_with_grouping(tmp_path, changes):
    from datasets import Dataset

    samples = make_samples("single_label")
    rows = {"input_ids": [s["input_ids"].tolist() for s in samples], "labels": [int(s["labels"]) for s in samples]}
    rows |= {"length": [len(ids) for ids in rows["input_ids"]], "text": ["not a column of the model"] * len(samples)}
    dataset = Dataset.from_dict(rows).with_format("torch")

    def train(folder, checkpoint=None):
        args = make_arguments(folder, **SAVING | changes)
        trainer = make_trainer(args, "single_label", "bert", 0.1, samples=dataset)
        trainer.train(resume_from_checkpoint=checkpoint)
        return weights(trainer)

    expected = train(tmp_path / "whole")
    for step in (1, 3, 5):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / str(step) / f"checkpoint-{step}")
        assert same(train(tmp_path / str(step), str(tmp_path / str(step) / f"checkpoint-{step}")), expected)


def test_another_split_goes_on_with_the_same_samples(tmp_path):
    make_trainer(make_arguments(tmp_path / "whole", **SAVING), "masked_lm", "bert").train()
    other = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    resumed = resume(tmp_path / "whole", 4, tmp_path / "other", "masked_lm", "bert", dropout=0.0, **other)
    history = json.loads((tmp_path / "whole" / "checkpoint-7" / "trainer_state.json").read_text())["log_history"]
    for ours, theirs in zip(resumed.state.log_history[4:7], history[4:7], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


@pytest.mark.parametrize("max_steps", [6, 7])
def test_a_finished_checkpoint_is_not_trained_on(tmp_path, max_steps):
    whole = make_trainer(make_arguments(tmp_path / "whole", **SAVING | {"max_steps": max_steps}), "regression", "bert")
    whole.train()
    resumed = resume(tmp_path / "whole", max_steps, tmp_path / "again", "regression", "bert", 0.0, max_steps=max_steps)
    assert same(weights(resumed), weights(whole)) and resumed.state.global_step == max_steps


CONSTANT = {"lr_scheduler_type": "constant", "save_steps": 3}


def test_a_finished_run_can_be_prolonged(tmp_path):
    changes = SAVING | CONSTANT
    whole = make_trainer(make_arguments(tmp_path / "w", **changes | {"max_steps": 9}), "single_label", "bert", 0.1)
    whole.train()
    make_trainer(make_arguments(tmp_path / "s", **changes | {"max_steps": 6}), "single_label", "bert", 0.1).train()
    longer = resume(tmp_path / "s", 6, tmp_path / "l", "single_label", "bert", max_steps=9, **CONSTANT)
    assert longer.state.global_step == 9 and same(weights(longer), weights(whole))


def test_accepted_changes_take_effect(tmp_path):
    make_trainer(make_arguments(tmp_path / "w", **SAVING), "single_label", "bert").train()
    new = {"learning_rate": 1e-4, "weight_decay": 0.5, "adam_beta2": 0.9, "save_steps": 3}
    changed = resume(tmp_path / "w", 3, tmp_path / "c", "single_label", "bert", 0.0, accept_changes=True, **new)
    rates = [row["learning_rate"] for row in changed.state.log_history if "learning_rate" in row][3:]
    assert rates == pytest.approx([1e-4 * left / 7 for left in (4, 3, 2, 1)])
    groups = changed.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, 0.5} and groups[0]["betas"] == (0.9, 0.9)
    assert {path.name for path in (tmp_path / "c").iterdir()} == {f"checkpoint-{k}" for k in (3, 6, 7)}


def test_a_signal_keeps_the_newest_checkpoint_beside_the_best(tmp_path):
    changes = SAVING | EVALUATING | {"eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 1}
    trainer = make_trainer(
        make_arguments(tmp_path, **changes), "single_label", "bert", eval_dataset=make_samples("single_label"),
        callbacks=[At(3, lambda: os.kill(os.getpid(), signal.SIGTERM))],
    )  # fmt: skip
    evaluate_by_list(trainer, [0.1, 0.5, *[0.2] * 9])
    with pytest.raises(SystemExit):
        trainer.train()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fp16": True}, "--fp16: CPUs have none"),
        ({"auto_find_batch_size": True}, "depend on the memory"),
        ({"train_sampling_strategy": "batch_rebalance"}, "not in this repository"),
        ({"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1,
          "save_steps": 2}, "the best step may have no checkpoint"),
        *(({"load_best_model_at_end": True, "eval_strategy": evaluates, "save_strategy": saves},
           f"--eval_strategy {evaluates}, --save_strategy {saves}: .*say --eval_strategy epoch --save_strategy epoch")
          for evaluates, saves in (("no", "steps"), ("no", "no"), ("no", "best"), ("epoch", "steps"))),
    ],
)  # fmt: skip
def test_arguments_that_break_a_promise_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        make_arguments(tmp_path, **changes)


def test_precision_comes_from_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(InputError, match=r"ACCELERATE_MIXED_PRECISION=bf16: precision .* into the recipe"):
        make_arguments(tmp_path)


EVALUATING = {"metric_for_best_model": "score", "greater_is_better": True, "load_best_model_at_end": True}
SCORES = [0.1, 0.5, 0.3, 0.2, 0.4, 0.9, 0.9]  # the best of three in a row is never beaten: it stops at the fifth


def evaluate_by_list(trainer, scores):
    """The scores of the list, in the place of an evaluation."""

    def evaluate(*_, **__):
        index = trainer.state.global_step if trainer.args.eval_strategy == "steps" else round(trainer.state.epoch)
        metrics = {"eval_score": scores[index - 1]}
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        return metrics

    trainer.evaluate = evaluate


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_early_stopping_survives_a_kill(tmp_path, strategy):
    unit = 1 if strategy == "steps" else 3
    changes = SAVING | EVALUATING | {"max_steps": 7 * unit, "save_steps": 1, "eval_steps": 1}
    changes |= {"eval_strategy": strategy, "save_strategy": strategy}

    def train(folder, checkpoint=None):
        trainer = make_trainer(
            make_arguments(folder, **changes), "single_label", "bert", 0.1,
            eval_dataset=make_samples("single_label"), callbacks=[EarlyStoppingCallback(3)],
        )  # fmt: skip
        evaluate_by_list(trainer, SCORES)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.state.global_step, weights(trainer)

    steps, expected = train(tmp_path / "whole")
    assert steps == 5 * unit
    for step in range(2 * unit, 5 * unit + 1, unit):  # the last one was saved when it had already stopped
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "whole", folder)
        for later in range(step + unit, 5 * unit + 1, unit):
            shutil.rmtree(folder / f"checkpoint-{later}")
        found, ours = train(folder, str(folder / f"checkpoint-{step}"))
        assert found == 5 * unit and same(ours, expected), f"from step {step}"


def test_the_best_checkpoint_is_verified_before_it_is_loaded(tmp_path):
    changes = SAVING | EVALUATING | {"eval_strategy": "steps", "eval_steps": 1}
    args = make_arguments(tmp_path, **changes)

    def damage():
        with open(tmp_path / "checkpoint-2" / "model.safetensors", "r+b") as file:
            file.seek(300)
            file.write(b"\x55\x55")

    trainer = make_trainer(
        args, "single_label", "bert", eval_dataset=make_samples("single_label"), callbacks=[At(5, damage)]
    )
    evaluate_by_list(trainer, [0.1, 0.5, *[0.2] * 9])
    with pytest.raises(InputError, match=r"checkpoint-2/model.safetensors: altered"):
        trainer.train()


def samples_with(task, rows, value):
    samples = make_samples(task)
    for row in rows:
        samples[row]["labels"] = torch.full_like(samples[row]["labels"], value)
    return samples


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    samples = samples_with("regression", [11], np.inf)
    trainer = make_trainer(make_arguments(tmp_path, **SAVING), "regression", "bert", samples=samples)
    with pytest.raises(RunError, match=r"step \d: loss inf") as raised:
        trainer.train()
    step = int(str(raised.value).split("step ")[1].split(":")[0])
    named = json.loads(str(raised.value).split("Samples: ")[1])
    assert 11 in named and sorted(named) == sorted(trainer.order.step_rows(step - 1).tolist())
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{k}" for k in range(step - 1, 0, -1)]


def test_a_step_without_a_target_has_no_loss_and_no_gradient(tmp_path):
    samples = samples_with("token_classification", range(17), -100)
    trainer = make_trainer(make_arguments(tmp_path, **SAVING), "token_classification", "bert", samples=samples)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert {(row["loss"], row["grad_norm"]) for row in rows} == {(0, 0)}


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_of_an_evaluation_is_that_of_batch_size_1(tmp_path, task):
    """Whatever the batch size: the sum over targets, each sample alone as the reference, by their number."""
    samples = make_samples(task)
    if task in ("masked_lm", "token_classification"):  # one batch, or the only sample of it, has no target
        for sample in samples[-3:]:
            sample["labels"] = torch.full_like(sample["labels"], -100)
    total, count = 0.0, 0
    found = []
    for size in (1, 2, 5, 17):
        args = make_arguments(tmp_path, per_device_eval_batch_size=size)
        args.label_names, args.remove_unused_columns = ["labels"], False
        trainer = make_trainer(args, task, "bert", eval_dataset=samples)
        found.append(trainer.evaluate()["eval_loss"])
    for sample in samples:
        batch = trainer.data_collator([sample])
        labels = batch.pop("labels")
        targets = int((labels != -100).sum())
        with torch.no_grad():
            if targets:
                total += float(TASKS[task][1](trainer.model.eval()(**batch), labels)) * targets
        count += targets
    assert found == pytest.approx([total / count] * 4, rel=1e-6)


def test_the_weights_of_a_checkpoint_must_be_those_of_the_model(tmp_path, caplog):
    """Of a tied weight that is saved once nothing is said."""
    args = make_arguments(tmp_path / "run", **SAVING)
    trainer = make_trainer(args, "masked_lm", "modernbert")
    trainer.train()
    checkpoint = checkpoints(tmp_path / "run")[0]
    args = make_arguments(tmp_path / "again", **SAVING | {"max_steps": 8})
    assert "decoder.weight" not in load_file(checkpoint / "model.safetensors")
    make_trainer(args, "masked_lm", "modernbert").train(resume_from_checkpoint=str(checkpoint))
    assert "missing keys" not in caplog.text
    with pytest.raises(RunError, match=r"checkpoint and the model differ in .* weights"):
        make_trainer(args, "single_label", "modernbert").train(resume_from_checkpoint=str(checkpoint))


def test_samples_without_a_length_cannot_be_grouped_by_it(tmp_path):
    with pytest.raises(InputError, match=r"group_by_length: these data have no column length.*use .* random"):
        make_trainer(make_arguments(tmp_path, train_sampling_strategy="group_by_length"), "single_label", "bert")


def test_bad_steps_are_skipped_and_counted_if_the_recipe_says_so(tmp_path):
    def train(folder, bad, checkpoint=None):
        changes = SAVING | {"max_steps": 9, "skip_nonfinite_steps": True}
        samples = samples_with("regression", bad, np.nan)
        trainer = make_trainer(make_arguments(folder, **changes), "regression", "bert", 0.1, samples=samples)
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        assert all(torch.isfinite(weight).all() for weight in weights(trainer).values()) and np.isfinite(losses).all()
        return metrics["skipped_steps"], weights(trainer)

    assert train(tmp_path / "good", [])[0] == 0
    skipped, expected = train(tmp_path / "bad", [11])
    assert skipped == 3  # once in each epoch
    checkpoint = shutil.copytree(tmp_path / "bad" / "checkpoint-5", tmp_path / "again" / "checkpoint-5")
    again = train(tmp_path / "again", [11], str(checkpoint))
    assert again[0] == 3 and same(again[1], expected)


def test_weights_that_are_not_numbers_are_never_saved(tmp_path):
    def spoil():
        with torch.no_grad():
            trainer.model.classifier.weight[0, 0] = float("nan")

    args = make_arguments(tmp_path, **SAVING)
    trainer = make_trainer(args, "single_label", "bert", callbacks=[At(3, spoil)])
    with pytest.raises(RunError, match=r"step 3: classifier.weight is not finite"):
        trainer.train()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-1"]


def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        trainer = make_trainer(
            make_arguments(tmp_path, **SAVING), "single_label", "bert",
            callbacks=[At(2, lambda: os.kill(os.getpid(), signal.SIGHUP))],
        )  # fmt: skip
        trainer.train()
        assert trainer.state.global_step == trainer.state.max_steps
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("step", [2, 3])
def test_a_signal_finishes_the_step_and_saves(tmp_path, capsys, number, code, step):
    changes = SAVING | {"save_strategy": "no", "eval_strategy": "epoch"}

    def train(folder, checkpoint=None, callbacks=()):
        trainer = make_trainer(
            make_arguments(folder, **changes), "single_label", "bert", 0.1,
            eval_dataset=make_samples("single_label"), callbacks=list(callbacks),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=checkpoint)
        return weights(trainer), [row for row in trainer.state.log_history if "eval_loss" in row]

    expected, evaluations = train(tmp_path / "whole")
    ours = signal.signal(number, signal.default_int_handler)  # under nohup SIGHUP is ignored
    try:
        with pytest.raises(SystemExit) as raised:
            train(tmp_path / "r", callbacks=[At(step - 1, lambda: os.kill(os.getpid(), number))])
        assert raised.value.code == code and signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, ours)
    assert [path.name for path in checkpoints(tmp_path / "r")] == [f"checkpoint-{step}"]
    assert f"Saved checkpoint-{step}" in capsys.readouterr().out
    resumed, evaluations_again = train(tmp_path / "r", str(tmp_path / "r" / f"checkpoint-{step}"))
    assert same(resumed, expected)
    keys = ("step", "eval_loss")
    assert [[e[k] for k in keys] for e in evaluations_again] == [[e[k] for k in keys] for e in evaluations]


def test_a_full_disk_leaves_the_old_checkpoints(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    args = make_arguments(tmp_path, **SAVING)
    trainer = make_trainer(
        args, "single_label", "bert",
        callbacks=[At(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)))],
    )  # fmt: skip
    try:
        with pytest.raises(RunError, match=r"checkpoint-3: could not be written .* older checkpoints are untouched"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    assert all(verify(path) for path in checkpoints(tmp_path))


def test_no_pickled_arguments_anywhere(tmp_path):
    trainer = make_trainer(make_arguments(tmp_path, **SAVING), "single_label", "bert")
    trainer.train()
    trainer.save_model()
    names = {path.name for path in tmp_path.rglob("*")}
    assert "training_args.bin" not in names and not any(name.startswith("rng_state") for name in names)


def test_too_few_samples_for_a_step(tmp_path):
    args = make_arguments(tmp_path, **BATCH | {"dataloader_drop_last": True})
    trainer = make_trainer(args, "single_label", "bert", samples=make_samples("single_label", 5))
    with pytest.raises(InputError, match="5 training samples: fewer than a step reads"):
        trainer.train()


def test_the_tasks_are_what_they_say():
    batch = collate(make_samples("token_classification")[:5])
    counts = (batch["labels"] != -100).sum(1)
    assert counts.max() >= 5 * counts.min()
    assert make_model("masked_lm", "modernbert").config.model_type == "modernbert"


@pytest.mark.parametrize("steps", [2, 4, 9])
def test_on_a_gpu_a_bad_step_is_found_one_step_later_and_never_saved(tmp_path, steps):
    samples = samples_with("regression", [11], np.nan)  # in one of the three steps of each epoch
    args = make_arguments(tmp_path / "now", **SAVING | {"max_steps": steps, "save_steps": 1})
    errors = []
    for name in ("now", "late"):
        args.output_dir = str(tmp_path / name)
        trainer = make_trainer(args, "regression", "bert", samples=samples)
        trainer.reads_late = name == "late"
        with pytest.raises(RunError, match=r"^step \d: loss nan") as error:
            trainer.train()
        errors.append(str(error.value))
        assert sorted(path.name for path in (tmp_path / name).glob("checkpoint-*")) == [
            f"checkpoint-{step}" for step in range(1, int(errors[0][5]))
        ]
    assert errors[0] == errors[1]


def test_on_a_gpu_a_signal_is_obeyed_one_step_later(tmp_path):
    args = make_arguments(tmp_path, **SAVING | {"max_steps": 9})
    trainer = make_trainer(
        args, "single_label", "bert", callbacks=[At(3, lambda: os.kill(os.getpid(), signal.SIGTERM))]
    )
    trainer.reads_late = True
    with pytest.raises(SystemExit) as stop:
        trainer.train()
    assert stop.value.code == 143 and trainer.saved_step == trainer.state.global_step in (4, 5)


@pytest.mark.parametrize("logging_steps", [2, 100])
def test_the_mean_loss_of_a_resumed_run_is_that_of_all_its_steps(tmp_path, logging_steps):
    """Right is the mean of the losses of every step, as a run that logs each of them says."""
    changes = SAVING | {"logging_steps": logging_steps, "max_steps": 21, "save_steps": 5}
    each = make_trainer(make_arguments(tmp_path / "each", **changes | {"logging_steps": 1}), "single_label", "bert")
    each.train()
    losses = [row["loss"] for row in each.state.log_history if "loss" in row]
    assert len(losses) == 21

    def logged(trainer):
        return np.array([(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row])

    whole = make_trainer(make_arguments(tmp_path / "whole", **changes), "single_label", "bert")
    assert whole.train().metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    for step in (5, 20, 21):  # between two logs, at one, and when there is nothing left to do
        folder = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
        assert state["logging_steps"] == logging_steps  # the flag, or Trainer would warn of a change
        trainer = make_trainer(make_arguments(folder, **changes), "single_label", "bert")
        metrics = trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}")).metrics
        assert metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-6)
        assert logged(trainer) == pytest.approx(logged(whole), rel=1e-6)


@pytest.mark.parametrize(("steps", "expected"), [(1, [1]), (7, [*range(1, 8)]), (50, [*range(5, 51, 5)])])
def test_a_short_run_leaves_a_curve(tmp_path, steps, expected):
    args = make_arguments(tmp_path, logging_steps=500, max_steps=steps)
    trainer = make_trainer(args, "single_label", "bert")
    trainer.train()
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == expected
    draw_curve(trainer.state.log_history, tmp_path / "curve.png", "loss")
    assert (tmp_path / "curve.png").is_file()


def test_evaluation_reads_every_row_though_training_drops_some(tmp_path):
    args = make_arguments(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=4, max_steps=1)
    args.per_device_eval_batch_size = 8  # 17 samples: the last batch has one
    trainer = make_trainer(args, "single_label", "bert", eval_dataset=make_samples("single_label"))
    assert len(trainer.predict(make_samples("single_label")).predictions) == 17
    assert sum(len(batch["labels"]) for batch in trainer.get_eval_dataloader()) == 17
    assert args.dataloader_drop_last and len(trainer.get_train_dataloader()) == 4


@pytest.mark.parametrize("multi", [False, True])
def test_the_gradient_of_a_weighted_loss_does_not_depend_on_how_a_step_is_split(tmp_path, multi):
    task = "multi_label" if multi else "single_label"
    weights = [0.2, 1.0, 5.0, 2.0][: 4 if multi else 3]
    found = []
    for size, accumulation in ((8, 1), (2, 4), (1, 8)):
        args = make_arguments(
            tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, max_steps=4
        )
        loss = WeightedLoss(weights, 0.0 if multi else 0.1, 2.0, multi)
        trainer = make_trainer(args, task, "bert", loss=loss)
        trainer.train()
        found.append([[r["loss"], r["grad_norm"]] for r in trainer.state.log_history if "grad_norm" in r])
    assert np.allclose(found[0], found[1], rtol=1e-5) and np.allclose(found[0], found[2], rtol=1e-5)


@pytest.mark.parametrize("flag", ["label_smoothing_factor", "prediction_loss_only", "batch_eval_metrics"])
def test_flags_that_no_loss_or_score_here_can_follow_are_refused(tmp_path, flag):
    with pytest.raises(InputError, match=f"--{flag}: .*; remove the flag"):
        make_arguments(tmp_path, **{flag: 0.1})
