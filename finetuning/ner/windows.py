"""Sentences of words as windows of tokens that a model can take, and what it says of them back to the words.

A sentence that is too long is cut between words into windows that overlap, and each word is decided by one of them, in
which it has more context on its shorter side. So every word gets exactly one prediction, that of its first token. A
word that the tokenizer drops (zero-width characters, an empty string) is given the unknown token, and a word
longer than a window is cut.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from finetuning.common.length_order import longest_first
from shared.loss import IGNORED
from shared.tokenizer import raw_text_encoder

CONTEXT = -1  # in `word_ids`: a token of no word, or of a word that another window decides


def split_words(tokenizer: Any, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """The token ids of each word of each sentence, at least one.

    The words are encoded as one text with spaces between them, as a pipeline does it that is given text, and a token
    belongs to the word in which it ends: byte-level tokenizers take the space before a word into its first token.
    """
    encoder = raw_text_encoder(tokenizer)
    unknown = tokenizer.mask_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id
    encodings = encoder.encode_batch([" ".join(words) for words in sentences], add_special_tokens=False)
    result = []
    for words, encoding in zip(sentences, encodings, strict=True):
        ends = np.cumsum([len(word) + 1 for word in words]) - 1  # without the space that follows
        tokens: list[list[int]] = [[] for _ in words]
        for token, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            tokens[min(int(np.searchsorted(ends, end)), len(words) - 1)].append(token)
        result.append([ids or [unknown] for ids in tokens])
    return result


def cut_sentence(sizes: Sequence[int], room: int, stride: int) -> list[tuple[int, int, int, int]]:
    """Cut words of these sizes in tokens, each at most `room`, into windows of at most `room` tokens.

    Two windows share words of up to `stride` tokens. Returns for each window its first word and the word behind its
    last, and the same of the words that it decides.
    """
    behind = np.concatenate([[0], np.cumsum(sizes)])  # tokens before a word
    windows: list[tuple[int, int]] = []
    begin = end = 0
    while end < len(sizes):
        if windows:  # back from the end, as long as a new word still fits in
            begin = end
            while (
                begin - 1 > windows[-1][0]
                and behind[end] - behind[begin - 1] <= stride
                and behind[end + 1] - behind[begin - 1] <= room
            ):
                begin -= 1
        end = int(np.searchsorted(behind, behind[begin] + room, side="right")) - 1
        windows.append((begin, end))
    cuts = [0]
    for (_, end), (begin, _) in pairwise(windows):
        # The first word with more tokens before it in the later window than behind it in the earlier one.
        middles = behind[begin:end] + behind[begin + 1 : end + 1]
        cuts.append(begin + int(np.searchsorted(middles, behind[begin] + behind[end], side="right")))
    cuts.append(len(sizes))
    return [(*window, *decided) for window, decided in zip(windows, pairwise(cuts), strict=False)]


def make_windows(
    tokenizer: Any, sentences: Sequence[Sequence[str]], max_seq_length: int, stride: int | None
) -> dict[str, list[Any]]:
    """Windows of at most `max_seq_length` tokens, special ones included, in the order of sentences and words.

    Columns, a row for each window: `input_ids`; `word_ids`, for each token the number of its word in the sentence if
    this window decides that word, else CONTEXT; `sentence`, its number; `length` in tokens. A sentence without words
    has no window. `stride`: tokens that two windows of a sentence share at most; None for a quarter of a window.
    """
    template = tokenizer("a")
    of_word = [word is not None for word in template.word_ids(0)]
    first = of_word.index(True)
    prefix, suffix = template["input_ids"][:first], template["input_ids"][len(of_word) - of_word[::-1].index(True) :]
    room = max_seq_length - len(prefix) - len(suffix)
    stride = max_seq_length // 4 if stride is None else stride
    columns: dict[str, list[Any]] = {"input_ids": [], "word_ids": [], "sentence": [], "length": []}
    for number, tokens in enumerate(split_words(tokenizer, sentences)):
        tokens = [ids[:room] for ids in tokens]
        sizes = [len(ids) for ids in tokens]
        for begin, end, first_decided, behind_decided in cut_sentence(sizes, room, stride):
            ids, words = list(prefix), [CONTEXT] * len(prefix)
            for word in range(begin, end):
                ids += tokens[word]
                words += [word if first_decided <= word < behind_decided else CONTEXT] * len(tokens[word])
            columns["input_ids"].append(ids + suffix)
            columns["word_ids"].append(words + [CONTEXT] * len(suffix))
            columns["sentence"].append(number)
            columns["length"].append(len(ids) + len(suffix))
    return columns


def first_tokens(word_ids: Sequence[int]) -> np.ndarray:
    """Where the words that a window decides begin, (words,) int64."""
    words = np.asarray(word_ids)
    return np.flatnonzero((words != CONTEXT) & (words != np.concatenate([[CONTEXT], words[:-1]])))


def label_tokens(word_ids: Sequence[int], labels: Sequence[int], inner_labels: Sequence[int] | None) -> list[int]:
    """The label of each token of a window: that of its word at the word's first token, IGNORED at others.

    `labels` are those of the sentence's words. With `inner_labels`, the label of a word's other tokens by the label of
    the word, these are labelled as well.
    """
    result = [IGNORED] * len(word_ids)
    if inner_labels is not None:
        result = [IGNORED if word == CONTEXT else inner_labels[labels[word]] for word in word_ids]
    for position in first_tokens(word_ids):
        result[position] = labels[word_ids[position]]
    return result


def keep_classes(logits: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce logits to what evaluation keeps: the class of each token, (batch, tokens) int32, and its probability."""
    probability, label = logits.float().softmax(-1).max(-1)
    return label.int(), probability


