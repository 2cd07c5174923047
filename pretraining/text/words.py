"""Which tokens begin and end a word, by the marks of the tokenizer and by the script."""

import json
import re
import unicodedata
from typing import Any

import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode

from data_prep.languages import IDEOGRAPHS, LETTERS
from shared.errors import InputError

_IDEOGRAPH, _LETTER = re.compile(f"[{IDEOGRAPHS}]"), re.compile(f"[{LETTERS}]")
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # how SentencePiece spells a byte of a character that it doesn't know
_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}  # as byte-level BPE spells them


def word_edges(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens begin a word, and which ones end it whatever follows; two bool arrays of length len(tokenizer).

    WordPiece marks continuations with `##`; byte-level BPE (`Ġ`) and SentencePiece (`▁`) mark a space before a token,
    and there a word also begins and ends at anything that is neither letter nor digit, so that "(web)" is three words
    and not one; others mark ends (`</w>`). A Chinese character, or one of the Japanese syllabaries, is a word. In
    Thai and other scripts that put no space between words, no token says where a word begins: there each is one.
    Special tokens are words of their own. Of a character that is cut into several tokens of bytes, the last one is not
    seen to end a word. Raises InputError for a tokenizer that has no mark.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    around = json.dumps([backend[name] for name in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    prefix, suffix = (model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    spaces = "ByteLevel" in around or "▁" in around
    if not (prefix or suffix or spaces or model["type"] == "WordLevel"):
        raise InputError(
            "--whole_word_mask: this tokenizer does not mark where words begin (## of WordPiece, Ġ of byte-level BPE, "
            "▁ of SentencePiece); remove the flag, or train one with data_prep/train_tokenizer.py"
        )
    special = set(tokenizer.all_special_ids)
    starts, ends = np.ones((2, len(tokenizer)), dtype=bool)
    for i, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if i in special or not token or model["type"] == "WordLevel":
            continue
        if spaces:
            spelled = _bytes_of(token, "ByteLevel" in around)
            starts[i], ends[i] = _begins(spelled, True), _ends(spelled, True)
        elif prefix:
            spelled = token.removeprefix(prefix).encode()
            starts[i], ends[i] = not token.startswith(prefix) or _begins(spelled, False), _ends(spelled, False)
        else:
            spelled = token.removesuffix(suffix).encode()
            starts[i], ends[i] = _begins(spelled, False), token.endswith(suffix) or _ends(spelled, False)
    return starts, ends


def _bytes_of(token: str, byte_level: bool) -> bytes:
    """The text of a token in UTF-8; it may begin or end within a character."""
    if byte_level and all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token)
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def _begins(spelled: bytes, at_edges: bool) -> bool:
    """Whether the first character begins a word; of one that is cut off, what all that it may be have in common."""
    lead = spelled[0] if spelled else 0x20
    size = 1 if lead < 0x80 else 0 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    first = spelled[:size]
    known = {(first + fill * (size - len(first))).decode(errors="ignore") for fill in (b"\x80", b"\xbf")}
    return all(
        _IDEOGRAPH.match(character)
        or (_LETTER.match(character) and not _is_mark(character))
        or (at_edges and len(first) == size and _is_edge(character))
        for character in known
    )


def _ends(spelled: bytes, at_edges: bool) -> bool:
    """Whether the last character ends a word."""
    last = spelled.decode(errors="ignore")[-1:]
    if not last or not spelled.endswith(last.encode()):  # within a character
        return False
    return bool(_IDEOGRAPH.match(last)) or (at_edges and _is_edge(last))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")  # vowel signs and accents, which follow their letter


def _is_edge(character: str) -> bool:
    return bool(character) and not character.isalnum() and not _is_mark(character)
