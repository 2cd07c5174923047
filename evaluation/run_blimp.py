"""Measure grammar by minimal pairs: does a masked-language model find the good sentence likelier than the bad one?

    python evaluation/run_blimp.py --models runs/tiny runs/tiny_modern --input BLiMP.zip --output_dir runs/blimp

Reads BLiMP (Warstadt et al., 2020) as the zip file of its release or as a folder of JSON lines, or pairs in that form:
`sentence_good`, `sentence_bad`, `linguistics_term`, `field` and `UID`. A sentence is worth its pseudo-log-likelihood,
not divided by its length; equal scores count half, so that chance is 50%. Writes blimp.json, blimp.md and blimp.png.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

import json
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.masked.blimp_page import draw, make_table
from evaluation.masked.scores import (
    Checkpoint,
    encode_sentences,
    load_model,
    open_checkpoints,
    publish,
    score_sentences,
)
from shared.command_line import check_ranges, run_script
from shared.errors import InputError
from shared.training.memory import keep_memory

COLUMNS = ("sentence_good", "sentence_bad", "linguistics_term", "field", "UID")
MOST_BYTES = 64 * 2**20  # of a file of pairs, and of all members of a zip file together (BLiMP has 29 MB)
MOST_MEMBERS = 1000


@dataclass
class BlimpArguments:
    models: list[str] = field(default_factory=list, metadata={"help": "Checkpoints: folders, Hub ids or NAME=FOLDER."})
    input: str | None = field(default=None, metadata={"help": "BLiMP's zip file, or a folder of JSON lines."})
    output_dir: str = field(default="runs/blimp", metadata={"help": "The folder for results, table and picture."})
    max_samples: int | None = field(default=None, metadata={"help": "The first N pairs of each paradigm (UID)."})
    within_word: bool = field(
        default=True, metadata={"help": "Hide the rest of a word with each of its tokens (Kauf and Ivanova, 2023)."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, max_samples=">= 1")


def read_files(source: str) -> Iterator[tuple[str, bytes]]:
    """The name and the content of every JSON lines file of a folder or a zip file, by name.

    Members of a zip file are read into memory, as many bytes as are allowed and no more, whatever the archive says
    of their size; nothing is unpacked. Raises InputError for what is damaged, encrypted or too large.
    """
    path = Path(source)
    if path.is_dir():
        for file in sorted(path.rglob("*.jsonl")):
            if file.stat().st_size > MOST_BYTES:
                raise InputError(f"--input {file}: larger than {MOST_BYTES:,} bytes")
            yield str(file.relative_to(path)), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".jsonl") and "__MACOSX" not in m.filename]
            if len(members) > MOST_MEMBERS:
                raise InputError(f"--input {source}: {len(members):,} files; at most {MOST_MEMBERS:,} are read")
            left = MOST_BYTES
            for member in sorted(members, key=lambda member: member.filename):
                with archive.open(member) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise InputError(f"--input {source}: unpacks to more than {MOST_BYTES:,} bytes")
                yield member.filename, content
    except OSError as error:
        raise InputError(f"--input {source}: {error.strerror or error}; name BLiMP's zip file or a folder") from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(f"--input {source}: not a readable zip file: {error}") from error


def load_pairs(source: str, max_samples: int | None) -> list[dict[str, str]]:
    """The pairs, the first `max_samples` of each paradigm. Raises InputError that names file and line."""
    pairs, taken = [], Counter[str]()
    for name, content in read_files(source):
        for number, line in enumerate(content.splitlines(), 1):
            if not line.strip():
                continue
            where = f"--input {source}, {name}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: not a JSON object: {error}") from error
            wrong = [key for key in COLUMNS if not isinstance(row, dict) or not isinstance(row.get(key), str)]
            if wrong or not all(row[key].strip() for key in COLUMNS):
                raise InputError(f"{where}: needs text in each of {', '.join(COLUMNS)}")
            taken[row["UID"]] += 1
            if max_samples is None or taken[row["UID"]] <= max_samples:
                # The release writes one field in two ways: syntax/semantics and syntax_semantics.
                pairs.append({key: row[key] for key in COLUMNS} | {"field": row["field"].replace("/", "_")})
    if not pairs:
        raise InputError(f"--input {source}: holds no pairs (files that end in .jsonl)")
    return pairs


def score_pairs(model: Any, checkpoint: Checkpoint, pairs: list[dict[str, str]], within_word: bool) -> np.ndarray:
    """For each pair 1 if the good sentence wins, 0.5 if both are worth the same, 0 if the bad one does.

    Raises InputError for a sentence that is too long for the model.
    """
    texts = [pair[key] for pair in pairs for key in ("sentence_good", "sentence_bad")]
    sentences = encode_sentences(checkpoint, texts)
    if None in sentences:
        text = texts[sentences.index(None)]
        raise InputError(f"--input: no token, or more than {checkpoint.label} takes, in {text[:80]!r}")
    mask = checkpoint.tokenizer.mask_token_id
    found = score_sentences(model, [s for s in sentences if s], mask, within_word)
    good, bad = np.array([scores.sum() for scores in found]).reshape(-1, 2).T
    return (good > bad) + 0.5 * (good == bad)


def summarize(scores: np.ndarray) -> dict[str, float]:
    """Accuracy and its standard error, which takes the pairs for independent."""
    error = scores.std() / np.sqrt(len(scores))
    return {"accuracy": float(scores.mean()), "standard_error": float(error), "pairs": len(scores)}


def summarize_all(pairs: list[dict[str, str]], scores: np.ndarray) -> dict[str, Any]:
    """Accuracy over all pairs, and of each field, phenomenon and paradigm, by name; and the share of ties."""
    report: dict[str, Any] = {"overall": summarize(scores), "ties": float((scores == 0.5).mean())}
    for part, key in (("fields", "field"), ("phenomena", "linguistics_term"), ("paradigms", "UID")):
        names = np.array([pair[key] for pair in pairs])
        report[part] = {name: summarize(scores[names == name]) for name in sorted(set(names.tolist()))}
    return report


def main(args: BlimpArguments) -> dict[str, Any]:
    if args.input is None:
        raise InputError("--input: name BLiMP's zip file, or a folder of JSON lines")
    pairs = load_pairs(args.input, args.max_samples)
    checkpoints = open_checkpoints(args.models)
    keep_memory()

    report: dict[str, Any] = {"models": {}, "settings": asdict(args)}
    for checkpoint in checkpoints:
        start = time.perf_counter()
        scores = score_pairs(load_model(checkpoint), checkpoint, pairs, args.within_word)
        seconds = round(time.perf_counter() - start, 1)
        report["models"][checkpoint.label] = summarize_all(pairs, scores) | {"seconds": seconds}
        print(f"{checkpoint.label}: {len(pairs):,} pairs in {seconds:.0f} s", flush=True)
    draw(report, Path(args.output_dir) / "blimp.png")
    return publish(args.output_dir, "blimp", report, make_table)


if __name__ == "__main__":
    run_script(main, BlimpArguments)
