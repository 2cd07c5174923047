"""The language of a text."""

from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

LANGUAGE_BYTES = 1000  # of a text in UTF-8, from which its language is told: as from 2,000 in 4,300 of 4,300 articles
SLICES = 5  # places of a text that these bytes come from: a page may begin with a slogan in English
LINE = 40  # bytes; shorter lines are menus and titles, where there are enough others


@lru_cache(maxsize=1)
def language_model() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> tuple[str, float]:
    """The language of a text and its probability, which is rounded: its last digits differ between processors."""
    language, score = language_model().classify(sample_of(text))
    return language, round(score, 4)


def sample_of(text: str) -> str:
    """Slices of the longer lines of a text, evenly spaced; of all lines where the longer ones are too few."""
    lines = "\n".join(line for line in text.splitlines() if len(line.encode()) >= LINE).encode()
    content = lines if len(lines) >= LANGUAGE_BYTES else text.encode()
    if len(content) <= 2 * LANGUAGE_BYTES:
        return content[:LANGUAGE_BYTES].decode("utf-8", "ignore")
    size, share = LANGUAGE_BYTES // SLICES, len(content) // SLICES
    starts = (share * number + (share - size) // 2 for number in range(SLICES))
    return "\n".join(content[start : start + size].decode("utf-8", "ignore") for start in starts)
