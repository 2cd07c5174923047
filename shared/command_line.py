"""Flags and recipes: a recipe is a command line written down as YAML, so both go through one strict parser."""

import argparse
import copy
import dataclasses
import difflib
import json
import math
import operator
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from shared.errors import BadRecordsError, InputError, RunError
from shared.files import explain

# Flags that Trainer renamed or dropped since 2022, as old commands and recipes spell them.
RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps (a value below 1 is a share of the steps)",
    "group_by_length": "train_sampling_strategy",
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
    "torch_dtype": "dtype",
    "text_column_name": "text_column",
    "label_column_name": "label_column",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "line_by_line": "train_file (documents are always packed into full blocks)",
    "block_size": "max_seq_length",
    "config_name": "model_type and model_size",
    "extend_vocabulary": None,  # rows follow the tokenizer: pretraining/vocabulary/rows.py
    "overwrite_output_dir": "output_dir (name a new folder; a run in an old one is resumed)",
    "save_safetensors": None,
    "logging_dir": None,
}

DATASET = ("dataset_name", "dataset_config_name")
FILES = ("train_file", "validation_file", "test_file", "input")
BUDGETS = ("num_train_epochs", "max_steps", "max_tokens", "max_hours")
INSTEAD: dict[str, tuple[str, ...]] = {"dataset_name": FILES}  # of a recipe, not used beside such a flag
INSTEAD |= dict.fromkeys(FILES, DATASET)
INSTEAD |= {name: tuple(other for other in BUDGETS if other != name) for name in BUDGETS}

LIMITS = "(.*_)?max_(.*_)?(samples|length|steps|blocks|characters|tokens)|save_total_limit"
SEEDS = "(.*_)?seeds?"
COMPARISONS = {
    ">=": (operator.ge, "at least"),
    ">": (operator.gt, "above"),
    "<=": (operator.le, "at most"),
    "<": (operator.lt, "below"),
}

