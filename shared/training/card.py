"""What people look at when a run has ended: the training curve and the model card."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from shared.figures import new_figure, save_figure
from shared.files import write_text

PIPELINE = """from transformers import pipeline

model = pipeline("{}", "path/or/id/of/this/model")"""


@dataclasses.dataclass
class ModelCardFacts:
    """What a model card says that only the script knows. `metrics` maps result keys to readable names."""

    title: str
    task: str  # the Hub's pipeline tag
    dataset: str
    metrics: dict[str, str]
    base_model: str | None = None
    loss: str = "loss (nats per masked token)"
    usage: str | None = None  # Python code; by default the pipeline of the task
    library: str = "transformers"


def readable(value: float) -> str:
    """A number for a table: whole when large, four significant digits when small."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def draw_curve(log_history: list[dict[str, Any]], path: Path, unit: str) -> None:
    """Draw training and evaluation loss, in `unit`, over steps; writes nothing when neither was logged."""
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    for key, label, marker in (("loss", "training", ""), ("eval_loss", "evaluation", "o")):
        points = [(row["step"], row[key]) for row in log_history if key in row]
        if points:
            marker = marker or ("." if len(points) < 3 else "")  # a line needs more than one point to be seen
            axes.plot(*zip(*points, strict=True), f"{marker}-", label=label, markersize=4)
    if axes.lines:
        axes.set(xlabel="step", ylabel=unit)
        axes.grid(alpha=0.3)
        axes.legend()
        save_figure(figure, path)


def write_model_card(
    folder: Path, metrics: dict[str, float], recipe: dict[str, Any], manifest: dict[str, Any], facts: ModelCardFacts
) -> None:
    """Write README.md: results as metadata and as a table, and how to use the model and get it again."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    rows = {key: name for key, name in facts.metrics.items() if key in metrics}
    task: dict[str, Any] = {"task_type": facts.task, "dataset_type": facts.dataset, "dataset_name": facts.dataset}
    data = ModelCardData(
        library_name=facts.library,
        pipeline_tag=facts.task,
        tags=["tiny-olm"],
        base_model=facts.base_model,
        model_name=folder.name,
        eval_results=[
            EvalResult(metric_type=key.removeprefix("eval_"), metric_name=name, metric_value=metrics[key], **task)
            for key, name in rows.items()
        ],
    )
    results = "\n".join(f"| {name} | {readable(metrics[key])} |" for key, name in rows.items())
    curve = "![training curve](curve.png)\n\n" if (folder / "curve.png").is_file() else ""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    took = f"{manifest['seconds']:,.0f} s"
    if manifest["resumed_from"]:  # the seconds are those since then
        took += f" after {Path(manifest['resumed_from']).name}"
    text = f"""# {folder.name}

{facts.title}

| measure | value |
|---|---|
{results}

{curve}```python
{facts.usage or PIPELINE.format(facts.task)}
```

The text was not checked for truth or bias; the model repeats what it read.

Trained with `{" ".join(manifest["command"])}` at commit {manifest["commit"]} in {took} on
{manifest["hardware"]["device"]} ({versions}). `recipe.yaml` holds every setting that differs from the defaults, and
`manifest.json` the hashes of the inputs.

```yaml
{yaml.safe_dump(recipe, sort_keys=False).strip()}
```
"""
    write_text(folder / "README.md", str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")))
