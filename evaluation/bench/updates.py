"""A model that is updated year after year, beside models trained anew to each year: the table of updates, made anew.

    python evaluation/bench/updates.py --input data/corpus --cloze cloze/ --dataset_root glue/ --output_dir runs/series

Cuts dated documents into slices; trains a model on all text to the first of --years, updates it with each year after
it, trains a model from scratch on all text to each; measures all of them. Each step is a script of this repository;
what is done is skipped, so the same command goes on where it was stopped. Text from before --first_year, which is
Wikipedia, is replayed by updates, and must not be forgotten. All models have the tokenizer of the first one, but for
the update of --new_words; those from scratch start from word vectors of the first one's text. Seconds are those of the
processor, start and evaluation included. Writes updates.json and updates.md.

Held-out sentences with words that are new in a slice are measured apart: a model that has read it must be ahead there.
"""

import re
import resource
import shlex
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from evaluation.bench.variants import run_quietly
from evaluation.masked.text_sample import SENTENCE_END
from evaluation.report.months import series_table
from shared.command_line import run_script
from shared.documents import is_held_out
from shared.errors import InputError
from shared.files import atomic_file, read_json, write_json, write_report
from shared.rows import find_sources
from shared.training.environment import hardware, versions

PATHS = ("input", "output_dir", "cloze", "dataset_root")  # of one machine: not in the result file
WORD = re.compile(r"[^\W\d_]{3,}")
ENOUGH = 5  # documents that hold a new word, or it may be a slip of the pen
SENTENCES_OF_A_YEAR = 2000
SENTENCES = pa.schema([("text", pa.string()), ("date", pa.string())])


@dataclass
class SeriesArguments:
    output_dir: str = field(metadata={"help": "Folder for slices, tokenizers, blocks, models, results."})
    input: list[str] = field(default_factory=list, metadata={"help": "Parquet files with text, date and source."})
    years: list[int] = field(
        default_factory=lambda: [2023, 2024, 2025, 2026],
        metadata={"help": "The last year of the first model's text, then that of each update."},
    )
    first_year: int = field(default=2022, metadata={"help": "Text from before this year is old, and replayed."})
    old_share: float = field(default=0.1, metadata={"help": "Share of the old documents to take."})
    leave_out: list[str] = field(
        default_factory=lambda: ["arXiv", "CIA", "Chrome", "Wikipedia (FreshWiki"],
        metadata={"help": "Sources that do not span the years, by how their names begin."},
    )
    vocab_size: int = field(default=8192, metadata={"help": "Entries of the tokenizer."})
    held_out: float = field(default=0.1, metadata={"help": "Share of documents that no model is trained on."})
    max_tokens: int = field(default=8_000_000, metadata={"help": "Tokens that a model from scratch reads."})
    update_share: float = field(default=0.1, metadata={"help": "Of these, what an update reads."})
    weights: list[float] = field(
        default_factory=lambda: [0.7, 0.05, 0.25], metadata={"help": "Of the new year, the years before, old text."}
    )
    seeds: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Of training; a series for each."})
    train_flags: str = field(default="", metadata={"help": "More flags of run_mlm.py for all models: '--bf16'."})
    update_flags: str = field(
        default="", metadata={"help": "More flags of run_mlm.py for updates; BEFORE is the model before."}
    )
    variants: list[str] = field(
        default_factory=list,
        metadata={"help": "Other updates with the first year, of the first seed: 'NAME: --learning_rate 5e-4'."},
    )
    new_words: int = field(default=0, metadata={"help": "Such an update with N new words in the vocabulary as well."})
    max_samples: int = field(default=300, metadata={"help": "Held-out documents of a year that are measured."})
    old_samples: int = field(default=100, metadata={"help": "The same, of each year of the old text."})
    cloze: str | None = field(default=None, metadata={"help": "Dated sentences with a gap, for run_probes.py."})
    dataset_root: str | None = field(default=None, metadata={"help": "A folder with a folder for each task."})
    tasks: list[str] = field(default_factory=list, metadata={"help": "Of run_benchmark.py, for the first seed."})
    task_seeds: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Of fine-tuning."})

    def __post_init__(self) -> None:
        if len(self.years) < 2 or sorted({self.first_year, *self.years}) != [self.first_year, *self.years]:
            raise InputError("--years: name two years or more in their order, all later than --first_year")
        if len(self.weights) != 3:
            raise InputError("--weights: name three, of the new year, the years before and old text")
        for text in self.variants:
            if not text.partition(":")[0].isidentifier() or not text.partition(": ")[2].startswith("--"):
                raise InputError(f"--variants {text!r}: write 'NAME: --flag value'")


