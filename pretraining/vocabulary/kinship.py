"""Which entries of a new tokenizer a checkpoint's own one has too, and the pieces of those that it has not."""

import json
from dataclasses import dataclass
from typing import Any

from shared.errors import InputError
from shared.model_config import ModelArguments, own_tokenizer, vocabulary_hash
from shared.tokenizer import UNUSED, raw_text_encoder

EXTEND = "extend the checkpoint's own with data_prep/extend_tokenizer.py"


@dataclass(frozen=True)
class Kinship:
    """Entries by id. Unused ones (`[unused0]`) are matched by their names like all others, but never counted."""

    kept: dict[int, int]  # id here -> id in the checkpoint's tokenizer, of all that both have
    pieces: dict[int, list[int]]  # of each entry that is new, what the checkpoint's tokenizer makes of it
    dropped: int  # entries that the checkpoint's tokenizer alone has
    in_use: list[int]  # ids of the checkpoint's entries that text becomes: neither special nor unused
    unused: list[int]  # ids of the checkpoint's unused entries
    counted: int  # entries here, unused ones aside

    @property
    def share(self) -> float:
        """The share of the entries here that are one of the checkpoint's tokenizer: the same, or in lower case."""
        return 1 - sum(len(pieces) != 1 for pieces in self.pieces.values()) / self.counted


def find_kinship(args: ModelArguments, tokenizer: Any) -> tuple[Any, Kinship] | None:
    """The checkpoint's own tokenizer and what the two share; None where no checkpoint is named, or this is its own.

    Raises InputError as `compare` does, and when the tokenizer that the checkpoint was trained with is not there.
    """
    from transformers import AutoConfig

    name, here = args.model_name_or_path, vocabulary_hash(tokenizer)
    if name is None:
        return None
    try:
        known = getattr(AutoConfig.from_pretrained(name), "vocabulary_sha256", None)
    except (OSError, ValueError):  # which is told by the one who loads it
        return None
    if known == here:
        return None
    own = own_tokenizer(name)
    found = vocabulary_hash(own) if own is not None and own.is_fast else None
    if found is None or known not in (None, found):
        what = "no tokenizer" if found is None else "another tokenizer than it was trained with"
        raise InputError(
            f"--model_name_or_path {name}: has {what}, so nobody knows which of its rows are those "
            f"of {tokenizer.name_or_path}; save the tokenizer that it was trained with into its folder"
        )
    return None if found == here else (own, compare(own, tokenizer, name, args.least_shared_vocabulary))


def compare(old: Any, new: Any, name: str, least_shared: float) -> Kinship:
    """Match two tokenizers by the strings of their entries; `name` is the checkpoint's.

    Raises InputError when they are of two kinds, so that equal strings mean different text, when too few entries are
    shared, or when padding has another number.
    """
    if (difference := _difference(old, new)) is not None:
        raise InputError(
            f"--tokenizer_name {new.name_or_path}: of another kind than that of {name} ({difference}), so its rows "
            f"can't be used; {EXTEND}, or train from scratch (leave out --model_name_or_path)"
        )
    there, here = old.get_vocab(), new.get_vocab()
    special = set(old.all_special_ids)
    words = {token: number for token, number in here.items() if not UNUSED.fullmatch(token)}
    found = Kinship(
        kept={number: there[token] for token, number in here.items() if token in there},
        pieces=_pieces(old, new, [token for token in words if token not in there]),
        dropped=sum(token not in here and not UNUSED.fullmatch(token) for token in there),
        in_use=sorted(n for token, n in there.items() if n not in special and not UNUSED.fullmatch(token)),
        unused=sorted(number for token, number in there.items() if UNUSED.fullmatch(token)),
        counted=len(words),
    )
    if found.share < least_shared:
        raise InputError(
            f"--tokenizer_name {new.name_or_path}: {found.share:.3f} of its entries are in the tokenizer of {name}, "
            f"under --least_shared_vocabulary {least_shared}, so most rows would be new; {EXTEND}, lower the flag, "
            "or train from scratch (leave out --model_name_or_path)"
        )
    if new.pad_token_id != old.pad_token_id:  # RoBERTa counts its positions from there
        raise InputError(
            f"--tokenizer_name {new.name_or_path}: its padding token is entry {new.pad_token_id}, that of {name} is "
            f"entry {old.pad_token_id}; {EXTEND}, which moves none"
        )
    return found


def _difference(old: Any, new: Any) -> str | None:
    """What makes two tokenizers read text differently, whatever their entries are."""
    there, here = _kind(old), _kind(new)
    for part in there:
        if part == "normalizer" and _without_case(there[part]) == _without_case(here[part]):
            continue
        if there[part] != here[part]:
            return f"{there[part]} there, {here[part]} here" if part == "model" else f"another {part}"
    return None


def _without_case(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """BERT's normalizer but for case and accents: a token that differs by these has a row to start from, that of what
    the checkpoint reads in its place."""
    if not normalizer or normalizer["type"] != "BertNormalizer":
        return normalizer
    return {name: value for name, value in normalizer.items() if name not in ("lowercase", "strip_accents")}


def _kind(tokenizer: Any) -> dict[str, Any]:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model, normalizer, splitter = (backend[part] for part in ("model", "normalizer", "pre_tokenizer"))
    if normalizer and normalizer.get("strip_accents", True) is None:  # BERT's: as case does
        normalizer["strip_accents"] = normalizer["lowercase"]
    if splitter:
        splitter.pop("trim_offsets", None)  # changes no token
    return {
        "model": model["type"],
        "normalizer": normalizer,
        "pre_tokenizer": splitter,
        "mark of continuations": model.get("continuing_subword_prefix") or "",
    }


def _pieces(old: Any, new: Any, tokens: list[str]) -> dict[int, list[int]]:
    """For each token its id here, and its pieces there without unknown ones."""
    encoder, added = raw_text_encoder(old), set(new.get_added_vocab())
    here, normalizer = new.get_vocab(), encoder.normalizer
    same = _kind(old)["normalizer"] == _kind(new)["normalizer"]
    found = {}
    for token in tokens:
        if token in added:  # spelled as text, all others as the model of the tokenizer spells them
            ids = encoder.encode(token, add_special_tokens=False).ids
        else:
            spelled = token if same else normalizer.normalize_str(token).strip()
            ids = [piece.id for piece in encoder.model.tokenize(spelled)]
        found[here[token]] = [number for number in ids if number != old.unk_token_id]
    return found
