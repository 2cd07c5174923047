"""Every flag of our own does something: code that its script reaches reads it; beside flags that leave nothing for it
to do it is refused by name. tests/shared/test_run_record.py does the same for the flags of Trainer."""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache

import pytest
from conftest import ROOT
from test_house import FOLDERS, graph, is_script, sources

from shared.command_line import RENAMED, parse_arguments
from shared.early import read_dataclasses
from shared.errors import InputError

SCRIPTS = [path for path, (text, _) in sources(*FOLDERS[1:]).items() if is_script(text) and "run_script(main" in text]
TRAINERS = {"ddp_find_unused_parameters", "logging_nan_inf_filter", "restore_callback_states_from_checkpoint"}


def names_in(node: ast.AST) -> Iterator[str]:
    """Names that a piece of code mentions; of `getattr(args, f"{name}_column")` the end, with a star."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Load):
            yield part.attr
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Call) and ast.unparse(part.func) == "getattr" and len(part.args) > 1:
            yield "*" + (ast.unparse(part.args[1]).rpartition("}")[2].strip("'\"") or "-")


def imported(script: str) -> set[str]:
    seen, todo = set(), [script]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += graph()[path]
    return seen


@cache
def pieces(path: str) -> dict[str, list[set[str]]]:
    """Of the functions, classes and constants of a file: the names that they mention. A flag's own line is none."""
    found: dict[str, list[set[str]]] = {}
    for node in sources(*FOLDERS)[path][1].body:
        if isinstance(node, ast.ClassDef):
            is_data = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
            body = [part for part in node.body if not (is_data and isinstance(part, ast.AnnAssign))]
            found.setdefault(node.name, []).extend(set(names_in(part)) for part in [*body, *node.bases])
        elif isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, []).append(set(names_in(node)))
        elif isinstance(node, ast.Assign):
            found.setdefault(ast.unparse(node.targets[0]), []).append(set(names_in(node.value)))
    return found


def parsed_of(script: str) -> list[str]:
    """What a script hands to `run_script`: `main` and its dataclasses."""
    nodes = ast.walk(sources(*FOLDERS)[script][1])
    call = next(node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_script")
    return [ast.unparse(argument) for argument in call.args]


def reached(script: str) -> set[str]:
    """All names that code mentions which `main` of a script, or its dataclasses, may come to."""
    tables = [pieces(path) for path in imported(script) if path != script]
    names: set[str] = set()
    todo = parsed_of(script)
    done: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in done:
            done.add(name)
            own = pieces(script).get(name)
            for mentioned in own if own is not None else [one for table in tables for one in table.get(name, [])]:
                names |= mentioned
                todo += mentioned
    return names


def kinds_of(script: str) -> list[type]:
    """The dataclasses of a script, from its source where that is how it reads them itself."""
    if "answer_early(" in sources(*FOLDERS)[script][0]:
        return read_dataclasses(str(ROOT / script))
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    return [getattr(module, name) for name in parsed_of(script)[1:]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_of_a_script_is_read(script):
    known = {field.name for kind in kinds_of(script) for field in fields(kind) if field.init}
    if "max_steps" in known:  # Trainer's are in test_run_record.py
        from transformers import TrainingArguments

        known -= {field.name for field in fields(TrainingArguments)} | TRAINERS
    found = reached(script)
    ends = tuple(name[1:] for name in found if name.startswith("*_"))
    assert "no_such_flag" not in found and {name for name in known - found if not name.endswith(ends)} == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed(script, capsys):
    """A help text with a per cent sign of its own ends argparse in a TypeError."""
    with pytest.raises(SystemExit) as ended:
        parse_arguments(kinds_of(script), ["--help"])
    assert ended.value.code == 0 and "usage: " in capsys.readouterr().out


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.count("/") == 1])
def test_a_hint_names_flags_that_the_script_has(script):
    kinds = kinds_of(script)
    known = {field.name for kind in kinds for field in fields(kind)}
    needed = [field.name for kind in kinds for field in fields(kind) if field.default is field.default_factory]
    for old in RENAMED.keys() - known:
        with pytest.raises(InputError) as error:
            parse_arguments(kinds, [*(f"--{name}=x" for name in needed), f"--{old}", "1"])
        hint = str(error.value).partition("; ")[2]
        if hint.startswith("use "):
            assert set(hint[4:].partition(" (")[0].split(" and ")) <= known
        assert "max_steps" in known or "no longer needed" not in hint


STAGE = ("--input", "x", "--output_dir", "x")
USELESS = {  # flags that have nothing to do beside the others: what is answered
    ("data_prep.filter_documents", *STAGE, "--slurm_partition", "big"): "--slurm_partition: is for --executor slurm",
    ("data_prep.filter_documents", *STAGE, "--slurm_time", "1:00"): "--slurm_time: is for --executor slurm",
    ("data_prep.build_corpus", *STAGE, "--ngram", "8"): "--ngram: is for --decontaminate",
    ("data_prep.build_corpus", *STAGE, "--contamination", "flag"): "--contamination: is for --decontaminate",
    ("data_prep.build_corpus", *STAGE, "--tokenizer_name", "x", "--tokens_per_word", "2"): "--tokens_per_word: ",
    ("data_prep.deduplicate", *STAGE, "--remove", "exact", "--bands", "20"): "--bands: is for --remove near",
    ("data_prep.deduplicate", *STAGE, "--min_line_chars", "9"): "--min_line_chars: is for --remove paragraph or line",
    ("data_prep.extract_wikipedia", *STAGE, "--base_url", "x"): "--base_url: is for a download",
    ("data_prep.train_tokenizer", *STAGE, "--tokenizer_type", "bpe", "--strip_accents", "true"): "--strip_accents: ",
    ("pretraining.run_mlm", "--train_file", "x", "--least_shared_vocabulary", "0.5"): "is for a checkpoint",
    ("pretraining.run_distillation", "--mlm_weight", "0", "--mask_sentences", "true"): "--mask_sentences: is for an ",
    ("pretraining.run_distillation", "--whole_word_mask"): "--whole_word_mask: is for --packed_dataset",
    ("finetuning.run_glue", "--task_name", "sst2", "--problem_type", "regression"): "--problem_type: --task_name says",
    ("finetuning.run_glue", "--search_fraction", "0.5"): "--search_fraction: is for --search_trials",
    ("evaluation.run_mlm_eval", *STAGE, "--pll_samples", "5"): "--pll_samples: is for --pll",
    ("evaluation.run_benchmark", "--search_seed", "9"): "--search_seed: is for --learning_rates",
    ("evaluation.run_probes", "--max_blocks", "9"): "--max_blocks: is for --text",
    ("evaluation.make_report", "--output_dir", "x", "--blimp", "x", "--device_watts", "9"): "--device_watts: is for",
    ("evaluation.run_cpu_benchmark", "--models", "x", "--output_dir", "x", "--max_samples", "9"): "is for --input",
}


@pytest.mark.parametrize("command", USELESS, ids=" ".join)
def test_a_flag_that_would_do_nothing_is_refused(command):
    module, script = importlib.import_module(command[0]), command[0].replace(".", "/") + ".py"
    kinds = [getattr(module, name) for name in parsed_of(script)[1:]]
    flags = ["--output_dir", "x", "--use_cpu"] if command[0].startswith(("pretraining", "finetuning")) else []
    if command[0].startswith("evaluation.run_") and "--models" not in command:
        flags += ["--models", "x"]
    with pytest.raises(InputError, match=r"^--") as error:
        parse_arguments(kinds, [*flags, *command[1:]])
    assert USELESS[command] in str(error.value)
