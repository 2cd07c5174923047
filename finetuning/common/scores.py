"""Which of a run's metrics are scores of the model."""

import re
from typing import Any

NOT_RESULTS = ("_runtime", "_per_second", "_peak_memory_gib", "epoch", "_share_", "total_flos", "skipped_steps")
OF_ONE_LABEL = re.compile(r"(eval|test)\w*?_(precision|recall|f1|threshold)_")
MOST = 80  # scores of single labels that are shown; with more, only the results file has them


def names_of_scores(metrics: dict[str, Any]) -> dict[str, str]:
    """The scores among the metrics, with names for readers: what was measured on held-out data, but for its speed."""
    keys = [key for key in metrics if key.startswith(("eval_", "test_"))]
    if sum(bool(OF_ONE_LABEL.match(key)) for key in keys) > MOST:
        keys = [key for key in keys if not OF_ONE_LABEL.match(key)]
    return {key: key.replace("_", " ") for key in keys if not any(part in key for part in NOT_RESULTS)}
