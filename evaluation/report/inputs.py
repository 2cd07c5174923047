"""What make_report.py reads: result files as they were written, and what there is beside them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import InputError

SCRIPTS = {  # that write what is read, by flag
    "pretraining": "run_mlm.py",
    "trainer_state": "run_mlm.py",
    "benchmark": "run_benchmark.py",
    "mlm_eval": "run_mlm_eval.py",
    "freshness": "run_freshness.py",
    "blimp": "run_blimp.py",
    "probes": "run_probes.py",
    "cpu_benchmark": "run_cpu_benchmark.py",
}
RESULTS = ("benchmark", "mlm_eval", "freshness", "blimp", "probes", "cpu_benchmark")


@dataclass
class Inputs:
    """What was read, by flag, with the file that it came from for messages; None for what there is not."""

    results: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    recipe: str | None = None
    card: str | None = None

    def use(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function` makes of a result, None if there is none. Raises InputError for a missing key."""
        if self.results.get(name) is None:
            return None
        try:
            return function(self.results[name], *arguments)
        except KeyError as error:
            found = f"{self.files[name]}: has no key {error}"
            raise InputError(f"{found}; is it a whole result file of {SCRIPTS[name]}?") from error
        except (TypeError, AttributeError, IndexError, ValueError, StopIteration) as error:
            raise InputError(f"{self.files[name]}: is not as {SCRIPTS[name]} writes it: {error}") from error


def read_json(path: Path) -> Any:
    """The content of a file, None if there is no such file. Raises InputError."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error


def read_inputs(args: Any) -> Inputs:
    """All result files; what is not there is named, and left out. Raises InputError if nothing is there."""
    found = Inputs()
    given = {name: Path(path) for name in ("pretraining", "data", *RESULTS) if (path := getattr(args, name))}
    missing = [f"--{name} {path}" for name, path in given.items() if not path.exists()]
    if missing and len(missing) == len(given):
        raise InputError(f"{', '.join(missing)}: there is no such file or folder")
    for name in RESULTS:
        if path := given.get(name):
            found.files[name] = path / f"{name}.json" if path.is_dir() else path
    if folder := given.get("pretraining"):
        found.files |= {"pretraining": folder / "manifest.json", "trainer_state": folder / "trainer_state.json"}
        if (folder / "recipe.yaml").is_file():
            found.recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    found.results = {name: read_json(file) for name, file in found.files.items()}
    files = dict(found.files)
    if folder := given.get("data"):
        files["data"] = folder / "README.md"
        if files["data"].is_file():
            text = files["data"].read_text(encoding="utf-8")
            found.card = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    absent = [f"{flag} is not there" for flag in missing]
    for name, file in files.items():
        flag = "pretraining" if name == "trainer_state" else name
        if not file.is_file() and given[flag].exists():
            absent.append(f"--{flag} {given[flag]} has no {file.name}")
    if all(content is None for content in (found.card, *found.results.values())):
        raise InputError(f"{'; '.join(absent)}: nothing is left to report")
    for line in absent:
        print(f"Not measured: {line}.", flush=True)
    return found
