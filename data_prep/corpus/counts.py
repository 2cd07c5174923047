"""Counts of a corpus, part by part, and their sums.

A part is a table (kind, snapshot, key, bucket, count), with every word and domain of its documents, so nothing is lost
by counting in parts. Sums of small kinds (dates, lengths, languages) are exact and few. Words and domains may be tens
of millions: a first pass over the parts adds counts in `BUCKETS` by a hash of the key, and a second one adds up
exactly the keys of the fullest buckets. The bucket of a key holds at least as much as the key, so none of the most
frequent is missed, and memory has a bound.
"""

import hashlib
import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.corpus.words import words_in_pieces
from data_prep.engine.stage import PART_BYTES, Part, Task, add_counts, file_facts, new_counts
from shared.files import atomic_file
from shared.rows import STATE, read_rows

BUCKETS = 2**22
MOST_KEYS = {"word": 400_000, "domain": 50_000}  # buckets that the second pass looks into
STEP = math.log(1.05)  # of the length histogram
COUNTS = pa.schema(
    {
        "kind": pa.string(),
        "snapshot": pa.string(),
        "key": pa.string(),
        "bucket": pa.uint32(),
        "count": pa.int64(),
    }
)
# Second-level names under which others register. The public suffix list has thousands; these are the common ones.
SECOND_LEVEL = frozenset(
    ("ac", "co", "com", "edu", "go", "gob", "gov", "govt", "ltd", "mil", "ne", "net", "nom", "or", "org", "plc", "sch")
)
_MONTH = re.compile(r"(?:19[7-9]|20[0-9])[0-9](?![0-9])(?:-(?:0[1-9]|1[0-2])(?![0-9]))?")
_WORD_OF_LETTERS = re.compile(r"[^\W\d_]\w{1,39}")
HASHES_AT_ONCE = 2**24  # hashes compared at a time, 16 bytes each


def snapshot_of(row: dict[str, Any], by: str) -> str:
    """The snapshot of a document: its source, or the year or month of its date; "unknown" without one."""
    if by == "source":
        return (row["source"] or "unknown")[:80]
    month = month_of(row["date"])
    return month[:4] if by == "year" and month != "unknown" else month


def month_of(date: str | None) -> str:
    """YYYY-MM, or YYYY where that is all there is; "unknown" for no date and for years before 1970 or after 2099."""
    found = _MONTH.match(date or "")
    return found[0] if found else "unknown"


def registered_domain(url: str | None) -> str:
    """About the domain that somebody registered: the last two labels, three under .co.uk and the like; "" for none."""
    try:
        host = (urlsplit(url or "").hostname or "").rstrip(".")
    except ValueError:
        return ""
    labels = host[-253:].split(".")
    if len(labels) < 2 or labels[-1].isdigit() or ":" in host:
        return host[:253]
    three = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in SECOND_LEVEL
    return ".".join(labels[-3:] if three else labels[-2:])


def length_bin(words: int) -> int:
    """The bin of the length histogram; see `bin_start`."""
    return int(math.log(words + 1) / STEP + 1e-9)


def bin_start(number: int) -> float:
    """The least number of words in a bin."""
    return math.exp(number * STEP) - 1


@dataclass(frozen=True)
class CountDocuments:
    """The counts of one source, in parts."""

    output_dir: str
    part_records: int
    by: str
    terms: tuple[str, ...]

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        part, tallies, hashes = Part(position, 0.0, new_counts(), {}), {}, []
        for at, share, row, problem in read_rows(task.source, position):
            part.position, part.share = at, share
            part.counts["in"] += 1
            if row is None:
                part.counts["bad"][problem] += 1
            else:
                part.counts["kept"] += 1
                part.counts["text_bytes"] += len(row["text"].encode())
                self._count(row, tallies, hashes)
            if part.counts["in"] >= self.part_records or part.counts["text_bytes"] >= PART_BYTES:
                yield self._write(task, number, tallies, hashes, part)
                number += 1
                part, tallies, hashes = Part(at, share, new_counts(), {}), {}, []
        part.share, part.last = 1.0, True
        yield self._write(task, number, tallies, hashes, part)

    def _count(self, row: dict[str, Any], tallies: dict[tuple[str, str], Counter[str]], hashes: list[Any]) -> None:
        snapshot = snapshot_of(row, self.by)

        def add(kind: str, key: str, count: int = 1) -> None:
            tallies.setdefault((kind, snapshot), Counter())[key] += count

        total, distinct = 0, set()
        uses: Counter[str] = Counter()
        for words in words_in_pieces(row["text"]):
            total += len(words)
            distinct.update(words)
            if self.terms:
                line = f" {' '.join(words)} ".replace(" ", "  ")  # so that "a a" holds " a " twice
                for term in self.terms:
                    uses[term] += line.count(f" {term.replace(' ', '  ')} ")
        for term, count in uses.items():
            if count:
                add("term_documents", term)
                add("term_uses", term, count)
        tallies.setdefault(("word", snapshot), Counter()).update(filter(_WORD_OF_LETTERS.fullmatch, distinct))
        add("totals", "documents")
        add("totals", "words", total)
        add("totals", "characters", len(row["text"]))
        add("words", str(length_bin(total)))
        add("date", month_of(row["date"]))
        add("last_modified", month_of(row["last_modified"]))
        add("language", (row["language"] or "unknown")[:20])
        # Some collections have the address as the id.
        url = row["url"] or (row["id"] if row["id"].startswith(("http://", "https://")) else None)
        if domain := registered_domain(url):
            add("domain", domain)
        text = " ".join(row["text"].split())
        hashes.append((snapshot, _hash(url.split("://", 1)[-1].rstrip("/")) if url else 0, _hash(text) if text else 0))

    def _write(self, task: Task, number: int, tallies: dict[Any, Counter[str]], hashes: list[Any], part: Part) -> Part:
        rows = [
            {"kind": kind, "snapshot": snapshot, "key": key, "bucket": zlib.crc32(key.encode()) % BUCKETS, "count": n}
            for (kind, snapshot), counter in sorted(tallies.items())
            for key, n in sorted(counter.items())
        ]
        name = f"{STATE}/counts/{task.name}-{number:05d}.parquet"
        with atomic_file(Path(self.output_dir, name)) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=COUNTS), temporary, compression="zstd")
        part.files[name] = file_facts(Path(self.output_dir, name), len(rows))
        names = sorted({snapshot for snapshot, _, _ in hashes})
        name = f"{STATE}/hashes/{task.name}-{number:05d}.npz"
        with atomic_file(Path(self.output_dir, name)) as temporary:
            np.savez(
                temporary,
                names=np.array(names, dtype=str),
                snapshot=np.array([names.index(snapshot) for snapshot, _, _ in hashes], dtype=np.uint16),
                url=np.array([url for _, url, _ in hashes], dtype=np.uint64),
                text=np.array([text for _, _, text in hashes], dtype=np.uint64),
            )
        part.files[name] = file_facts(Path(self.output_dir, name), len(hashes))
        return part


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") or 1


