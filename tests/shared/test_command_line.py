import ast
import dataclasses
import importlib
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT

from shared.command_line import check_ranges, parse_arguments
from shared.errors import InputError
from shared.training.arguments import RunArguments


def test_a_budget_takes_the_place_of_that_of_a_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("num_train_epochs: 7\noutput_dir: out\nuse_cpu: true\n")
    words = ["--config", str(path)]
    assert parse_arguments((RunArguments,), words)[0].num_train_epochs == 7
    for flag in ("max_steps", "max_tokens", "max_hours"):
        args = parse_arguments((RunArguments,), [*words, f"--{flag}", "5"])[0]
        assert getattr(args, flag) == 5 and args.num_train_epochs == RunArguments.num_train_epochs


def test_a_list_that_is_given_twice_is_refused():
    assert parse_arguments((Arguments,), ["--files", "a", "b", "--offset", "1", "--offset", "2"])[0].offset == 2
    with pytest.raises(InputError, match="--files: is given twice, and the last would win; name all its values after"):
        parse_arguments((Arguments,), ["--files", "a", "--files=b"])


@dataclass
class Arguments:
    learning_rate: float = 5e-5
    eval_strategy: str = "steps"
    bf16: bool = False
    prefetch: bool = True
    offset: int = 0
    files: list[str] = field(default_factory=list)
    warmup_steps: float = 0
    max_steps: int = -1


def write(path, text):
    path.write_text(text)
    return str(path)


def test_recipe_values_keep_their_types(tmp_path):
    recipe = "learning_rate: 1e-4\neval_strategy: no\nbf16: true\nprefetch: false\noffset: -3\nfiles: [a, b]\n"
    (args,) = parse_arguments([Arguments], ["--config", write(tmp_path / "r.yaml", recipe)])
    assert args == Arguments(1e-4, "no", True, False, -3, ["a", "b"])


def test_later_recipes_win_and_flags_win_over_recipes(tmp_path):
    one = write(tmp_path / "one.yaml", "offset: 1\nlearning_rate: 1\nfiles: [a, b]\n")
    two = write(tmp_path / "two.yaml", "offset: 2\nfiles: [c]\n")
    (args,) = parse_arguments([Arguments], ["--config", one, two, "--learning_rate", "3", "--no_prefetch"])
    assert (args.offset, args.learning_rate, args.files, args.prefetch) == (2, 3.0, ["c"], False)


def test_a_file_given_as_a_flag_takes_the_place_of_the_dataset_of_a_recipe(tmp_path):
    fields = [(name, str, None) for name in ("dataset_name", "dataset_config_name", "train_file", "test_file")]
    kind = dataclasses.make_dataclass("Data", [*fields, ("offset", int, 0)])
    recipe = ["--config", write(tmp_path / "r.yaml", "dataset_name: d\ndataset_config_name: c\noffset: 3\n")]
    files = ["--config", write(tmp_path / "f.yaml", "train_file: a\ntest_file: b\n")]
    found = [parse_arguments([kind], words)[0] for words in (recipe, [*recipe, "--train-file=x"])]
    assert found == [kind("d", "c", offset=3), kind(None, None, "x", offset=3)]
    assert parse_arguments([kind], [*files, "--dataset_name", "mine"])[0] == kind("mine")
    assert parse_arguments([kind], [*recipe, *files[1:]])[0] == kind("d", "c", "a", "b", 3)  # not of another recipe


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("learning_rat", "did you mean learning_rate?"),
        ("evaluation_strategy", "use eval_strategy"),
        ("warmup_ratio", "use warmup_steps"),
        ("save_safetensors", "remove it"),
        ("text_column_name", "see --help"),  # text_column, where there is one
    ],
)
def test_unknown_keys_name_the_right_one(tmp_path, key, hint):
    with pytest.raises(InputError, match=re.escape(hint)):
        parse_arguments([Arguments], ["--config", write(tmp_path / "r.yaml", f"{key}: 1")])
    with pytest.raises(InputError, match=re.escape(hint)):
        parse_arguments([Arguments], [f"--{key}", "1"])


