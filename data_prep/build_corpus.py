"""Mix sources into one corpus without evaluation text, with validation sets, a data card and a way back to the source.

    python data_prep/build_corpus.py --input data/web data/wikipedia --weights 0.7 0.3 --token_budget 1e9 \
        --decontaminate data/glue --validation_from 2026-11-20 --output_dir data/corpus
    python data_prep/build_corpus.py --output_dir data/corpus --trace https://en.wikipedia.org/wiki/Zinc

Each entry of --input is a group with a weight. Which of its documents are taken depends on a hash of their text and
the seed: not on order, workers or other documents; a larger budget takes all that a smaller one takes, and more.
Writes shards at the top of the folder, validation/ (by hash), validation_dated/ (by date), dropped/ with reasons,
contamination/, reports/, README.md (the data card) and manifest.json.
"""

import datetime
import math
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from data_prep.corpus.card import read_licences, write_data_card
from data_prep.corpus.contamination import find_evaluation_sets
from data_prep.corpus.phases import BuildIndex, Choose, Examine
from data_prep.corpus.sample import check_budget
from data_prep.corpus.shards import Write
from data_prep.corpus.trace import trace
from data_prep.engine.run import run_stage
from data_prep.engine.stage import Phase, StageArguments, Task, settings_of
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import InputError
from shared.rows import check_apart, find_sources

MAX_WRITERS = 256  # tasks that share the shards; known from the input, as clusters queue them before there is a plan


