"""How fast the masked loss is measured, beside the bare forward passes that it needs."""

import time
from statistics import median
from typing import Any

import numpy as np
import torch

from evaluation.masked.scores import Checkpoint, masked_batch, score_blocks

ROUNDS = 5


def measure_speed(model: Any, blocks: np.ndarray, checkpoint: Checkpoint, batch_size: int) -> dict[str, float]:
    """Tokens per second of the whole evaluation, of bare forward passes on batches made before, and of passes with the
    head at every position, as the model comes; in turns, medians. Takes as many blocks as make 8 batches."""
    some = np.asarray(blocks[: 8 * batch_size])
    keys = np.arange(len(some))
    parts = [slice(start, start + batch_size) for start in range(0, len(some), batch_size)]
    batches = [masked_batch(checkpoint, some[part], keys[part], model.device)[0] for part in parts]
    plain = [{name: batch[name] for name in batch if name != "masked_positions"} for batch in batches]

    def forward(inputs: list[dict[str, Any]]) -> None:
        with torch.inference_mode():
            for batch in inputs:
                model(**batch)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    variants = {
        "evaluation": lambda: score_blocks(model, checkpoint, some, keys, batch_size),
        "forward": lambda: forward(batches),
        "forward_every_position": lambda: forward(plain),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(ROUNDS + 1):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    speed = {f"{name}_tokens_per_second": some.size / median(times) for name, times in seconds.items()}
    for name in ("forward", "forward_every_position"):
        pairs = zip(seconds[name], seconds["evaluation"], strict=True)
        speed[f"ratio_to_{name}"] = median(bare / ours for bare, ours in pairs)
    return speed
