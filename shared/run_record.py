"""What a run leaves beside the model: recipe.yaml, manifest.json, the training curve and the model card."""

import dataclasses
import enum
import importlib.metadata
import importlib.util
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
SECRETS = ("hub_token",)  # flags whose values are never written down


class RunRecord:
    """The record of one run. Create it first thing in `main`; call `finish` last."""

    def __init__(self, training_args: Any, *others: Any) -> None:
        """Find the checkpoint to resume from, if any, and write recipe.yaml and the first manifest.json.

        `finished` is the manifest of the run in this folder if that has ended well, else None. Raises InputError when
        the folder holds a run with another recipe, or a checkpoint was asked for that is not there.
        """
        use_all_cores()
        for name in training_args.report_to:
            if importlib.util.find_spec(name) is None:
                raise InputError(f"--report_to {name}: not installed; run pip install {name}, or use --report_to none")
        self.args = training_args
        self.folder = Path(training_args.output_dir)
        self.recipe = recipe_of(*others, training_args)
        if training_args.hub_token:  # out of Trainer's pickled arguments
            os.environ["HF_TOKEN"], training_args.hub_token = training_args.hub_token, None
        self.start = time.time()
        self.checkpoint = self._find_checkpoint()
        self.finished = self._read_finished()
        if training_args.resume_from_checkpoint is None and (self.checkpoint or self.finished):
            self._refuse_other_recipe()
        self.manifest: dict[str, Any] = {
            "command": _without_secrets(sys.argv),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "resumed_from": self.checkpoint,
            "commit": _git_commit(),
            "versions": _versions(),
            "hardware": _hardware(training_args.device.type),
            "processes": training_args.world_size,
        }
        if self.is_writer and not self.finished and not getattr(training_args, "dry_run", False):
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
        (self.folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; recipe.yaml says the same in text
        draw_curve(trainer.state.log_history, self.folder / "curve.png")
        write_model_card(self.folder, metrics, self.recipe, self.manifest, card)
        if self.args.push_to_hub:
            from huggingface_hub import HfApi

            HfApi(token=self.args.hub_token).upload_folder(
                repo_id=trainer.hub_model_id,
                folder_path=self.folder,
                commit_message="End of training",
                ignore_patterns=["checkpoint-*", ".*"],
            )

    def _find_checkpoint(self) -> str | None:
        """The checkpoint named by the flag; without the flag, or with `true`, the newest one in the folder."""
        wish = self.args.resume_from_checkpoint
        if wish not in (None, "true", "True"):
            if not Path(wish, "trainer_state.json").is_file():
                raise InputError(f"--resume_from_checkpoint {wish}: not a checkpoint folder; name one, or say true")
            return str(wish)
        checkpoint: str | None = get_last_checkpoint(str(self.folder)) if self.folder.is_dir() else None
        if wish is not None and checkpoint is None:
            raise InputError(f"--resume_from_checkpoint {wish}: there is no checkpoint in {self.folder}")
        return checkpoint

    def _read_finished(self) -> dict[str, Any] | None:
        manifest = self.folder / "manifest.json"
        if self.args.resume_from_checkpoint is not None or not manifest.is_file():
            return None
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        return content if "results" in content else None

    def _refuse_other_recipe(self) -> None:
        stored = self.folder / "recipe.yaml"
        if not stored.is_file():
            return
        before = yaml.safe_load(stored.read_text(encoding="utf-8"))
        # What may change between the parts of one run: where it writes, looks and reports, not what it computes.
        free = "output_dir dry_run use_cpu mask_examples disable_tqdm resume_ report_to push_to_ dataloader_num "
        free += "dataloader_pin eval_ per_device_eval hub_ log_ logging_ save_"
        names = sorted(name for name in {*before, *self.recipe} if not name.startswith(tuple(free.split())))
        changed = [
            f"{n}: {before.get(n)} -> {self.recipe.get(n)}" for n in names if before.get(n) != self.recipe.get(n)
        ]
        if changed:
            raise InputError(
                f"--output_dir {self.folder}: holds a run with another recipe ({', '.join(changed)}); name a new "
                "folder, or insist with --resume_from_checkpoint true"
            )


@dataclasses.dataclass
class ModelCardFacts:
    """What a model card says that only the script knows. `metrics` maps result keys to readable names."""

    title: str
    task: str  # the Hub's pipeline tag
    dataset: str
    metrics: dict[str, str]
    base_model: str | None = None


def readable(value: float) -> str:
    """A number for a table: whole when large, four significant digits when small."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def recipe_of(*arguments: Any) -> dict[str, Any]:
    """All flags of the given dataclasses that differ from the defaults, as a recipe that --config reads back.

    No default TrainingArguments is made for the comparison: that would reset the process group of this run.
    """
    recipe: dict[str, Any] = {}
    for given in arguments:
        values = getattr(given, "given", vars(given))
        for field in dataclasses.fields(given):
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            value = _plain(values.get(field.name))
            if field.init and field.name not in SECRETS and value is not None and value != _plain(default):
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
    results = "\n".join(f"| {name} | {readable(metrics[key])} |" for key, name in rows.items())
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


def _without_secrets(command: list[str]) -> list[str]:
    hidden = []
    for word, following in zip(["", *command], command, strict=False):
        name, equals, _ = following.partition("=")
        if name.lstrip("-").replace("-", "_") in SECRETS and equals:
            hidden.append(f"{name}=***")
        else:
            hidden.append("***" if word.lstrip("-").replace("-", "_") in SECRETS else following)
    return hidden


def _hardware(device_type: str) -> dict[str, Any]:
    import torch

    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), processor)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if device_type == "cuda" else []
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
