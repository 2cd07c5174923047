"""Tags of words and the entities that they mean, in any scheme.

A tag is `O`, or a prefix and the type of an entity: `B-PER`. The schemes differ in their prefixes. IOB1 writes `I-`
and needs `B-` only where an entity follows another of its type at once; IOB2 begins every entity with `B-`; BIOES also
ends it with `E-` and writes `S-` for one of a single word (BILOU is the same with `L-` and `U-`).
"""

import re
from collections.abc import Sequence

from shared.errors import InputError

SCHEMES = ("IOB2", "IOB1", "BIOES")
PREFIXES = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES"}
TAG = re.compile(r"O|[BIESLU]-[^\s-](.*[^\s-])?")
_BILOU = str.maketrans("LU", "ES")

Entity = tuple[str, int, int]  # its type, its first word and the word behind its last


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence in any scheme, as the scorer of CoNLL 2000 reads them, for which no tag is wrong: one
    begins where the type changes, at `B-` and `S-`, and after `E-` and `S-`."""
    entities: list[Entity] = []
    last, begin = "O", 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, kind = _parts(tag)
        goes_on = last != "O" and kind == _parts(last)[1] and prefix not in "BS" and _parts(last)[0] not in "ES"
        if not goes_on:
            if last != "O":
                entities.append((_parts(last)[1], begin, i))
            begin = i
        last = tag
    return entities


def _parts(tag: str) -> tuple[str, str]:
    return tag[0].translate(_BILOU), tag[2:]


def write_tags(entities: Sequence[Entity], words: int, scheme: str) -> list[str]:
    """The tags of a sentence of `words` words, in IOB1, IOB2 or BIOES."""
    tags = ["O"] * words
    last: Entity = ("", -1, -1)
    for kind, begin, end in entities:
        prefixes = ["I"] * (end - begin)
        if scheme != "IOB1" or (last[0], last[2]) == (kind, begin):
            prefixes[0] = "B"
        if scheme == "BIOES":
            prefixes[-1] = "E" if len(prefixes) > 1 else "S"
        tags[begin:end] = [f"{prefix}-{kind}" for prefix in prefixes]
        last = (kind, begin, end)
    return tags


def is_legal(tags: Sequence[str], scheme: str) -> bool:
    """Whether the tags of a sentence are what this scheme writes for its entities."""
    return write_tags(find_entities(tags), len(tags), scheme) == by_usual_letters(tags, scheme)


def by_usual_letters(tags: Sequence[str], scheme: str) -> list[str]:
    """The tags, in BIOES with `E-` and `S-` where BILOU writes `L-` and `U-`."""
    return [tag[0].translate(_BILOU) + tag[1:] if scheme == "BIOES" else tag for tag in tags]


def find_scheme(sentences: Sequence[Sequence[str]]) -> tuple[str, list[int]]:
    """The scheme that most sentences with entities are written in, and the numbers of those that are not."""
    tagged = [i for i, tags in enumerate(sentences) if any(tag != "O" for tag in tags)]
    wrong: dict[str, list[int]] = {}
    for scheme in SCHEMES:
        wrong[scheme] = [i for i in tagged if not is_legal(sentences[i], scheme)]
        if not wrong[scheme]:  # an entity is legal in one of them only
            break
    best = min(wrong, key=lambda scheme: len(wrong[scheme]))
    return best, wrong[best]


def labels_of(types: Sequence[str], scheme: str) -> list[str]:
    """All tags of the given types in a scheme, `O` first: the classes of a model."""
    return ["O", *(f"{prefix}-{kind}" for kind in types for prefix in PREFIXES[scheme])]


def types_of(tags: Sequence[str]) -> list[str]:
    """The types of entities in some tags, in the order in which they come up."""
    return list(dict.fromkeys(tag[2:] for tag in tags if tag != "O"))


def check_labels(labels: Sequence[str], scheme: str | None) -> str:
    """The scheme of a model's classes, if it is not known already.

    IOB1 and IOB2 have the same; the latter is assumed. Raises InputError if they are not all tags of a scheme.
    """
    scheme = scheme or ("BIOES" if any(label[0] in "ES" for label in labels) else "IOB2")
    if not all(map(TAG.fullmatch, labels)) or set(labels) != set(labels_of(types_of(labels), scheme)):
        raise InputError(
            f"--model_name_or_path: the labels of this model are not those of {scheme} ({', '.join(labels[:8])}); "
            "name another checkpoint, or train this one with a new head (--ignore_mismatched_sizes)"
        )
    return scheme
