"""Which of a run's metrics are scores of the model."""

from typing import Any

NOT_RESULTS = ("_runtime", "_per_second", "_peak_memory_gib", "epoch", "_share_", "total_flos", "skipped_steps")


def names_of_scores(metrics: dict[str, Any]) -> dict[str, str]:
    """The scores among the metrics, with names for readers: what was measured on held-out data, but for its speed."""
    keys = (key for key in metrics if key.startswith(("eval_", "test_")))
    return {key: key.replace("_", " ") for key in keys if not any(part in key for part in NOT_RESULTS)}
