"""New words in the vocabulary of a tokenizer, each old entry under its old number."""

import json
import math
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.tokens.new_words import NewWord, kind_of
from shared.errors import InputError
from shared.files import write_json
from shared.tokenizer import MULTIPLE, UNUSED, load_tokenizer


def check_extensible(tokenizer: Any, grow: bool) -> None:
    """Raise InputError for a tokenizer that words can't be added to, or, without `grow`, that has no unused entry.

    Byte-level BPE takes new words whole, before its merges: merges for them would need entries for all that is between
    letters and word, and would change other words. Learned entries that their merges give are read as before.
    """
    kind, vocabulary, name = kind_of(tokenizer), tokenizer.get_vocab(), tokenizer.name_or_path
    again = "train another with data_prep/train_tokenizer.py"
    if sorted(vocabulary.values()) != [*range(len(vocabulary))]:
        raise InputError(f"--tokenizer_name {name}: its entries are not numbered from 0 on without gaps; {again}")
    if not grow and not _unused(tokenizer):
        raise InputError(
            f"--tokenizer_name {name}: has no unused entries left; give --grow to append new ones, for which the "
            "model's embedding will grow"
        )
    bpe = tokenizer.backend_tokenizer.model
    if kind == "bpe" and not bpe.ignore_merges:
        special = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
        entries = (token for token in vocabulary if token not in special and not UNUSED.fullmatch(token))
        changed = [entry for entry in entries if [piece.value for piece in bpe.tokenize(entry)] != [entry]]
        if changed:
            raise InputError(
                f"--tokenizer_name {name}: its merges never give {changed[0]!r} ({len(changed)} such entries), which "
                f"would be read otherwise if words were added; {again}"
            )


def place_words(tokenizer: Any, words: list[NewWord], grow: bool) -> dict[int, NewWord]:
    """The number of each new entry: those of unused entries, lowest first, then with `grow` those behind the last.

    Without `grow` the words that find no place are left out.
    """
    size = len(tokenizer)
    numbers = sorted(_unused(tokenizer)) + ([*range(size, size + len(words))] if grow else [])
    return dict(zip(numbers, words, strict=False))


def _unused(tokenizer: Any) -> dict[int, int]:
    """Number of an unused entry -> the number in its name."""
    vocabulary = tokenizer.get_vocab().items()
    return {
        number: int("".join(filter(str.isdigit, token))) for token, number in vocabulary if UNUSED.fullmatch(token)
    }


def write_extended(tokenizer: Any, places: dict[int, NewWord], total: int, folder: Path) -> Any:
    """Write the tokenizer with these words to a folder, and load it from there. `total` words were counted in all.

    Where there are more entries than before, unused ones fill them up to a multiple of 64. Raises InputError when the
    library would read the folder as another tokenizer than was written.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = _vocabulary(tokenizer, places)
    kind = kind_of(tokenizer)
    if kind == "unigram":
        content["model"]["vocab"] = _scores(content["model"]["vocab"], vocabulary, places, total)
    else:
        content["model"]["vocab"] = vocabulary
    if kind == "bpe":  # a word that is an entry is taken as it is, without merges: see check_extensible
        content["model"]["ignore_merges"] = True
    replaced = {token for token, number in tokenizer.get_vocab().items() if number in places}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in replaced]
    backend = Tokenizer.from_str(json.dumps(content))

    tokenizer.save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.get("added_tokens_decoder", {}).clear()  # tokenizer.json has them
    # Some classes (RobertaTokenizer) build a tokenizer of their own from the vocabulary and the merges.
    for name in (settings.get("tokenizer_class"), "PreTrainedTokenizerFast"):
        write_json(folder / "tokenizer_config.json", settings | {"tokenizer_class": name})
        loaded = load_tokenizer(folder)
        if _rules(loaded.backend_tokenizer) == _rules(backend):
            return loaded
    raise InputError(
        f"--tokenizer_name {tokenizer.name_or_path}: a {settings['tokenizer_class']} can't be loaded with other "
        "entries; train another with data_prep/train_tokenizer.py"
    )


def _rules(backend: Tokenizer) -> dict[str, Any]:
    """All that decides how text becomes ids."""
    rules: dict[str, Any] = json.loads(backend.to_str())
    return rules | {"truncation": None, "padding": None}


def _vocabulary(tokenizer: Any, places: dict[int, NewWord]) -> dict[str, int]:
    """Entry -> number, in the order of the numbers. Added tokens are among them, or the library would number them anew
    behind a vocabulary that has grown."""
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    size, following = len(names), max(_unused(tokenizer).values(), default=-1) + 1
    names |= {number: word.entry for number, word in places.items()}
    if len(names) > size:
        padding = -len(names) % MULTIPLE
        names |= {len(names) + place: f"[unused{following + place}]" for place in range(padding)}
    return {names[number]: number for number in range(len(names))}


def _scores(
    old: list[tuple[str, float]], vocabulary: dict[str, int], places: dict[int, NewWord], total: int
) -> list[tuple[str, float]]:
    """Each piece with the logarithm of its probability: that of a new word by its frequency, but above that of any
    pieces that give it, or it would never be chosen.

    It is not below the lowest of before, from which the library reckons unknown characters; what no text becomes is.
    """
    scores = dict(old)
    lowest = min(scores.values())
    for word in sorted(places.values(), key=lambda word: (len(word.entry), word.entry)):  # one may be part of another
        together = _best(word.entry, scores)
        scores[word.entry] = max(math.log(word.count / total), together + 1e-3, lowest)
    # An unused entry is spelled in letters, and must lose against them all.
    return [(token, scores.get(token, lowest * (len(token) + 1))) for token in vocabulary]


def _best(text: str, scores: dict[str, float]) -> float:
    """The highest sum of scores of pieces that give a text (Viterbi)."""
    best = [0.0]
    for end in range(1, len(text) + 1):
        best.append(max(best[start] + scores.get(text[start:end], -math.inf) for start in range(end)))
    return best[-1]
