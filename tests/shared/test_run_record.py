import dataclasses
import json

import pytest
import yaml
from transformers import TrainingArguments

from pretraining.run_mlm import DataArguments, ModelArguments, RunArguments
from shared.command_line import parse_arguments
from shared.errors import InputError
from shared.files import atomic_folder
from shared.training.arguments import REFUSED
from shared.training.card import draw_curve, readable
from shared.training.record import RunRecord, _without_secrets, recipe_of

# Flags that do what Trainer says; those with values that cannot work are refused by RunArguments.
WORKS = {
    "activation_checkpointing", "activation_checkpointing_kwargs", "adam_beta1", "adam_beta2", "adam_epsilon", "bf16",
    "bf16_full_eval", "data_seed", "dataloader_drop_last", "dataloader_num_workers", "dataloader_persistent_workers",
    "dataloader_pin_memory", "dataloader_prefetch_factor", "ddp_backend", "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_static_graph", "ddp_timeout", "debug", "deepspeed",
    "disable_tqdm", "do_eval", "do_predict", "do_train", "eval_accumulation_steps", "eval_delay", "eval_on_start",
    "eval_steps", "eval_strategy", "fp16", "fp16_full_eval", "full_determinism", "gradient_accumulation_steps",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "greater_is_better", "hub_model_id",
    "hub_private_repo", "hub_token", "include_num_input_tokens_seen", "label_smoothing_factor", "learning_rate",
    "load_best_model_at_end", "local_rank", "log_level", "log_level_replica", "log_on_each_node",
    "logging_first_step", "logging_nan_inf_filter", "logging_steps", "logging_strategy", "lr_scheduler_kwargs",
    "lr_scheduler_type", "max_grad_norm", "max_steps", "metric_for_best_model", "neftune_noise_alpha",
    "num_train_epochs", "optim", "optim_args", "optim_target_modules", "output_dir", "per_device_eval_batch_size",
    "per_device_train_batch_size", "project", "push_to_hub", "report_to", "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint", "run_name", "save_steps", "save_strategy", "save_total_limit", "seed",
    "skip_memory_metrics", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode",
    "torch_empty_cache_steps", "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id",
    "train_sampling_strategy", "use_cpu", "warmup_steps", "weight_decay",
}  # fmt: skip
TYPES = [ModelArguments, DataArguments, RunArguments]


def test_a_recipe_read_back_is_the_same(tmp_path):
    flags = ["--use_cpu", "--output_dir", str(tmp_path), "--learning_rate", "1e-5", "--train_file", "a", "b"]
    flags += ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 1e-6}']
    args = parse_arguments(TYPES, flags)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(*args)))
    again = parse_arguments(TYPES, ["--config", str(tmp_path / "recipe.yaml")])
    assert recipe_of(*again) == recipe_of(*args)
    assert again[2].learning_rate == 1e-5 and again[2].lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert again[1].train_file == ["a", "b"]
    assert recipe_of(*(kind() for kind in TYPES)) == {}


def test_secrets_are_never_written(tmp_path):
    args = parse_arguments(TYPES, ["--use_cpu", "--output_dir", str(tmp_path / "run"), "--hub_token", "hf_secret"])
    RunRecord(args[2], *args[:2])
    for file in (tmp_path / "run").iterdir():
        assert "hf_secret" not in file.read_text()
    words = ["run.py", "--hub_token", "hf_secret", "--hub-token=hf_secret", "--seed", "1"]
    assert _without_secrets(words) == ["run.py", "--hub_token", "***", "--hub-token=***", "--seed", "1"]


def test_the_record_leaves_the_process_group_alone(tmp_path):
    args = parse_arguments(TYPES, ["--use_cpu", "--output_dir", str(tmp_path / "run")])
    state = dict(vars(args[2].distributed_state))
    RunRecord(args[2], *args[:2])
    assert vars(args[2].distributed_state) == state and args[2].device.type == "cpu"


def test_checkpoints_that_are_not_there_are_refused(tmp_path):
    for wish in ("true", str(tmp_path)):
        flags = ["--use_cpu", "--output_dir", str(tmp_path / "run"), "--resume_from_checkpoint", wish]
        args = parse_arguments(TYPES, flags)
        with pytest.raises(InputError, match="--resume_from_checkpoint"):
            RunRecord(args[2], *args[:2])


