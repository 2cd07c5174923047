"""The phases of build_corpus.py: look at every document, decide what is taken, write it.

What is known of a document between the phases is a `RECORD` of 22 bytes on disk; memory holds one part of them and a
table of `BINS` counts for each group.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.corpus.contamination import HITS, EvaluationFile, Index, build_index
from data_prep.corpus.words import count_words
from data_prep.engine.stage import DROPPED, Part, Task, add_counts, file_facts, new_counts
from shared.documents import is_held_out
from shared.errors import InputError, RunError
from shared.files import atomic_file, write_json
from shared.rows import SCHEMA, STATE, Source, read_rows, write_rows

BINS = 2**20  # of the sampling hash: a budget is met to a millionth of its group, or to one document
TRAIN, VALIDATION, DATED, EMPTY, CONTAMINATED, UNDATED, BAD = range(7)
REASONS = {
    EMPTY: "empty text",
    CONTAMINATED: "contains evaluation text",
    UNDATED: "no date to compare with --validation_from",
    BAD: "damaged",
}
NOT_SAMPLED = "not in the sample"
FOLDERS = {TRAIN: "", VALIDATION: "validation", DATED: "validation_dated"}
RECORD = np.dtype(
    [("position", "<i8"), ("bin", "<u4"), ("tokens", "<u4"), ("bytes", "<u4"), ("fate", "u1"), ("hit", "?")]
)
ROW_GROUP, ROW_GROUP_BYTES = 1000, 16 * 2**20  # documents are written when so many wait
MAX_KEYS = 1000  # distinct sources or languages that a shard counts: they come from the documents
EXAMPLES = 10  # n-grams that the report shows for each evaluation set, the most frequent first


def sampling_bin(text: str, seed: int) -> int:
    """Where a document stands among `BINS`; documents below a threshold are taken."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") * BINS >> 64


