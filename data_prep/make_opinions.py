"""Take the words that praise or blame out of sentences of plain text, and ask which of both they did.

    python data_prep/make_opinions.py --input data/corpus --output_dir data/opinions

Words are alike for a model of plain text where they stand in like places, as "good" and "bad" do. What stands around
them tells them apart: "critics [MASK] its [MASK] plot" (Tian et al., 2020, SKEP, in small). Sentences with words of
both lists, or with a negation, are left out, and of both kinds equally many are kept. For English. Writes
train.parquet and validation.parquet with sentence and label (negative, positive), for --train_file of
finetuning/run_glue.py, and report.json. The same input and settings give the same bytes.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from data_prep.corpus.made_tasks import SENTENCE_END, Lowest, TaskArguments, write_task
from shared.command_line import check_ranges, run_script
from shared.documents import Documents, is_held_out
from shared.errors import InputError

PRAISE = """
    acclaim acclaimed beautiful beautifully best brilliant charming compelling delightful enjoyable entertaining
    excellent favorable favorably fun funny good great impressive loved lovely masterpiece memorable outstanding
    perfect praise praised praising remarkable superb wonderful
"""
BLAME = """
    awful bad badly bland boring criticised criticising criticism criticized criticizing disappointed disappointing
    disappointment dull failed fails failure flawed lack lacked lacking mediocre negative negatively panned poor poorly
    terrible ugly unfavorable useless weak worse worst worthless
"""
LABELS = {"positive": frozenset(PRAISE.split()), "negative": frozenset(BLAME.split())}
NEGATIONS = frozenset(["not", "never", "no", "nor", "without", "hardly"])
LETTERS = (40, 260)  # of a sentence
WORD = re.compile("[A-Za-z]+")


@dataclass
class OpinionArguments(TaskArguments):
    max_sentences: int = field(
        default=100_000, metadata={"help": "Keep as many at most, half of each label, chosen by a hash."}
    )
    mask_token: str = field(
        default="[MASK]", metadata={"help": "What stands in the place of the words: the tokenizer's mask."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, max_sentences=">= 2")


def find_label(sentence: str) -> str | None:
    """What the words of the lists do in a sentence; None where there are none, or they disagree or may be denied."""
    words = frozenset(WORD.findall(sentence.lower()))
    found = [label for label, opinions in LABELS.items() if words & opinions]
    return found[0] if len(found) == 1 and not words & NEGATIONS else None


def mask(sentence: str, label: str, mask_token: str) -> str:
    """The sentence on one line, without the words of its label."""
    taken = LABELS[label]
    masked = WORD.sub(lambda found: mask_token if found[0].lower() in taken else found[0], sentence)
    return " ".join(masked.split())


def draw(args: OpinionArguments, documents: Documents) -> dict[str, list[tuple[bytes, bool, str]]]:
    """For each label the sentences with the lowest hashes, lowest first: hash, whether for validation, text."""
    lowest = {label: Lowest(args.max_sentences // 2) for label in LABELS}
    for text in documents.progress("Choosing sentences"):
        held_out = is_held_out(text, args.validation_fraction)
        for sentence in SENTENCE_END.split(text):
            label = find_label(sentence) if LETTERS[0] <= len(sentence) <= LETTERS[1] else None
            if label:
                row = mask(sentence, label, args.mask_token)
                lowest[label].add(f"{args.seed} {row}", held_out, row)
    return {label: found.cut() for label, found in lowest.items()}


def main(args: OpinionArguments) -> dict[str, Any]:
    documents = Documents(args.input)
    documents.check_output(args.output_dir)
    kept = draw(args, documents)
    fewest = min(map(len, kept.values()))
    rows = sorted((*one, label) for label, found in kept.items() for one in found[:fewest])
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for _, held_out, row, label in rows:
        splits["validation" if held_out else "train"].append({"sentence": row, "label": label})
    if not all({row["label"] for row in part} == LABELS.keys() for part in splits.values()):
        raise InputError(
            f"--input: {len(rows)} sentences with an opinion; give more text, or another --validation_fraction, so "
            "that training and validation have some of each label"
        )
    facts = {"sentences": {name: len(part) for name, part in splits.items()}, "of_each_label": fewest}
    report = write_task(args, documents, splits, facts)
    print(f"{report['sentences']} sentences, {fewest} of each label, in {args.output_dir}")
    return report


if __name__ == "__main__":
    run_script(main, OpinionArguments)