SHOWN = {  # flags of Trainer in --help; the others are in --help_all
    *("output_dir", "do_train", "do_eval", "do_predict", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs"),
    *("warmup_steps", "optim", "weight_decay", "max_grad_norm", "num_train_epochs", "max_steps", "bf16", "fp16"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "torch_compile"),
    *("activation_checkpointing", "label_smoothing_factor", "train_sampling_strategy", "seed", "data_seed", "use_cpu"),
    *("eval_strategy", "eval_steps", "save_strategy", "save_steps", "save_total_limit", "load_best_model_at_end"),
    *("metric_for_best_model", "logging_steps", "report_to", "run_name", "disable_tqdm", "resume_from_checkpoint"),
    *("dataloader_num_workers", "push_to_hub", "hub_model_id", "hub_token", "ddp_backend"),
}


def unknown_flag(where: str, name: str, known: Sequence[str]) -> InputError:
    """The error for a key that no dataclass has, naming the closest one that exists."""
    new = RENAMED.get(name)
    if new and set(new.partition(" (")[0].split(" and ")) <= set(known):
        hint = f"use {new}"
    elif name in RENAMED and not new and "max_steps" in known:  # flags that Trainer had
        hint = "it is always on or no longer needed: remove it"
    else:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "see --help for the flags there are"
    return InputError(f"{where}: unknown key {name!r}; {hint}")


class _Loader(yaml.BaseLoader):
    """Leaves values as text, and refuses a key that stands there twice, of which YAML's own takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                line = node.value[place][0].start_mark.line + 1
                raise yaml.YAMLError(f"{key} is given twice, the second time in line {line}")
        return super().construct_mapping(node, deep)


def read_recipe(path: str, known: Sequence[str], unused: Collection[str] = ()) -> list[str]:
    """Turn a YAML recipe into command-line words, but for `unused` keys. Values stay text: argparse gives types."""
    try:
        recipe = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader) or {}
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"--config {path}: a recipe is a mapping of flags to values")
    words: list[str] = []
    for name, value in recipe.items():
        if name not in known:
            raise unknown_flag(path, name, known)
        values = value if isinstance(value, list) else [value]
        if not values or any(not isinstance(v, str) or v == "" for v in values):
            raise InputError(f"{path}: {name} needs a value or a list of values (of a mapping, one quoted string)")
        if name in unused:
            continue
        # `--name=value` keeps a value that starts with a dash from being read as a flag.
        words += [f"--{name}", *values] if len(values) > 1 else [f"--{name}={values[0]}"]
    return words


class ShortHelp(argparse.ArgumentDefaultsHelpFormatter):
    """One spelling of each flag: dashes for underscores are understood, and not shown."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = copy.copy(action)
        shown.option_strings = [name for name in action.option_strings if "-" not in name[2:]]
        return super()._format_action_invocation(shown)


def shorten_help(parser: argparse.ArgumentParser, dataclass_types: Sequence[type], show_all: bool) -> None:
    """Show our flags first, then those of Trainer that people use, with a sentence each; all with `show_all`."""
    bases = {base.__name__: base for kind in dataclass_types for base in kind.__mro__}
    if "TrainingArguments" not in bases:
        return
    parser.add_argument("--help_all", action="help", help="show all flags of Trainer too, and exit")
    if show_all:
        return
    parser.formatter_class = ShortHelp
    parser.usage = "%(prog)s [--config RECIPE.yaml ...] [--FLAG VALUE ...]"
    names = {field.name for field in dataclasses.fields(bases["TrainingArguments"])}
    for action in parser._actions:
        if action.dest in names and action.dest not in SHOWN:
            action.help = argparse.SUPPRESS
        elif action.dest in names and action.help:
            action.help = re.split(r"(?<=\.)\s", " ".join(action.help.split()))[0]
    parser._optionals._group_actions.sort(key=lambda action: action.dest in names)


def parse_arguments(
    dataclass_types: Sequence[type],
    argv: Sequence[str] | None = None,
    default_recipe: str | Path | None = None,
    on_read: Callable[[argparse.Namespace], None] | None = None,
) -> tuple[Any, ...]:
    """Parse flags, with recipes (`--config A.yaml B.yaml`, later ones win) in front of them. Files given as flags take
    the place of the dataset of a recipe, a dataset that of its files, and a budget that of its budget.

    Returns one instance of each dataclass. With no flag at all, `default_recipe` is read and the first line printed
    says so. Raises InputError for an unknown key or a value that the dataclass refuses; argparse exits 2 for a value
    of the wrong type. `on_read` sees the flags before a dataclass is made of them: TrainingArguments, when made, waits
    for the other processes.
    """
    from transformers.hf_argparser import HfArgumentParser  # takes a second, which the workers of a stage do not have

    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv and default_recipe is not None:
        shown = os.path.relpath(default_recipe)
        print(f"No flags given: running the recipe {shown} (--help lists the flags)", flush=True)
        argv = ["--config", str(default_recipe)]
    known = [field.name for t in dataclass_types for field in dataclasses.fields(t) if field.init]
    configs = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    configs.add_argument("--config", nargs="+", action="extend", default=[], help="recipes to layer, later ones win")
    parser = HfArgumentParser(dataclass_types, allow_abbrev=False, parents=[configs])
    shorten_help(parser, dataclass_types, "--help_all" in argv)
    paths, flags = configs.parse_known_args(argv)
    named = [word[2:].partition("=")[0].replace("-", "_") for word in flags if word.startswith("--")]
    given = set(named)
    refuse_twice({action.dest for action in parser._actions if action.nargs in ("+", "*")}, named)
    unused = {other for name in given for other in INSTEAD.get(name, ())}
    words: list[str] = []
    recipe_of: dict[str, str] = {}
    for path in paths.config:
        read = read_recipe(path, known, unused)
        words += read
        recipe_of |= {word[2:].partition("=")[0]: path for word in read if word.startswith("--")}

    def name_recipe(message: str) -> None:
        flag = re.match(r"argument --(\w+)", message)
        where = recipe_of.get(flag[1]) if flag and flag[1] not in given else None
        usual_error(f"{where}: {message}" if where else message)

    usual_error = parser.error
    parser.error = name_recipe
    if on_read:
        on_read(parser.parse_known_args(words + flags)[0])
    try:
        *parsed, _, rest = parser.parse_args_into_dataclasses(
            words + flags, return_remaining_strings=True, look_for_args_file=False
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{error.doc}: not valid JSON, as the flag wants it: {error}") from error
    except ValueError as error:
        raise InputError(str(error)) from error
    if rest:
        raise unknown_flag("command line", rest[0].lstrip("-").split("=")[0].replace("-", "_"), known)
    for arguments in parsed:
        check_limits(arguments)
    return tuple(parsed)


def refuse_twice(lists: Collection[str], named: Sequence[str]) -> None:
    """Raise InputError for the first of `lists` that is named more than once: argparse would take the last alone."""
    for name in lists:
        if named.count(name) > 1:
            raise InputError(f"--{name}: is given twice, and the last would win; name all its values after one")


def check_limits(arguments: Any) -> None:
    """Raise InputError for a limit that is 0, which some code would take for none, or negative, which would cut the
    end off; for a number that is none, since no comparison finds it; and for a seed that generators do not take."""
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name, None)
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise InputError(f"--{field.name} {' '.join(map(str, numbers))}: must be a finite number")
        if re.fullmatch(SEEDS, field.name) and any(isinstance(n, int) and not 0 <= n < 2**32 for n in numbers):
            raise InputError(f"--{field.name} {' '.join(map(str, numbers))}: must be from 0 to {2**32 - 1}")
        if re.fullmatch(LIMITS, field.name) and isinstance(value, int) and value < 1 and value != field.default:
            raise InputError(f"--{field.name} {value}: must be at least 1; or leave the flag out")


def check_ranges(args: Any, **ranges: str) -> None:
    """Raise InputError for a flag one of whose values is not in its range, such as "> 0, <= 1"; None always is."""
    for name, text in ranges.items():
        value = getattr(args, name)
        conditions = [condition.split() for condition in text.split(", ")]
        for number in value if isinstance(value, list) else [] if value is None else [value]:
            if not all(COMPARISONS[sign][0](number, float(limit)) for sign, limit in conditions):
                words = " and ".join(f"{COMPARISONS[sign][1]} {limit}" for sign, limit in conditions)
                raise InputError(f"--{name} {number}: must be {words}")


def refuse_flags(args: Any, reasons: dict[str, str]) -> None:
    """Raise InputError for the first of these flags that has another value than its default, with the reason."""
    given, own = getattr(args, "given", {}), {field.name: field for field in dataclasses.fields(args)}
    for name, why in reasons.items():
        if name in own:  # not each version of transformers has all of them
            factory = own[name].default_factory
            default = own[name].default if factory is dataclasses.MISSING else factory()
            value = given.get(name, getattr(args, name))
            if value != default and (value or default):
                raise InputError(f"--{name}{' false' if value is False else ''}: {why}; remove the flag")


def report(error: BaseException) -> int:
    """Print an expected error as one line, and return the exit code: InputError 2, RunError 1, BadRecordsError 3,
    Ctrl-C 130."""
    print(f"error: {str(error) or 'interrupted'}", file=sys.stderr, flush=True)
    codes: dict[type, int] = {InputError: 2, RunError: 1, BadRecordsError: 3}
    return codes.get(type(error), 130)


def run_script(main: Callable[..., Any], *dataclass_types: type, default_recipe: str | Path | None = None) -> None:
    """Parse the command line, call `main` with the dataclasses, and let `report` answer expected errors."""

    # shared.training.processes brings torch along; a script without --start_timeout, and shared.early, do without it.
    def watch(flags: argparse.Namespace) -> None:
        if hasattr(flags, "start_timeout"):
            from shared.training.processes import watch_start

            watch_start(flags.start_timeout)

    def leave(reason: str = "") -> None:
        if "shared.training.processes" in sys.modules:
            from shared.training import processes

            processes.leave(reason)

    try:
        main(*parse_arguments(dataclass_types, default_recipe=default_recipe, on_read=watch))
        leave()
    except (InputError, RunError, BadRecordsError, KeyboardInterrupt) as error:
        code = report(error)
        leave(str(error) or "interrupted")
        sys.exit(code)
    except OSError as error:
        expected = explain(error)
        leave(str(expected or error))
        if expected is None:
            raise
        sys.exit(report(expected))
    except SystemExit:  # after a signal, when everything is saved
        leave()
        raise
    except BaseException as error:
        leave(f"{type(error).__name__}: {error}")
        raise
