"""What a run leaves beside the model: recipe.yaml, manifest.json, the training curve and the model card."""

import dataclasses
import enum
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from transformers.trainer_utils import get_last_checkpoint

from shared.errors import InputError
from shared.files import atomic_file, write_json
from shared.threads import available_cores, use_all_cores

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "evaluate", "accelerate", "deepspeed", "numpy")


class RunRecord:
    """The record of one run. Create it first thing in `main`; call `finish` last."""

    def __init__(self, training_args: Any, *others: Any) -> None:
        """Find the checkpoint to resume from, if any, and write recipe.yaml and the first manifest.json.

        Raises InputError when the folder holds checkpoints of a run with another recipe.
        """
        use_all_cores()
        self.args = training_args
        self.folder = Path(training_args.output_dir)
        self.recipe = recipe_of(*others, training_args)
        self.start = time.time()
        self.manifest: dict[str, Any] = {
            "command": sys.argv,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _git_commit(),
            "versions": _versions(),
            "hardware": _hardware(),
            "processes": training_args.world_size,
        }
        self.checkpoint = training_args.resume_from_checkpoint
        if self.checkpoint in ("True", "true", True) or (self.checkpoint is None and self.folder.is_dir()):
            self.checkpoint = get_last_checkpoint(str(self.folder)) if self.folder.is_dir() else None
        if training_args.resume_from_checkpoint is None and self.checkpoint is not None:
            self._refuse_other_recipe()
        if self.is_writer and not getattr(training_args, "dry_run", False):
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.folder / "recipe.yaml") as file:
                file.write_text(yaml.safe_dump(self.recipe, sort_keys=False), encoding="utf-8")
            write_json(self.folder / "manifest.json", self.manifest)

    @property
    def is_writer(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.args.process_index == 0

    def print(self, text: str) -> None:
        """Print on one process only."""
        if self.is_writer:
            print(text, flush=True)

    def finish(self, trainer: Any, metrics: dict[str, float], card: "ModelCardFacts") -> None:
        """Write the final manifest, the curve and the card, and push all of it when `push_to_hub` is set."""
        if not self.is_writer:
            return
        self.manifest |= {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.start, 1),
            "results": metrics,
        }
        write_json(self.folder / "manifest.json", self.manifest)
        draw_curve(trainer.state.log_history, self.folder / "curve.png")
        write_model_card(self.folder, metrics, self.recipe, self.manifest, card)
        if self.args.push_to_hub:
            from huggingface_hub import HfApi

            HfApi(token=self.args.hub_token).upload_folder(
                repo_id=trainer.hub_model_id,
                folder_path=self.folder,
                commit_message="End of training",
                ignore_patterns=["checkpoint-*", "*.bin", ".*"],
            )

    def _refuse_other_recipe(self) -> None:
        stored = self.folder / "recipe.yaml"
        before = yaml.safe_load(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
        # What may change between the parts of one run: where it stops to look, save and report, not what it computes.
        free = {"output_dir", "logging_steps", "save_steps", "save_total_limit", "eval_steps", "report_to", "dry_run"}
        changed = [k for k in sorted({*before, *self.recipe} - free) if before.get(k) != self.recipe.get(k)]
        if changed:
            differences = ", ".join(f"{k}: {before.get(k)} -> {self.recipe.get(k)}" for k in changed)
            raise InputError(
                f"--output_dir {self.folder}: holds checkpoints of another recipe ({differences}); name a new folder, "
                "or insist with --resume_from_checkpoint"
            )


@dataclasses.dataclass
class ModelCardFacts:
    """What a model card says that only the script knows. `metrics` maps result keys to readable names."""

    title: str
    task: str  # the Hub's pipeline tag
    dataset: str
    metrics: dict[str, str]
    base_model: str | None = None


def recipe_of(*arguments: Any) -> dict[str, Any]:
    """All flags of the given dataclasses that differ from the defaults, as a recipe that --config reads back."""
    recipe: dict[str, Any] = {}
    for given in arguments:
        default = type(given)()
        for field in dataclasses.fields(given):
            value = _plain(getattr(given, field.name))
            if field.init and value is not None and value != _plain(getattr(default, field.name)):
                recipe[field.name] = value
    return recipe


def draw_curve(log_history: list[dict[str, Any]], path: Path) -> None:
    """Draw training and evaluation loss, in nats, over steps; writes nothing when neither was logged."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "evaluation", "o-")):
        points = [(row["step"], row[key]) for row in log_history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    if axes.lines:
        axes.set(xlabel="step", ylabel="loss (nats per masked token)")
        axes.grid(alpha=0.3)
        axes.legend()
        with atomic_file(path) as file:
            figure.savefig(file, dpi=150)
    pyplot.close(figure)


def write_model_card(
    folder: Path, metrics: dict[str, float], recipe: dict[str, Any], manifest: dict[str, Any], facts: ModelCardFacts
) -> None:
    """Write README.md: results as metadata and as a table, and how to use the model and get it again."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    rows = {key: name for key, name in facts.metrics.items() if key in metrics}
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=facts.task,
        tags=["tiny-olm"],
        base_model=facts.base_model,
        model_name=folder.name,
        eval_results=[
            EvalResult(
                task_type=facts.task,
                dataset_type=facts.dataset,
                dataset_name=facts.dataset,
                metric_type=key.removeprefix("eval_"),
                metric_name=name,
                metric_value=metrics[key],
            )
            for key, name in rows.items()
        ],
    )
    results = "\n".join(f"| {name} | {metrics[key]:.4g} |" for key, name in rows.items())
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    text = f"""# {folder.name}

{facts.title}

| measure | value |
|---|---|
{results}

![training curve](curve.png)

```python
from transformers import pipeline

model = pipeline("{facts.task}", "path/or/id/of/this/model")
```

The text was not checked for truth or bias; the model repeats what it read.

Trained with `{" ".join(manifest["command"])}` at commit {manifest["commit"]} in {manifest["seconds"]:,.0f} s on
{manifest["hardware"]["device"]} ({versions}). `recipe.yaml` holds every setting that differs from the defaults, and
`manifest.json` the hashes of the inputs.

```yaml
{yaml.safe_dump(recipe, sort_keys=False).strip()}
```
"""
    with atomic_file(folder / "README.md") as file:
        file.write_text(str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")), encoding="utf-8")


def _plain(value: Any) -> Any:
    """A value as it would be typed in a recipe."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return json.dumps(value) if value else None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value] or None
    return value if isinstance(value, (str, int, float, bool)) else None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    import torch

    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), processor)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = available_cores()
    device = f"{len(gpus)} x {gpus[0]}" if gpus else f"{cores} cores of {processor}"
    return {"device": device, "cpu": processor, "cores": cores, "gpus": gpus, "platform": platform.platform()}


def _git_commit() -> str:
    """The commit of this repository, `-dirty` behind it when tracked files were changed; 'unknown' without git."""
    root = Path(__file__).parent.parent
    try:
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
