import random
from itertools import pairwise

import numpy as np
import pytest

from finetuning.ner.windows import cut_sentence, first_tokens, label_tokens, make_windows, merge_windows, split_words
from shared.loss import IGNORED

ODD = ["\u200b", "", "😀", "\u00ad", "\u00a0", "\u2028", "ﷺ", "[MASK]", "don't", "New York", "é\u0301", "\ufeff"]


def predict_number(windows, sentences):
    """Give each token the number of its word over all sentences, as a model that is always right would."""
    starts = np.concatenate([[0], np.cumsum([len(words) for words in sentences])])
    longest = max(map(len, windows["word_ids"]))
    values = np.full((len(windows["word_ids"]), longest), -7)
    for row, word_ids, sentence in zip(values, windows["word_ids"], windows["sentence"], strict=True):
        row[: len(word_ids)] = [starts[sentence] + word if word >= 0 else -7 for word in word_ids]
    return values


def check_windows(tokenizer, sentences, max_length, stride=None):
    windows = make_windows(tokenizer, sentences, max_length, stride)
    assert max(windows["length"]) <= max_length
    assert [len(ids) for ids in windows["input_ids"]] == windows["length"] == list(map(len, windows["word_ids"]))
    merged = merge_windows(predict_number(windows, sentences), windows, sentences)
    assert [len(row) for row in merged] == [len(words) for words in sentences]
    assert np.concatenate(merged).tolist() == list(range(sum(map(len, sentences))))
    return windows


def test_cutting_any_sentence():
    chance = random.Random(1)
    for _ in range(3000):
        room = chance.randint(1, 30)
        stride = chance.randint(0, room)
        sizes = [chance.choice([1, 1, 2, 3, chance.randint(1, room)]) for _ in range(chance.randint(1, 60))]
        sizes = [min(size, room) for size in sizes]
        windows = cut_sentence(sizes, room, stride)
        decided = [word for *_, first, behind in windows for word in range(first, behind)]
        assert decided == list(range(len(sizes)))
        for begin, end, first, behind in windows:
            assert begin <= first <= behind <= end and sum(sizes[begin:end]) <= room
        for (begin, end, *_), (after, further, *_) in pairwise(windows):
            assert begin < after <= end < further and sum(sizes[after:end]) <= stride
        if sum(sizes) <= room:
            assert windows == [(0, len(sizes), 0, len(sizes))]


def test_a_word_is_decided_where_it_has_more_context():
    windows = cut_sentence([1] * 20, room=10, stride=4)
    # 0..9, 6..15, 12..19: the four words that two windows share are divided in the middle.
    assert windows == [(0, 10, 0, 8), (6, 16, 8, 14), (12, 20, 14, 20)]


def test_tokens_are_those_of_the_whole_text(tokenizer, texts):
    """What a pipeline feeds its model, word by word."""
    sentences = [text.split() for text in texts[:40]]
    for words, tokens in zip(sentences, split_words(tokenizer, sentences), strict=True):
        assert [token for ids in tokens for token in ids] == tokenizer(" ".join(words), add_special_tokens=False)[
            "input_ids"
        ]
        for word, ids in zip(words, tokens, strict=True):
            assert tokenizer.decode(ids).strip().replace(" ", "").lower() == word.lower()


@pytest.mark.parametrize("max_length", [8, 16, 64])
def test_every_word_gets_one_prediction(tokenizer, max_length):
    chance = random.Random(max_length)
    plain = ["the", "baker", "sold", "bread", "unbelievably", "."]
    sentences = [[chance.choice(plain + ODD) for _ in range(chance.randint(0, 70))] for _ in range(80)]
    check_windows(tokenizer, [*sentences, *([odd] for odd in ODD), ODD, []], max_length)
    check_windows(tokenizer, sentences, max_length, stride=0)


def test_a_word_longer_than_the_model(tokenizer):
    long = "-#" * 300
    tokens = split_words(tokenizer, [["a", long, "b"]])[0]
    assert len(tokens[1]) >= 300
    windows = check_windows(tokenizer, [["a", long, "b"], [long], [long, long, "x", long]], 16)
    assert windows["sentence"].count(1) == 1 and windows["sentence"].count(2) >= 3


def test_a_word_without_tokens_is_unknown(wordpiece):
    tokens = split_words(wordpiece, [["a", "\u200b", "", "b"]])[0]
    assert tokens[1] == tokens[2] == [wordpiece.unk_token_id]
    assert tokens[0] != [wordpiece.unk_token_id]


def test_words_that_spell_special_tokens_are_text(tokenizer):
    special = {tokenizer.mask_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id}
    words = [tokenizer.mask_token, tokenizer.sep_token]
    assert not special & {token for word in split_words(tokenizer, [words])[0] for token in word}


def test_windows_have_the_special_tokens_of_the_model(tokenizer):
    words = ["the", "baker", "sold", "bread"]
    windows = make_windows(tokenizer, [words], 64, None)
    assert windows["input_ids"] == [tokenizer(" ".join(words))["input_ids"]]
    assert (windows["word_ids"][0][0], windows["word_ids"][0][-1]) == (-1, -1)


def test_labels_stand_at_first_tokens():
    word_ids = [-1, 4, 4, 5, 6, 6, 6, -1]
    labels = [9, 9, 9, 9, 1, 0, 2]
    assert first_tokens(word_ids).tolist() == [1, 3, 4]
    nothing = IGNORED
    assert label_tokens(word_ids, labels, None) == [nothing, 1, nothing, 0, 2, nothing, nothing, nothing]
    inner = [0, 3, 3, 3]  # inside of what B, I or another begins
    assert label_tokens(word_ids, labels, inner) == [nothing, 1, 3, 0, 2, 3, 3, nothing]


def test_each_word_is_labelled_once_over_all_windows(tokenizer):
    words = ["the", "baker", "sold", "unbelievably", "much", "bread"] * 12
    windows = make_windows(tokenizer, [words], 24, 8)
    assert len(windows["sentence"]) > 3
    labels = [label_tokens(word_ids, range(len(words)), None) for word_ids in windows["word_ids"]]
    assert [label for row in labels for label in row if label != IGNORED] == list(range(len(words)))


def test_merging_does_not_depend_on_the_order_of_windows(wordpiece):
    sentences = [["the", "baker"] * 20, ["sold"], ["bread", "."] * 15]
    windows = make_windows(wordpiece, sentences, 16, 4)
    values = predict_number(windows, sentences)
    order = np.random.default_rng(0).permutation(len(values))
    mixed = {name: [column[i] for i in order] for name, column in windows.items()}
    merged = merge_windows(values[order], mixed, sentences)
    assert np.concatenate(merged).tolist() == list(range(71))
    lost = {name: column[1:] for name, column in windows.items()}
    with pytest.raises(RuntimeError, match="not decided"):
        merge_windows(values[1:], lost, sentences)
