"""Words, as tokenizers of any kind mark them, in scripts with and without spaces; the reference is the text itself."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pretraining.masking import MaskedBlocks, MaskingArguments, make_masker
from pretraining.text.words import word_edges
from shared.errors import InputError
from shared.loss import IGNORED

# Article 1 of the Universal Declaration of Human Rights, and sentences of the same words.
CHINESE = ["人人生而自由,在尊严和权利上一律平等。", "他们赋有理性和良心,并应以兄弟关系的精神相对待。"]
THAI = ["มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม", "และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ"]
ENGLISH = ["The (old) web isn't what it was: nobody wrote pages like these anymore."]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ROLES = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), SPECIAL, strict=True))


def train(kind, texts, size=320):
    """A tokenizer of the library's own making, as others have it."""
    if kind == "bpe":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet)
    elif kind == "unigram":
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>")
    elif kind == "suffix":  # as XLM and CLIP have it
        backend = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, end_of_word_suffix="</w>")
    else:
        backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
        backend.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL)
    trainer.show_progress = False
    backend.train_from_iterator(texts * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


def words(tokenizer, text):
    """The text, cut where words begin."""
    starts, ends = word_edges(tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, places = encoded["input_ids"], [place[0] for place in encoded["offset_mapping"]]
    begins = [places[k] for k, i in enumerate(ids) if k == 0 or starts[i] or ends[ids[k - 1]]]
    return [text[a:b].strip() for a, b in zip(begins, [*begins[1:], len(text)], strict=True) if text[a:b].strip()]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "suffix"])
def test_words_are_those_of_the_text(kind):
    characters = [*"自由和尊严良心"] * 10  # alone, so that no token of byte-level BPE has bytes of two of them
    tokenizer = train(kind, ENGLISH * 3 + (characters if kind == "bpe" else CHINESE))
    assert words(tokenizer, "The (old) web wrote pages") == ["The", "(", "old", ")", "web", "wrote", "pages"]
    if kind != "suffix":  # with </w> alone nothing ends before the next space
        for text in ("自由和尊严和良心", "web自由web"):
            found = words(tokenizer, text)
            assert "".join(found) == text
            if "web" in text:
                assert kind == "wordpiece" or (found[0], found[-1]) == ("web", "web")
            else:
                tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
                assert found == ([*text] if kind == "bpe" else [text[a:b] for a, b in merged(tokens)])


def merged(places):
    """Tokens that are bytes of one character have the same place."""
    return sorted({tuple(place) for place in places if place[1] > place[0]})


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
@pytest.mark.parametrize("texts", [CHINESE, THAI, ENGLISH], ids=["Chinese", "Thai", "English"])
def test_the_share_that_was_asked_for_is_reached(kind, texts):
    tokenizer = train(kind, texts)
    stream = tokenizer(" ".join(texts * 60), add_special_tokens=False)["input_ids"]
    count = min(len(stream) // 126, 40)
    blocks = np.array([[0, *stream[k * 126 : (k + 1) * 126], 2] for k in range(count)])
    args = MaskingArguments(whole_word_mask=True)
    masker, said = make_masker(tokenizer, args, 1), []
    targets = np.concatenate([masker(blocks, np.arange(count), epoch)[2] != IGNORED for epoch in range(10)])
    assert targets.sum() / (10 * count * 126) == pytest.approx(0.15, abs=0.012)
    assert targets.any(1).all(), "every block has something to predict"
    MaskedBlocks(blocks, masker, 1).check_share("--x", said.append)
    assert not said


def test_a_word_longer_than_the_quota_is_chosen_as_often_as_any(wordpiece):
    """A word of 40 pieces in a block of 64, of which 9 are to be targets."""
    ids = wordpiece.convert_tokens_to_ids
    block = np.array([[ids("[CLS]"), *[ids("e")] * 22, ids("o"), *[ids("##e")] * 39, ids("[SEP]")]])
    masker = make_masker(wordpiece, MaskingArguments(whole_word_mask=True), 1)
    found = np.zeros(64)
    for epoch in range(400):
        _, positions, labels = masker(block, np.array([0]), epoch)
        found[positions[labels != IGNORED]] += 1
    assert found[1:63].mean() / 400 == pytest.approx(9 / 62, abs=0.002)
    assert found[23:63].mean() / 400 == pytest.approx(9 / 62, abs=0.02)


def test_a_share_that_is_not_reached_is_told(wordpiece):
    blocks = np.full((4, 12), wordpiece.convert_tokens_to_ids("e"))
    said = []
    MaskedBlocks(blocks, make_masker(wordpiece, MaskingArguments(), 1), 0).check_share("--x", said.append)
    assert said == []  # 2 of 12
    masker = make_masker(wordpiece, MaskingArguments(mlm_probability=0.2), 1)
    MaskedBlocks(blocks[:, :8], masker, 0).check_share("--x", said.append)
    assert said == ["--mlm_probability 0.2: 0.250 of the tokens are predicted; blocks are short"]
    with pytest.raises(InputError, match="--x, --mlm_probability or the text: too small"):
        MaskedBlocks(blocks[:, :2], masker, 0).check_share("--x", said.append)
    with pytest.raises(InputError, match="--x, --mlm_probability or the text: too small"):
        MaskedBlocks(blocks[:0], masker, 0).check_share("--x", said.append)


def test_a_tokenizer_without_marks_is_refused():
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIAL, "a", "b"])}, merges=[]))
    with pytest.raises(InputError, match="--whole_word_mask: this tokenizer does not mark where words begin"):
        word_edges(PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES))


def test_word_edges(wordpiece, bpe):
    starts, ends = word_edges(wordpiece)
    assert not starts[wordpiece.convert_tokens_to_ids("##e")] and starts[wordpiece.mask_token_id]
    assert starts[wordpiece.convert_tokens_to_ids("e")] and not ends[wordpiece.convert_tokens_to_ids("e")]
    starts, ends = word_edges(bpe)
    ids = bpe("a (web)", add_special_tokens=False)["input_ids"]
    tokens = bpe.convert_ids_to_tokens(ids)
    begins = [starts[i] or (k > 0 and ends[ids[k - 1]]) for k, i in enumerate(ids)]
    words = "".join("|" * int(b) + t for b, t in zip(begins[1:], tokens[1:], strict=True))
    assert words == "|Ġ(|web|)" or words == "|Ġ|(|web|)"
