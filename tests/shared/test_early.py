import argparse
import dataclasses
import importlib
import json
import os
import re
import resource
import subprocess
import sys

import pytest
from conftest import ROOT
from transformers.hf_argparser import HfArgumentParser

from shared import early
from shared.command_line import parse_arguments

CALL = "answer_early(__file__, __name__)"
SCRIPTS = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("*/run_*.py")) if CALL in path.read_text()]
RUN_MLM = ROOT / "pretraining" / "run_mlm.py"
# Of every kind that a flag can take; a flag's own choices come on top.
VALUES = ["1", "-1", "1.5", "1e-4", "inf", "yes", "false", "no", "none", "text", "", "{}", "a,b", "underflow_overflow"]


def describe(dataclass_types):
    """What the parser of these dataclasses takes: of each flag its names, shape, default and the values it accepts."""
    parser = HfArgumentParser(dataclass_types, allow_abbrev=False)
    flags = {}
    for action in parser._actions:
        accepted = {}
        for value in [*VALUES, *map(str, action.choices or [])]:
            try:
                accepted[value] = repr(parser._get_values(action, [value]))
            except argparse.ArgumentError:
                continue
        shape = [action.option_strings, action.dest, action.nargs, action.const, action.required, repr(action.default)]
        flags[action.option_strings[0]] = {"shape": shape, "accepted": accepted}
    return flags


def run(*words, cwd=ROOT):
    """Run Python; return the process, the imported modules and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-X", "importtime", *map(str, words)]
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    modules = set(re.findall(r"^import time:.*\| +(\S+)$", process.stderr, flags=re.MULTILINE))
    process.stderr = re.sub(r"^import time:.*\n", "", process.stderr, flags=re.MULTILINE)
    return process, modules, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_early_answer_comes_before_other_imports(script):
    first = re.search(r"^(?:import|from) .*\n\n.*", (ROOT / script).read_text(), flags=re.MULTILINE)
    assert first[0].startswith("from shared.early import answer_early\n\n" + CALL)


@pytest.fixture(scope="module")
def read_from_source():
    """What the flags of each script are by its source, in a process that has imported none of them."""
    code = "import sys, json; sys.path += ['tests', 'tests/shared']; from test_early import describe, early\n"
    code += "read = {script: early.read_dataclasses(script) for script in sys.argv[1:]}\n"
    code += "found = {script: [[c.__name__ for c in read[script]], describe(read[script])] for script in read}\n"
    code += "print(json.dumps([found, 'torch' in sys.modules]))"
    process, _, _ = run("-c", code, *SCRIPTS)
    assert process.returncode == 0, process.stderr
    found, slow = json.loads(process.stdout)
    assert not slow
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_read_from_source_are_those_of_the_dataclasses(script, read_from_source):
    """A transformers that writes TrainingArguments in a way that shared/early.py cannot read fails here."""
    names, found = read_from_source[script]
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    wanted = json.loads(json.dumps(describe([getattr(module, name) for name in names])))
    assert list(found) == list(wanted)  # in the order of --help, too
    for flag, facts in wanted.items():
        assert found[flag]["shape"] == facts["shape"]
        if flag != "--parallelism_config":  # a class of accelerate, which is not looked into
            assert found[flag]["accepted"] == facts["accepted"], flag
        assert found[flag]["accepted"].keys() >= facts["accepted"].keys(), flag


def test_help_is_that_of_the_real_parser(capsys, monkeypatch, tmp_path):
    from pretraining.run_mlm import DataArguments, ModelArguments, RunArguments

    process, modules, seconds = run(RUN_MLM, "--help", cwd=tmp_path)
    assert process.returncode == 0 and process.stderr == ""
    assert "torch" not in modules and seconds < 3
    monkeypatch.setattr(sys, "argv", [str(RUN_MLM)])
    monkeypatch.setenv("COLUMNS", os.environ.get("COLUMNS", "80"))
    with pytest.raises(SystemExit):
        parse_arguments([ModelArguments, DataArguments, RunArguments], ["--help"])
    assert process.stdout == capsys.readouterr().out
    assert len(process.stdout.splitlines()) <= 250
    assert process.stdout.index("--packed_dataset") < process.stdout.index("--learning_rate")
    with pytest.raises(SystemExit):
        parse_arguments([ModelArguments, DataArguments, RunArguments], ["--help_all"])
    everything = capsys.readouterr().out
    assert {field.name for field in dataclasses.fields(RunArguments) if f"--{field.name}" not in everything} == set()
    assert "--adam_beta1" in everything and "--adam_beta1" not in process.stdout


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        ("--max_step 3", "error: command line: unknown key 'max_step'; did you mean max_steps?"),
        ("--max_steps abc", "--max_steps/--max-steps: invalid int value: 'abc'"),
        ("--model_size huge", "--model_size/--model-size: invalid choice: 'huge'"),
        ("--config wrong.yaml", "error: wrong.yaml: unknown key 'lerning_rate'; did you mean learning_rate?"),
        ("--config type.yaml --max_steps 3", "--bf16: Truthy value expected: got maybe"),
    ],
)
def test_wrong_flags_are_refused_before_torch_is_imported(tmp_path, flags, answer):
    (tmp_path / "wrong.yaml").write_text("lerning_rate: 1e-4\n")
    (tmp_path / "type.yaml").write_text("bf16: maybe\n")
    process, modules, seconds = run(RUN_MLM, *flags.split(), cwd=tmp_path)
    assert process.returncode == 2 and process.stdout == ""
    assert answer in process.stderr and "Traceback" not in process.stderr
    assert "torch" not in modules and seconds < 3


def test_the_slow_path_answers_what_cannot_be_read(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from shared.early import answer_early\n"
        f"{CALL}\n"
        "import dataclasses\n"
        "from shared.command_line import run_script\n"
        "Arguments = dataclasses.make_dataclass('Arguments', [('offset', int)])\n"
        "print('imported')\n"
        "run_script(print, Arguments)\n"
    )
    process, _, _ = run(script, "--offset", "3")
    assert (process.returncode, process.stdout) == (0, "imported\nArguments(offset=3)\n")
    process, _, _ = run(script, "--offset", "many")
    assert process.returncode == 2 and process.stdout == "imported\n" and "invalid int value" in process.stderr


@pytest.fixture
def command_line(monkeypatch):
    """Sets the command line, in a process in which torch seems not to be imported yet."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return lambda *words: monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])


