"""Mark the names in plain text by their capitals, with a guess of what each one names.

    python data_prep/make_names.py --input data/corpus --output_dir data/names

A lower-cased model does not see what marks a name. Told which words had a capital, it learns what names look like and
where they stand (Mayhew et al., 2020, Robust Named Entity Recognition with Truecasing Pretraining). The kind is a
vote: "in Oslo" hints at a place, "Nansen said" at a person, "the Senate" at something else. All hints of a name, or
of its first and last word, count wherever it stands. For English. Writes train.parquet and validation.parquet with
tokens and ner_tags (PER, LOC, ORG, MISC), for --dataset_name of finetuning/run_ner.py, and report.json. The same input
and settings give the same bytes.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from data_prep.corpus.made_tasks import SentenceTaskArguments, draw_sentences, write_task
from shared.command_line import run_script
from shared.documents import Documents
from shared.errors import InputError

INSIDE = frozenset(["of", "the", "de", "van", "von", "&", "-"])  # within a name, between capitals
MONTHS = "January February March April May June July August September October November December"
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
NEVER = frozenset(f"I A {MONTHS} {DAYS}".split())  # capitals that mark no name
BEFORE = {"in": "LOC", "near": "LOC", "at": "LOC", "from": "LOC", "by": "PER", "the": "ORG"}
AFTER = dict.fromkeys(("said", "says", "wrote", "told", "married", "died", "asked", "born", "who"), "PER")
KINDS = ("PER", "LOC", "ORG")
LEAST_HINTS, LEAST_LEAD = 2, 2.0  # how many, and how much the first kind must lead the second, or it is MISC
MOST_NAMES = 0.6  # of the words of a sentence; more is a title or a table


def find_names(words: Sequence[str], usual: Counter[str]) -> list[tuple[int, int]]:
    """Where names begin and end. Of the first word `usual` decides: capitals elsewhere less lower case, by word."""
    names: list[tuple[int, int]] = []
    inside = False
    for place, word in enumerate(words):
        capital = word[0].isupper() and word not in NEVER and (place > 0 or usual[word.lower()] > 0)
        joins = inside and word in INSIDE and place + 1 < len(words) and words[place + 1][0].isupper()
        if inside and (capital or joins):
            names[-1] = (names[-1][0], place + 1)
        elif capital:
            names.append((place, place + 1))
        inside = capital or joins
    return names


def count_hints(sentences: Sequence[Sequence[str]], usual: Counter[str]) -> dict[str, Counter[str]]:
    """For each name, and for the first and the last word of longer ones, how often each kind is hinted at."""
    hints: dict[str, Counter[str]] = defaultdict(Counter)
    for words in sentences:
        for start, end in find_names(words, usual):
            found = [BEFORE.get(words[start - 1].lower())] if start else []
            found += [AFTER.get(words[end])] if end < len(words) else []
            for kind in filter(None, found):
                for key in keys_of(words[start:end]):
                    hints[key][kind] += 1
                hints[""][kind] += 1
    return hints


def keys_of(name: Sequence[str]) -> list[str]:
    """What hints are counted for: the name, and its first and last word as such."""
    whole = " ".join(name).lower()
    return [whole, f"{name[0].lower()} ...", f"... {name[-1].lower()}"] if len(name) > 1 else [whole]


def kind_of(name: Sequence[str], hints: dict[str, Counter[str]]) -> str:
    """The kind that is hinted at more often than at names in general; MISC where that is not clear."""
    whole, *parts = keys_of(name)
    votes = hints.get(whole, Counter())
    if votes.total() < LEAST_HINTS:
        votes = sum((hints.get(part, Counter()) for part in parts), Counter(votes))
    shares = sorted(((votes[kind] / hints[""][kind], kind) for kind in KINDS if hints[""][kind]), reverse=True)
    clear = len(shares) == len(KINDS) and shares[0][0] > LEAST_LEAD * shares[1][0]
    return shares[0][1] if clear and votes.total() >= LEAST_HINTS else "MISC"


def tag(words: Sequence[str], usual: Counter[str], hints: dict[str, Counter[str]]) -> list[str]:
    """B-, I- and O of each word."""
    tags = ["O"] * len(words)
    for start, end in find_names(words, usual):
        kind = kind_of(words[start:end], hints)
        tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return tags


def main(args: SentenceTaskArguments) -> dict[str, Any]:
    documents = Documents(args.input)
    documents.check_output(args.output_dir)
    kept = draw_sentences(args, documents)
    usual: Counter[str] = Counter()
    for _, words in kept:
        usual.update(word.lower() for word in words[1:] if word[0].isupper())
        usual.subtract(word for word in words[1:] if word[0].islower())
    hints = count_hints([words for _, words in kept], usual)
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    kinds: Counter[str] = Counter()
    for held_out, words in kept:
        tags = tag(words, usual, hints)
        if sum(one != "O" for one in tags) <= MOST_NAMES * len(words):
            splits["validation" if held_out else "train"].append({"tokens": words, "ner_tags": tags})
            kinds.update(one[2:] for one in tags if one.startswith("B-"))
        else:
            documents.skipped["a sentence of names"] += 1
    if not all(splits.values()) or not kinds:
        raise InputError(
            f"--input: {len(kept)} sentences with {kinds.total()} names; give more text, or another "
            "--validation_fraction, so that training and validation have some"
        )
    facts = {"sentences": {name: len(rows) for name, rows in splits.items()}, "names": dict(kinds)}
    report = write_task(args, documents, splits, facts)
    print(f"{report['sentences']} sentences with {report['names']} names in {args.output_dir}")
    return report


if __name__ == "__main__":
    run_script(main, SentenceTaskArguments)
