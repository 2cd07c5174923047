import re

import numpy as np
import pytest
import torch
from conftest import SENTENCES
from datasets import Dataset
from tasks import make_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from evaluation.bench.answers import BenchArguments, answers_at_once, answers_by_loops, main, same_answers
from finetuning.qa.spans import (
    NO_CANDIDATE,
    NULL,
    WindowCollator,
    WindowSettings,
    answer_span,
    cut_questions,
    cut_windows,
    keep_best_spans,
    merge_windows,
    pass_context_on,
)
from shared.errors import InputError

CONTEXT = SENTENCES.read_text()[:1500].replace("\n", " ").strip()
SMALL = WindowSettings(max_seq_length=48, doc_stride=12, max_question_length=16)


def questions(*answers, context=CONTEXT, question="Where was the baker?"):
    """One question about `context` for each answer; None is no answer."""
    rows = [
        {"text": [text], "answer_start": [context.index(text)]} if text else {"text": [], "answer_start": []}
        for text in answers
    ]
    count = len(rows)
    return Dataset.from_dict({"question": [question] * count, "context": [context] * count, "answers": rows})


def random_windows(rng, count, tokens, n_questions):
    """Windows over parts of contexts, some without any token of it, some whose tokens stand for one character."""
    rows = [*range(n_questions), *rng.integers(0, n_questions, count - n_questions).tolist()]
    windows = {"row": sorted(rows), "context": [], "token_starts": [], "token_ends": []}
    for _ in range(count):
        first = int(rng.integers(1, tokens))
        end = int(rng.integers(first, tokens + 1))
        edges = np.cumsum(rng.integers(0, 4, 2 * (end - first))).reshape(-1, 2).astype(np.int32)
        windows["context"].append([first, end])
        windows["token_starts"].append(edges[:, 0])
        windows["token_ends"].append(edges[:, 1])
    return Dataset.from_dict(windows)


