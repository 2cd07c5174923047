"""The language of a text."""

from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

LANGUAGE_BYTES = 1000  # of a text in UTF-8, from which its language is told: as from 2,000 in 4,300 of 4,300 articles


@lru_cache(maxsize=1)
def language_model() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> tuple[str, float]:
    """The language of a text and its probability, which is rounded: its last digits differ between processors."""
    language, score = language_model().classify(
        text[:LANGUAGE_BYTES].encode()[:LANGUAGE_BYTES].decode("utf-8", "ignore")
    )
    return language, round(score, 4)
