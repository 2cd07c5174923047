"""The keys of documents, by which duplicates meet: the first phase of deduplicate.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import xxhash

from data_prep.duplicates.files import (
    DOCUMENT,
    MAX_PART,
    NONE,
    ONE,
    U64,
    number_of,
    write_documents,
    write_pairs,
    write_run,
)
from data_prep.duplicates.minhash import MinHash, mix
from data_prep.duplicates.plan import Plan
from data_prep.engine.stage import Part, Task, new_counts
from shared.errors import InputError
from shared.rows import LOST, read_rows

NO_DATE = 2**62
BATCH_CHARACTERS = 2**20  # signed together
EPOCH = datetime(1, 1, 1, tzinfo=UTC)

Row = tuple[int, dict[str, Any] | None]


def order_of(date: str | None, old: bool, oldest: bool) -> int:
    """A number that is lower the sooner a document survives: old corpus first, then by date, those without one last.

    `date` is ISO 8601, a year or month is taken as its first day, a time without zone as UTC.
    """
    order = 0 if old else 2**63
    text = date or ""
    try:
        when = datetime.fromisoformat(f"{text}-01-01"[:10] if len(text) in (4, 7) else text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        since = (when - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return order + NO_DATE
    return order + (since if oldest else NO_DATE - 1 - since)


@dataclass(frozen=True)
class Signatures:
    """Reads a source and writes, part by part, what is known of its documents and a run of (key, document).

    Of documents of one part with the same key only the first has a row, the others are written as pairs with it. So a
    text that is there a million times costs one row a part.
    """

    plan: Plan

    def __call__(self, task: Task, start: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        limit = min(self.plan.part_records, MAX_PART)
        rows: list[Row] = []
        position, size = start, 0
        for position, share, row, problem in read_rows(task.source, start):
            if problem.endswith(LOST) and task.source.index >= self.plan.sources:  # the last phase reads the others
                raise InputError(f"--against {task.source.path}: {problem}; fetch it again")
            if row is not None:
                row = {name: row[name] for name in ("text", "url", "id", "date", "source")}
                size += sum(len(value or "") for value in row.values())
            rows.append((position, row))
            if len(rows) >= limit or size >= self.plan.text_at_once:
                yield Part(position, share, new_counts(), self._write(task, number, rows))
                number += 1
                rows, size = [], 0
        yield Part(position, 1.0, new_counts(), self._write(task, number, rows), last=True)

    def _write(self, task: Task, number: int, rows: list[Row]) -> dict[str, dict[str, Any]]:
        assert task.source is not None
        old = task.source.index >= self.plan.sources
        args = self.plan.args
        signer = MinHash(args.bands, args.rows, args.ngram)
        records = np.zeros(len(rows), DOCUMENT)
        groups = np.zeros(len(rows), np.uint64)  # of documents that may be compared
        strings = bytearray()
        for place, (position, row) in enumerate(rows):
            if row is not None:
                url, name = (row["url"] or "").encode(), row["id"].encode()
                order = order_of(row["date"], old, args.keep == "oldest")
                records[place] = (position, order, 0, len(strings), len(url), len(name), row["url"] is not None, 1)
                strings += url + name
                if self.plan.within_source:
                    groups[place] = xxhash.xxh3_64_intdigest((row["source"] or "").encode())
            else:
                records[place]["position"] = position
        keys: list[U64] = []
        numbers: list[U64] = []
        first = number_of(task.source.index, number)
        for places in _batches(rows):
            exact, bands, has_words = signer.sign([rows[place][1]["text"] for place in places])  # type: ignore[index]
            records["exact"][places] = exact
            found = np.concatenate([mix(exact)[:, None], bands], axis=1)
            wanted = np.zeros(found.shape, bool)
            wanted[:, 0] = "exact" in args.remove
            wanted[:, 1:] = has_words[:, None] & ("near" in args.remove)
            owners = np.broadcast_to((np.array(places, np.uint64) + np.uint64(first))[:, None], found.shape)
            # The last bit of a key says what it is for: 0, for all of the group; 1, for finding old documents alone.
            if not self.plan.within_source or not old:
                keys.append((mix(found + groups[places][:, None]) & ~ONE)[wanted])
                numbers.append(owners[wanted])
            if self.plan.within_source and self.plan.has_old:
                keys.append((mix(found) | ONE)[wanted])
                numbers.append(owners[wanted])
        table = np.stack([np.concatenate([NONE, *keys]), np.concatenate([NONE, *numbers])], axis=1)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        repeated = np.append(False, table[1:, 0] == table[:-1, 0]) & ((table[:, 0] & ONE) == 0)
        firsts = table[~repeated, 1][np.cumsum(~repeated) - 1]
        pairs = np.unique(np.stack([table[:, 1], firsts], axis=1)[repeated], axis=0)
        path = self.plan.folder("signatures") / f"{task.name}-{number:05d}"
        docs, run, met = (path.with_suffix(suffix) for suffix in (".docs", ".run", ".pairs"))
        return {
            self.plan.name(docs): write_documents(docs, records, bytes(strings)),
            self.plan.name(run): write_run(run, table[~repeated]),
            self.plan.name(met): write_pairs(met, pairs),
        }


def _batches(rows: list[Row]) -> Iterator[list[int]]:
    """The places of usable rows, in lots of about `BATCH_CHARACTERS`."""
    places: list[int] = []
    size = 0
    for place, (_, row) in enumerate(rows):
        if row is not None:
            places.append(place)
            size += len(row["text"])
            if size >= BATCH_CHARACTERS:
                yield places
                places, size = [], 0
    if places:
        yield places