@pytest.mark.parametrize("levels", [2, 5, 100_000])
@pytest.mark.parametrize(("n_best_size", "max_answer_length"), [(20, 30), (3, 1), (1, 4), (50, 1000)])
def test_answers_are_those_of_the_loops(n_best_size, max_answer_length, levels):
    """With few levels nearly every logit has many equals, so that the order of ties shows."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        windows = random_windows(rng, 12, 24, n_questions=5)
        logits = (rng.integers(0, levels, (2, 12, 24)) / 1024 - 5).astype(np.float32)
        settings = (["".join(rng.choice(list("ab "), 200)) for _ in range(5)], n_best_size, max_answer_length)
        wanted = answers_by_loops(windows.to_list(), *logits, *settings)
        found = answers_at_once(windows, *torch.from_numpy(logits), *settings, batch_size=5)
        assert same_answers(found, wanted)
        assert all(sum(answer["probability"] for answer in answers) == pytest.approx(1) for answers in found)


def test_the_comparison_with_the_loops_can_fail():
    rng = np.random.default_rng(0)
    windows = random_windows(rng, 6, 24, n_questions=3)
    logits = rng.integers(0, 5, (2, 6, 24)).astype(np.float32)
    wanted = answers_by_loops(windows.to_list(), *logits, ["x" * 200] * 3, 5, 8)
    logits[0, :, 5:] += np.arange(19) / 8
    assert not same_answers(answers_at_once(windows, *torch.from_numpy(logits), ["x" * 200] * 3, 5, 8), wanted)


def test_a_best_pair_of_a_weak_start_is_found():
    """The loops over the best starts and the best ends, as usual scripts have them, find no answer here."""
    tokens = 60
    windows = {"row": [0], "context": [[1, tokens]]}
    windows |= {"token_starts": [np.arange(tokens - 1, dtype=np.int32)]}
    windows |= {"token_ends": [np.arange(1, tokens, dtype=np.int32)]}
    logits = np.zeros((2, 1, tokens), dtype=np.float32)
    logits[0, 0, 40:] = logits[1, 0, 1:20] = 4  # every good start is behind every good end
    logits[0, 0, 5] = 1
    settings = (["".join(chr(97 + i % 26) for i in range(tokens))], 10, 3)
    usual = answers_by_loops(Dataset.from_dict(windows).to_list(), *logits, *settings, candidates=10)
    assert [answer["text"] for answer in usual[0]] == [""]
    found = answers_at_once(Dataset.from_dict(windows), *torch.from_numpy(logits), *settings)
    assert [answer["answer_start"] for answer in found[0][:2]] == [4, 4] and found[0][0]["score"] == 5


def test_half_precision_and_negative_zero_keep_the_order():
    context = torch.tensor([[1, 6]])
    start = torch.tensor([[0.0, -0.0, 0.0, -1, -0.0, 0.0]], dtype=torch.bfloat16)
    spans, scores, null = keep_best_spans(start, start * 0, context, 3, 1)
    assert spans.tolist() == [[[0, 0], [1, 1], [3, 3]]] and scores.tolist() == [[0, 0, 0]] and null.item() == 0
    assert (spans.dtype, scores.dtype) == (torch.int32, torch.float32)


def test_what_is_kept_does_not_grow_with_the_window():
    sizes = set()
    for tokens in (8, 64, 500):
        logits = torch.randn(2, 3, tokens)
        parts = keep_best_spans(*logits, torch.tensor([[2, tokens]] * 3), 20, 30)
        sizes.add(tuple(part.shape for part in parts))
    assert sizes == {((3, 20, 2), (3, 20), (3, 1))}


def test_a_question_without_candidates_has_no_answer():
    windows = Dataset.from_dict(
        {
            "row": [0, 1],
            "token_starts": [np.array([], np.int32), np.array([0], np.int32)],
            "token_ends": [np.array([], np.int32), np.array([1], np.int32)],
        }
    )
    found = keep_best_spans(*torch.ones(2, 2, 4), torch.tensor([[0, 0], [2, 3]]), 5, 5)
    best = merge_windows(windows, [part.numpy() for part in found], 2)
    assert best.texts(["abc", "abc"]) == ["", "a"]
    assert best.odds.tolist() == [NO_CANDIDATE, 0]
    shares, null_shares = best.probabilities(with_null=True)
    assert shares.sum(axis=1).tolist() == [0, 0.5] and null_shares.tolist() == [1, 0.5]
    shares, null_shares = best.probabilities(with_null=False)
    assert np.isfinite(shares).all() and shares.sum(axis=1).tolist() == [0, 1] and null_shares.tolist() == [0, 0]


def test_merging_in_parts_changes_nothing():
    rng = np.random.default_rng(3)
    windows = random_windows(rng, 40, 20, n_questions=13)
    parts = keep_best_spans(*torch.randn(2, 40, 20), torch.tensor(windows["context"][:]), 5, 6)
    whole, cut = (merge_windows(windows, [part.numpy() for part in parts], 13, at_once=n) for n in (1000, 2))
    for name in ("starts", "ends", "scores", "null_scores"):
        assert (getattr(whole, name) == getattr(cut, name)).all()


@pytest.mark.parametrize("kind", ["baker", "the baker", "was", ".", None])
def test_labels_point_at_the_answer(tokenizer, kind):
    """Decoded, the labelled tokens are the answer; windows that do not hold all of it are labelled with no answer."""
    windows = cut_windows(questions(kind), tokenizer, SMALL, for_training=False).windows
    span = answer_span(questions(kind)["answers"][0])
    held = 0
    for window in windows:
        starts, ends = window["token_starts"], window["token_ends"]
        (first, _), (start, last) = window["context"], window["labels"]
        if kind and starts[0] <= span[0] and span[1] <= ends[-1]:
            held += 1
            assert CONTEXT[starts[start - first] : ends[last - first]].strip() == kind
        else:
            assert (start, last) == (NULL, NULL)
    assert held >= (1 if kind else 0) and len(windows) > 3


def test_windows_cover_the_context_and_overlap(tokenizer):
    windows = cut_windows(questions("baker", "was"), tokenizer, SMALL, for_training=False).windows
    assert windows["row"][:] == sorted(windows["row"][:]) and set(windows["row"][:]) == {0, 1}
    whole = tokenizer(CONTEXT, add_special_tokens=False)["input_ids"]
    joined = []
    for window in windows.filter(lambda row: row["row"] == 0):
        first, end = window["context"]
        assert len(window["input_ids"]) == window["length"] <= 48
        part = window["input_ids"][first:end]
        if joined:
            assert joined[-12:] == part[:12]
        joined += part[12:] if joined else part
    assert joined == whole


def test_a_context_of_100_000_characters(tokenizer):
    context = " ".join([CONTEXT] * 70)[:100_000] + " zebra"
    part = cut_windows(questions("zebra", context=context), tokenizer, SMALL, for_training=False)
    last = part.windows[-1]
    assert last["labels"][0] > 0 and last["token_ends"][-1] == len(context)
    found = [torch.zeros(len(part.windows), 4), torch.zeros(len(part.windows), 4)]
    assert len(part.windows) > 500 and found[0].sum() == 0
    logits = torch.zeros(2, len(part.windows), 48)
    logits[0, -1, last["labels"][0]] = logits[1, -1, last["labels"][1]] = 5
    kept = [x.numpy() for x in keep_best_spans(*logits, torch.tensor(part.windows["context"][:]), 20, 30)]
    assert merge_windows(part.windows, kept, 1).texts([context])[0].strip() == "zebra"


def test_long_questions_are_cut(tokenizer):
    long = "where " * 50 + "?"
    short = " Who?\n"
    cut, kept = cut_questions([long, short], tokenizer, 16)
    assert long.startswith(cut) and len(tokenizer(cut, add_special_tokens=False)["input_ids"]) <= 16
    assert kept == "Who?"
    windows = cut_windows(questions("baker", question=long), tokenizer, SMALL, for_training=True).windows
    assert max(windows["length"][:]) <= 48 and "token_starts" not in windows.column_names


@pytest.mark.parametrize("settings", [(48, 29, 16), (48, -1, 16), (20, 0, 30)])
def test_windows_that_cannot_move_are_refused(wordpiece, settings):
    with pytest.raises(InputError, match="--doc_stride"):
        WindowSettings(*settings).check(wordpiece)


def test_the_largest_stride_works(wordpiece):
    settings = WindowSettings(48, 28, 16)
    settings.check(wordpiece)
    windows = cut_windows(questions("baker", question="a " * 40), wordpiece, settings, for_training=False).windows
    assert windows[-1]["token_ends"][-1] == len(CONTEXT)


def test_white_space_around_an_answer_is_no_part_of_it():
    assert answer_span({"text": ["  a b "], "answer_start": [10]}) == (12, 15)
    assert answer_span({"text": [], "answer_start": []}) is None


TEXT_WITH_GAPS = "  In 1968,  Hülsen-Ärmel met\u00a0Ada Lovelace  in Paris .\n Then\t(at last) she left.\u3000 "


@pytest.fixture(scope="module", params=["always", "first", "never"])
def sentencepiece(request):
    """A tokenizer as SentencePiece makes them, which takes the space before a word into its token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=request.param)
    special = ["[CLS]", "[SEP]", "[PAD]", "[UNK]"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="[UNK]")
    tokenizer.train_from_iterator(SENTENCES.read_text().splitlines(), trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in special[:2]]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    names = dict(zip(("cls_token", "sep_token", "pad_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.mark.parametrize("text", [TEXT_WITH_GAPS, CONTEXT[:250]])
def test_no_answer_begins_or_ends_with_a_space(sentencepiece, text):
    """transformers#14418. Right is what the data say, and the text itself."""
    settings = WindowSettings(max_seq_length=400, doc_stride=20, max_question_length=16)
    words = [(found[0], found.start()) for found in re.finditer(r"\S+", text)]
    rows = [{"text": [word], "answer_start": [start]} for word, start in words]
    data = Dataset.from_dict({"question": ["Where?"] * len(rows), "context": [text] * len(rows), "answers": rows})
    parts = cut_windows(data, sentencepiece, settings, for_training=False)
    assert len(parts.windows) == len(words)  # one window holds all of the text
    logits = torch.zeros(2, len(words), max(parts.windows["length"]))
    for row, (first, last) in enumerate(parts.windows["labels"]):
        logits[0, row, first] = logits[1, row, last] = 9.0
    found = keep_best_spans(*logits, torch.tensor(parts.windows["context"]), n_best_size=20, max_answer_length=30)
    best = merge_windows(parts.windows, [part.numpy() for part in found], len(words))
    for (word, start), answers in zip(words, best.n_best(data["context"], with_null=False), strict=True):
        assert (answers[0]["text"], answers[0]["answer_start"]) == (word, start) and len(answers) > 1
        for answer in answers:
            assert answer["text"] == answer["text"].strip()
            assert text.startswith(answer["text"], answer["answer_start"])


@pytest.mark.parametrize("model_type", ["bert", "roberta", "modernbert"])
def test_context_passes_the_model(wordpiece, model_type):
    model = make_model("question_answering", model_type)
    model.resize_token_embeddings(len(wordpiece))
    rows = cut_windows(questions("baker", "was"), wordpiece, WindowSettings(36, 4, 8), for_training=False).windows
    batch = WindowCollator(wordpiece, model)([rows[0], rows[len(rows) - 1]])
    assert ("token_type_ids" in batch) == (model_type != "modernbert")
    plain = model.eval()(**{name: x for name, x in batch.items() if name not in ("context", "labels")})
    keys, names = list(plain), set(model.state_dict())
    pass_context_on(model)
    del batch["labels"]
    outputs = model(**batch)
    assert list(outputs) == [*keys, "context"] and (outputs["context"] == batch["context"]).all()
    assert torch.equal(outputs.start_logits, plain.start_logits) and set(model.state_dict()) == names
    assert list(model.train()(**batch)) == keys


def test_the_bench_finds_the_same_answers(capsys):
    result = main(BenchArguments(questions=60, max_seq_length=96))
    assert result["loops_over_best_ends_same_answer"] > 0.95  # how fast is for a quiet machine to say, not for a test
    assert result["windows"] >= 60 and "times_faster" in capsys.readouterr().out
