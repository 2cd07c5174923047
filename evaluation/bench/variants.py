"""Variants in turns: named on a command line, run once a round, compared round by round."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from shared.errors import InputError, RunError
from shared.files import read_json
from shared.training.environment import describe_products

ROOT = Path(__file__).parents[2]
WARM_UP = 100  # texts or pages before the clock starts
HELP = "More variants: 'NAME: VARIABLE=value --flag value', what differs from our script as it is."

Variants = dict[str, tuple[list[str], dict[str, str]]]  # command and environment variables, by name
Rounds = dict[str, list[dict[str, Any]]]  # what was found in each round, by name


def read_variants(texts: Sequence[str], ours: list[str], stock: list[str] | None) -> Variants:
    """`ours`, the stock path unless there is none, and those of --variants: `ours` with other flags or variables.

    Raises InputError for what is not written as `HELP` says.
    """
    found: Variants = {"ours": (ours, {})} | ({} if stock is None else {"stock": (stock, {})})
    for text in texts:
        name, _, words = (part.strip() for part in text.partition(":"))
        try:
            split = shlex.split(words)
        except ValueError:  # a quotation mark without its partner
            split = []
        first = next((i for i, word in enumerate(split) if word.startswith("--")), len(split))
        if not split or name in ("stock", *found) or any("=" not in word for word in split[:first]):
            raise InputError(f"--variants {text!r}: write 'NAME: VARIABLE=value --flag value', with a new name")
        found[name] = ([*ours, *split[first:]], dict(word.split("=", 1) for word in split[:first]))
    return found


def run_variant(command: list[str], flags: dict[str, Any], variables: dict[str, str], folder: Path) -> dict[str, Any]:
    """Run one script and return its train_results.json and eval_results.json, with the manifest of the run."""
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    run_quietly([*command, *words, "--output_dir", str(folder)], variables)
    results: dict[str, Any] = read_json(folder / "train_results.json")
    if (folder / "eval_results.json").is_file():
        results |= read_json(folder / "eval_results.json")
    if (folder / "manifest.json").is_file():
        results["manifest"] = read_json(folder / "manifest.json")
    return results


def run_quietly(words: list[str], variables: dict[str, str]) -> None:
    """Run a script of this repository. Raises RunError with the end of its output if it fails."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"TQDM_DISABLE": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RunError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}")


def middle(rounds: Sequence[dict[str, Any]], key: str) -> float:
    """The median of a number over the rounds."""
    return median(found[key] for found in rounds)


def ratio(rounds: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], key: str) -> float:
    """The median of the ratios of each round."""
    return median(one[key] / other[key] for one, other in zip(rounds, base, strict=True))


def describe(variants: Variants, rounds: Rounds) -> dict[str, Any]:
    """What was run on which machine, for the result file."""
    manifest = rounds["ours"][0]["manifest"]
    return {
        "commands": {name: " ".join(command) for name, (command, _) in variants.items()},
        "device": manifest["hardware"]["device"],
        "products": describe_products(manifest["hardware"]),
        "versions": manifest["versions"],
        "commit": manifest["commit"],
    }


def versions_of(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def timed(texts: list[Any], work: Callable[[list[Any]], Any]) -> tuple[int, float]:
    """Texts and seconds, after a warm-up on the first ones."""
    work(texts[:WARM_UP])
    start = time.perf_counter()
    work(texts)
    return len(texts), time.perf_counter() - start
