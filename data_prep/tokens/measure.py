"""The texts that a tokenizer is made of, those kept apart, and what it makes of them."""

import sys
from collections.abc import Iterator
from typing import Any

from data_prep.tokens.characters import Characters
from data_prep.tokens.pieces import cut, cut_for
from shared.documents import Documents, is_held_out
from shared.tokenizer import raw_text_encoder

MOST_UNKNOWN = 0.01  # share of unknown tokens above which a tokenizer is warned of
HELD_OUT_DOCUMENTS = 2000  # the report reads at most this many,
HELD_OUT_CHARACTERS = 100_000  # and at most this much of each


def read_apart(
    documents: Documents, held_out: list[str], validation_fraction: float, description: str, quiet: bool = False
) -> Iterator[str]:
    """Yield the documents that are not held out, in pieces; `held_out` gets the beginning of those that are."""
    held_out.clear()
    for text in documents.progress(description, disable=quiet):
        if not is_held_out(text, validation_fraction):
            yield from cut(text)
        elif len(held_out) < HELD_OUT_DOCUMENTS:
            held_out.append(text[:HELD_OUT_CHARACTERS])


def describe_tokenizer(tokenizer: Any, texts: list[str]) -> dict[str, float]:
    """Tokens per whitespace-separated word, UTF-8 bytes per token, the share of unknown tokens, and of letters that
    are changed other than by case and accents of Latin, Greek and Cyrillic letters, on `texts`."""
    encoder, tokens, unknown = raw_text_encoder(tokenizer), 0, 0
    for text in texts:
        for piece, _ in cut_for(encoder, text):
            ids = encoder.encode(piece, add_special_tokens=False).ids
            tokens, unknown = tokens + len(ids), unknown + ids.count(tokenizer.unk_token_id)
    normalizer = tokenizer.backend_tokenizer.normalizer
    return {
        "vocab_size": len(tokenizer),
        "tokens_per_word": tokens / sum(len(text.split()) for text in texts),
        "bytes_per_token": sum(len(text.encode()) for text in texts) / tokens,
        "unknown_share": unknown / tokens,
        "changed_letters": Characters(texts).changed(normalizer) if normalizer else 0.0,
    }


def print_rows(report: dict[str, Any]) -> None:
    """Print what `describe_tokenizer` says of each tokenizer of a report, and warn of many unknown tokens."""
    print("On held-out documents: tokens per word, bytes per token, unknown tokens, changed letters")
    for name, row in report.items():
        if isinstance(row, dict) and "bytes_per_token" in row:
            shares = f"{row['unknown_share']:.3%}  {row['changed_letters']:.3%}"
            print(f"  {name}: {row['tokens_per_word']:.3f}  {row['bytes_per_token']:.3f}  {shares}")
            if row["unknown_share"] > MOST_UNKNOWN:
                print(
                    f"Warning: {name} does not know {row['unknown_share']:.1%} of the tokens; --tokenizer_type bpe "
                    "knows all, a larger --vocab_size more",
                    file=sys.stderr,
                )
