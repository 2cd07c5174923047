"""The last phase of build_corpus.py: the shards of the plan are written."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.corpus.counts import month_of
from data_prep.corpus.records import FOLDERS, NOT_SAMPLED, REASONS, TRAIN, index_of
from data_prep.engine.stage import DROPPED, Part, Task, add_counts, file_facts, new_counts
from shared.errors import RunError
from shared.files import atomic_file, read_json
from shared.rows import SCHEMA, STATE, Source, known_metadata, read_rows

ROW_GROUP, ROW_GROUP_BYTES = 1000, 16 * 2**20  # documents are written when this number waits
MAX_LICENCES = 50  # distinct ones that a shard counts for each source
MAX_KEYS = 1000  # distinct sources or languages that a shard counts: they come from the documents


class ShardFiles:
    """The files of one shard, each begun when its first row comes, written a row group at a time."""

    def __init__(self, output_dir: str, name: str, stack: ExitStack) -> None:
        self.output_dir, self.name, self.stack = output_dir, name, stack
        self.writers: dict[str, pq.ParquetWriter] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.bytes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def add(self, folder: str, row: dict[str, Any], size: int) -> None:
        if folder not in self.writers:
            path = self.stack.enter_context(atomic_file(Path(self.output_dir, folder, f"{self.name}.parquet")))
            schema = DROPPED if folder == "dropped" else SCHEMA
            self.writers[folder] = self.stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
            self.rows[folder] = []
        self.rows[folder].append(row)
        self.bytes[folder] += size
        self.counts[folder] += 1
        if len(self.rows[folder]) >= ROW_GROUP or self.bytes[folder] >= ROW_GROUP_BYTES:
            self.flush(folder)

    def flush(self, folder: str) -> None:
        writer = self.writers[folder]
        if self.rows[folder]:
            writer.write_table(pa.Table.from_pylist(self.rows[folder], schema=writer.schema))
        self.rows[folder], self.bytes[folder] = [], 0


@dataclass(frozen=True)
class Write:
    """Phase 4: the shards of the plan; this task's share of them, each one a part."""

    output_dir: str
    tasks: int
    sources: tuple[Source, ...]
    args: Any

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        shards = read_json(Path(self.output_dir, STATE, "plan.json"))
        mine = range(int(task.name), len(shards), self.tasks)
        for done, shard in enumerate(mine[position:], position + 1):
            yield self._shard(shard, shards[shard], Part(done, done / len(mine), new_counts(), {}, done == len(mine)))
        if not mine:
            yield Part(0, 1.0, new_counts(), {}, last=True)

    def _shard(self, number: int, shard: dict[str, Any], part: Part) -> Part:
        with ExitStack() as stack:
            files = ShardFiles(self.output_dir, f"{number:05d}", stack)
            for run in shard["runs"]:
                source = self.sources[run["source"]]
                reader = read_rows(source, run["start"])
                for record in self._records(run):
                    read = next(reader, None)
                    if read is None or read[0] != record[0]:
                        raise RunError(f"{source.path}: has changed while it was read; run again in a new folder")
                    self._put(files, part.counts, shard, record, *read[2:])
            for folder in files.writers:
                files.flush(folder)
        for folder, rows in sorted(files.counts.items()):
            name = f"{folder}/{number:05d}.parquet".lstrip("/")
            part.files[name] = file_facts(Path(self.output_dir, name), rows)
        return part

    def _records(self, run: dict[str, int]) -> Iterator[tuple[Any, ...]]:
        for number in range(run["part"], run["parts"]):
            name = f"{run['source']:05d}-{number:05d}.npy"
            yield from np.load(Path(self.output_dir, STATE, "examined", name)).tolist()

    def _put(
        self,
        files: ShardFiles,
        counts: dict[str, Any],
        shard: dict[str, Any],
        record: tuple[Any, ...],
        row: dict[str, Any] | None,
        problem: str,
    ) -> None:
        _, place, tokens, size, outcome, hit = record
        taken = place < shard["threshold"]
        if shard["pass"] and (outcome != TRAIN or not taken or row is None):
            return  # all but the documents that are repeated was written in the first pass
        if row is None:
            files.add("dropped", {"reason": problem}, 0)
            return
        sets = index_of(self.output_dir).find(row["text"])[0] if hit else {}
        if outcome in FOLDERS and taken:
            if sets:
                row["metadata"] = with_contamination(row["metadata"], list(sets))
            files.add(FOLDERS[outcome], row, size)
            add_counts(counts, {"repeated": 1} if shard["pass"] else {"kept": 1, "text_bytes": size})
            tally(counts, FOLDERS[outcome] or "train", row, tokens, size)
            return
        reason = REASONS.get(outcome, NOT_SAMPLED)
        counts["dropped"][reason] += 1
        detail = "; ".join(f"{name}: {places} n-grams, {example!r}" for name, (places, example) in sets.items())
        known = {name: row.get(name) for name in DROPPED.names}
        files.add("dropped", known | {"reason": reason, "detail": detail[:1000]}, 0)


def with_contamination(metadata: str | None, sets: list[str]) -> str:
    """`metadata` with the names of the sets whose text the document holds."""
    return json.dumps(known_metadata(metadata) | {"contamination": sets}, ensure_ascii=False, sort_keys=True)


def tally(counts: dict[str, Any], split: str, row: dict[str, Any], tokens: int, size: int) -> None:
    """Count a written document under its split, and there by source, language and month."""
    facts = {"documents": 1, "tokens": tokens, "text_bytes": size}
    into = counts.setdefault("splits", {}).setdefault(split, {})
    add_counts(into, facts)
    keys = {"sources": row["source"], "languages": row["language"], "months": month_of(row["date"])}
    for name, key in keys.items():
        table = into.setdefault(name, {})
        key = (key or "unknown")[:80]
        add_counts(table, {key if key in table or len(table) < MAX_KEYS else "others": facts})
    if licence := stated_licence(row["metadata"]):
        source = (row["source"] or "unknown")[:80]
        table = into.setdefault("licences", {}).setdefault(source if source in into["sources"] else "others", {})
        add_counts(table, {licence if licence in table or len(table) < MAX_LICENCES else "others": 1})


def stated_licence(metadata: str | None) -> str | None:
    """The licence that a document states, in a column `licence` or `license` of the input or within `metadata`."""
    if not metadata or "licen" not in metadata:
        return None
    known = known_metadata(metadata)
    values = [known.get(name) for name in ("licence", "license")]
    return next((" ".join(value.split())[:80] for value in values if isinstance(value, str) and value.strip()), None)
