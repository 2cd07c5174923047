"""Measure masked-language models on any text: loss, perplexity, masked accuracy and bits per byte at fixed masks.

    python evaluation/run_mlm_eval.py --models runs/tiny runs/tiny_modern --input news.parquet --output_dir runs/eval

Reads text, which every model cuts into blocks with its own tokenizer, or blocks packed before. All models see the same
text; 15% of its tokens, the same ones in every run, are masked and predicted, as in the evaluation of run_mlm.py.
Writes mlm_eval.json and mlm_eval.md, with 95% intervals from a bootstrap over blocks.

Bits per byte are the loss per masked token times tokens per byte: what makes models with different tokenizers
comparable, but for those that cut words into more pieces and leave a part of a masked word in sight. --pll compares by
pseudo-log-likelihood as well, in which a token is masked together with what follows in its word.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pack_dataset import cached_blocks
from evaluation.masked.eval_page import make_table
from evaluation.masked.forward_speed import measure_speed
from evaluation.masked.scores import (
    Checkpoint,
    encode_sentences,
    load_model,
    open_checkpoints,
    publish,
    score_blocks,
    score_sentences,
)
from evaluation.masked.text_sample import FirstDocuments, choose_sentences
from evaluation.tasks.bootstrap import interval, resample_sums
from pretraining.masking import Masker
from shared.blocks import open_blocks, read_manifest
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import InputError
from shared.loss import IGNORED
from shared.tokenizer import tokenizer_hash
from shared.training.memory import keep_memory


@dataclass
class EvalArguments:
    models: list[str] = field(default_factory=list, metadata={"help": "Checkpoints: folders, Hub ids or NAME=FOLDER."})
    input: list[str] = field(
        default_factory=list, metadata={"help": "Text: files or folders. Or one folder written by pack_dataset.py."}
    )
    output_dir: str = field(default="runs/mlm_eval", metadata={"help": "The folder for results and table."})
    max_samples: int | None = field(default=None, metadata={"help": "The first N documents, or packed blocks, only."})
    validation_fraction: float = field(
        default=0.0, metadata={"help": "Read only the documents that packing with this share holds out. Default: all."}
    )
    max_seq_length: int = field(default=128, metadata={"help": "Tokens in a block, when text is packed here."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Blocks in one forward pass."})
    pll: bool = field(default=False, metadata={"help": "Measure the pseudo-log-likelihood of sentences as well."})
    pll_samples: int = field(default=1000, metadata={"help": "Sentences for --pll, chosen by a hash of each."})
    measure_speed: bool = field(
        default=False, metadata={"help": "Time the evaluation against the bare forward passes of the model."}
    )
    seed: int = field(default=0, metadata={"help": "Of the bootstrap."})

    def __post_init__(self) -> None:
        check_ranges(self, max_samples=">= 1", per_device_eval_batch_size=">= 1", pll_samples=">= 1")
        check_ranges(self, validation_fraction=">= 0, < 1")
        if self.is_packed and (self.pll or self.validation_fraction):
            flag = "pll" if self.pll else "validation_fraction"
            raise InputError(f"--{flag}: needs text, and --input is a folder of packed blocks")
        if not self.pll:
            refuse_flags(self, {"pll_samples": "is for --pll"})

    @property
    def is_packed(self) -> bool:
        return len(self.input) == 1 and (Path(self.input[0]) / "train.npy").is_file()

    @property
    def block_length(self) -> int:
        """Tokens in a block: of packed blocks what they have. Raises InputError where --max_seq_length is another."""
        length: int = read_manifest(self.input[0])["max_seq_length"] if self.is_packed else self.max_seq_length
        if self.max_seq_length not in (length, EvalArguments.max_seq_length):
            raise InputError(f"--max_seq_length {self.max_seq_length}: the blocks of --input are of {length} tokens")
        return length


def load_blocks(args: EvalArguments, checkpoint: Checkpoint) -> tuple[np.ndarray, dict[str, Any]]:
    """The blocks that a model is measured on, and what is known of their split: documents, tokens, bytes."""
    if args.is_packed:
        packed = open_blocks(args.input[0])
        if packed.manifest["tokenizer"]["sha256"] != tokenizer_hash(checkpoint.tokenizer):
            raise InputError(
                f"--input {args.input[0]}: packed by another tokenizer than that of {checkpoint.name}; give the text "
                "itself, which each model then packs with its own"
            )
    else:
        documents = FirstDocuments(args.input, args.max_samples)
        length, share = args.max_seq_length, args.validation_fraction
        packed = open_blocks(cached_blocks(documents, checkpoint.tokenizer, length, share))
    split = "validation" if "validation" in packed.splits else "train"
    blocks = packed.splits[split][: args.max_samples if args.is_packed else None]
    return blocks, packed.manifest["splits"][split]


def describe_blocks(blocks: np.ndarray, facts: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """What is known of blocks from the `facts` of their split: of a part of it, neither documents nor bytes."""
    whole = ("documents", "tokens", "bytes") if len(blocks) == facts["blocks"] else ()
    row = {"blocks": len(blocks)} | {name: facts[name] for name in whole}
    row |= {"tokens_per_byte": facts["tokens"] / facts["bytes"], "tokenizer": tokenizer_hash(tokenizer)}
    return row | {"unknown_share": float(np.mean(np.asarray(blocks) == tokenizer.unk_token_id))}


def most_frequent(blocks: np.ndarray, masker: Masker) -> float:
    """The masked accuracy of always guessing the most frequent target: what any model has to beat."""
    counts = np.zeros(len(masker.is_special), dtype=np.int64)
    for start in range(0, len(blocks), 1024):
        ids = np.asarray(blocks[start : start + 1024])
        labels = masker(ids, np.arange(start, start + len(ids)), 0)[2]
        counts += np.bincount(labels[labels != IGNORED], minlength=len(counts))
    return float(counts.max() / counts.sum())


def summarize_blocks(sums: np.ndarray, tokens_per_byte: float) -> dict[str, np.ndarray]:
    """Metrics from summed loss, hits and targets, (..., 3), as in run_mlm.py."""
    loss, accuracy = sums[..., 0] / sums[..., 2], sums[..., 1] / sums[..., 2]
    with np.errstate(over="ignore"):
        perplexity = np.exp(loss)
    bits = loss / math.log(2) * tokens_per_byte
    return {"loss": loss, "perplexity": perplexity, "masked_accuracy": accuracy, "bits_per_byte": bits}


def summarize_sentences(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics from summed pseudo-log-likelihood, tokens and bytes, (..., 3), whatever the lengths of sentences."""
    per_token = -sums[..., 0] / sums[..., 1]
    bits = -sums[..., 0] / sums[..., 2] / math.log(2)
    return {"pll_loss": per_token, "pseudo_perplexity": np.exp(per_token), "pll_bits_per_byte": bits}


