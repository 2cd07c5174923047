"""A validation split held out of training, for those who have one file.

A row's side depends on its text alone, so it stays where it is when rows are added, removed or reordered, and rows of
the same text are never on both sides, whatever their labels. Each label then has about its share of the rows; one that
would have no row in validation gets the text that comes first by its hash, and one of a single text is trained on.
Scores are no labels: a value that a few rows share says nothing about where they belong.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Value

from finetuning.common.data import LabelledDataArguments, Split, check_there
from finetuning.common.tables import say
from shared.errors import InputError


def place_of(texts: Sequence[Any]) -> float:
    """A number from 0 to 1 that the texts of a row (strings, or lists of words) decide, whatever their order, case,
    punctuation and white space."""
    keys = []
    for text in texts:
        text = text if isinstance(text, str) else " ".join(map(str, text or []))
        text = unicodedata.normalize("NFKC", text).casefold()
        keys.append(" ".join(re.findall(r"\w+", text)) or text.strip())
    digest = hashlib.sha256("\0".join(sorted(keys)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def hold_out(
    splits: dict[str, Split],
    args: LabelledDataArguments,
    columns: Sequence[str] | Mapping[str, str],
    labels_of: Callable[[Split], Sequence[Collection[Any]]] | None = None,
) -> dict[str, Split]:
    """The splits; with --validation_fraction, validation is cut from train. `columns` hold the texts (and may say the
    flags that name them); both sides are to have each label that `labels_of` finds in the rows. Raises InputError."""
    if args.validation_fraction is None:
        return splits
    if "train" not in splits:
        raise InputError(f"--validation_fraction: there is no train split (there are: {', '.join(splits)})")
    if other := [name for name in splits if name.startswith("validation")]:
        where = splits[other[0]].where
        raise InputError(f"--validation_fraction: there is a validation split ({where}); remove one of the two")
    train = splits["train"]
    check_there(train, columns)
    for name in columns:  # whose empty ones are for the reader to refuse or to drop
        kind = train.rows.features[name]
        if isinstance(kind, (ClassLabel, Value)) and kind.dtype not in ("string", "large_string", "null"):
            raise InputError(f"{train.where}: column {name} holds {kind.dtype}, not text")
    places = [place_of(texts) for texts in zip(*(train.rows[name][:] for name in columns), strict=True)]
    held = {place for place in places if place < args.validation_fraction}
    of_label: dict[Any, set[float]] = {}
    for place, labels in zip(places, labels_of(train), strict=True) if labels_of else ():
        for label in labels:
            of_label.setdefault(label, set()).add(place)
    for label_places in [*of_label.values(), set(places)]:
        if len(label_places) > 1 and not held & label_places:
            held.add(min(label_places))
    for label_places in [*of_label.values(), set(places)]:  # last: a label that only validation has cannot be learned
        if label_places <= held:
            held.remove(max(label_places))
    sides = [[index for index, place in enumerate(places) if (place in held) == is_held] for is_held in (False, True)]
    if not all(sides):
        raise InputError(f"{train.where}: has too few texts for --validation_fraction, which needs two of a label")
    say(f"{train.where}: {len(sides[1]):,} of {len(places):,} rows are held out as validation")
    return splits | {"train": train.take(sides[0]), "validation": train.take(sides[1])}
