"""Measure pretraining speed: pretraining/run_mlm.py against the stock path, in turns.

    python evaluation/bench/mlm.py --sizes tiny --vocab_sizes 30522 --seq_lengths 128 --output_dir runs/bench
    OMP_NUM_THREADS=1 taskset -c 0 python evaluation/bench/mlm.py --sizes tiny mini --variants "bf16: --bf16" \
        --rounds 1 --seconds 4 --output_dir runs/bf16    # on one core: does bf16 pay?

Both are whole scripts in processes of their own (run_mlm.py and stock_mlm.py): same model, made-up text, batch and
precision, on the GPU where there is one (then in bf16). Each round runs every variant once; tokens per second are
those after the first steps, without evaluation and saving. Writes bench_pretraining.json, a list of rows, and
bench_pretraining.md, and needs none of datasets, deepspeed and evaluate.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.bench.variants import (
    HELP,
    Rounds,
    Variants,
    describe,
    middle,
    ratio,
    read_variants,
    run_variant,
    versions_of,
)
from shared.blocks import open_blocks
from shared.command_line import check_ranges, run_script
from shared.errors import InputError
from shared.files import write_report
from shared.markdown import markdown_table
from shared.model_config import SIZES

BATCHES = {"cpu": {"tiny": 32, "mini": 16}, "cuda": {"tiny": 512, "mini": 256, "base": 64}}  # rows of 128 tokens
OTHER_BATCHES = {"cpu": 8, "cuda": 128}
FIRST_STEPS = 6  # of the run that finds out how many steps a variant needs
MOST_STEPS = 2000
TYPES = ("bert", "roberta", "modernbert")
NO_DROPOUT = "hidden_dropout_prob=0,attention_probs_dropout_prob=0"  # as in recipes/tiny.yaml; ModernBERT has none


@dataclass
class BenchArguments:
    output_dir: str = field(metadata={"help": "Folder for the JSON and Markdown tables."})
    sizes: list[str] = field(default_factory=lambda: ["tiny"], metadata={"help": "Model sizes, tiny to base."})
    vocab_sizes: list[int] = field(default_factory=lambda: [30522], metadata={"help": "Entries of the vocabulary."})
    seq_lengths: list[int] = field(default_factory=lambda: [128], metadata={"help": "Tokens in a block."})
    model_type: str = field(default="bert", metadata={"help": "The architecture: bert, roberta or modernbert."})
    config_overrides: str | None = field(
        default=None, metadata={"help": "Fields of the configuration of all variants. Default: those for no dropout."}
    )
    batch_size: int | None = field(
        default=None, metadata={"help": "Blocks in a step. Default: by size and device, fewer for longer blocks."}
    )
    rounds: int = field(default=3, metadata={"help": "Rounds, after a first one that is not counted."})
    seconds: float = field(default=15.0, metadata={"help": "About how long a variant is timed in each round."})
    variants: list[str] = field(default_factory=list, metadata={"help": HELP})
    skip_stock: bool = field(default=False, metadata={"help": "Compare variants alone, without the stock path."})

    def __post_init__(self) -> None:
        make_variants(self, "cpu")
        for flag, values, known in (("sizes", self.sizes, SIZES), ("model_type", [self.model_type], TYPES)):
            if not set(values) <= set(known):
                raise InputError(f"--{flag} {' '.join(values)}: there are {', '.join(known)}")
        check_ranges(self, vocab_sizes=">= 100", seq_lengths=">= 8", rounds=">= 1", seconds="> 0")
        if self.config_overrides is None and self.model_type != "modernbert":
            self.config_overrides = NO_DROPOUT


def pack_made_up_text(folder: Path, vocab_size: int, length: int, blocks: int) -> Path:
    """Blocks of words of a Zipf distribution, packed as any text is, with a tokenizer of exactly `vocab_size`."""
    from transformers import BertTokenizer

    from data_prep.pack_dataset import pack_dataset
    from shared.documents import Documents

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{i}" for i in range(vocab_size - len(special))]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(special + words)})
    rng = np.random.default_rng(0)
    tokens = int(blocks * length * 1.05)
    weights = 1 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), size=tokens, p=weights / weights.sum())
    cuts = np.cumsum(rng.lognormal(4.7, 1.0, size=tokens // 50).astype(int) + 8)
    with open(folder / "text.jsonl", "w", encoding="utf-8") as file:
        for part in np.split(drawn, cuts[cuts < tokens]):
            file.write(json.dumps({"text": " ".join(words[i] for i in part)}) + "\n")
    packed = folder / "packed"
    pack_dataset(Documents([str(folder / "text.jsonl")]), tokenizer, packed, length, 0.02, quiet=True)
    return packed


def make_variants(args: BenchArguments, device: str) -> Variants:
    """What is measured, as the recipes for the device have it."""
    precision = ["--bf16"] if device == "cuda" else []
    ours = ["pretraining/run_mlm.py", *precision, "--eval_strategy", "no", "--save_strategy", "no"]
    ours += ["--max_eval_samples", "8"]
    if device == "cuda":
        ours += ["--dataloader_num_workers", "4", "--dataloader_persistent_workers"]
    stock = None if args.skip_stock else ["evaluation/bench/stock_mlm.py", *precision]
    return read_variants(args.variants, ours, stock)


def measure(
    args: BenchArguments, size: str, vocab_size: int, length: int, device: str, folder: Path
) -> dict[str, Any]:
    """One row of the table: every variant once a round, in turns."""
    batch = args.batch_size or max(1, BATCHES[device].get(size, OTHER_BATCHES[device]) * 128 // length)
    packed = pack_made_up_text(folder, vocab_size, length, blocks=max(1024, 64 * batch))
    flags = {
        "packed_dataset": packed,
        "model_type": args.model_type,
        "model_size": size,
        "config_overrides": args.config_overrides,
        "per_device_train_batch_size": batch,
        # Whole batches of full blocks: the last block is padded.
        "max_train_samples": (open_blocks(packed).manifest["splits"]["train"]["blocks"] - 1) // batch * batch,
    }
    variants = make_variants(args, device)
    steps = dict.fromkeys(variants, FIRST_STEPS)
    found: Rounds = {name: [] for name in variants}
    for turn in range(args.rounds + 1):
        for name, (command, variables) in variants.items():
            with tempfile.TemporaryDirectory(dir=folder) as output:
                results = run_variant(command, flags | {"max_steps": steps[name]}, variables, Path(output))
            rate = results["train_tokens_per_second"]
            print(f"  {size} {vocab_size} {length}, round {turn}, {name}: {rate:,.0f} tokens/s", flush=True)
            if turn:
                found[name].append(results)
            else:
                steps[name] = int(min(MOST_STEPS, max(FIRST_STEPS, args.seconds * rate / (batch * length))))
    return {
        "size": size,
        "model_type": args.model_type,
        "vocab_size": vocab_size,
        "seq_length": length,
        "batch_size": batch,
        "config_overrides": args.config_overrides,
        "precision": "bf16" if device == "cuda" else "fp32",
        **summarize(found),
        **describe(variants, found),
        "rounds": {name: [results["train_tokens_per_second"] for results in rounds] for name, rounds in found.items()},
    }


def summarize(found: Rounds) -> dict[str, Any]:
    """Medians over the rounds; a ratio is the median of the ratios of each round."""
    keys = ("tokens_per_second", "peak_memory_gib", "model_flops_utilization", "peak_tflops")
    phases = ("share_data", "share_forward", "share_backward", "share_optimizer", "share_other")
    speed = "train_tokens_per_second"
    row: dict[str, Any] = {key: middle(found["ours"], f"train_{key}") for key in (*keys, *phases)}
    if "stock" in found:
        row |= {f"stock_{key}": middle(found["stock"], f"train_{key}") for key in keys[:3]}
        row["ratio"] = ratio(found["ours"], found["stock"], speed)
        row["peak_memory_ratio"] = row["peak_memory_gib"] / row["stock_peak_memory_gib"]
    row["variants"] = {
        name: {key: middle(rounds, f"train_{key}") for key in keys}
        | {"ratio_to_ours": ratio(rounds, found["ours"], speed)}
        | ({"ratio": ratio(rounds, found["stock"], speed)} if "stock" in found else {})
        for name, rounds in found.items()
        if name not in ("ours", "stock")
    }
    return row


def make_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown. The stock path of the largest vocabulary of a size and length is the mark for all."""
    head = ["model", "vocabulary", "length", "batch", "stock tokens/s", "tokens/s", "ratio", "to stock at"]
    head += ["peak memory, GiB (stock)", "utilisation (stock)", "data wait"]
    speeds = []
    for row in rows:
        alike = [r for r in rows if (r["size"], r["seq_length"]) == (row["size"], row["seq_length"])]
        mark = max(alike, key=lambda r: r["vocab_size"])
        rate, memory = f"{row['tokens_per_second']:,.0f}", f"{row['peak_memory_gib']:.2f}"
        use = f"{row['model_flops_utilization']:.0%}"
        cells = [f"{row['model_type']} {row['size']}", f"{row['vocab_size']:,}"]
        cells += [str(row["seq_length"]), str(row["batch_size"])]
        if stock := row.get("stock_tokens_per_second"):
            to_mark = row["tokens_per_second"] / mark["stock_tokens_per_second"]
            cells += [f"{stock:,.0f}", rate, f"**{row['ratio']:.1f}**", f"{to_mark:.1f} ({mark['vocab_size']:,})"]
            cells.append(f"{memory} ({row['stock_peak_memory_gib']:.2f})")
            cells.append(f"{use} ({row['stock_model_flops_utilization']:.0%})")
        else:
            cells += ["", rate, "", "", memory, use]
        speeds.append([*cells, f"{row['share_data']:.1%}"])
    rest = variant_table(rows) if any(row["variants"] for row in rows) else describe_runs(rows)
    return f"{markdown_table(head, speeds, '|---' * len(head) + '|')}\n\n{rest}\n"


