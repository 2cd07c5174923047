"""The characters of a text, and what follows from them for a tokenizer: its kind, accents, alphabet, what it loses."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from tokenizers import normalizers

from data_prep.languages import LETTERS, TIBETAN
from shared.errors import InputError

BATCH_CHARACTERS = 1 << 20
COVERAGE = 0.9995  # of the characters of a text by WordPiece's alphabet: SentencePiece's character_coverage
FEWEST = 1000  # characters of that alphabet, where the text has as many
STRIPPED = 0.005  # share of letters with an accent up to which accents are stripped: in English, foreign names
CHANGED = 0.001  # share of letters that a tokenizer may change, other than by case and such accents
UNDIVIDED = 0.1  # share of letters of scripts without spaces from which words are not divided by spaces
_ACCENTED = ("LATIN", "GREEK", "CYRILLIC")
_UNDIVIDED = re.compile(f"[{LETTERS}{TIBETAN}]")
_JOINERS = "\u200b\u200c\u200d"  # BERT's normaliser removes them; they divide words (Khmer, Persian) or shape letters


class Characters:
    """How often each character occurs in texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        counts = np.zeros(0x110000, dtype=np.int64)
        for batch in _batches(texts):
            points = np.frombuffer("".join(batch).encode("utf-32-le"), dtype="<u4")
            counts += np.bincount(points, minlength=len(counts))
        self.counts = {chr(point): int(counts[point]) for point in np.flatnonzero(counts)}

    @cached_property
    def letters(self) -> int:
        """How many letters and marks there are."""
        return max(sum(count for c, count in self.counts.items() if unicodedata.category(c)[0] in "LM"), 1)

    def share(self, characters: Iterable[str]) -> float:
        """These characters as a share of all letters."""
        return sum(self.counts.get(character, 0) for character in characters) / self.letters

    def suit_wordpiece(self) -> bool:
        """Whether spaces divide the words, and no invisible character matters, which WordPiece loses."""
        undivided = self.share(filter(_UNDIVIDED.match, self.counts))
        return undivided < UNDIVIDED and self.share(_JOINERS) < CHANGED

    def may_lose_accents(self) -> bool:
        """Whether few letters have an accent, and stripping takes next to nothing but accents."""
        plain, stripped = bert_normalizer(True, False), bert_normalizer(True, True)
        changed = [c for c in self.counts if plain.normalize_str(c) != stripped.normalize_str(c)]
        return self.share(changed) < STRIPPED and self.changed(stripped) < CHANGED

    def decide_accents(self, do_lower_case: bool, strip_accents: bool | None) -> bool:
        """Whether accents are stripped: as is said, or else as the text suggests. Raises InputError if that changes
        more than accents."""
        if strip_accents is None:
            return do_lower_case and self.may_lose_accents()
        changed = self.changed(bert_normalizer(do_lower_case, strip_accents))
        if changed > CHANGED:
            raise InputError(
                f"--strip_accents: changes {changed:.1%} of the letters other than by accents of Latin, Greek or "
                "Cyrillic letters (vowel signs, voicing); give --strip_accents false, or --tokenizer_type bpe"
            )
        return strip_accents

    def changed(self, normalizer: normalizers.Normalizer) -> float:
        """The share of letters and marks that are changed other than by case and accents of Latin, Greek, Cyrillic."""
        return self.share(
            c
            for c in self.counts
            if unicodedata.category(c)[0] in "LM" and normalizer.normalize_str(c).strip() not in _allowed(c)
        )

    def alphabet(self, normalizer: normalizers.Normalizer, most: int) -> list[str]:
        """The most frequent characters after normalisation, in code point order: enough for `COVERAGE`, `FEWEST` at
        least, and beyond these `most` at most. BERT's normaliser looks at one character at a time."""
        found: dict[str, int] = {}
        for character, count in self.counts.items():
            for shown in normalizer.normalize_str(character):
                if not shown.isspace():
                    found[shown] = found.get(shown, 0) + count
        by_frequency = sorted(found, key=lambda c: (-found[c], c))
        covered = np.cumsum([found[c] for c in by_frequency])
        enough = int(np.searchsorted(covered, COVERAGE * covered[-1])) + 1 if len(covered) else 0
        return sorted(by_frequency[: max(FEWEST, min(enough, most))])


def bert_normalizer(do_lower_case: bool, strip_accents: bool) -> normalizers.Normalizer:
    """What BertTokenizer makes of these two flags."""
    return normalizers.BertNormalizer(lowercase=do_lower_case, strip_accents=strip_accents)


def _allowed(character: str) -> set[str]:
    lower = character.lower()
    allowed = {character, lower, unicodedata.normalize("NFC", lower)}
    if unicodedata.name(character, "").startswith(_ACCENTED) or "\u0300" <= character <= "\u036f":
        bare = "".join(c for c in unicodedata.normalize("NFD", lower) if not unicodedata.combining(c))
        allowed |= {bare, "".join(c for c in unicodedata.normalize("NFD", character) if not unicodedata.combining(c))}
    return allowed


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    yield batch


def check_room(vocab_size: int, reserved_entries: int, fewest: int) -> None:
    """Raise InputError unless so many special tokens and characters fit into a vocabulary beside what is reserved."""
    if vocab_size - reserved_entries < fewest:
        raise InputError(
            f"--vocab_size {vocab_size}: special tokens and characters need {fewest:,} entries beside "
            f"--reserved_entries {reserved_entries}; raise the one or lower the other"
        )