def with_intervals(values: dict[str, Any], samples: dict[str, np.ndarray]) -> dict[str, Any]:
    """The values as numbers, and beside each its 95% interval."""
    intervals = {f"{name}_interval": interval(samples[name]) for name in values}
    return {name: float(value) for name, value in values.items()} | intervals


def main(args: EvalArguments) -> dict[str, Any]:
    if not args.input:
        raise InputError("--input: name files or folders of text, or a folder of packed blocks")
    checkpoints = open_checkpoints(args.models, args.block_length)
    data = [load_blocks(args, checkpoint) for checkpoint in checkpoints]
    texts = []
    if args.pll:
        documents = FirstDocuments(args.input, args.max_samples)
        texts = choose_sentences(documents, args.validation_fraction, args.pll_samples)
    encoded = [encode_sentences(checkpoint, texts) for checkpoint in checkpoints]
    fitting = [number for number in range(len(texts)) if all(sentences[number] for sentences in encoded)]
    text_bytes = np.array([len(texts[number].encode()) for number in fitting])
    keep_memory()

    report: dict[str, Any] = {"models": {}, "settings": asdict(args)}
    drawn: list[dict[str, np.ndarray]] = []
    for checkpoint, (blocks, facts), sentences in zip(checkpoints, data, encoded, strict=True):
        model, tokenizer = load_model(checkpoint), checkpoint.tokenizer
        start, batch_size = time.perf_counter(), args.per_device_eval_batch_size
        sums = score_blocks(model, checkpoint, blocks, np.arange(len(blocks)), batch_size)
        seconds = time.perf_counter() - start
        if not sums[:, 2].sum():
            raise InputError("--input: too little text, there is no token to hide")
        tokens_per_byte = facts["tokens"] / facts["bytes"]
        values = summarize_blocks(sums.sum(0), tokens_per_byte)
        samples = summarize_blocks(resample_sums(sums[sums[:, 2] > 0], args.seed), tokens_per_byte)
        row = describe_blocks(blocks, facts, tokenizer) | {"targets": int(sums[:, 2].sum())}
        row["most_frequent_token_accuracy"] = most_frequent(blocks, checkpoint.masker)
        row["tokens_per_second"] = blocks.size / seconds
        if args.pll:
            chosen = [sentences[number] for number in fitting]
            scores = score_sentences(model, [s for s in chosen if s], tokenizer.mask_token_id)
            parts = np.column_stack([[s.sum() for s in scores], [len(s) for s in scores], text_bytes])
            values |= summarize_sentences(parts.sum(0))
            samples |= summarize_sentences(resample_sums(parts, args.seed))
            row |= {"sentences": len(fitting), "sentences_left_out": len(texts) - len(fitting)}
        row |= with_intervals(values, samples)
        drawn.append(samples)
        if len(drawn) > 1:
            first = next(iter(report["models"].values()))
            row["paired_with_first"] = row["tokenizer"] == first["tokenizer"]  # the same blocks are drawn in both
            for name in ("bits_per_byte", "pll_bits_per_byte")[: 2 if args.pll else 1]:
                key, apart = f"{name}_minus_first", samples[name] - drawn[0][name]
                row |= with_intervals({key: values[name] - first[name]}, {key: apart})
        if args.measure_speed:
            row["speed"] = measure_speed(model, blocks, checkpoint, batch_size)
        report["models"][checkpoint.label] = row
        print(f"{checkpoint.label}: {len(blocks):,} blocks in {seconds:.1f} s", flush=True)
    return publish(args.output_dir, "mlm_eval", report, make_table)


if __name__ == "__main__":
    run_script(main, EvalArguments)
