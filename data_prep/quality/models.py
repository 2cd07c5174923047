"""Scores of a text under models that are given by path: a fastText classifier, a KenLM language model.

Their packages are optional: fasttext-predict, kenlm, sentencepiece.
"""

import difflib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from shared.errors import InputError


def closest(flag: str, name: str, known: Sequence[str]) -> InputError:
    """The error for a name that does not exist, with the closest one that does."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return InputError(f"--{flag} {name}: no such name; {hint}")


def _check(flag: str, path: str) -> None:
    if not Path(path).is_file():
        raise InputError(f"--{flag} {path}: no such file")


@lru_cache(maxsize=1)
def load_fasttext(path: str, label: str) -> Callable[[str], float]:
    """A function from text to the score of a label, 0 to 1. Raises InputError."""
    _check("fasttext_model", path)
    try:
        import fasttext
    except ImportError as error:
        raise InputError("--fasttext_model: pip install fasttext-predict") from error
    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise InputError(f"--fasttext_model {path}: not a fastText model") from error
    label = f"__label__{label.removeprefix('__label__')}"
    labels = sorted(model.predict("", k=-1)[0])
    if label not in labels:
        raise closest("fasttext_label", label, labels)

    def score(text: str) -> float:
        found = model.predict(text.replace("\n", " "), k=-1)
        return float(dict(zip(*found, strict=True)).get(label, 0.0))

    return score


@lru_cache(maxsize=1)
def load_kenlm(path: str, pieces_path: str | None) -> Callable[[str], float]:
    """A function from text to its perplexity, each line a sentence; its words are SentencePiece's pieces, or what
    stands between spaces. Raises InputError."""
    _check("kenlm_model", path)
    try:
        import kenlm

        model = kenlm.Model(path)
    except ImportError as error:
        raise InputError("--kenlm_model: pip install kenlm") from error
    except OSError as error:
        raise InputError(f"--kenlm_model {path}: not a KenLM model, ARPA or binary") from error
    pieces = None
    if pieces_path:
        _check("sentencepiece_model", pieces_path)
        try:
            import sentencepiece

            pieces = sentencepiece.SentencePieceProcessor(model_file=pieces_path)
        except ImportError as error:
            raise InputError("--sentencepiece_model: pip install sentencepiece") from error
        except (OSError, RuntimeError) as error:
            raise InputError(f"--sentencepiece_model {pieces_path}: not a SentencePiece model") from error

    def perplexity(text: str) -> float:
        log10 = length = 0.0
        for line in filter(str.strip, text.split("\n")):
            words = pieces.encode(line, out_type=str) if pieces else line.split()
            log10 += model.score(" ".join(words))
            length += len(words) + 1  # and the end of the sentence
        return float(10 ** min(-log10 / max(length, 1), 300))

    return perplexity
