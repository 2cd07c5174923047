"""Find evaluation text in documents: n-grams of normalised words that both have.

13 words are GPT-3's choice (Brown et al. 2020, appendix C). Words are compared without case, punctuation and
apostrophes. An evaluation text with fewer than `ngram` words, but at least `shortest` of them, is looked for as a
whole; one that is shorter still says too little to be found, and is counted as such.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.corpus.words import normalised_words, word_hashes, words_in_pieces
from shared.errors import InputError
from shared.files import atomic_file, sha256_of, shown_path
from shared.rows import batch_rows, walk

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".ndjson", ".txt")
BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial over word hashes, modulo 2^64
HITS = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        "source": pa.string(),
        "set": pa.string(),
        "ngrams": pa.int64(),  # places in the document where text of the set stands
        "example": pa.string(),
    }
)


@dataclass(frozen=True)
class EvaluationFile:
    """One file of evaluation text: a split of a set."""

    set: str  # glue/sst2
    split: str  # validation
    path: str
    sha256: str


def find_evaluation_sets(inputs: Sequence[str]) -> list[EvaluationFile]:
    """The files of `--decontaminate`. A file is a set; so is a folder, or each folder in it that holds files.

    Raises InputError for a path that is missing, holds nothing that can be read, or names a set for the second time.
    """
    files: list[EvaluationFile] = []
    for name in inputs:
        path = Path(name)
        if not path.exists():
            raise InputError(f"--decontaminate {name}: no such file or folder")
        found = [path] if path.is_file() else sorted(file for file in walk(path) if file.is_file())
        if not any(file.name.endswith(SUFFIXES) for file in found):
            raise InputError(f"--decontaminate {name}: nothing here ends in {', '.join(SUFFIXES)}")
        known = {file.set for file in files}
        for file in found:
            if not file.name.endswith(SUFFIXES):
                print(f"--decontaminate {name}: {shown_path(file)} is not read; what is ends in {', '.join(SUFFIXES)}")
                continue
            split = file.name.split(".")[0]
            if path.is_file():
                set_name = f"{file.absolute().parent.name}/{split}"
            else:
                set_name = "/".join((path.absolute().name, *file.relative_to(path).parent.parts))
            if set_name in known:
                raise InputError(f"--decontaminate {name}: the set {set_name} is named twice")
            files.append(EvaluationFile(set_name, split, str(file.absolute()), sha256_of(file)))
    return files


def read_texts(file: EvaluationFile) -> Iterator[tuple[int, str]]:
    """Yield (number of the row, text) for each string in any column, however nested. In a .txt a line is a row.

    Raises InputError for a file that cannot be read.
    """
    try:
        for number, row in enumerate(_rows(file)):
            for text in _strings(row):
                yield number, text
    except (pa.ArrowException, OSError, EOFError, ValueError, RecursionError) as error:
        raise InputError(f"--decontaminate {file.path}: cannot be read: {error}") from error


def _rows(file: EvaluationFile) -> Iterator[Any]:
    if file.path.endswith(".parquet"):
        with pq.ParquetFile(file.path) as table:
            for batch in table.iter_batches(batch_size=1000):
                for row, problem in batch_rows(batch):
                    if problem:
                        raise ValueError(problem)
                    yield row
        return
    opener: Any = gzip.open if file.path.endswith(".gz") else open
    with opener(file.path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        yield from lines if file.path.endswith(".txt") else (json.loads(line) for line in lines if line.strip())


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def ngram_hashes(hashes: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (length, the hash of the n-gram that begins at each word) for `lengths`, in rising order."""
    total = hashes
    for length in range(1, max(lengths) + 1):
        if length > 1:
            total = total[:-1] * BASE + hashes[length - 1 :]
        if not len(total):
            return
        if length in lengths:
            yield length, total


def build_index(files: Sequence[EvaluationFile], ngram: int, shortest: int, path: Path) -> None:
    """Write the n-grams of all sets as arrays for `Index`: 12 bytes for each n-gram of each text.

    Raises InputError for a file without text.
    """
    hashes: list[np.ndarray] = []
    owners: list[np.ndarray] = []  # for each n-gram the number of its row, counted over all files
    rows = [0]  # where the rows of each file begin
    facts = []
    lengths: set[int] = set()
    for file in files:
        texts: Counter[str] = Counter()
        checked = number = -1
        for number, text in read_texts(file):
            words = normalised_words(text)
            length = min(len(words), ngram)
            texts["texts"] += 1
            if length < shortest:
                texts["too_short"] += 1
                continue
            texts["rows_checked"] += number != checked
            checked = number
            lengths.add(length)
            ((_, found),) = ngram_hashes(word_hashes(words), [length])
            hashes.append(found)
            owners.append(np.full(len(found), rows[-1] + number, dtype=np.uint32))
        rows.append(rows[-1] + number + 1)
        if number < 0:
            raise InputError(f"--decontaminate {file.path}: holds no text; remove it, or put the set there")
        facts.append({"set": file.set, "split": file.split, "rows": number + 1, **texts})
    all_hashes = np.concatenate([np.empty(0, np.uint64), *hashes])
    order = np.argsort(all_hashes, kind="stable")
    with atomic_file(path) as temporary:
        np.savez(
            temporary,
            hashes=all_hashes[order],
            owners=np.concatenate([np.empty(0, np.uint32), *owners])[order],
            rows=np.array(rows, dtype=np.int64),
            lengths=np.array(sorted(lengths), dtype=np.int64),
            facts=np.array(json.dumps(facts)),
        )


