import pytest
import yaml

from pretraining.run_mlm import DataArguments, ModelArguments, RunArguments
from shared.command_line import parse_arguments
from shared.errors import InputError
from shared.training.card import draw_curve, readable
from shared.training.record import RunRecord, _without_secrets, recipe_of

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


def test_missing_reporter_is_refused(tmp_path):
    args = parse_arguments(TYPES, ["--use_cpu", "--output_dir", str(tmp_path), "--report_to", "no_such_reporter"])
    with pytest.raises(InputError, match="pip install no_such_reporter"):
        RunRecord(args[2], *args[:2])


def test_curve_needs_something_to_draw(tmp_path):
    draw_curve([{"step": 1, "grad_norm": 2.0}], tmp_path / "none.png", "loss")
    draw_curve([{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.0}], tmp_path / "some.png", "loss")
    assert [path.name for path in tmp_path.iterdir()] == ["some.png"]


def test_readable():
    assert [readable(x) for x in (30720, 6726.1, 0.11618, 4.0)] == ["30,720", "6,726", "0.1162", "4"]
