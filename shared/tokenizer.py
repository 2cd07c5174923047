"""Load a tokenizer, check that it can be used for masking, and say what the rest needs to know of it."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from shared.errors import InputError, one_line

FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
    "tokenizer.model",
)  # one of which each tokenizer has
MULTIPLE = 64  # of entries, and rows, where a vocabulary grows: matrix products on GPUs are faster so
UNUSED = re.compile(r"[\[<]unused_?\d+[\]>]", re.IGNORECASE)  # entries of a vocabulary that no text becomes


def load_tokenizer(name: str | Path) -> Any:
    """Load a fast tokenizer from a folder or the Hub.

    Raises InputError when there is none at `name`, or it lacks a mask, padding or sequence-edge token.
    """
    from transformers import AutoTokenizer

    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in FILES):  # the library would make one up
        raise InputError(
            f"tokenizer {name}: the folder has no tokenizer (no {FILES[0]}); save into it its own, or name another"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
    except Exception as error:
        raise InputError(f"tokenizer {name}: could not be loaded: {one_line(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(f"tokenizer {name}: only fast tokenizers (a tokenizer.json) are supported")
    for role in ("mask_token", "pad_token", "cls_token", "sep_token"):
        if getattr(tokenizer, role) is None:
            raise InputError(f"tokenizer {name}: has no {role}; train one with data_prep/train_tokenizer.py")
    return tokenizer


def with_unused(vocabulary: dict[str, int], entries: int) -> dict[str, int]:
    """The vocabulary with unused entries behind the learned ones, named as BERT names its own. No text becomes one."""
    return vocabulary | {f"[unused{i}]": len(vocabulary) + i for i in range(entries)}


def raw_text_encoder(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizer's backend for text as it comes from the world.

    It neither cuts nor pads, and text that happens to spell a special token ("[MASK]" in a web page) stays text.
    """
    encoder = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    encoder.no_truncation()
    encoder.no_padding()
    encoder.encode_special_tokens = True
    return encoder


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of everything that decides how text becomes ids; equal for equal tokenizers wherever they are stored."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["truncation"] = content["padding"] = None
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that the tokenizer's own template puts before, between and after two texts."""

    prefix: list[int]  # BERT [CLS]; RoBERTa <s>
    separator: list[int]  # BERT [SEP]; RoBERTa </s></s>
    suffix: list[int]  # BERT [SEP]; RoBERTa </s>


def special_tokens(tokenizer: Any) -> SpecialTokens:
    """Read the template off an encoded pair. Raises InputError when the tokenizer adds no special tokens."""
    pair = tokenizer("a", "a")
    sides = pair.sequence_ids(0)
    first, last = sides.index(0), len(sides) - 1 - sides[::-1].index(1)
    second = sides.index(1)
    end_of_first = max(i for i, side in enumerate(sides) if side == 0) + 1
    ids = pair["input_ids"]
    layout = SpecialTokens(ids[:first], ids[end_of_first:second], ids[last + 1 :])
    if not (layout.prefix and layout.separator and layout.suffix):
        raise InputError("the tokenizer puts no special tokens around its texts: its post-processor is missing")
    return layout
