"""Edit sentences of plain text, and mark where.

    python data_prep/make_edits.py --input data/corpus --output_dir data/edits --max_sentences 600000 --max_words 24

Half of the sentences are edited at one place: two words are swapped, a word is left out, added or moved, a function
word gives way to another, or a word to another form of it ("walk", "walked"). To find the place is to know which words
go together. This is the task of ELECTRA (Clark et al., 2020), where a second model chooses the words; here rules do.
For English. Writes train.parquet and validation.parquet with tokens and ner_tags (EDIT), for --dataset_name of
finetuning/run_ner.py, and report.json. The same input and settings give the same bytes.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_prep.corpus.made_tasks import SentenceTaskArguments, draw_sentences, write_task
from shared.command_line import run_script
from shared.documents import Documents
from shared.errors import InputError

FUNCTION_WORDS = """
    is are was were be been being
    has have had having
    do does did done doing
    can could will would may might should must
    a an the
    this these that those
    some any no every each all many much few
    his her its their our my your
    he she it they him them we us
    himself herself itself themselves ourselves
    who whom which what whose
    in on at of for with by from to into
    and or but nor
    when where while if because although
    as than
    not never
    more most very
    there here
"""
ENDINGS = {"": ("s", "es", "d", "ed", "ing"), "e": ("ing",), "y": ("ies", "ied")}  # what they stand in the place of
LEAST_COUNT, LEAST_LETTERS = 10, 3  # of a word that has forms: how often it occurs, and how long it is
SHARE_OF_FUNCTION_WORDS = 0.6  # among the words that are left out or added
TRIES = 8  # kinds of edits, until one is possible

Table = Mapping[str, Sequence[str]]  # a word in lower case: what may stand in its place
Edited = tuple[list[str], list[int]]  # words, and which of them are out of place


def others_of(words: Iterable[str]) -> dict[str, list[str]]:
    """For each word the others."""
    words = sorted(words)
    return {word: [one for one in words if one != word] for word in words}


FUNCTIONS = {word: others for line in FUNCTION_WORDS.split("\n") for word, others in others_of(line.split()).items()}


def find_forms(counts: Counter[str]) -> Table:
    """For each frequent word its forms with other endings that are frequent too."""
    known = {word for word, count in counts.items() if count >= LEAST_COUNT and len(word) >= LEAST_LETTERS}
    known -= FUNCTIONS.keys()  # or "thing" would be a form of "the"
    forms: dict[str, set[str]] = {}
    for word in known:
        stems = {word.removesuffix(old): new for old, new in ENDINGS.items() if word.endswith(old)}
        built = {stem + ending for stem, endings in stems.items() for ending in endings}
        for one, others in others_of({word, *built} & known).items():
            forms.setdefault(one, set()).update(others)
    return {word: sorted(others) for word, others in forms.items() if others}


def swap(words: list[str], forms: Table, rng: random.Random) -> Edited | None:
    place = rng.randrange(len(words) - 2)
    first, second = words[place : place + 2]
    if first.lower() == second.lower():
        return None
    return [*words[:place], second, first, *words[place + 2 :]], [place, place + 1]


def leave_out(words: list[str], forms: Table, rng: random.Random) -> Edited | None:
    """The word after the gap is the one that is out of place."""
    places = list(range(len(words) - 1))
    if rng.random() < SHARE_OF_FUNCTION_WORDS:
        places = [place for place in places if words[place].lower() in FUNCTIONS]
    if not places:
        return None
    place = rng.choice(places)
    return [*words[:place], *words[place + 1 :]], [place]


def add(words: list[str], forms: Table, rng: random.Random) -> Edited | None:
    place = rng.randrange(len(words))
    word = rng.choice(list(FUNCTIONS)) if rng.random() < SHARE_OF_FUNCTION_WORDS else words[place]
    return [*words[:place], word, *words[place:]], [place]


def move(words: list[str], forms: Table, rng: random.Random) -> Edited | None:
    start, end = rng.sample(range(len(words) - 1), 2)
    if abs(start - end) == 1:
        return None  # a swap
    others = [*words[:start], *words[start + 1 :]]
    return [*others[:end], words[start], *others[end:]], [end]


def replace(words: list[str], table: Table, rng: random.Random) -> Edited | None:
    places = [place for place, word in enumerate(words) if word.lower() in table]
    if not places:
        return None
    place = rng.choice(places)
    word = rng.choice(table[words[place].lower()])
    return [*words[:place], word.capitalize() if words[place].istitle() else word, *words[place + 1 :]], [place]


def replace_function_word(words: list[str], forms: Table, rng: random.Random) -> Edited | None:
    return replace(words, FUNCTIONS, rng)


EDITS: dict[Callable[[list[str], Table, random.Random], Edited | None], int] = {  # and how often, beside the others
    swap: 2,
    leave_out: 2,
    add: 1,
    move: 1,
    replace_function_word: 3,
    replace: 4,
}


def edit(words: list[str], forms: Table, rng: random.Random) -> tuple[str, Edited]:
    """The name of an edit and what it makes of the words; "none" where none is possible."""
    for kind in rng.choices(list(EDITS), list(EDITS.values()), k=TRIES):
        if (found := kind(words, forms, rng)) and found[0] != words:
            return kind.__name__, found
    return "none", (words, [])


def main(args: SentenceTaskArguments) -> dict[str, Any]:
    documents = Documents(args.input)
    documents.check_output(args.output_dir)
    kept = draw_sentences(args, documents)
    forms = find_forms(Counter(word.lower() for _, words in kept for word in words))
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    kinds: Counter[str] = Counter()
    for held_out, words in kept:
        rng = random.Random(f"{args.seed} {' '.join(words)}")
        kind, (edited, places) = edit(words, forms, rng) if rng.random() < 0.5 else ("none", (words, []))
        kinds[kind] += 1
        tags = ["B-EDIT" if place in places else "O" for place in range(len(edited))]
        splits["validation" if held_out else "train"].append({"tokens": edited, "ner_tags": tags})
    if not all(any(row["ner_tags"].count("O") < len(row["tokens"]) for row in rows) for rows in splits.values()):
        raise InputError(
            f"--input: {len(kept)} sentences; give more text, or another --validation_fraction, so that training and "
            "validation have some with an edit"
        )
    facts = {"sentences": {name: len(rows) for name, rows in splits.items()}, "edits": dict(kinds)}
    report = write_task(args, documents, splits, facts)
    print(f"{report['sentences']} sentences with {report['edits']} edits in {args.output_dir}")
    return report


if __name__ == "__main__":
    run_script(main, SentenceTaskArguments)
