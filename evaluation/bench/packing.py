"""Measure packing against the bare tokenizer library on the same text and cores, in turns.

    python evaluation/bench/packing.py --input corpus/ --tokenizer_name data/tokenizer

Prints tokens per second of both, the median of several rounds, and their ratio. "Bare" is the library's
encode_batch_fast on texts that are in memory already; packing reads the files, splits, packs, hashes and writes.
"""

import tempfile
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.pack_dataset import pack_dataset
from shared.command_line import run_script
from shared.documents import Documents
from shared.tokenizer import load_tokenizer, raw_text_encoder


@dataclass
class BenchArguments:
    input: list[str] = field(metadata={"help": "Files or folders of text."})
    tokenizer_name: str = field(metadata={"help": "A folder with a tokenizer, or its id on the Hub."})
    max_samples: int = field(default=10_000, metadata={"help": "Documents to use."})
    rounds: int = field(default=5, metadata={"help": "Rounds of each, after one that is not counted."})


def main(args: BenchArguments) -> dict[str, float]:
    tokenizer = load_tokenizer(args.tokenizer_name)
    texts = list(islice(Documents(args.input), args.max_samples))
    encoder = raw_text_encoder(tokenizer)
    rates: dict[str, list[float]] = {"bare": [], "packing": []}
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"text": texts}), f"{folder}/texts.parquet")
        for turn in range(args.rounds + 1):
            start = time.perf_counter()
            batches = (texts[i : i + 1000] for i in range(0, len(texts), 1000))
            tokens = sum(
                len(e) for batch in batches for e in encoder.encode_batch_fast(batch, add_special_tokens=False)
            )
            encoded = time.perf_counter()
            documents = Documents([f"{folder}/texts.parquet"])
            pack_dataset(documents, tokenizer, Path(folder) / f"packed-{turn}", 128, 0.01, quiet=True)
            end = time.perf_counter()
            if turn:
                rates["bare"].append(tokens / (encoded - start))
                rates["packing"].append(tokens / (end - encoded))
    found = {name: median(values) for name, values in rates.items()}
    found["ratio"] = median(b / a for a, b in zip(*rates.values(), strict=True))
    print(f"{len(texts):,} documents, {tokens:,} tokens, {args.rounds} rounds, medians in tokens per second:")
    print(f"bare library {found['bare']:,.0f}, packing {found['packing']:,.0f}, ratio {found['ratio']:.2f}")
    return found


if __name__ == "__main__":
    run_script(main, BenchArguments)
