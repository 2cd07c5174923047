"""Answer --help and wrong flags before torch and Trainer are imported, which takes seconds.

What argparse needs, names, types, defaults and help texts, stands in the source of the dataclasses. It is read from
there without importing them; what cannot be read is left to the real parse, which follows in any case.
"""

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import transformers.hf_argparser  # noqa: F401  it imports the modules whose names TrainingArguments uses

from shared.command_line import parse_arguments, report
from shared.errors import InputError


def answer_early(script: str, name: str) -> None:
    """Exit here if the command line asks for help or is wrong; to be called with the script's `__file__`, `__name__`.

    Otherwise `run_script` parses it again, with the dataclasses themselves, whose `__post_init__` checks more.
    """
    if name != "__main__" or len(sys.argv) < 2 or "torch" in sys.modules:  # once torch is there, nothing is gained
        return
    try:
        if not any(Path(word.partition("=")[2] or word).is_fifo() for word in sys.argv):  # it gives a recipe only once
            parse_arguments(read_dataclasses(script))
    except InputError as error:
        sys.exit(report(error))
    except Exception:  # written in a way that is not understood here: the real parse answers
        return


def read_dataclasses(script: str) -> list[type]:
    """The dataclasses that a script hands to `run_script`, without their methods."""
    tree = ast.parse(Path(script).read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_script")
    names = _Names(dict(_definitions(tree.body)), package="")
    return [names.value(argument) for argument in next(calls).args[1:]]


class _Names(dict[str, Any]):
    """The names of a module. The value of one is computed when it is asked for; nothing else of the module runs."""

    def __init__(self, nodes: dict[str, Any], package: str) -> None:
        super().__init__()
        self.nodes, self.package = nodes, package

    def __missing__(self, name: str) -> Any:
        node = self.nodes[name]  # a KeyError sends `eval` on to the builtins
        if isinstance(node, ast.ImportFrom):
            found = next(alias.name for alias in node.names if name == (alias.asname or alias.name))
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), self.package)
            self[name] = _look_up(module, found)
        else:
            self[name] = self.make_class(node) if isinstance(node, ast.ClassDef) else self.value(node)
        return self[name]

    def value(self, node: ast.expr, names: dict[str, Any] | None = None) -> Any:
        """The value of an expression."""
        return eval(compile(ast.Expression(node), "<source>", "eval"), {}, self if names is None else names)

    def make_class(self, node: ast.ClassDef) -> Any:
        """An enum as it is, a dataclass without its methods; any other class is `str`, which takes every value."""
        bases = tuple(self.value(base) for base in node.bases)
        if any(issubclass(base, Enum) for base in bases):
            exec(compile(ast.Module([node], []), "<source>", "exec"), {}, self)
            return self[node.name]
        if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            return str
        inner = _Names(self.nodes | dict(_definitions(node.body)), self.package)
        fields: list[Any] = []
        for line in node.body:
            if isinstance(line, ast.AnnAssign):
                default = [inner.value(line.value)] if line.value else []
                fields.append((ast.unparse(line.target), inner.annotation(line.annotation), *default))
        return make_dataclass(node.name, fields, bases=bases, kw_only=True)

    def annotation(self, node: ast.expr) -> Any:
        """The type that an annotation means, with `str` for what no flag can be turned into here."""
        used = {part.id: self.value(part) for part in ast.walk(node) if isinstance(part, ast.Name)}
        return self.value(node, {name: str if t is Any or is_dataclass(t) else t for name, t in used.items()})


def _definitions(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Any]]:
    for node in body:
        match node:
            case ast.If():
                yield from _definitions([*node.body, *node.orelse])
            case ast.ImportFrom():
                yield from ((alias.asname or alias.name, node) for alias in node.names)
            case ast.ClassDef():
                yield node.name, node
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value


def _look_up(module: str, name: str) -> Any:
    """A name of a module: of the standard library, or imported already, or read from source."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        return getattr(importlib.import_module(module), name)
    known = vars(sys.modules[module]) if module in sys.modules else {}
    if name in known and not is_dataclass(known[name]):  # whose methods are for the real parse
        return known[name]
    return _read(module)[name]


@functools.cache
def _read(module: str) -> _Names:
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)  # not of the module itself: that would import the packages around it
    assert spec and spec.submodule_search_locations, f"{top} is no package"
    path = Path(spec.submodule_search_locations[0], *rest)
    is_package = path.is_dir()
    source = (path / "__init__.py" if is_package else path.with_suffix(".py")).read_text(encoding="utf-8")
    return _Names(dict(_definitions(ast.parse(source).body)), module if is_package else module.rpartition(".")[0])