class Series:
    """The folders of a series, and the steps that fill them."""

    def __init__(self, args: SeriesArguments) -> None:
        self.args, self.folder, self.first = args, Path(args.output_dir).resolve(), args.years[0]
        self.file = self.folder / "done.json"
        self.done = read_json(self.file) if self.file.is_file() else {}

    def run(self, script: str, output: Path, *flags: Any) -> Path:
        """Run a script unless it has been with these flags; note how long it took. Raises RunError if it fails."""
        name, words = output.relative_to(self.folder).as_posix(), [script, *map(str, flags)]
        if self.done.get(name, {}).get("words") == words:
            return output
        print(f"{name}: {script}", flush=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_quietly([*words, "--output_dir", str(output)], {})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.done[name] = {"words": words, "seconds": round(seconds, 1)}
        write_json(self.file, self.done)
        return output

    def text(self, name: Any) -> Path:
        return self.folder / "text" / f"{name}.parquet"

    def cut(self) -> None:
        """Write the slices: old text, then that of each of --years, which begins where the one before ends."""
        slices: dict[Any, list[dict[str, Any]]] = {name: [] for name in ("old", *self.args.years)}
        if all(self.text(name).is_file() for name in slices):
            return
        for source in tqdm(find_sources(self.args.input, (".parquet",)), desc="Cutting into slices"):
            for row in pq.read_table(source.path, columns=["text", "date", "source"]).to_pylist():
                year = int(str(row["date"])[:4])
                name: Any = next((last for last in self.args.years if year <= last), None)
                if year < self.args.first_year:
                    name = "old" if zlib.crc32(row["text"].encode()) < self.args.old_share * 2**32 else None
                if name and not row["source"].startswith(tuple(self.args.leave_out)):
                    slices[name].append(row)
        self.text("old").parent.mkdir(parents=True, exist_ok=True)
        for name, rows in slices.items():
            if not rows:
                raise InputError(f"--input: has no text for the slice {name}; see --years and --first_year")
            with atomic_file(self.text(name)) as path:
                pq.write_table(pa.Table.from_pylist(rows), path)

    def sentences(self) -> list[Path]:
        """Write the held-out sentences of each of --years with words that are new in it, of `old` for the first."""
        known: set[str] = set()
        paths = []
        for name in ("old", *self.args.years):
            rows = pq.read_table(self.text(name), columns=["text", "date"]).to_pylist()
            train = [row["text"] for row in rows if not is_held_out(row["text"], self.args.held_out)]
            counts = Counter(word for text in train for word in set(words_of(text)))
            new = {word for word, count in counts.items() if count >= ENOUGH} - known
            known |= counts.keys()
            if name == "old":
                continue
            held_out = (row for row in rows if is_held_out(row["text"], self.args.held_out))
            found = {
                sentence: {"text": sentence, "date": row["date"]}
                for row in held_out
                for sentence in SENTENCE_END.split(row["text"])
                if not new.isdisjoint(words_of(sentence))
            }
            paths.append(self.folder / "sentences" / f"{name}.parquet")
            if not paths[-1].is_file():
                paths[-1].parent.mkdir(exist_ok=True)
                with atomic_file(paths[-1]) as path:
                    pq.write_table(pa.Table.from_pylist([*found.values()], SENTENCES), path)
        return paths

    def tokenizer(self, words: int = 0) -> Path:
        """That of the first model, or the same with words of the first update."""
        held_out = ["--validation_fraction", self.args.held_out, "--input"]
        if not words:
            flags = ["--vocab_size", self.args.vocab_size, *held_out, self.text("old"), self.text(self.first)]
            return self.run("data_prep/train_tokenizer.py", self.folder / "tokenizer", *flags)
        flags = ["--tokenizer_name", self.tokenizer(), "--min_count", 30, "--max_new_words", words, *held_out]
        flags += [self.text(self.args.years[1])]
        return self.run("data_prep/extend_tokenizer.py", self.folder / "tokenizer_new_words", *flags)

    def packed(self, *names: Any, words: int = 0) -> Path:
        """Blocks of one slice or of several together."""
        tokenizer, texts = self.tokenizer(words), [self.text(name) for name in names]
        output = self.folder / f"packed{'_new_words' if words else ''}" / "-".join(map(str, names))
        flags = ["--tokenizer_name", tokenizer, "--validation_fraction", self.args.held_out, "--input", *texts]
        return self.run("data_prep/pack_dataset.py", output, *flags)

    def train(self, year: int, output: Path, seed: int) -> Path:
        """A model from scratch on all text to a year, in proportion."""
        both = self.packed("old", self.first)
        vectors = self.run("data_prep/train_word_vectors.py", self.folder / "vectors", "--packed_dataset", both)
        flags = ["--config", "pretraining/recipes/tiny_modern.yaml", "--word_vectors", vectors]
        flags += ["--lr_scheduler_type", "warmup_stable_decay", "--warmup_steps", 200, "--eval_strategy", "no"]
        flags += ["--packed_dataset", both, *(self.packed(one) for one in self.args.years[1:] if one <= year)]
        flags += ["--max_tokens", self.args.max_tokens, "--max_steps", -1, "--max_eval_samples", 200, "--seed", seed]
        flags += shlex.split(self.args.train_flags)
        flags += ["--keep_trunk"] if year == self.first else []  # for a variant: --model_name_or_path BEFORE/trunk
        return self.run("pretraining/run_mlm.py", output, *flags)

    def update(self, year: int, output: Path, seed: int, before: Path, more: str, words: int = 0) -> Path:
        """The model before, gone on with a year."""
        past = [one for one in self.args.years if one < year]
        new, middle, old = self.args.weights
        packed = [self.packed(name, words=words) for name in (year, *past, "old")]
        flags = ["--config", "pretraining/recipes/update.yaml", "--model_name_or_path", before]
        flags += ["--tokenizer_name", self.tokenizer(words), "--packed_dataset", *packed]
        flags += ["--mixture_weights", new, *(round(middle / len(past), 4) for _ in past), old]
        flags += ["--max_tokens", round(self.args.update_share * self.args.max_tokens), "--max_steps", -1]
        flags += ["--max_eval_samples", 200, "--seed", seed, *shlex.split(self.args.train_flags)]
        flags += shlex.split(more.replace("BEFORE", str(before)))
        return self.run("pretraining/run_mlm.py", output, *flags)

    def models(self, seed: int) -> dict[Path, int]:
        """The folders of all models of a seed and their last years; the first model first, updates in a row."""
        place, years = self.folder / f"seed-{seed}", self.args.years[1:]
        newest = self.train(self.first, place / f"to_{self.first}", seed)
        found, flags = {newest: self.first}, self.args.update_flags
        if seed == self.args.seeds[0]:
            for name, _, more in (text.partition(": ") for text in self.args.variants):
                found[self.update(years[0], place / name, seed, newest, more)] = years[0]
            if words := self.args.new_words:
                found[self.update(years[0], place / "new_words", seed, newest, flags, words)] = years[0]
        for year in years:
            newest = self.update(year, place / f"updated_{year}", seed, newest, flags)
            found[newest] = year
        return found | {self.train(year, place / f"scratch_{year}", seed): year for year in years}

    def measure(self, seed: int) -> dict[str, dict[str, Any]]:
        """What the scripts of evaluation/ say of each model of a seed."""
        models, place = self.models(seed), self.folder / f"seed-{seed}"
        samples = (self.args.max_samples, self.args.old_samples)
        common = ["--max_characters", 2000, "--new_words", "none", "--models", *models]
        dated_flags, old_flags = (["--held_out", self.args.held_out, "--max_samples", n, *common] for n in samples)
        cutoffs = ["--cutoff", *(f"{year}-12" for year in models.values())]
        texts = ["--input", *map(self.text, self.args.years)]
        freshness = self.run("evaluation/run_freshness.py", place / "freshness", *dated_flags, *cutoffs, *texts)
        old = self.run("evaluation/run_freshness.py", place / "old", *old_flags, "--input", self.text("old"))
        flags = ["--held_out", 1, "--max_samples", SENTENCES_OF_A_YEAR, *common, *cutoffs]
        flags += ["--input", *self.sentences()]
        words = self.run("evaluation/run_freshness.py", place / "sentences", *flags)
        dated, cloze = read_json(freshness / "freshness.json")["text"], {}
        if self.args.cloze:
            flags = ["--cloze", Path(self.args.cloze).resolve(), "--models", *models]
            cloze = read_json(self.run("evaluation/run_probes.py", place / "cloze", *flags) / "probes.json")["models"]
        found = {}
        for path, year in models.items():
            name, step = path.name, self.done[path.relative_to(self.folder).as_posix()]
            row = {"text_to": year, "tokens": read_json(path / "train_results.json")["train_tokens"]}
            row |= {"seconds": step["seconds"], "gain": dated.get("gains", {}).get(name)}
            row["new_words"] = read_json(words / "freshness.json")["text"]["gains"].get(name)
            for part, periods in (
                ("old", read_json(old / "freshness.json")["text"]["periods"]),
                ("dated", dated["periods"]),
            ):
                row[part] = {one["name"]: one["models"][name]["bits_per_byte"] for one in periods}
            found[name] = row | {"cloze": cloze[name]["cloze"] if name in cloze else None}
        return found


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


def main(args: SeriesArguments) -> dict[str, Any]:
    series = Series(args)
    series.cut()
    settings = {name: value for name, value in asdict(args).items() if name not in PATHS}
    report: dict[str, Any] = {"kind": "updates", "settings": settings}
    report["seeds"] = {str(seed): series.measure(seed) for seed in args.seeds}
    if args.tasks:
        place, (first, *years) = series.folder / f"seed-{args.seeds[0]}", args.years
        flags = ["--models", place / f"to_{first}", *(place / f"updated_{year}" for year in years), "--tasks"]
        flags += [*args.tasks, "--seeds", *args.task_seeds]
        flags += ["--dataset_root", Path(args.dataset_root).resolve()] if args.dataset_root else []
        tasks = series.run("evaluation/run_benchmark.py", series.folder / "tasks", *flags)
        found = read_json(tasks / "benchmark.json")
        report["tasks"] = {key: found[key] for key in ("tasks", "results", "comparisons")}
    report |= {"versions": versions(), "hardware": hardware()}
    table = series_table(report)
    write_report(args.output_dir, "updates", report, table)
    print(table)
    return report


if __name__ == "__main__":
    run_script(main, SeriesArguments)
