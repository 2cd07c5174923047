"""Add the new words of a month to a tokenizer, so that an old model can learn them; every old entry keeps its number.

    python data_prep/extend_tokenizer.py --tokenizer_name data/tokenizer --input month.parquet --output_dir data/new

Words are counted as the tokenizer divides text (WordPiece, byte-level BPE or Unigram). Those that are frequent and cut
into many pieces take the entries that the tokenizer reserved when it was trained. Writes a folder that
`AutoTokenizer.from_pretrained` loads, with report.json: the words, their counts and their pieces of before, and tokens
per word on held-out documents with and without them. The same input gives the same bytes. `pretraining/run_mlm.py
--model_name_or_path OLD_MODEL --tokenizer_name NEW` goes on from there.
"""

from dataclasses import dataclass, field
from typing import Any

from data_prep.tokens.extension import check_extensible, place_words, write_extended
from data_prep.tokens.measure import describe_tokenizer, print_rows, read_apart
from data_prep.tokens.new_words import find_new_words, kind_of
from shared.command_line import check_ranges, run_script
from shared.documents import HELP, Documents
from shared.errors import InputError
from shared.files import atomic_folder, write_json
from shared.tokenizer import UNUSED, load_tokenizer, tokenizer_hash


@dataclass
class ExtensionArguments:
    tokenizer_name: str = field(metadata={"help": "The tokenizer to extend (folder or Hub id)."})
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    input: list[str] = field(default_factory=list, metadata={"help": HELP})
    dataset_name: str | None = field(default=None, metadata={"help": "A dataset id on the Hub, instead of files."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    min_count: int = field(default=50, metadata={"help": "Occurrences in the new text from which a word is added."})
    min_pieces: int = field(default=3, metadata={"help": "Pieces in which the tokenizer cuts such a word, or more."})
    max_new_words: int = field(default=256, metadata={"help": "Words to add at most, the most frequent first."})
    grow: bool = field(
        default=False,
        metadata={"help": "When no reserved entry is left, append entries, up to a multiple of 64 in all."},
    )
    validation_fraction: float = field(
        default=0.01, metadata={"help": "Share of documents, chosen by hash, that are not counted, for the report."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, min_count=">= 1", min_pieces=">= 2", max_new_words=">= 1", validation_fraction=">= 0, < 1")


def main(args: ExtensionArguments) -> dict[str, Any]:
    documents = Documents(args.input, args.dataset_name, args.dataset_config_name)
    old = load_tokenizer(args.tokenizer_name)
    check_extensible(old, args.grow)
    documents.check_output(args.output_dir)

    held_out: list[str] = []
    texts = read_apart(documents, held_out, args.validation_fraction, "Counting words")
    words, total = find_new_words(old, texts, args.min_count, args.min_pieces)
    if not total and not held_out:
        source = args.dataset_name or ", ".join(args.input)
        raise InputError(f"--input {source}: there is no text; give another, or go on with {args.tokenizer_name}")
    places = place_words(old, words[: args.max_new_words], args.grow)
    report: dict[str, Any] = {
        "kind": kind_of(old),
        "old_tokenizer_sha256": tokenizer_hash(old),
        "input": documents.describe(),
        "settings": {name: getattr(args, name) for name in ("min_count", "min_pieces", "max_new_words", "grow")},
        "held_out_documents": len(held_out),
        "skipped": dict(documents.skipped),
        "found": len(words),
        "words": [{"id": number, **vars(word)} for number, word in places.items()],
    }
    with atomic_folder(args.output_dir) as folder:
        new = write_extended(old, places, total, folder)
        report["unused_entries_left"] = sum(UNUSED.fullmatch(token) is not None for token in new.get_vocab())
        if any(text.split() for text in held_out):
            report |= {"old": describe_tokenizer(old, held_out), "new": describe_tokenizer(new, held_out)}
        write_json(folder / "report.json", report)
    left = min(len(words), args.max_new_words) - len(places)
    print(
        f"{len(places)} new words in {args.output_dir} ({len(new):,} entries, {report['unused_entries_left']} of them "
        f"unused); skipped: {report['skipped'] or 'nothing'}"
    )
    if not words:
        print(
            f"No word occurs {args.min_count} times and is cut into {args.min_pieces} pieces: this is the tokenizer "
            "of before; lower --min_count or --min_pieces for more"
        )
    if left:
        print(f"{left} more words found no reserved entry: --grow appends entries for them")
    print_rows(report)
    return report


if __name__ == "__main__":
    run_script(main, ExtensionArguments)