HEAD = "from dataclasses import dataclass, field\nfrom typing import Any\n"
TAIL = "run_script(main, Arguments)"
UNREADABLE = {
    "no Python": "def",
    "no call": HEAD,
    "classes in a list": f"{HEAD}run_script(main, *classes)",
    "an unknown module": f"from nowhere.at_all import Arguments\n{TAIL}",
    "a name its module lacks": f"from transformers import NoSuchArguments as Arguments\n{TAIL}",
    "an unknown base": f"{HEAD}@dataclass\nclass Arguments(Base):\n    a: int = 1\n{TAIL}",
    "an unknown type": f"{HEAD}@dataclass\nclass Arguments:\n    a: Unknown = 1\n{TAIL}",
    "a type no flag has": f"{HEAD}@dataclass\nclass Arguments:\n    a: int | float = 1\n{TAIL}",
    "a computed default": f"{HEAD}@dataclass\nclass Arguments:\n    a: int = field(default=compute())\n{TAIL}",
    "no dataclass": f"class Arguments:\n    a: int = 1\n{TAIL}",
}


@pytest.mark.parametrize("source", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_source_that_cannot_be_read_is_passed_over(command_line, capsys, tmp_path, source):
    (tmp_path / "script.py").write_text(source)
    command_line("--help")
    early.answer_early(str(tmp_path / "script.py"), "__main__")
    assert capsys.readouterr() == ("", "")


def test_good_flags_pass_without_a_word(command_line, capsys):
    command_line("--config", ROOT / "pretraining/recipes/tiny.yaml", "--packed_dataset", "nowhere", "--bf16")
    early.answer_early(str(RUN_MLM), "__main__")
    command_line("--mlm_probability", "2")  # refused by __post_init__, which is not read
    early.answer_early(str(RUN_MLM), "__main__")
    assert capsys.readouterr() == ("", "")


def test_nothing_is_read_without_flags_in_an_import_or_from_a_pipe(command_line, monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr(early, "read_dataclasses", lambda script: read.append(script) or [])
    os.mkfifo(tmp_path / "recipe")
    command_line()
    early.answer_early("script.py", "__main__")
    command_line("--config", tmp_path / "recipe")
    early.answer_early("script.py", "__main__")
    command_line(f"--config={tmp_path / 'recipe'}")
    early.answer_early("script.py", "__main__")
    command_line("--help")
    early.answer_early("script.py", "script")
    assert read == []
    with pytest.raises(SystemExit):
        early.answer_early("script.py", "__main__")
    assert read == ["script.py"]