@dataclass
class BuildArguments:
    weights: list[float] = field(
        default_factory=list,
        metadata={"help": "Shares of the training tokens, one for each entry of --input. Default: as much as exists."},
    )
    token_budget: float | None = field(
        default=None, metadata={"help": "Training tokens in all. Default: as many as there are in these proportions."}
    )
    max_repeats: int = field(
        default=1, metadata={"help": "How often a document may be used when its group is too small for its weight."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Count tokens with it. Default: words times --tokens_per_word."}
    )
    tokens_per_word: float = field(default=1.3, metadata={"help": "The estimate, without --tokenizer_name."})
    seed: int = field(default=42, metadata={"help": "Another seed samples other documents."})
    decontaminate: list[str] = field(
        default_factory=list, metadata={"help": "Evaluation sets: files, or folders with a file for each split."}
    )
    contamination: Literal["drop", "flag"] = field(
        default="drop", metadata={"help": "Leave documents with evaluation text out, or name the sets in `metadata`."}
    )
    ngram: int = field(default=13, metadata={"help": "Consecutive words that a document and a set must share."})
    shortest_text: int = field(
        default=8, metadata={"help": "Evaluation texts of fewer words than --ngram are matched whole from here on."}
    )
    validation_fraction: float = field(
        default=0.0, metadata={"help": "Share for validation/, by hash; 0: left to pack_dataset.py (the same rule)."}
    )
    documents_after: str | None = field(
        default=None, metadata={"help": "Leave out documents of this date (YYYY-MM-DD) or older, and those without."}
    )
    validation_from: str | None = field(
        default=None, metadata={"help": "Documents of this date (YYYY-MM-DD) or later go to validation_dated/."}
    )
    shard_mb: float = field(default=200.0, metadata={"help": "MiB of text in a file; about 2.5 times its size."})
    licences: list[str] = field(
        default_factory=list,
        metadata={
            "help": "SOURCE=LICENCE for the data card. Default: as a column `licence` says, or the source is known."
        },
    )
    trace: str | None = field(
        default=None, metadata={"help": "Say where this id or URL in the corpus came from, and do nothing else."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, weights="> 0", token_budget=">= 1, < 4e18", max_repeats=">= 1, <= 100")
        check_ranges(self, tokens_per_word="> 0, < 1000", ngram=">= 2, <= 100", shortest_text=f">= 1, <= {self.ngram}")
        check_ranges(self, validation_fraction=">= 0, < 1", shard_mb="> 0, <= 10000")
        for name in ("documents_after", "validation_from"):
            if getattr(self, name) and not is_date(getattr(self, name)):
                raise InputError(f"--{name} {getattr(self, name)}: is a date like 2026-11-20")
        read_licences(self.licences)
        if not self.decontaminate:
            names = ("contamination", "ngram", "shortest_text")
            refuse_flags(self, dict.fromkeys(names, "is for --decontaminate, and no evaluation set is named"))
        if self.tokenizer_name:
            refuse_flags(self, {"tokens_per_word": "--tokenizer_name counts tokens, and nothing is estimated"})


def is_date(text: str) -> bool:
    """Whether `text` is a day of the calendar, YYYY-MM-DD."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def groups_of(inputs: list[str]) -> list[tuple[int, ...]]:
    """The numbers of the sources of each entry of --input."""
    ends = list(accumulate(len(find_sources([entry])) for entry in inputs))
    return [tuple(range(start, end)) for start, end in zip([0, *ends], ends, strict=False)]


def check_arguments(stage_args: StageArguments, args: BuildArguments) -> None:
    """Raise InputError for flags that do not fit each other."""
    if args.weights and len(args.weights) != len(stage_args.input):
        raise InputError(
            f"--weights: {len(args.weights)} values for {len(stage_args.input)} entries of --input; one for each"
        )
    if args.max_repeats > 1 and not args.weights and args.token_budget is None:
        raise InputError("--max_repeats: says nothing without --weights or --token_budget")


def main(stage_args: StageArguments, args: BuildArguments) -> dict[str, Any]:
    if args.trace:
        return trace(stage_args.output_dir, args.trace)
    sources = find_sources(stage_args.input)
    check_apart(stage_args.output_dir, args.decontaminate, "--decontaminate")
    check_arguments(stage_args, args)
    files = tuple(find_evaluation_sets(args.decontaminate))
    settings = settings_of(stage_args, args) | {
        "decontaminate": [{"set": file.set, "split": file.split, "sha256": file.sha256} for file in files],
        "groups": (groups := groups_of(stage_args.input)),
    }
    for name in ("trace", "licences"):  # the data card alone depends on them
        settings.pop(name)
    libraries = ["numpy"]
    if args.tokenizer_name:
        from shared.tokenizer import load_tokenizer, tokenizer_hash

        settings["tokenizer_name"] = tokenizer_hash(load_tokenizer(args.tokenizer_name))
        libraries.append("tokenizers")

    if args.token_budget is not None:
        per_byte = 1.0 if args.tokenizer_name else max(args.tokens_per_word, 1.0)
        files_of_groups = [[sources[number] for number in group] for group in groups]
        check_budget(files_of_groups, args.weights, int(args.token_budget), args.max_repeats, per_byte)

    output, size = stage_args.output_dir, sum(source.bytes for source in sources)
    names = tuple(Path(entry).absolute().name for entry in stage_args.input)
    writers = min(max(math.ceil(size / 2**18 / args.shard_mb), 1), MAX_WRITERS)
    examine = Examine(output, stage_args.part_records, args)
    choose = Choose(output, tuple(groups), names, tuple(Path(source.path).name for source in sources), args)
    write = Write(output, writers, tuple(sources), args)
    tasks = tuple(Task(f"{source.index:05d}", source.bytes, source) for source in sources)
    phases = [
        Phase("examine", tasks, examine),
        Phase("choose", (Task("plan", size),), choose),
        Phase("write", tuple(Task(f"{n:05d}", max(size // writers, 1)) for n in range(writers)), write),
    ]
    if files:
        index = BuildIndex(output, files, args)
        phases.insert(0, Phase("evaluation", (Task("index", sum(Path(f.path).stat().st_size for f in files)),), index))
    manifest = run_stage("build_corpus", stage_args, settings, sources, phases, libraries)
    if manifest:
        write_data_card(Path(output), manifest, read_licences(args.licences))
    return manifest


if __name__ == "__main__":
    run_script(main, StageArguments, BuildArguments)
