"""The model of a checkpoint, its rows moved to the numbers that another tokenizer gives to the same tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pretraining.text.mixture import Mixture
from pretraining.vocabulary.kinship import Kinship, find_kinship
from shared import model_config
from shared.model_config import ModelArguments, vocabulary_hash
from shared.tokenizer import MULTIPLE

COUNTED_TOKENS = 1 << 24  # of the blocks, evenly chosen, for the frequencies that biases start from


def build_model(
    args: ModelArguments,
    tokenizer: Any,
    max_seq_length: int,
    say: Callable[[str], None] = print,
    blocks: np.ndarray | Mixture | None = None,
) -> Any:
    """`shared.model_config.build_model`; of a checkpoint with another tokenizer than this one, the rows are moved.

    `blocks`, (blocks, length) of ids or a mixture, are those to train on; `say` is told how many rows were kept.
    Raises InputError as that function and `find_kinship` do.
    """
    found = find_kinship(args, tokenizer)
    if found is None:
        return model_config.build_model(args, tokenizer, max_seq_length, say)
    own, kinship = found
    model = model_config.build_model(args, own, max_seq_length, say)
    move_rows(model, kinship, len(tokenizer), None if blocks is None else count_tokens(blocks))
    for role in ("bos", "eos", "cls", "sep"):
        old = getattr(model.config, f"{role}_token_id", None)
        moved = {there: here for here, there in kinship.kept.items()}
        if old is not None:
            setattr(model.config, f"{role}_token_id", moved.get(old, old))
    model.config.vocabulary_sha256 = vocabulary_hash(tokenizer)
    say(
        f"Rows of the vocabulary, by the tokens of {args.model_name_or_path}: {kinship.counted - len(kinship.pieces)} "
        f"kept, {len(kinship.pieces)} new (the mean of their old pieces), {kinship.dropped} dropped"
    )
    return model


def count_tokens(blocks: np.ndarray | Mixture) -> np.ndarray:
    """How often each id occurs in the blocks, or in evenly chosen ones of many."""
    length = (blocks.sets[0] if isinstance(blocks, Mixture) else blocks).shape[1]
    most = max(COUNTED_TOKENS // length, 1)
    rows = np.unique(np.linspace(0, max(len(blocks) - 1, 0), min(most, len(blocks))).astype(int))
    counts = np.zeros(0, dtype=np.int64)
    for start in range(0, len(rows), 1 << 14):
        part = rows[start : start + (1 << 14)]
        ids = blocks.read(part, 0)[0] if isinstance(blocks, Mixture) else np.asarray(blocks[part])
        more = np.bincount(ids.ravel(), minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return counts


@torch.no_grad()
def move_rows(model: Any, kinship: Kinship, entries: int, counts: np.ndarray | None = None) -> None:
    """Give each of `entries` tokens its row in the input and output embeddings, and its number in the output's bias.

    Rows of tokens that the checkpoint has are moved bit for bit. Where the embedding grows, it grows to a multiple of
    64. `counts` says how often ids occur in the text to train on.
    """
    size, padded = model.config.vocab_size, -(-entries // MULTIPLE) * MULTIPLE
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tied = outputs is None or outputs.weight.data_ptr() == inputs.weight.data_ptr()
    tables = [inputs.weight.clone()] if tied else [inputs.weight.clone(), outputs.weight.clone()]
    bias = getattr(outputs, "bias", None)
    bias = None if bias is None else bias.clone()
    rows = padded if entries > size else size
    if rows != size:
        model.resize_token_embeddings(rows, mean_resizing=False)
        inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
        if bias is not None and not tied:  # the library makes it the same as another one, and saves only that
            outputs.bias = torch.nn.Parameter(outputs.bias.clone())
    for table, module in zip(tables, (inputs, outputs), strict=False):
        module.weight.copy_(_moved(table, kinship, rows))
    if bias is not None:
        outputs.bias.copy_(_moved_bias(bias, kinship, rows, counts))


def _moved(table: torch.Tensor, kinship: Kinship, rows: int) -> torch.Tensor:
    """The table in its new order.

    The mean of several rows is shorter than each of them, by about the root of their number where they have little in
    common; the token would have smaller logits than others, and weigh less in the sum with position and type. So new
    rows get the mean length of the old ones that text becomes. A row of one piece ("Apple", of "apple") is a copy.
    """
    in_use = table[kinship.in_use]
    length = in_use.norm(dim=1).mean()
    # What no text becomes: as the checkpoint's own unused rows, which training pushed away from all texts.
    moved = (table[kinship.unused] if kinship.unused else in_use).mean(dim=0).repeat(rows, 1)
    moved[list(kinship.kept)] = table[list(kinship.kept.values())]
    for number, pieces in kinship.pieces.items():
        mean = (table[pieces] if pieces else in_use).mean(dim=0)
        moved[number] = mean if len(pieces) == 1 else mean * (length / mean.norm().clamp(min=1e-9))
    return moved


def _moved_bias(bias: torch.Tensor, kinship: Kinship, rows: int, counts: np.ndarray | None) -> torch.Tensor:
    """The bias in its new order.

    A bias that was trained for long is nearly the logarithm of the token's frequency plus a constant, one that was not
    is nearly zero. So a new one lies on the line through the old ones over the logarithms of their frequencies.
    Without counts it is the mean of its pieces' biases.
    """
    moved = bias.min().repeat(rows)  # of what no text becomes
    kept, there = list(kinship.kept), list(kinship.kept.values())
    moved[kept] = bias[there]
    new = list(kinship.pieces)
    if counts is None or not new:
        for number, pieces in kinship.pieces.items():
            moved[number] = bias[pieces or kinship.in_use].mean()
        return moved
    counts = np.pad(counts, (0, max(rows - len(counts), 0)))
    in_use = set(kinship.in_use)
    known = [(here, old) for here, old in kinship.kept.items() if old in in_use and counts[here]]
    x = np.log(counts[[here for here, _ in known]])
    y = bias[[old for _, old in known]].double().cpu().numpy()
    slope, start = np.polyfit(x, y, 1) if len(set(x)) > 1 else (0.0, bias[kinship.in_use].mean().item())
    moved[new] = torch.tensor(start + slope * np.log(np.maximum(counts[new], 1)), dtype=bias.dtype)
    return moved