class Tallies:
    """The sums of all parts. `small[kind][snapshot][key]` is there at once; words and domains by `largest`."""

    def __init__(self, output_dir: str) -> None:
        self.files = sorted(Path(output_dir, STATE, "counts").glob("[0-9]*.parquet"))
        self.small: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
        self.buckets = {kind: np.zeros(BUCKETS, dtype=np.int64) for kind in MOST_KEYS}
        for table in map(pq.read_table, self.files):
            for kind, buckets in self.buckets.items():
                rows = table.filter(pc.equal(table["kind"], kind))
                np.add.at(buckets, rows["bucket"].to_numpy(), rows["count"].to_numpy())
            rest = table.filter(pc.invert(pc.is_in(table["kind"], pa.array(list(MOST_KEYS)))))
            for row in rest.to_pylist():
                add_counts(self.small, {row["kind"]: {row["snapshot"]: {row["key"]: row["count"]}}})

    def largest(self, kind: str, minimum: int, snapshots: set[str]) -> dict[str, dict[str, int]]:
        """{key: {snapshot: count}} of the keys that may have `minimum` or more in all; counts of `snapshots` alone."""
        buckets = self.buckets[kind]
        most = MOST_KEYS[kind]
        least = max(minimum, int(np.partition(buckets, -most)[-most]) if most < BUCKETS else 0, 1)
        wanted = pa.array(np.flatnonzero(buckets >= least).astype(np.uint32))
        found: dict[str, dict[str, int]] = {}
        for table in map(pq.read_table, self.files):
            here = pc.and_(
                pc.equal(table["kind"], kind), pc.is_in(table["snapshot"], pa.array(sorted(snapshots), pa.string()))
            )
            here = pc.and_(here, pc.is_in(table["bucket"], wanted))
            rows = table.filter(here)
            columns = (rows[name].to_pylist() for name in ("key", "snapshot", "count"))
            for key, snapshot, count in zip(*columns, strict=True):
                into = found.setdefault(key, {})
                into[snapshot] = into.get(snapshot, 0) + count
        return found


def overlaps(output_dir: str, kind: str, snapshots: list[str]) -> dict[str, Any]:
    """How many distinct URLs or texts ("url", "text") two snapshots share; exact, a part of the hashes at a time.

    `documents` counts those that have one, `distinct` and `shared` are per snapshot and per pair of them.
    """
    from scipy.sparse import csr_matrix

    files = sorted(Path(output_dir, STATE, "hashes").glob("[0-9]*.npz"))
    number = {name: index for index, name in enumerate(snapshots)}

    def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The hashes of a part, and the number of the snapshot of each."""
        with np.load(path) as part:
            own = np.array([number[name] for name in part["names"].tolist()], dtype=np.int64)
            present = part[kind] != 0
            return part[kind][present], own[part["snapshot"][present]]

    documents = sum(np.bincount(owners, minlength=len(snapshots)) for _, owners in map(read, files))
    lots = math.ceil(int(documents.sum()) / HASHES_AT_ONCE)
    shared = np.zeros((len(snapshots), len(snapshots)), dtype=np.int64)
    for lot in range(lots):
        hashes, owners = [], []
        for values, own in map(read, files):
            inside = values % np.uint64(lots) == lot
            hashes.append(values[inside])
            owners.append(own[inside])
        values, place = np.unique(np.concatenate(hashes), return_inverse=True)
        shape = (len(values), len(snapshots))
        owner = np.concatenate(owners)
        matrix = csr_matrix((np.ones(len(owner), dtype=np.int64), (place, owner)), shape=shape)
        matrix.data[:] = 1  # equal ones of a snapshot were added up
        shared += (matrix.T @ matrix).toarray()
    return {"documents": documents.tolist(), "distinct": shared.diagonal().tolist(), "shared": shared.tolist()}