def merge_windows(values: np.ndarray, windows: Any, words: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """What was predicted for tokens, (windows, tokens), as one array for each sentence, with a value for each word.

    `windows` has the columns `word_ids` and `sentence` of `make_windows`, its rows in the order of `values`, whatever
    that is. Raises RuntimeError if a word would have no value, or two.
    """
    starts = np.concatenate([[0], np.cumsum([len(sentence) for sentence in words])])
    merged = np.zeros(starts[-1], values.dtype)
    times = np.zeros(starts[-1], np.int64)
    columns = (windows[name][:] for name in ("word_ids", "sentence"))  # at once: row by row takes longer
    for row, word_ids, sentence in zip(values, *columns, strict=True):
        positions = first_tokens(word_ids)
        places = starts[sentence] + np.asarray(word_ids)[positions]
        merged[places] = row[positions]
        times[places] += 1
    if (times != 1).any():
        raise RuntimeError(f"{(times != 1).sum()} of {len(times)} words were not decided by one window each")
    return np.split(merged, starts[1:-1])


def encode(
    tokenizer: Any,
    words: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]] | None,
    label2id: dict[str, int],
    max_seq_length: int,
    stride: int | None,
    for_training: bool,
    all_tokens: bool,
) -> Dataset:
    """The windows of the sentences, and where there are tags the `labels` of their tokens: of the first token of each
    word, or of `all_tokens`. For training in the order of the sentences, else the longest first."""
    columns = make_windows(tokenizer, words, max_seq_length, stride)
    if tags is not None:
        ids = [[label2id[tag] for tag in row] for row in tags]
        # The other tokens of a word are inside of the entity that it may begin.
        inside = [label2id.get(f"I-{label[2:]}", own) for label, own in label2id.items()] if all_tokens else None
        pairs = zip(columns["word_ids"], columns["sentence"], strict=True)
        columns["labels"] = [label_tokens(word_ids, ids[number], inside) for word_ids, number in pairs]
    windows = Dataset.from_dict(columns)
    return windows if for_training else longest_first(windows)[0]
