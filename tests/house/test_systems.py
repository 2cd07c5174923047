"""Other systems and Pythons: what they lack is used nowhere, and what macOS lacks is taken away from real processes,
which then do the same."""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mypy
import numpy as np
import pytest
from conftest import ROOT
from mirror import make_crawl, prose
from test_house import FOLDERS, sources
from test_run_mlm import GOLDEN, SMOKE, losses

from pretraining.masking import MaskedBlocks
from shared.cores import start_method

# Python reads it at every start, before anything else. The functions are those that the documentation of os says are
# not available on macOS; there, memory has no limit that a process can set, and multiprocessing spawns.
NOT_LINUX = """
import builtins, ctypes, io, multiprocessing, os, resource, sys
for name in (
    "sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "sched_setscheduler", "posix_fadvise",
    "posix_fallocate", "fdatasync", "pipe2", "memfd_create", "eventfd", "pidfd_open", "splice", "copy_file_range",
    "getrandom", "getxattr", "setxattr", "listxattr", "getresuid", "getresgid", "unshare", "setns",
    "process_cpu_count",
):
    if hasattr(os, name):
        delattr(os, name)
os.process_cpu_count = os.cpu_count
for name in ("prlimit", "RUSAGE_THREAD", "RLIMIT_SIGPENDING"):
    if hasattr(resource, name):
        delattr(resource, name)

def of_psutil(frame):  # the one that is installed is that of Linux
    return frame is not None and ("psutil" in frame.f_code.co_filename or of_psutil(frame.f_back))

def hides(function):
    def without(path, *rest, **named):
        is_linux = isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(("/proc", "/dev/shm", "/sys/"))
        if is_linux and not of_psutil(sys._getframe(1)):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *rest, **named)
    return without

builtins.open = io.open = hides(io.open)
os.stat, os.listdir, os.scandir = hides(os.stat), hides(os.listdir), hides(os.scandir)
set_limit, get_symbol = resource.setrlimit, ctypes.CDLL.__getattr__

def setrlimit(what, limits):
    if what == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    set_limit(what, limits)

def symbol(library, name):
    if name.startswith(("mall", "prctl", "sched_")):
        raise AttributeError(name)
    return get_symbol(library, name)

resource.setrlimit, ctypes.CDLL.__getattr__ = setrlimit, symbol
multiprocessing.set_start_method("spawn")
"""


TYPESHED = Path(mypy.__file__).parent / "typeshed" / "stdlib"  # knows what each system and version of Python has
OLDEST, NEWEST = (3, 11), (3, 14)


@cache
def standard_names(module, platform, version):
    """The names of a module of the standard library on a system."""
    system, found = SimpleNamespace(platform=platform, version_info=version), set()

    def visit(body):
        for node in body:
            if isinstance(node, ast.If):
                met = eval(compile(ast.Expression(node.test), "", "eval"), {"sys": system, "TYPE_CHECKING": True})
                visit(node.body if met else node.orelse)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found.update((alias.asname or alias.name) for alias in node.names)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                found.update(target.id for target in targets if isinstance(target, ast.Name))

    path = TYPESHED / f"{module.replace('.', '/')}.pyi"
    path = path if path.is_file() else path.with_suffix("") / "__init__.pyi"
    visit(ast.parse(path.read_text()).body if path.is_file() else [])
    return found


def uses(tree):
    """(module, name) of all that a file takes from modules by their own names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def test_no_file_uses_what_another_system_or_python_lacks():
    assert "sched_getaffinity" in standard_names("os", "linux", OLDEST) - standard_names("os", "darwin", OLDEST)
    lacking = []
    for path, (text, tree) in sources(*FOLDERS, "tests").items():
        for module, name in set(uses(tree)):
            here = standard_names(module, "linux", OLDEST)
            others = [("darwin", OLDEST), ("darwin", NEWEST), ("linux", NEWEST)]
            if name in here and not all(name in standard_names(module, *other) for other in others):
                lacking += [f"{path}: {module}.{name}"] if f'hasattr({module}, "{name}")' not in text else []
    assert not lacking


def test_no_file_imports_a_module_that_leaves_the_standard_library():
    entries = dict(re.findall(r"^([\w.]+): 3\.\d+-3\.(\d+)$", (TYPESHED / "VERSIONS").read_text(), re.MULTILINE))
    gone = {name for name, last in entries.items() if int(last) < NEWEST[1]}
    assert {"distutils", "imp", "cgi"} <= gone
    for path, (_, tree) in sources(*FOLDERS, "tests").items():
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert not gone & names, path


@pytest.fixture
def run_elsewhere(tmp_path):
    (tmp_path / "site" / "sitecustomize.py").parent.mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOT_LINUX)
    path = f"{tmp_path / 'site'}:{ROOT}"

    def run(*words):
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=ROOT, env=os.environ | {"PYTHONPATH": path},
            capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    taken = run("-c", "import os; print(hasattr(os, 'sched_getaffinity'), os.path.exists('/proc/self'))")
    assert taken.split() == ["False", "False"]
    return run


def test_pages_are_extracted_elsewhere_as_here(run_elsewhere, tmp_path):
    texts = prose()[:60]
    make_crawl(tmp_path / "crawl", texts)
    flags = ["--input", tmp_path / "crawl" / "crawl-data", "--part_records", 10, "--output_dir"]
    run_elsewhere("data_prep/extract_common_crawl.py", *flags, tmp_path / "out")
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["in"] == len(texts) and counts["kept"] > 0.9 * len(texts) and not counts["bad"]


@pytest.mark.faults
def test_the_smoke_recipe_trains_elsewhere_as_here(run_elsewhere, tmp_path):
    flags = ["--dataloader_num_workers", 2, "--eval_strategy", "no", "--output_dir", tmp_path / "run"]
    run_elsewhere("pretraining/run_mlm.py", "--config", SMOKE, *flags)
    found = losses(tmp_path / "run")
    assert {step: found[step] for step in GOLDEN} == pytest.approx(GOLDEN, abs=5e-3)


def test_a_worker_that_is_not_forked_opens_the_blocks_itself(tmp_path):
    blocks = np.arange(40_000, dtype=np.uint16).reshape(1000, 40)
    np.save(tmp_path / "train.npy", blocks)
    mapped = np.load(tmp_path / "train.npy", mmap_mode="r")
    for rows in (mapped, mapped[:700], mapped[::2], mapped[5:], np.asarray(mapped)[:30].copy()):
        sent = pickle.dumps(MaskedBlocks(rows, None, 0))
        assert np.array_equal(pickle.loads(sent).blocks, rows)  # noqa: S301, as a spawned worker gets it
        assert (len(sent) < 2000) == (rows is mapped or len(rows) == 700)


def test_what_needs_no_imports_is_forked_where_that_is_possible():
    code = "import multiprocessing as m; from shared.cores import start_method; m.set_start_method({!r}, force=True); "
    code += "print(start_method())"
    found = {
        usual: subprocess.check_output([sys.executable, "-c", code.format(usual)], cwd=ROOT, text=True).strip()
        for usual in ("fork", "forkserver", "spawn")  # of Linux to Python 3.13, of Linux from 3.14 on, of macOS
    }
    assert found == {"fork": "fork", "forkserver": "fork", "spawn": "spawn"}
    assert start_method() in found.values()