def test_files_of_something_else_are_not_written_over(tmp_path):
    def begin(folder):
        args = parse_arguments(TYPES, ["--use_cpu", "--output_dir", str(folder)])
        return RunRecord(args[2], *args[:2])

    for name in ("README.md", "config.json", "checkpoint-7", "manifest.json"):
        folder = tmp_path / name.partition(".")[0]
        (folder / name).mkdir(parents=True) if name == "checkpoint-7" else folder.mkdir()
        if "." in name:
            (folder / name).write_text("{}")
        with pytest.raises(InputError, match=rf"--output_dir .*: holds files of something else \({name}\)"):
            begin(folder)
        assert [path.name for path in folder.iterdir()] == [name]

    moved = tmp_path / "moved"
    for step in (4, 8):
        (moved / f"checkpoint-{step}").mkdir(parents=True)
    (moved / "checkpoint-4" / "checkpoint.json").write_text("{}")  # so checkpoint-8 is one that lost its own
    with pytest.raises(InputError, match="no good checkpoint is left"):
        begin(moved)
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.txt").write_text("a log is not written over")
    begin(run)
    (run / ".lock").unlink()  # a copy of a run may lack it
    begin(run)
    (run / "manifest.json").write_text('{"hardware": ')
    with pytest.raises(InputError, match=r"manifest\.json: damaged .*; remove it"):
        begin(run)


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        ("--report_to no_such_reporter", "--report_to no_such_reporter: there are azure_ml, .*tensorboard"),
        ("--report_to neptune", "--report_to neptune: not installed; pip install neptune, or use --report_to none"),
        ("--optim adamw_bnb_8bit", "--optim adamw_bnb_8bit: .*bitsandbytes.*, or take adamw_torch"),
        ("--optim galore_adamw", "--optim galore_adamw: .*galore_torch"),
        ("--optim adalomo", "--optim adalomo: changes weights before"),
        ("--optim galore_adamw_layerwise", "--optim galore_adamw_layerwise: changes weights before"),
        ("--no_do_train", "--do_train false: evaluation/run_mlm_eval.py"),
        ("--do_predict", "--do_predict: there is nothing to predict"),
        ("--hub_strategy checkpoint", "--hub_strategy: what is pushed is the finished run; remove the flag"),
        ("--no_dataloader_in_order", "--dataloader_in_order false: the order"),
    ],
)
def test_flags_that_cannot_work_are_refused(tmp_path, flags, answer):
    with pytest.raises(InputError, match=answer):
        parse_arguments(TYPES, ["--use_cpu", "--output_dir", str(tmp_path), *flags.split()])


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        (["--max_steps", "0"], "--max_steps 0: must be at least 1; or leave the flag out"),
        (["--max_train_samples", "-5"], "--max_train_samples -5: must be at least 1"),
        (["--max_seq_length", "0"], "--max_seq_length 0: must be at least 1"),
        (["--save_total_limit", "0"], "--save_total_limit 0: must be at least 1; or leave the flag out"),
        (["--save_steps", "0"], "--save_steps 0.0: must be above 0"),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps 0: must be above 0"),
        (["--num_train_epochs", "0"], "--num_train_epochs 0.0: must be above 0"),
        (["--learning_rate", "-1"], "--learning_rate -1: must be 0 or more"),
        (["--learning_rate", "nan"], "--learning_rate nan: must be"),
        (["--weight_decay", "-0.1"], "--weight_decay -0.1: must be 0 or more"),
        (["--adam_beta2", "1.5"], "--adam_beta2 1.5: must be 0 or more, and below 1"),
        (["--max_hours", "nan"], "--max_hours nan: must be a finite number"),
        (["--max_grad_norm", "inf"], "--max_grad_norm inf: must be"),
        (["--seed", "-1"], "--seed -1: must be from 0 to 4294967295"),
        (["--lr_scheduler_kwargs", "{bad"], "{bad: not valid JSON, as the flag wants it"),
    ],
)
def test_a_number_that_its_flag_cannot_mean_is_refused(tmp_path, flags, answer):
    with pytest.raises(InputError, match=answer):
        parse_arguments(TYPES, ["--use_cpu", "--output_dir", str(tmp_path), *flags])


@pytest.mark.parametrize("folder", ["file", "file/run", "/proc/run"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, folder):
    (tmp_path / "file").write_text("mine")
    args = parse_arguments(TYPES, ["--use_cpu", "--output_dir", str(tmp_path / folder)])
    with pytest.raises(InputError, match=r"--output_dir .* cannot be written \(.*\); name another folder"):
        RunRecord(args[2], *args[:2])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("shared.files.CACHE", tmp_path / "file")
    with (
        pytest.raises(InputError, match=r"TINY_OLM_CACHE .* cannot be written"),
        atomic_folder(tmp_path / "file" / "x"),
    ):
        pass


def test_flags_of_a_new_model_that_contradict_the_checkpoint_are_refused(tmp_path):
    config = {"model_type": "modernbert", "num_hidden_layers": 4, "hidden_size": 256, "vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = ["--use_cpu", "--output_dir", str(tmp_path / "run"), "--model_name_or_path", str(tmp_path)]
    same = ["--model_type", "modernbert", "--model_size", "mini", "--vocab_size", "300"]
    parse_arguments(TYPES, [*source, *same])
    for name, value, default in (("type", "roberta", "bert"), ("size", "base", "tiny")):
        with pytest.raises(InputError, match=f"--model_{name} {value}: .* with --model_{name} {default}"):
            parse_arguments(TYPES, [*source, f"--model_{name}", value])
        parse_arguments(TYPES, [*source, f"--model_{name}", value, f"--model_{name}", default])  # as the message says
    with pytest.raises(InputError, match=r"--vocab_size 99: .* is 300"):
        parse_arguments(TYPES, [*source, "--vocab_size", "99"])


def test_every_flag_of_trainer_is_known():
    """`WORKS` was read in Trainer; a flag of another version of transformers is in none of the lists."""
    flags = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert flags - WORKS - REFUSED.keys() == set()
    assert not WORKS & REFUSED.keys()


def test_curve_needs_something_to_draw(tmp_path):
    draw_curve([{"step": 1, "grad_norm": 2.0}], tmp_path / "none.png", "loss")
    draw_curve([{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.0}], tmp_path / "some.png", "loss")
    assert [path.name for path in tmp_path.iterdir()] == ["some.png"]


def test_readable():
    assert [readable(x) for x in (30720, 6726.1, 0.11618, 4.0)] == ["30,720", "6,726", "0.1162", "4"]