@pytest.mark.parametrize("recipe", ["offset:", "offset: {a: 1}", "- offset", "offset: [", "files: []"])
def test_malformed_recipes_are_refused(tmp_path, recipe):
    with pytest.raises(InputError, match=r"r\.yaml"):
        parse_arguments([Arguments], ["--config", write(tmp_path / "r.yaml", recipe)])


def test_a_key_given_twice_and_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"r\.yaml: .*offset is given twice, the second time in line 3"):
        parse_arguments([Arguments], ["--config", write(tmp_path / "r.yaml", "offset: 1\nfiles: [a]\noffset: 2\n")])
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"r\.yaml: not valid YAML"):
        parse_arguments([Arguments], ["--config", str(tmp_path / "r.yaml")])


def test_wrong_types_exit_with_2_and_name_their_recipe(tmp_path, capsys):
    recipe = write(tmp_path / "r.yaml", "offset: many")
    for words, place in ((["--config", recipe], f"{recipe}: "), (["--learning_rate", "low"], "")):
        with pytest.raises(SystemExit) as exit:
            parse_arguments([Arguments], words)
        assert exit.value.code == 2 and f"error: {place}argument --" in capsys.readouterr().err


def test_values_outside_of_their_ranges_are_refused():
    args = SimpleNamespace(share=0.5, shares=[0.1, 1.0], count=None, nothing=float("nan"))
    check_ranges(args, share="> 0, < 1", shares="> 0, <= 1", count=">= 1")
    for ranges, message in (
        ({"share": "> 0.5, <= 1"}, "--share 0.5: must be above 0.5 and at most 1"),
        ({"shares": ">= 0, < 1"}, "--shares 1.0: must be at least 0 and below 1"),
        ({"nothing": ">= 0"}, "--nothing nan: must be at least 0"),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            check_ranges(args, **ranges)


def test_no_flags_run_the_default_recipe_and_say_so(tmp_path, capsys):
    (args,) = parse_arguments([Arguments], [], write(tmp_path / "default.yaml", "offset: 7"))
    assert args.offset == 7 and "default.yaml" in capsys.readouterr().out.splitlines()[0]


def test_missing_recipe_is_named():
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        parse_arguments([Arguments], ["--config", "nowhere.yaml"])


def script_arguments(script):
    """The dataclasses of a script, as its last line hands them to run_script."""
    calls = (node for node in ast.walk(ast.parse(Path(script).read_text())) if isinstance(node, ast.Call))
    call = next(node for node in calls if ast.unparse(node.func) == "run_script")
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    return [getattr(module, ast.unparse(argument)) for argument in call.args[1:]]


RECIPES = sorted(ROOT.glob("*/recipes/*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse_and_follow_the_rules(recipe):
    lines = recipe.read_text().splitlines()
    script = re.search(r"\w+/\w+\.py", recipe.read_text())[0]
    kinds = script_arguments(script)
    required = {"output_dir": "out"} if script.startswith(("data_prep/", "evaluation/")) else {}
    if any("models" in kind.__dataclass_fields__ for kind in kinds):
        required["models"] = "m"
    if script == "evaluation/make_report.py":  # which needs one result at least
        required["pretraining"] = "x"
    # A recipe with bf16 is refused without a GPU.
    use_cpu = ["--use_cpu"] if script == "pretraining/run_mlm.py" else []
    keys = [line.split(":")[0] for line in lines if re.match(r"\w+:", line)]
    missing = [f"--{name}={value}" for name, value in required.items() if name not in keys]
    args = parse_arguments(kinds, ["--config", str(recipe), *missing, *use_cpu])
    defaults = parse_arguments(kinds, [f"--{name}={value}" for name, value in required.items()])
    assert lines[0].startswith("# ") and len(lines) <= 40
    assert len(keys) == len(set(keys))
    for key in keys:
        if key in required:
            continue
        (owner,) = [a for a in args if hasattr(a, key)]
        (default,) = [a for a in defaults if hasattr(a, key)]
        assert getattr(owner, key) != getattr(default, key), f"{key} equals its default: leave it out"


def commands():
    """Every command line with one of our scripts in a page, recipe or script docstring."""
    patterns = ("*.md", "*/README.md", "*/RESULTS.md", "*/recipes/*.yaml", "*/*.py", "*/*/*.py")
    for file in [file for pattern in patterns for file in ROOT.glob(pattern)]:
        text = file.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            found = re.search(
                r"(?:^[#\s$]*|`)((?:accelerate launch|python) (?:[^\s`]+ )*?(\w+(?:/\w+)+\.py)\b[^`]*)", line
            )
            if found and file.relative_to(ROOT).parts[0] != "tests":
                yield pytest.param(found[1], found[2], id=f"{file.relative_to(ROOT)}: {found[1]}")


@pytest.mark.parametrize(("command", "script"), list(commands()))
def test_documented_commands_parse(command, script):
    words = shlex.split(command, comments=True)
    flags = words[words.index(script) + 1 :]
    if flags:  # use_cpu, because a recipe with bf16 is refused where there is no GPU
        parse_arguments(script_arguments(script), flags + ["--use_cpu"] * (script == "pretraining/run_mlm.py"))
    for i, word in enumerate(words):
        if word in ("--config", "--config_file"):
            assert (ROOT / words[i + 1]).is_file()


LAUNCH_FILES = sorted((ROOT / "shared" / "launch").glob("*.yaml"))
# What a launch file may hold: where to run, and what is put in the place of "auto" from the recipe.
PLACES = {"compute_environment", "distributed_type", "num_machines", "num_processes", "use_cpu", "deepspeed_config"}
SHARING = {"stage", "overlap_comm", "stage3_gather_16bit_weights_on_model_save", "offload_optimizer", "offload_param"}


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda path: path.stem)
def test_launch_files_hold_no_number_that_changes_a_result(file):
    config = yaml.safe_load(file.read_text())
    assert set(config) <= PLACES
    assert str(file.relative_to(ROOT)) in file.read_text().splitlines()[1]  # the command names this very file
    assert (config["distributed_type"] == "DEEPSPEED") == ("deepspeed_config" in config)
    if "deepspeed_config" in config:
        assert config["deepspeed_config"].keys() == {"deepspeed_config_file", "zero3_init_flag"}
        settings = json.loads((ROOT / config["deepspeed_config"]["deepspeed_config_file"]).read_text())
        sharing = settings.pop("zero_optimization")
        assert set(sharing) <= SHARING and sharing["stage"] == int(file.stem[len("zero")])
        assert sharing["stage"] != 3 or sharing["stage3_gather_16bit_weights_on_model_save"]
        assert settings.pop("zero_force_ds_cpu_optimizer", False) is False
        assert settings.pop("bf16") == settings.pop("fp16") == {"enabled": "auto"}
        assert settings and set(settings.values()) == {"auto"}


@pytest.mark.parametrize(
    "recipe", [path for path in RECIPES if path.parts[-3] == "pretraining"], ids=lambda path: path.stem
)
def test_no_launch_file_contradicts_a_recipe(recipe):
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    script = re.search(r"pretraining/\w+\.py", recipe.read_text())[0]
    *_, args = parse_arguments(script_arguments(script), ["--config", str(recipe), "--use_cpu"])
    for file in (ROOT / "shared" / "launch").glob("*.json"):
        config = HfTrainerDeepSpeedConfig(str(file))
        config.trainer_config_process(args)
        assert config.mismatches == []
        assert config.get_value("gradient_clipping") == args.max_grad_norm
        assert config.get_value("gradient_accumulation_steps") == args.gradient_accumulation_steps
        assert config.get_value("bf16.enabled") == args.bf16
