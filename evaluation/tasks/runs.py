"""What run_benchmark.py does with any model and task: names, checks, and a run whose failure is a result."""

import contextlib
import gc
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.tasks.definitions import TASKS
from shared.errors import InputError, RunError, one_line
from shared.files import read_json, sha256_of, write_json

FINE_TUNED = ("SequenceClassification", "TokenClassification", "QuestionAnswering")


def name_models(models: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Paths by name: as NAME=PATH says, or the last part of a path.

    Raises InputError where two have one name, or one that is `taken` or is no name of a folder.
    """
    found: dict[str, str] = {}
    for entry in models:
        name, equals, path = entry.partition("=")
        name, path = (name, path) if equals else (Path(entry).name, entry)
        if not name or name in (*found, *taken) or "/" in name or name.startswith("."):
            raise InputError(f"--models {entry}: the name {name!r} is taken or none; give one as NAME=FOLDER")
        found[name] = path
    return found


def check_model(path: str, fine_tuned: bool = False) -> dict[str, str]:
    """The hashes of a local checkpoint. Raises InputError if it cannot be loaded, or is fine-tuned but must not be."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--models {path}: {one_line(error, 300)}") from error
    for head in config.architectures or []:
        if head.endswith(FINE_TUNED) and not fine_tuned:
            reason = f"is fine-tuned already ({head})"
            raise InputError(f"--models {path}: {reason}; name the pretrained checkpoint, or add --fine_tuned")
    files = [file for pattern in ("config.json", "*.safetensors") for file in sorted(Path(path).glob(pattern))]
    return {file.name: sha256_of(file) for file in files}


def check_folder(output_dir: str, hashes: dict[str, dict[str, str]]) -> None:
    """Raise InputError if `output_dir` holds runs of other models under these names; write down which these are."""
    file = Path(output_dir, "models.json")
    before = read_json(file) if file.is_file() else {}
    for name, now in hashes.items():
        if before.get(name, now) != now:
            raise InputError(f"--output_dir {output_dir}: holds runs of another {name}; name a new folder")
    write_json(file, before | hashes)


def do_run(task: str, run: tuple[Any, ...]) -> dict[str, Any]:
    """Run a fine-tuning script, whose output goes to log.txt in the folder of the run.

    Returns `value`, the main metric as a share, all `metrics` and the `folder`; or the `failure`.
    """
    folder = Path(run[-1].output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        open(folder / "log.txt", "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            metrics = TASKS[task].module.main(*run)
        except Exception as error:  # a signal raises SystemExit, and ends all
            traceback.print_exc()
            return {"failure": say_why(error), "folder": str(folder)}
        finally:
            free_memory()
    for checkpoint in folder.glob("checkpoint-*"):  # a finished run needs none
        shutil.rmtree(checkpoint)
    found = {name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")}
    return {"value": found[TASKS[task].metric] / TASKS[task].divisor, "metrics": found, "folder": str(folder)}


def say_why(error: Exception) -> str:
    """The reason of a failure in one line."""
    text = one_line(error, 300)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "allocate memory" in text.lower():
        return f"out of memory: {text}".rstrip(": ")
    return text if isinstance(error, (InputError, RunError)) else f"{type(error).__name__}: {text}"


def free_memory() -> None:
    """Let go of the last model before the next one loads."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
