"""The phases of build_corpus.py before it writes: look at every document, decide what is taken.

Memory holds one part of the records and a table of `BINS` counts for each group. shards.py has the last phase.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_prep.corpus.contamination import HITS, EvaluationFile, build_index
from data_prep.corpus.records import (
    BAD,
    CONTAMINATED,
    DATED,
    EMPTY,
    FOLDERS,
    OLD,
    REASONS,
    RECORD,
    TRAIN,
    VALIDATION,
    examined_parts,
    index_of,
    rows_by_folder,
)
from data_prep.corpus.sample import BINS, dated_split, day_after, passes_of, plan_mix, sampling_bin
from data_prep.corpus.words import count_words
from data_prep.engine.stage import Part, Task, add_counts, file_facts, new_counts
from data_prep.tokens.pieces import cut_for
from shared.documents import is_held_out
from shared.errors import InputError
from shared.files import atomic_file, write_json
from shared.rows import STATE, read_rows, write_rows

EXAMPLES = 10  # n-grams that the report shows for each evaluation set, the most frequent first
MOST_EXAMPLES = 1000  # distinct ones that are counted: they come from the documents


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
    """Phase 2: a `RECORD` for each document: its tokens, its place in the sample, its outcome if it is chosen."""

    output_dir: str
    part_records: int
    args: Any

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        records: list[tuple[Any, ...]] = []
        hits: list[dict[str, Any]] = []
        found: list[np.ndarray] = []
        part = Part(position, 0.0, new_counts(), {})
        for at, share, row, problem in read_rows(task.source, position):
            part.position, part.share = at, share
            part.counts["in"] += 1
            if row is None:
                part.counts["bad"][problem] += 1
                records.append((at, 0, 0, 0, BAD, False))
            else:
                places: dict[str, tuple[int, str]] = {}
                if self.args.decontaminate:
                    places, hashes = index_of(self.output_dir).find(row["text"])
                    found.append(hashes)
                    known = {name: row[name] for name in ("id", "url", "source")}
                    hits += [known | {"set": name, "ngrams": n, "example": e} for name, (n, e) in places.items()]
                outcome = self._outcome(row, bool(places))
                tokens = self._tokens(row["text"]) if outcome in FOLDERS else 0
                size = len(row["text"].encode())
                place = sampling_bin(row["text"], self.args.seed)
                records.append((at, place, tokens, size, outcome, bool(places)))
            if len(records) >= self.part_records:
                yield self._write(task, number, records, hits, found, part)
                number += 1
                records, hits, found, part = [], [], [], Part(at, share, new_counts(), {})
        part.share, part.last = 1.0, True
        yield self._write(task, number, records, hits, found, part)

    def _outcome(self, row: dict[str, Any], contaminated: bool) -> int:
        if not row["text"].strip():
            return EMPTY
        if contaminated and self.args.contamination == "drop":
            return CONTAMINATED
        if self.args.documents_after:
            outcome = dated_split(row["date"], day_after(self.args.documents_after))
            if outcome != DATED:
                return OLD if outcome == TRAIN else outcome
        if self.args.validation_from:
            outcome = dated_split(row["date"], self.args.validation_from)
            if outcome != TRAIN:
                return outcome
        return VALIDATION if is_held_out(row["text"], self.args.validation_fraction) else TRAIN

    def _tokens(self, text: str) -> int:
        if self.args.tokenizer_name:
            encoder = _encoder(self.args.tokenizer_name)
            return sum(len(encoder.encode(piece, add_special_tokens=False).ids) for piece, _ in cut_for(encoder, text))
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
        outcomes: Counter[int] = Counter()
        for group, sources in enumerate(self.groups):
            for source in sources:
                for _, records in examined_parts(self.output_dir, source):
                    outcomes.update(records["fate"].tolist())
                    records = records[records["fate"] == TRAIN]
                    np.add.at(tokens[group], records["bin"], records["tokens"].astype(np.int64))
                    documents[group] += len(records)
        available = tokens.sum(axis=1).tolist()
        if not sum(available):
            why = ", ".join(f"{REASONS.get(kind, FOLDERS.get(kind))}: {n:,}" for kind, n in sorted(outcomes.items()))
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
        if not any(entry["tokens_taken"] for entry in mix):
            raise InputError(f"--token_budget {budget}: smaller than the document that would come first; raise it")
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
            for part, records in examined_parts(self.output_dir, source):
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
        index = index_of(self.output_dir)
        found = np.zeros(len(index.hashes), dtype=bool)
        documents: Counter[str] = Counter()
        examples: dict[str, dict[str, dict[str, Any]]] = {}
        for source in (source for group in self.groups for source in group):
            for number, _ in examined_parts(self.output_dir, source):
                name = f"{source:05d}-{number:05d}"
                path = Path(self.output_dir, STATE, "hits", f"{name}.npy")
                if not path.is_file():
                    continue
                index.mark(found, np.load(path))
                for row in pq.read_table(Path(self.output_dir, "contamination", f"{name}.parquet")).to_pylist():
                    documents[row["set"]] += 1
                    shown = examples.setdefault(row["set"], {})
                    if row["example"] in shown or len(shown) < MOST_EXAMPLES:
                        first = {"ngram": row["example"], "documents": 0, "id": row["id"], "url": row["url"]}
                        shown.setdefault(row["example"], first)["documents"] += 1
        most = {
            name: sorted(shown.values(), key=lambda example: -example["documents"])[:EXAMPLES]
            for name, shown in examples.items()
        }
        return index.report(found, documents, most)
