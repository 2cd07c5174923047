import numpy as np
import pytest

from pretraining.masking import EVALUATION, MaskedBlocks, MaskingArguments, make_masker
from shared.errors import InputError
from shared.loss import IGNORED
from shared.tokenizer import raw_text_encoder, special_tokens


@pytest.fixture(scope="module")
def blocks(tokenizer, texts):
    """64 real blocks of 128 with document boundaries, and one half-empty block."""
    special = special_tokens(tokenizer)
    stream = []
    for text in texts * 4:
        stream += raw_text_encoder(tokenizer).encode(text, add_special_tokens=False).ids + special.separator
    payload = 128 - len(special.prefix) - len(special.suffix)
    rows = [special.prefix + stream[i * payload : (i + 1) * payload] + special.suffix for i in range(64)]
    last = special.prefix + stream[:50] + special.suffix
    rows.append(last + [tokenizer.pad_token_id] * (128 - len(last)))
    return np.array(rows, dtype=np.uint16)


def mask(tokenizer, blocks, epoch=0, seed=1, rows=None, **settings):
    rows = np.arange(len(blocks)) if rows is None else rows
    return spread(make_masker(tokenizer, MaskingArguments(**settings), seed)(blocks[rows], rows, epoch))


def spread(found):
    """Masked ids, and the labels where they lie in the block."""
    masked, positions, targets = found
    labels = np.full_like(masked, IGNORED)
    for row, columns, values in zip(labels, positions, targets, strict=True):
        known = values != IGNORED
        assert (np.diff(columns[known]) > 0).all() and (columns[~known] == 0).all()
        row[columns[known]] = values[known]
    return masked, labels


@pytest.mark.parametrize("whole_word", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.3])
def test_shares(tokenizer, blocks, whole_word, share):
    masked, labels = [], []
    for epoch in range(30):
        m, y = mask(tokenizer, blocks, epoch, whole_word_mask=whole_word, mlm_probability=share)
        masked.append(m), labels.append(y)
    masked, labels, ids = np.concatenate(masked), np.concatenate(labels), np.tile(blocks, (30, 1))
    special = np.isin(ids, [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id])
    targets = labels != IGNORED
    assert not (targets & special).any()
    assert (labels[targets] == ids[targets]).all() and (masked[~targets] == ids[~targets]).all()
    per_row = targets.sum(1) / (~special).sum(1)
    assert per_row.mean() == pytest.approx(share, abs=0.005)
    over = targets.sum(1) - share * (~special).sum(1)
    assert over.max() <= (1.5 if whole_word else 0.5) and over.min() >= (-6 if whole_word else -0.5)
    hidden, kept = masked[targets] == tokenizer.mask_token_id, masked[targets] == ids[targets]
    assert hidden.mean() == pytest.approx(0.8, abs=0.015)
    assert (~hidden & ~kept).mean() == pytest.approx(0.1, abs=0.015)
    assert set(masked[targets].tolist()) & set(tokenizer.all_special_ids) <= {
        tokenizer.mask_token_id,
        tokenizer.unk_token_id,
    }
    # Every position is as likely as any other.
    inner = targets[:, 10:118].mean(0)
    assert inner.std() < 0.02


def test_whole_words_are_chosen_and_replaced_as_one(tokenizer, blocks):
    from pretraining.text.words import word_edges

    starts, ends = word_edges(tokenizer)
    masked, labels = mask(tokenizer, blocks, whole_word_mask=True)
    broken = 0
    for row, hidden, label in zip(blocks, masked, labels, strict=True):
        begins = starts[row] | np.r_[True, ends[row[:-1]]]
        for word in np.split(np.arange(128), np.flatnonzero(begins)[1:]):
            chosen = label[word] != IGNORED
            assert chosen.all() or not chosen.any()
            is_mask = hidden[word] == tokenizer.mask_token_id
            broken += is_mask.any() and not is_mask.all()
    assert broken == 0


def test_masks_depend_on_seed_epoch_and_block_alone(tokenizer, blocks):
    whole, labels = mask(tokenizer, blocks)
    for rows in (np.array([5]), np.array([63, 5, 0])):
        part, part_labels = mask(tokenizer, blocks, rows=rows)
        assert (part == whole[rows]).all() and (part_labels == labels[rows]).all()
    for other in (mask(tokenizer, blocks, epoch=1), mask(tokenizer, blocks, seed=2)):
        overlap = ((other[1] != IGNORED) & (labels != IGNORED)).sum() / (labels != IGNORED).sum()
        assert overlap == pytest.approx(0.15, abs=0.04)


