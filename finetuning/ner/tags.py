"""Tags of words and the entities that they mean, in any scheme.

A tag is `O`, or a prefix and the type of an entity: `B-PER`. The schemes differ in their prefixes. IOB1 writes `I-`
and needs `B-` only where an entity follows another of its type at once; IOB2 begins every entity with `B-`; BIOES also
ends it with `E-` and writes `S-` for one of a single word (BILOU is the same with `L-` and `U-`).

Two schemes have labels without prefixes, in data and models. In IO a run of equal labels is an entity; here such a
label is the tag `I-`. In POS each word has a label of its own, as parts of speech; here that is the tag `S-`.
"""

import re
from collections.abc import Sequence
from typing import Any

from shared.errors import InputError

SCHEMES = ("IOB2", "IOB1", "BIOES")
PREFIXES = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES"}
BARE = {"IO": "I", "POS": "S"}  # schemes of labels without prefixes, and the prefix that they have here
NO_TAG = (
    "is no tag (O, B-PER, I-PER, ...); labels without B- and I- are read by --tag_scheme IO, where a run of equal "
    "ones is an entity, or --tag_scheme POS, where each word has its own"
)
TAG = re.compile(r"O|[BIESLU]-[^\s-](.*[^\s-])?")
_BILOU = str.maketrans("LU", "ES")

Entity = tuple[str, int, int]  # its type, its first word and the word behind its last


def is_label(label: str, scheme: str) -> bool:
    """Whether data of a scheme may hold this label."""
    return bool(label.strip() if scheme in BARE else TAG.fullmatch(label.strip()))


def as_tag(label: str, scheme: str | None) -> str:
    """The tag that a label of data or of a model means, without white space around it. Data may also have prefixes
    where the model has none (IO)."""
    label = label.strip()
    if scheme not in BARE or (scheme == "IO" and TAG.fullmatch(label)):
        return label
    return f"{BARE[scheme]}-{label}"


def as_label(tag: str, scheme: str) -> str:
    """What a tag is called in data and models of a scheme."""
    return tag[2:] if scheme in BARE and tag != "O" else tag


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
    """The tags of a sentence of `words` words in a scheme; POS has entities of one word alone."""
    tags = ["O"] * words
    last: Entity = ("", -1, -1)
    for kind, begin, end in entities:
        prefixes = [BARE.get(scheme, "I")] * (end - begin)
        if scheme not in ("IOB1", "IO") or (last[0], last[2]) == (kind, begin):
            prefixes[0] = "B"
        if scheme in ("BIOES", "POS"):
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
    """All labels of the given types in a scheme, `O` first: the classes of a model."""
    if scheme in BARE:
        return [*types] if scheme == "POS" else ["O", *types]
    return ["O", *(f"{prefix}-{kind}" for kind in types for prefix in PREFIXES[scheme])]


def types_of(tags: Sequence[str]) -> list[str]:
    """The types of entities in some tags, in the order in which they come up."""
    return list(dict.fromkeys(tag[2:] for tag in tags if tag != "O"))


def model_scheme(config: Any, flag: str) -> str:
    """The scheme of a fine-tuned model: as its configuration says, or --tag_scheme for labels without prefixes, or as
    the labels say. IOB1 and IOB2 have the same; the latter is assumed."""
    if known := getattr(config, "tag_scheme", None):
        return str(known)
    return flag if flag in BARE else "BIOES" if any(label[0] in "ES" for label in config.label2id) else "IOB2"


def check_labels(labels: Sequence[str], scheme: str) -> str:
    """The scheme. Raises InputError if the classes of a model are not all labels of it."""
    types = types_of([as_tag(label, scheme) for label in labels])
    if not all(is_label(label, scheme) for label in labels) or set(labels) != set(labels_of(types, scheme)):
        raise InputError(
            f"--model_name_or_path: the labels of this model are not those of {scheme} ({', '.join(labels[:8])}); "
            "say by --tag_scheme IO or POS what labels without B- and I- are, or train a new head with "
            "--ignore_mismatched_sizes"
        )
    return scheme