def describe_runs(rows: list[dict[str, Any]]) -> str:
    """The machine, the versions and the rounds."""
    first = rows[0]
    peak = f"one matrix product reaches {first['peak_tflops']:.3g} TFLOP/s in {first['precision']}"
    rounds = "/".join(str(n) for n in dict.fromkeys(len(row["rounds"]["ours"]) for row in rows))
    device = "; ".join([first["device"], *filter(None, [first.get("products")])])
    return f"{device}; {peak}; {versions_of(first)}. Medians of {rounds} rounds."


def variant_table(rows: list[dict[str, Any]]) -> str:
    """Of the rows, what differs from our script as it is, and where it was measured."""
    head = ["model", "vocabulary", "length", "variant", "tokens/s", "to ours", "peak memory, GiB"]
    more = {"ratio": ("to stock", ".1f"), "model_flops_utilization": ("utilisation", ".0%")}
    more["peak_tflops"] = ("one product, TFLOP/s", ".3g")  # in the precision of the variant
    of_all = [variant for row in rows for variant in row["variants"].values()]
    more = {key: column for key, column in more.items() if any(key in variant for variant in of_all)}
    head += [title for title, _ in more.values()]
    found = []
    for row in rows:
        for name, variant in row["variants"].items():
            cells = [f"{row['model_type']} {row['size']}", f"{row['vocab_size']:,}", str(row["seq_length"]), name]
            cells += [f"{variant['tokens_per_second']:,.0f}", f"{variant['ratio_to_ours']:.2f}"]
            cells += [f"{variant['peak_memory_gib']:.2f}"]
            cells += [f"{variant[key]:{form}}" if key in variant else "" for key, (_, form) in more.items()]
            found.append(cells)
    return f"{markdown_table(head, found, '|---' * len(head) + '|')}\n\n{describe_runs(rows)}"


def main(args: BenchArguments) -> list[dict[str, Any]]:
    import torch  # here, so that --help need not wait for it

    device = "cuda" if torch.cuda.is_available() else "cpu"
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for size in args.sizes:
        for length in args.seq_lengths:
            for vocab_size in args.vocab_sizes:
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(args, size, vocab_size, length, device, Path(folder)))
                write_report(args.output_dir, "bench_pretraining", rows, make_table(rows))
    print(make_table(rows))
    return rows


if __name__ == "__main__":
    run_script(main, BenchArguments)
