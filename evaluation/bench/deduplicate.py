"""Measure deduplicate.py: what it finds against exact Jaccard similarity, and how its memory grows.

    python evaluation/bench/deduplicate.py

Prints two tables. Finding: planted near-duplicates of every similarity, against the formula of the bands. Memory: the
peak of a process that deduplicates synthetic corpora of growing size, all phases included (Linux only). How fast
documents are signed is measured by corpus.py.
"""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.duplicates.minhash import MinHash
from shared.command_line import run_script
from shared.errors import InputError

MEASURE = """
import json, sys, time
from data_prep.deduplicate import DeduplicateArguments, main
from data_prep.engine.stage import StageArguments
from evaluation.cpu.worker import memory
start, cpu = time.time(), time.process_time()
flags = json.loads(sys.argv[1])
stage_args = StageArguments(output_dir=flags[1], input=[flags[0]], workers=1)
manifest = main(stage_args, DeduplicateArguments(remove=flags[2]))
print(json.dumps([memory()["peak"], time.time() - start, time.process_time() - cpu, manifest["counts"]["kept"]]))
"""
THRESHOLD = 0.8  # of "similar", in the table of what is found


@dataclass
class BenchArguments:
    pairs: int = field(default=4000, metadata={"help": "Planted pairs. 0: leave the table out."})
    sizes: list[int] = field(
        default_factory=lambda: [10_000, 100_000], metadata={"help": "Documents of the synthetic corpora. 0: none."}
    )
    remove: list[str] = field(default_factory=lambda: ["exact", "near"], metadata={"help": "As in deduplicate.py."})
    bands: int = field(default=14, metadata={"help": "As in deduplicate.py, for what is found."})
    rows: int = field(default=8, metadata={"help": "As in deduplicate.py, for what is found."})


def planted_pairs(count: int, ngram: int, seed: int = 0) -> Iterator[tuple[str, str, float]]:
    """Texts of 50 to 400 words, the second changed in places, and their exact Jaccard similarity, 0.3 to 1."""
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(5000)]
    for _ in range(count):
        words = draw.choices(vocabulary, k=draw.randint(50, 400))
        changed = list(words)
        wanted = draw.uniform(0.3, 1)
        left = 2 * wanted / (1 + wanted)  # the share of shingles without a changed word that gives this similarity
        for place in draw.sample(range(len(words)), round(len(words) * (1 - left ** (1 / ngram)))):
            changed[place] = draw.choice(vocabulary)
        yield " ".join(words), " ".join(changed), jaccard(words, changed, ngram)


def jaccard(left: list[Any], right: list[Any], ngram: int) -> float:
    """The exact similarity of the sets of shingles."""
    first, second = (set(zip(*(words[i:] for i in range(ngram)), strict=False)) for words in (left, right))
    return len(first & second) / max(len(first | second), 1)


def measure_finding(pairs: int, bands: int, rows: int) -> dict[str, float]:
    """Found and expected shares of planted pairs, by similarity; recall and precision at `THRESHOLD`."""
    signer = MinHash(bands, rows)
    texts = list(planted_pairs(pairs, signer.ngram))
    keys = signer.sign([text for pair in texts for text in pair[:2]])[1].reshape(pairs, 2, bands)
    found = (keys[:, 0] == keys[:, 1]).any(axis=1).tolist()
    expected = [1 - (1 - pair[2] ** rows) ** bands for pair in texts]
    print(f"\n{bands} bands x {rows} rows: share of {pairs:,} pairs that is found\n")
    print("| Jaccard similarity | pairs | found | by the formula | standard error |\n|---|---|---|---|---|")
    for low in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        chosen = [i for i, pair in enumerate(texts) if low <= pair[2] < low + 0.1]
        share, formula = (sum(v[i] for i in chosen) / max(len(chosen), 1) for v in (found, expected))
        error = sum(expected[i] * (1 - expected[i]) for i in chosen) ** 0.5 / max(len(chosen), 1)
        print(f"| {low} to {low + 0.1:.1f} | {len(chosen)} | {share:.4f} | {formula:.4f} | {error:.4f} |")
    similar = [i for i, pair in enumerate(texts) if pair[2] >= THRESHOLD]
    result = {}
    for name, values in (("found", found), ("formula", expected)):
        hits = sum(values[i] for i in similar)
        result[f"recall_{name}"], result[f"precision_{name}"] = hits / max(len(similar), 1), hits / max(sum(values), 1)
    print(f"\nAt similarity {THRESHOLD}:", ", ".join(f"{name} {value:.4f}" for name, value in result.items()))
    return result


def write_corpus(folder: Path, documents: int, seed: int = 0, file_documents: int = 10_000) -> None:
    """Write a corpus of short texts: of 100 documents 20 copies and 10 near-duplicates of one of the 1,000 before."""
    draw = random.Random(seed)
    vocabulary = [f"{number:x}" for number in range(16**3, 16**3 + 20_000)]
    lately: list[list[str]] = []
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, documents, file_documents)):
        rows = []
        for index in range(start, min(start + file_documents, documents)):
            kind = draw.random()
            words = list(draw.choice(lately)) if lately and kind < 0.3 else draw.choices(vocabulary, k=45)
            if kind < 0.1:
                words[draw.randrange(len(words))] = "changed"
            lately = [*lately[-999:], words]
            rows.append({"id": str(index), "url": f"https://example.org/{index}", "text": " ".join(words)})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet", row_group_size=1000)


def measure_memory(sizes: list[int], remove: list[str]) -> dict[int, float]:
    """Peak resident memory in MiB of one process, by number of documents."""
    print(f"\nremove: {', '.join(remove)}; one process, all phases\n")
    print("| documents | kept | peak MiB | seconds | CPU seconds |\n|---|---|---|---|---|")
    peaks = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(Path(folder, "in"), size)
            flags = json.dumps([f"{folder}/in", f"{folder}/out", remove])
            done = subprocess.run([sys.executable, "-c", MEASURE, flags], capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"--sizes {size}: {done.stderr[-2000:]}")
        peak, seconds, cpu, kept = json.loads(done.stdout.splitlines()[-1])
        peaks[size] = peak
        print(f"| {size:,} | {kept:,} | {peak:.0f} | {seconds:.1f} | {cpu:.1f} |", flush=True)
    return peaks


def main(args: BenchArguments) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if args.pairs:
        results["finding"] = measure_finding(args.pairs, args.bands, args.rows)
    if args.sizes != [0]:
        results["memory"] = measure_memory(args.sizes, args.remove)
    return results


if __name__ == "__main__":
    run_script(main, BenchArguments)
