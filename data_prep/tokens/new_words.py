"""Words of a text as a tokenizer divides it, counted in bounded memory, and those that it cuts into many pieces."""

import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, pre_tokenizers

from shared.errors import InputError
from shared.tokenizer import raw_text_encoder

MOST_WORDS = 4_000_000  # different ones in memory, about 0.5 GB; more are written to a temporary file
LONGEST = 30  # characters of a word; what is longer is an address, or a sentence of a script without spaces
_JOINERS = "-'\u2019"
# What Unigram may take as a piece: a word without the punctuation around it, behind the mark of a space or not.
_UNIGRAM_WORD = r"(?<![\p{L}\p{M}\p{N}])▁?\p{L}[\p{L}\p{M}\p{N}]*(?:['’-][\p{L}\p{M}\p{N}]+)*"


@dataclass(frozen=True)
class NewWord:
    entry: str  # as the vocabulary spells it: `blog` for WordPiece, `Ġblog` for byte-level BPE, `▁blog` for Unigram
    count: int
    pieces: list[str]


def kind_of(tokenizer: Any) -> str:
    """`wordpiece`, `bpe` (byte-level) or `unigram`. Raises InputError for a tokenizer of another kind."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = backend["model"]["type"]
    if kind == "BPE" and "ByteLevel" not in json.dumps(backend["pre_tokenizer"]):
        kind = "BPE of characters"
    if kind not in ("WordPiece", "BPE", "Unigram"):
        raise InputError(
            f"--tokenizer_name {tokenizer.name_or_path}: a {kind} tokenizer; words can be added to WordPiece, "
            "byte-level BPE and Unigram: train one of these with data_prep/train_tokenizer.py"
        )
    return str(kind).lower()


def word_splitter(tokenizer: Any) -> Callable[[str], list[str]]:
    """A function from a text to its words, as the vocabulary would spell them; some of them are punctuation."""
    backend = tokenizer.backend_tokenizer
    normalizer, splitter = backend.normalizer, backend.pre_tokenizer
    if kind_of(tokenizer) == "unigram":
        words = pre_tokenizers.Split(Regex(_UNIGRAM_WORD), behavior="removed", invert=True)
        splitter = pre_tokenizers.Sequence([splitter, words] if splitter else [words])

    def split(text: str) -> list[str]:
        normal = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in splitter.pre_tokenize_str(normal)]

    return split


def surface_of(entry: str, kind: str) -> str:
    """The text of an entry, without the space before it."""
    return decoders.ByteLevel().decode([entry]).removeprefix(" ") if kind == "bpe" else entry.removeprefix("▁")


def is_word(text: str) -> bool:
    """Whether a text is a letter and further letters, marks or digits, with hyphens or apostrophes inside."""
    kinds = ["-" if c in _JOINERS else unicodedata.category(c)[0] for c in text]
    return (
        0 < len(text) <= LONGEST
        and kinds[0] == "L"
        and kinds[-1] != "-"
        and all(kind in "LMN-" for kind in kinds)
        and "\ufffd" not in text
    )


class WordCounts:
    """How often each word occurs. More than `most` different ones go to sorted files, so that memory is bounded and
    counts are exact all the same."""

    def __init__(self, folder: Path, most: int = MOST_WORDS) -> None:
        self.folder, self.most = folder, most
        self.words: Counter[str] = Counter()
        self.files: list[Path] = []
        self.total = 0

    def add(self, words: list[str]) -> None:
        """Count these words once more."""
        self.total += len(words)
        self.words.update(words)
        if len(self.words) > self.most:
            self.files.append(self.folder / f"{len(self.files)}.jsonl")
            with open(self.files[-1], "w", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(pair)}\n" for pair in sorted(self.words.items()))
            self.words.clear()

    def at_least(self, fewest: int) -> Iterator[tuple[str, int]]:
        """Yield (word, count) of those that occur `fewest` times, in the order of the words."""
        first = itemgetter(0)
        with ExitStack() as stack:
            files = [stack.enter_context(open(file, encoding="utf-8")) for file in self.files]
            runs: list[Iterable[Any]] = [map(json.loads, file) for file in files]
            for word, group in groupby(merge(*runs, sorted(self.words.items()), key=first), first):
                count = sum(count for _, count in group)
                if count >= fewest:
                    yield word, count


def find_new_words(
    tokenizer: Any, texts: Iterable[str], min_count: int, min_pieces: int, most_words: int = MOST_WORDS
) -> tuple[list[NewWord], int]:
    """Words that occur `min_count` times and are cut into `min_pieces` pieces, the most frequent first and equally
    frequent ones by spelling; and how many words there are in all. Words with an unknown piece are left out."""
    split, kind = word_splitter(tokenizer), kind_of(tokenizer)
    model, unknown = raw_text_encoder(tokenizer).model, tokenizer.unk_token
    known = tokenizer.get_vocab()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        counts = WordCounts(Path(folder), most_words)
        for text in texts:
            counts.add(split(text))
        for entry, count in counts.at_least(min_count):
            if entry in known or not is_word(surface_of(entry, kind)):
                continue
            pieces = [piece.value for piece in model.tokenize(entry)]
            if len(pieces) >= min_pieces and unknown not in pieces:
                found.append(NewWord(entry, count, pieces))
    return sorted(found, key=lambda word: (-word.count, word.entry)), counts.total