class Index:
    """The n-grams of the evaluation sets, to look for in documents."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.hashes, self.owners, self.rows = arrays["hashes"], arrays["owners"], arrays["rows"]
            self.lengths = arrays["lengths"].tolist()
            self.facts: list[dict[str, Any]] = json.loads(str(arrays["facts"]))
        # Most n-grams of a document are in no set: a look into this table spares most binary searches.
        bits = min(max(int(len(self.hashes) * 32).bit_length(), 10), 26)
        self.shift = np.uint64(64 - bits)
        self.maybe = np.zeros(2**bits, dtype=bool)
        self.maybe[self.hashes >> self.shift] = True

    def find(self, text: str) -> tuple[dict[str, tuple[int, str]], np.ndarray]:
        """What of the sets stands in `text`: {set: (places, the first n-gram)}, and the hashes that were found."""
        found: dict[str, tuple[int, str]] = {}
        hit: list[np.ndarray] = []
        if not self.lengths:
            return found, np.empty(0, np.uint64)
        seen = 0  # words that the piece before had already shown
        for words in words_in_pieces(text, self.lengths[-1] - 1):
            for length, hashes in ngram_hashes(word_hashes(words), self.lengths):
                fresh = hashes[max(seen - length + 1, 0) :]
                places = np.flatnonzero(self.maybe[fresh >> self.shift])
                at = np.searchsorted(self.hashes, fresh[places])
                true = (at < len(self.hashes)) & (self.hashes[np.minimum(at, len(self.hashes) - 1)] == fresh[places])
                for place in places[true].tolist():
                    start = place + max(seen - length + 1, 0)
                    for name in self._sets(fresh[place]):
                        count, example = found.get(name, (0, ""))
                        found[name] = count + 1, example or " ".join(words[start : start + length])
                hit.append(fresh[places[true]])
            seen = min(len(words), self.lengths[-1] - 1)
        return dict(sorted(found.items())), np.unique(np.concatenate([np.empty(0, np.uint64), *hit]))

    def _sets(self, value: np.uint64) -> set[str]:
        left, right = np.searchsorted(self.hashes, value), np.searchsorted(self.hashes, value, side="right")
        files = np.searchsorted(self.rows, self.owners[left:right], side="right") - 1
        return {self.facts[index]["set"] for index in files.tolist()}

    def mark(self, found: np.ndarray, hits: np.ndarray) -> None:
        """Note hashes that some documents held in `found`, a bool for each n-gram, for `report`."""
        found[np.searchsorted(self.hashes, hits)] = True

    def report(self, found: np.ndarray, documents: Counter[str], examples: dict[str, list[dict[str, Any]]]) -> Any:
        """For each set: documents hit, n-grams found, and how many rows of each split have text in the corpus."""
        hit = found[np.searchsorted(self.hashes, self.hashes)]  # equal hashes: the first one was marked
        rows_hit = np.unique(self.owners[hit])
        rows_of = np.searchsorted(self.rows, rows_hit, side="right") - 1
        files_of = np.searchsorted(self.rows, self.owners, side="right") - 1
        report = []
        for name in sorted({facts["set"] for facts in self.facts}):
            members = [index for index, facts in enumerate(self.facts) if facts["set"] == name]
            inside = np.isin(files_of, members)
            splits: dict[str, Counter[str]] = {}
            for index in members:  # a split may lie in several files
                facts = self.facts[index]
                splits.setdefault(facts["split"], Counter()).update(
                    rows=facts["rows"],
                    rows_checked=facts.get("rows_checked", 0),
                    rows_found=int(np.count_nonzero(rows_of == index)),
                    texts=facts.get("texts", 0),
                    texts_too_short=facts.get("too_short", 0),
                )
            report.append(
                {
                    "set": name,
                    "documents": documents[name],
                    "ngrams": len(np.unique(self.hashes[inside])),
                    "ngrams_found": len(np.unique(self.hashes[inside & hit])),
                    "splits": splits,
                    "examples": examples.get(name, []),
                }
            )
        return report
