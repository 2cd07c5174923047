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
            raise InputError(
                f"{self.files[name]}: has no key {error}; is it a whole result file of {SCRIPTS[name]}?"
            ) from error
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
    given = {name: path for name in ("pretraining", "data", *RESULTS) if (path := getattr(args, name))}
    missing = [f"--{name} {path}" for name, path in given.items() if not Path(path).exists()]
    if missing and len(missing) == len(given):
        raise InputError(f"{', '.join(missing)}: there is no such file or folder")
    for flag in missing:
        print(f"Not measured: {flag} is not there.", flush=True)
    for name in RESULTS:
        if path := getattr(args, name):
            file = Path(path, f"{name}.json") if Path(path).is_dir() else Path(path)
            found.results[name], found.files[name] = read_json(file), file
    if args.pretraining:
        folder = Path(args.pretraining)
        for name, file in (("pretraining", "manifest.json"), ("trainer_state", "trainer_state.json")):
            found.results[name], found.files[name] = read_json(folder / file), folder / file
        if (folder / "recipe.yaml").is_file():
            found.recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    if args.data and Path(args.data, "README.md").is_file():
        text = Path(args.data, "README.md").read_text(encoding="utf-8")
        found.card = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return found