def dated_split(date: str | None, first: str) -> int:
    """DATED at or after `first`, TRAIN before it, UNDATED when `date` ("2026" in the same year) cannot say."""
    found = re.match(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?", date or "")
    if not found or found[0] == first[: len(found[0])] != first:
        return UNDATED
    return DATED if found[0] >= first else TRAIN


def plan_mix(available: list[int], weights: Sequence[float], budget: int | None, repeats: int) -> list[int]:
    """Training tokens to take from each group, at most `repeats` times what is available.

    Weights without a budget give the largest mix in their proportions. Raises InputError where there is too little.
    """
    if not weights and budget is None:
        return available
    for number, tokens in enumerate(available):
        if weights and not tokens:
            raise InputError(f"--weights {weights[number]:g}: entry {number + 1} of --input has no document left")
    shares = np.array(weights or available, dtype=float) / sum(weights or available)
    with np.errstate(divide="ignore", invalid="ignore"):
        most = float(np.nanmin(np.array(available) * repeats / shares))
    if budget is not None and budget > most * (1 + 1e-9):
        scarce = int(np.nanargmin(np.array(available) * repeats / shares))
        raise InputError(
            f"--token_budget {budget:,}: entry {scarce + 1} of --input has {available[scarce]:,} tokens, which at "
            f"these proportions and --max_repeats {repeats} is enough for {int(most):,} in all; lower the budget, "
            "change --weights, or raise --max_repeats (and name a new --output_dir)"
        )
    total = most if budget is None else budget
    return [
        min(round(total * float(share)), tokens * repeats) for share, tokens in zip(shares, available, strict=True)
    ]


@lru_cache(maxsize=1)
def _index(path: str) -> Index:
    return Index(Path(path))


@lru_cache(maxsize=1)
def _encoder(name: str) -> Any:
    from shared.tokenizer import load_tokenizer, raw_text_encoder

    return raw_text_encoder(load_tokenizer(name))


@dataclass(frozen=True)
class BuildIndex:
    """Phase 1: the n-grams of the evaluation sets."""

    output_dir: str
    files: tuple[EvaluationFile, ...]
    args: Any

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        name = f"{STATE}/index.npz"
        path = Path(self.output_dir, name)
        build_index(self.files, self.args.ngram, self.args.shortest_text, path)
        yield Part(1, 1.0, {}, {name: file_facts(path, 0)}, last=True)


@dataclass(frozen=True)
class Examine:
    """Phase 2: a `RECORD` for each document: its tokens, its place in the sample, its fate if it is chosen."""

    output_dir: str
    part_records: int
    args: Any

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        records: list[tuple[Any, ...]] = []
        hits: list[dict[str, Any]] = []
        found: list[np.ndarray] = []
        share = 0.0
        bad: Counter[str] = Counter()
        for at, share, row, problem in read_rows(task.source, position):
            position = at
            if row is None:
                bad[problem] += 1
                records.append((position, 0, 0, 0, BAD, False))
            else:
                places, hashes = self._contamination(row["text"])
                if places:
                    found.append(hashes)
                    known = {name: row[name] for name in ("id", "url", "source")}
                    hits += [known | {"set": name, "ngrams": n, "example": e} for name, (n, e) in places.items()]
                fate = self._fate(row, bool(places))
                tokens = self._tokens(row["text"]) if fate in FOLDERS else 0
                size = len(row["text"].encode())
                place = sampling_bin(row["text"], self.args.seed)
                records.append((position, place, tokens, size, fate, bool(places)))
            if len(records) >= self.part_records:
                yield self._write(task, number, records, hits, found, self._part(position, share, records, bad))
                number += 1
                records, hits, found, bad = [], [], [], Counter()
        part = self._part(position, 1.0, records, bad)
        part.last = True
        yield self._write(task, number, records, hits, found, part)

    def _part(self, position: int, share: float, records: list[Any], bad: Counter[str]) -> Part:
        return Part(position, share, new_counts() | {"in": len(records), "bad": bad}, {})

    def _contamination(self, text: str) -> Any:
        if not self.args.decontaminate:
            return {}, None
        return _index(str(Path(self.output_dir, STATE, "index.npz"))).find(text)

    def _fate(self, row: dict[str, Any], contaminated: bool) -> int:
        if not row["text"].strip():
            return EMPTY
        if contaminated and self.args.contamination == "drop":
            return CONTAMINATED
        if self.args.validation_from:
            fate = dated_split(row["date"], self.args.validation_from)
            if fate != TRAIN:
                return fate
        return VALIDATION if is_held_out(row["text"], self.args.validation_fraction) else TRAIN

    def _tokens(self, text: str) -> int:
        if self.args.tokenizer_name:
            return len(_encoder(self.args.tokenizer_name).encode(text, add_special_tokens=False).ids)
        return max(round(count_words(text) * self.args.tokens_per_word), 1)

    def _write(
        self, task: Task, number: int, records: list[Any], hits: list[Any], found: list[Any], part: Part
    ) -> Part:
        name = f"{STATE}/examined/{task.name}-{number:05d}.npy"
        with atomic_file(Path(self.output_dir, name)) as temporary:
            np.save(temporary, np.array(records, dtype=RECORD))
        part.files[name] = file_facts(Path(self.output_dir, name), len(records))
        if hits:
            name = f"{STATE}/hits/{task.name}-{number:05d}.npy"
            with atomic_file(Path(self.output_dir, name)) as temporary:
                np.save(temporary, np.unique(np.concatenate(found)))
            part.files[name] = file_facts(Path(self.output_dir, name), 0)
            name = f"contamination/{task.name}-{number:05d}.parquet"
            with atomic_file(Path(self.output_dir, name)) as temporary:
                write_rows(temporary, hits, HITS)
            part.files[name] = file_facts(Path(self.output_dir, name), len(hits))
        return part


def _parts(output_dir: str, source: int) -> Iterator[tuple[int, np.ndarray]]:
    """The records of a source, part by part."""
    for number in count():
        path = Path(output_dir, STATE, "examined", f"{source:05d}-{number:05d}.npy")
        if not path.is_file():
            return
        yield number, np.load(path)


@dataclass(frozen=True)
class Choose:
    """Phase 3: thresholds for each group, and what each shard holds: `.state/plan.json` and the reports."""

    output_dir: str
    groups: tuple[tuple[int, ...], ...]  # the sources of each entry of --input
    names: tuple[str, ...]  # of the entries
    files: tuple[str, ...]  # of the sources
    args: Any

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        tokens = np.zeros((len(self.groups), BINS), dtype=np.int64)
        documents = [0] * len(self.groups)
        fates: Counter[int] = Counter()
        for group, sources in enumerate(self.groups):
            for source in sources:
                for _, records in _parts(self.output_dir, source):
                    fates.update(records["fate"].tolist())
                    records = records[records["fate"] == TRAIN]
                    np.add.at(tokens[group], records["bin"], records["tokens"].astype(np.int64))
                    documents[group] += len(records)
        available = tokens.sum(axis=1).tolist()
        if not sum(available):
            why = ", ".join(f"{REASONS.get(fate, FOLDERS.get(fate))}: {n:,}" for fate, n in sorted(fates.items()))
            raise InputError(f"--input: no document is left for training ({why or 'there is none at all'})")
        budget = None if self.args.token_budget is None else int(self.args.token_budget)
        targets = plan_mix(available, self.args.weights, budget, self.args.max_repeats)
        shards: list[dict[str, Any]] = []
        mix = []
        for group, target in enumerate(targets):
            passes = passes_of(tokens[group], target)
            chosen = [int(tokens[group][:threshold].sum()) for threshold in passes]
            for number, threshold in enumerate(passes):
                shards += self._shards(group, number, threshold)
            mix.append(
                {
                    "input": self.names[group],
                    "documents": documents[group],
                    "tokens": available[group],
                    "tokens_wanted": target,
                    "tokens_taken": sum(chosen),
                    "passes": [threshold / BINS for threshold in passes],
                }
            )
        reports = {"mix": mix, "shards": [self._described(shard) for shard in shards]}
        if self.args.decontaminate:
            reports["contamination"] = self._contamination()
        part = Part(1, 1.0, {}, {}, last=True)
        for name, content in ((f"{STATE}/plan.json", shards), *((f"reports/{n}.json", r) for n, r in reports.items())):
            write_json(Path(self.output_dir, name), content)
            part.files[name] = file_facts(Path(self.output_dir, name), 0)
        yield part

    def _shards(self, group: int, number: int, threshold: int) -> Iterator[dict[str, Any]]:
        """Cut one pass over a group into shards of about `shard_mb`, at the borders of examined parts."""
        shard: dict[str, Any] = {"group": group, "pass": number, "threshold": threshold, "runs": []}
        size = 0
        for source in self.groups[group]:
            start = 0  # position in the source
            for part, records in _parts(self.output_dir, source):
                taken = (records["fate"] == TRAIN) & (records["bin"] < threshold)
                more = int(records["bytes"][taken].sum(dtype=np.int64))
                if size >= self.args.shard_mb * 2**20 and more:
                    yield shard
                    shard = shard | {"runs": []}
                    size = 0
                size += more
                runs = shard["runs"]
                if not runs or runs[-1]["source"] != source:
                    runs.append({"source": source, "start": start, "part": part, "rows": {}})
                runs[-1]["parts"] = part + 1
                add_counts(runs[-1]["rows"], rows_by_folder(records, threshold, number))
                start = int(records["position"][-1]) if len(records) else start
        yield shard

    def _described(self, shard: dict[str, Any]) -> dict[str, Any]:
        inputs = [
            {"file": self.files[run["source"]], "source": run["source"], "rows": run["rows"]} for run in shard["runs"]
        ]
        return {"input": self.names[shard["group"]], "pass": shard["pass"] + 1, "files": inputs}

    def _contamination(self) -> Any:
        index = _index(str(Path(self.output_dir, STATE, "index.npz")))
        found = np.zeros(len(index.hashes), dtype=bool)
        documents: Counter[str] = Counter()
        examples: dict[str, dict[str, dict[str, Any]]] = {}
        for source in (source for group in self.groups for source in group):
            for number, _ in _parts(self.output_dir, source):
                name = f"{source:05d}-{number:05d}"
                path = Path(self.output_dir, STATE, "hits", f"{name}.npy")
                if not path.is_file():
                    continue
                index.mark(found, np.load(path))
                for row in pq.read_table(Path(self.output_dir, "contamination", f"{name}.parquet")).to_pylist():
                    documents[row["set"]] += 1
                    shown = examples.setdefault(row["set"], {})
                    if row["example"] in shown or len(shown) < MAX_KEYS:
                        first = {"ngram": row["example"], "documents": 0, "id": row["id"], "url": row["url"]}
                        shown.setdefault(row["example"], first)["documents"] += 1
        return index.report(
            found,
            documents,
            {
                name: sorted(shown.values(), key=lambda example: -example["documents"])[:EXAMPLES]
                for name, shown in examples.items()
            },
        )


def rows_by_folder(records: np.ndarray, threshold: int, number: int) -> dict[str, int]:
    """How many rows pass `number` writes of these documents to each folder."""
    taken = records["bin"] < threshold
    rows = {folder: int(np.count_nonzero(taken & (records["fate"] == fate))) for fate, folder in FOLDERS.items()}
    return {"": rows[""]} if number else rows | {"dropped": len(records) - sum(rows.values())}


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
        shards = json.loads(Path(self.output_dir, STATE, "plan.json").read_text(encoding="utf-8"))
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
        _, place, tokens, size, fate, hit = record
        taken = place < shard["threshold"]
        if shard["pass"]:  # all but the documents that are repeated was written in the first pass
            if fate == TRAIN and taken and row is not None:
                files.add("", row, size)
                counts["repeated"] = counts.get("repeated", 0) + 1
                tally(counts, "train", row, tokens, size)
            return
        if row is None:
            files.add("dropped", {"reason": problem}, 0)
            return
        sets = self._sets(row["text"]) if hit else {}
        if fate in FOLDERS and taken:
            if sets:
                row["metadata"] = with_contamination(row["metadata"], list(sets))
            files.add(FOLDERS[fate], row, size)
            counts["kept"] += 1
            counts["text_bytes"] += size
            tally(counts, FOLDERS[fate] or "train", row, tokens, size)
            return
        reason = REASONS.get(fate, NOT_SAMPLED)
        counts["dropped"][reason] += 1
        detail = "; ".join(f"{name}: {places} n-grams, {example!r}" for name, (places, example) in sets.items())
        known = {name: row.get(name) for name in DROPPED.names}
        files.add("dropped", known | {"reason": reason, "detail": detail[:1000]}, 0)

    def _sets(self, text: str) -> dict[str, tuple[int, str]]:
        return _index(str(Path(self.output_dir, STATE, "index.npz"))).find(text)[0]


def with_contamination(metadata: str | None, sets: list[str]) -> str:
    """`metadata` with the names of the sets whose text the document holds."""
    try:
        known = json.loads(metadata or "{}")
    except (ValueError, RecursionError):
        known = metadata
    known = known if isinstance(known, dict) else {"metadata": known}
    return json.dumps(known | {"contamination": sets}, ensure_ascii=False, sort_keys=True)


def tally(counts: dict[str, Any], split: str, row: dict[str, Any], tokens: int, size: int) -> None:
    """Count a written document under its split, and there by source, language and month."""
    facts = {"documents": 1, "tokens": tokens, "text_bytes": size}
    into = counts.setdefault("splits", {}).setdefault(split, {})
    add_counts(into, facts)
    month = re.match(r"[0-9]{4}(-[0-9]{2})?", row["date"] or "")
    keys = {"sources": row["source"], "languages": row["language"], "months": month and month[0]}
    for name, key in keys.items():
        table = into.setdefault(name, {})
        key = (key or "unknown")[:80]
        add_counts(table, {key if key in table or len(table) < MAX_KEYS else "others": facts})


def passes_of(tokens: np.ndarray, target: int) -> list[int]:
    """The threshold of each pass over a group: `BINS` for whole ones, then what is left of `target` tokens."""
    available = int(tokens.sum())
    if not available:
        return [BINS]
    whole, rest = divmod(target, available)
    threshold = int(np.searchsorted(np.cumsum(tokens), rest, side="right")) if rest else 0
    return [BINS] * whole + ([threshold] if threshold or not whole else [])