def test_exam_hides_every_target(tokenizer, blocks):
    masked, labels = spread(make_masker(tokenizer, EVALUATION, seed=0)(blocks, np.arange(len(blocks)), 0))
    assert (masked[labels != IGNORED] == tokenizer.mask_token_id).all()


def test_batches(tokenizer, blocks):
    dataset = MaskedBlocks(blocks, make_masker(tokenizer, MaskingArguments(), 1), tokenizer.pad_token_id)
    full, padded = dataset.__getitems__([0, 1]), dataset.__getitems__([1, 64])
    assert "attention_mask" not in full and len(dataset) == 65
    assert padded["attention_mask"].sum(1).tolist() == [128, int((blocks[64] != tokenizer.pad_token_id).sum())]
    assert full["labels"].shape == full["masked_positions"].shape == padded["labels"].shape == (2, 19)
    dataset.set_epoch(1)
    assert (dataset.__getitems__([0])["input_ids"] != full["input_ids"][:1]).any()


@pytest.mark.parametrize(("whole_word", "ends"), [(False, (0.3, 0.15)), (True, (0.3, 0.15)), (False, (0.1, 0.2))])
def test_the_share_goes_from_one_end_to_the_other(tokenizer, blocks, whole_word, ends):
    args = MaskingArguments(mlm_probability=ends[0], mlm_probability_end=ends[1], whole_word_mask=whole_word)
    dataset = MaskedBlocks(blocks[:64], make_masker(tokenizer, args, 1), tokenizer.pad_token_id)
    special = np.isin(blocks[:64], [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id])
    shapes, chosen = set(), []
    for progress in (0.0, 0.2, 0.6, 1.0):
        dataset.set_progress(progress)
        batch = dataset.__getitems__(range(64))
        shapes.add(batch["labels"].shape)
        share = (batch["labels"] != IGNORED).sum() / (~special).sum()
        assert share == pytest.approx(ends[0] + (ends[1] - ends[0]) * progress, abs=0.008)
        known = batch["labels"] != IGNORED
        chosen.append({(row, int(batch["masked_positions"][row, slot])) for row, slot in known.nonzero().tolist()})
    assert shapes == {(64, round(max(ends) * 128) + whole_word)}  # which never change
    few, many = sorted((chosen[0], chosen[-1]), key=len)
    assert whole_word or few < many  # one order of the tokens, of which more or fewer are taken


def test_both_ends_need_a_token_to_predict(tokenizer, blocks):
    for ends, flag in (((0.001, 0.3), "mlm_probability"), ((0.3, 0.001), "mlm_probability_end")):
        args = MaskingArguments(mlm_probability=ends[0], mlm_probability_end=ends[1])
        dataset = MaskedBlocks(blocks, make_masker(tokenizer, args, 1), tokenizer.pad_token_id)
        with pytest.raises(InputError, match=rf"--max_train_samples, --{flag} or the text: too small"):
            dataset.check_share("--max_train_samples", print)
    said = []
    args = MaskingArguments(
        mlm_probability=0.3, mlm_probability_end=0.0115
    )  # about 1.4 tokens of a block, which are 1
    MaskedBlocks(blocks, make_masker(tokenizer, args, 1), tokenizer.pad_token_id).check_share("--x", said.append)
    assert len(said) == 1 and said[0].startswith("--mlm_probability_end 0.0115: 0.008")


@pytest.mark.parametrize(
    "settings",
    [
        {"mlm_probability_end": 0},
        {"mlm_probability_end": 1.1},
        {"mlm_probability": 0},
        {"mlm_probability": 1.5},
        {"mask_replace_prob": 0.95},
        {"random_replace_prob": -1},
    ],
)
def test_impossible_shares_are_refused(settings):
    with pytest.raises(InputError, match=r"--m|--random"):
        MaskingArguments(**settings)


def test_the_most_documents_of_a_block(tokenizer, blocks):
    masker = make_masker(tokenizer, MaskingArguments(), 1)
    dataset = MaskedBlocks(blocks, masker, tokenizer.pad_token_id, tokenizer.sep_token_id)
    ids = dataset.__getitems__(range(len(dataset)))["document_ids"]
    assert dataset.most_documents() == ids.max() + 1 > 1
    assert "attention_mask" not in dataset.__getitems__([64])
