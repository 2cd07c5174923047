"""Extractive question answering: windows over contexts, and the best answers from the logits of their tokens.

A context that is longer than the model is read in windows that overlap (Devlin et al., 2018). Every run of at most
`max_answer_length` tokens of the context is a possible answer, and its score is the start logit of its first token and
the end logit of its last one together. The answers of a question are the `n_best_size` best of all its windows. (Usual
scripts look only at pairs of the 20 best first and the 20 best last tokens of a window, and so may find none.) Among
equal scores the earlier window wins, then the earlier first token, then the earlier last one.
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import max_pool1d, pad
from transformers import DataCollatorWithPadding

from finetuning.common.length_order import as_before, longest_first
from shared.errors import InputError

NULL = 0  # the position of [CLS], where start and end of "no answer" are
WHITE_SPACE = np.array([code for code in range(0x3001) if chr(code).isspace()])  # there is none above
NO_CANDIDATE = 1e6  # the odds of no answer where nothing in the context can be one


@dataclass(frozen=True)
class WindowSettings:
    """How questions and contexts become windows; all in tokens."""

    max_seq_length: int = 384
    doc_stride: int = 128  # what a window shares with the one before
    max_question_length: int = 64

    def check(self, tokenizer: Any) -> None:
        """Raise InputError unless a context can move through the windows, and the tokenizer is of BERT's kind."""
        room = self.max_seq_length - self.max_question_length - tokenizer.num_special_tokens_to_add(pair=True)
        if not 0 <= self.doc_stride < room:
            why = "below what --max_seq_length leaves beside a question of --max_question_length"
            raise InputError(f"--doc_stride {self.doc_stride}: must be from 0 to {room - 1}, {why}")
        ids = tokenizer("a", "a")["input_ids"]
        if tokenizer.padding_side != "right" or ids[NULL] != tokenizer.cls_token_id:
            raise InputError(f"{tokenizer.name_or_path}: its inputs do not begin with {tokenizer.cls_token}")


def cut_questions(questions: Sequence[str], tokenizer: Any, most: int) -> list[str]:
    """The questions without the white space around them and without what follows their first `most` tokens."""
    stripped = [question.strip() for question in questions]
    offsets = tokenizer(stripped, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        question[: places[most - 1][1]] if len(places) > most else question
        for question, places in zip(stripped, offsets["offset_mapping"], strict=True)
    ]


def make_windows(
    batch: dict[str, list[Any]], rows: list[int], tokenizer: Any, settings: WindowSettings, for_training: bool
) -> dict[str, list[Any]]:
    """Cut questions and contexts into windows; a function for `Dataset.map` with `batched` and `with_indices`.

    `batch` holds the columns question and context, and answers where they are known. For each window:

    - input_ids, and token_type_ids if the model has them; `length`, the number of tokens
    - labels: the first and last token of the first answer; twice [CLS] if the window does not hold all of it, or there
      is none
    - row: the number of its question; context: its first token of the context, and the one after the last
    - token_starts, token_ends: the characters of the context that these tokens stand for; not for training
    """
    questions = cut_questions(batch["question"], tokenizer, settings.max_question_length)
    encoded = tokenizer(
        questions,
        batch["context"],
        truncation="only_second",
        max_length=settings.max_seq_length,
        stride=settings.doc_stride,
        return_overflowing_tokens=True,
        return_attention_mask=False,
    )
    windows: dict[str, list[Any]] = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
    windows |= {"length": [len(ids) for ids in encoded["input_ids"]], "row": [], "context": []}
    windows |= {"labels": []} if "answers" in batch else {}
    windows |= {} if for_training else {"token_starts": [], "token_ends": []}
    spans = [answer_span(answers) for answers in batch["answers"]] if "answers" in batch else []
    for encoding, number in zip(encoded.encodings, encoded["overflow_to_sample_mapping"], strict=True):
        sides = encoding.sequence_ids
        first = sides.index(1) if 1 in sides else 0
        end = len(sides) - sides[::-1].index(1) if 1 in sides else 0
        if rows[number] not in windows["row"][-1:]:
            edges = bare_edges(batch["context"][number])
        places = np.array(encoding.offsets[first:end], dtype=np.int32).reshape(-1, 2)
        starts, ends = (edge[column].astype(np.int32) for edge, column in zip(edges, places.T, strict=True))
        windows["row"].append(rows[number])
        windows["context"].append([first, end])
        if spans:
            windows["labels"].append(label_window(starts, ends, spans[number], first))
        if not for_training:
            windows["token_starts"].append(starts)
            windows["token_ends"].append(ends)
    return windows


def bare_edges(context: str) -> tuple[np.ndarray, np.ndarray]:
    """For each place in a context, from 0 to its end, where the next character that is no white space stands, and
    where the one before ends: (characters + 1,) int64 each.

    SentencePiece takes the space before a word into its first token. With these a token that begins with white space
    begins behind it, and one of white space alone ends before it begins: no answer begins or ends with it.
    """
    is_space = np.isin(np.frombuffer(context.encode("utf-32-le", "surrogatepass"), "<u4"), WHITE_SPACE)
    places = np.arange(len(is_space))
    following = np.minimum.accumulate(np.where(is_space, len(is_space), places)[::-1])[::-1]
    behind = np.maximum.accumulate(np.where(is_space, 0, places + 1))
    return np.append(following, len(is_space)), np.insert(behind, 0, 0)


def answer_span(answers: dict[str, list[Any]]) -> tuple[int, int] | None:
    """The characters of the first answer without white space around it, or None if there is no answer."""
    if not answers["text"]:
        return None
    text, start = answers["text"][0], answers["answer_start"][0]
    start += len(text) - len(text.lstrip())
    return start, start + len(text.strip())


def label_window(starts: np.ndarray, ends: np.ndarray, span: tuple[int, int] | None, first: int) -> list[int]:
    """The first and the last token of an answer in a window, or [NULL, NULL] if the window does not hold all of it.
    `starts` and `ends`: characters of the tokens of the context, of which the first one is token `first`."""
    if span is None or not len(starts) or span[0] < starts[0] or span[1] > ends[-1]:
        return [NULL, NULL]
    # Tokens that stand for no character of the answer stay outside; several may stand for one character.
    start, end = np.searchsorted(ends, span[0], side="right"), np.searchsorted(starts, span[1], side="left") - 1
    return [first + int(start), first + int(end)] if start <= end else [NULL, NULL]


@dataclass(frozen=True)
class Windows:
    """Questions and their windows: in the order of the questions, and longest first, for which `order` says where they
    stand before, (windows,) int64."""

    questions: Any
    windows: Any
    ordered: Any
    order: np.ndarray

    def find_answers(self, predictions: Sequence[np.ndarray]) -> "BestAnswers":
        """The best answers from what `keep_best_spans` kept of the windows, longest first."""
        found = [as_before(part, self.order) for part in predictions]
        return merge_windows(self.windows, found, len(self.questions))

    def no_answers(self) -> "BestAnswers":
        """What is known of the answers before there is a model."""
        none = np.zeros((len(self.questions), 1), dtype=np.int64)
        return BestAnswers(none, none, np.full(none.shape, -np.inf, np.float32), np.zeros(len(none), np.float32))


def cut_windows(questions: Any, tokenizer: Any, settings: WindowSettings, for_training: bool) -> Windows:
    """The windows of the rows of a Dataset of questions; see `make_windows`."""
    windows = questions.map(
        partial(make_windows, tokenizer=tokenizer, settings=settings, for_training=for_training),
        batched=True,
        with_indices=True,
        remove_columns=questions.column_names,
        desc="cutting contexts into windows",
    )
    return Windows(questions, windows, *longest_first(windows))


class WindowCollator:
    """Windows as tensors that the model takes, padded to the longest of the batch."""

    def __init__(self, tokenizer: Any, model: torch.nn.Module) -> None:
        self.names = {*inspect.signature(model.forward).parameters, "labels", "context"}
        self.pad = DataCollatorWithPadding(tokenizer)

    def __call__(self, windows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        taken = [{name: value for name, value in window.items() if name in self.names} for window in windows]
        return dict(self.pad(taken))


def pass_context_on(model: torch.nn.Module) -> None:
    """Let the model take `context`, which it has no use for, and give it back beside its logits when it is evaluated,
    so that `keep_best_spans` finds it there. The state dict is unchanged."""
    context: list[Any] = [None]

    def take(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        context[0] = kwargs.pop("context", None)
        return args, kwargs

    def give_back(module: Any, _: Any, outputs: Any) -> Any:
        if not module.training and context[0] is not None:
            outputs["context"] = context[0]
        return outputs

    model.register_forward_pre_hook(take, with_kwargs=True)
    model.register_forward_hook(give_back)


def keep_best_spans(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    context: torch.Tensor,
    n_best_size: int,
    max_answer_length: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reduce the logits of windows to what their questions can need, so that evaluation keeps no more than that.

    `start_logits`, `end_logits`: (windows, tokens); `context`: (windows, 2) int64, the first token of the context and
    the one after its last. Returns the n best answers of each window, best first, as first and last token counted from
    that of the context, (windows, n, 2) int32; their scores, (windows, n) float32, -inf where there are fewer; and the
    score of no answer, (windows, 1) float32.
    """
    start_logits, end_logits = start_logits.float(), end_logits.float()
    windows, tokens = start_logits.shape
    positions = torch.arange(tokens, device=start_logits.device)
    outside = (positions < context[:, :1]) | (positions >= context[:, 1:])
    longest = min(max_answer_length, tokens)
    ends = pad(end_logits.masked_fill(outside, -torch.inf), (0, longest - 1), value=-torch.inf)
    best_ends = max_pool1d(ends[:, None], longest, stride=1)[:, 0]  # the best one that a start can have
    starts = start_logits.masked_fill(outside, -torch.inf)
    # n starts that go with a better end hide every pair of any other start.
    firsts = _highest(starts + best_ends, n_best_size)[1].sort(dim=1).values
    lengths = torch.arange(longest, device=starts.device)
    scores = ends.gather(1, (firsts[:, :, None] + lengths).flatten(1)).view(windows, -1, longest)
    scores = (scores + starts.gather(1, firsts)[:, :, None]).flatten(1)
    scores, pairs = _highest(pad(scores, (0, max(0, n_best_size - scores.shape[1])), value=-torch.inf), n_best_size)
    pairs = pairs.where(scores.isfinite(), 0)
    first = firsts.gather(1, pairs // longest)
    spans = torch.stack([first, first + pairs % longest], dim=2) - context[:, :1, None]
    return spans.int(), scores, (start_logits[:, NULL] + end_logits[:, NULL])[:, None]


def _highest(values: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The n highest values of each row and their columns, best first; among equal ones the first. The columns of -inf
    are any."""
    top, columns = values.topk(min(n + 1, values.shape[1]))
    tied = ((top[:, 1:] == top[:, :-1]) & top[:, 1:].isfinite()).any(dim=1)
    if tied.any():  # topk leaves their order open, and a sort of all takes five times as long
        ordered = values[tied].sort(dim=1, descending=True, stable=True)
        top[tied], columns[tied] = (part[:, : top.shape[1]] for part in ordered)
    return top[:, :n], columns[:, :n]


@dataclass(frozen=True)
class BestAnswers:
    """The best answers of each question, best first, as characters of its context."""

    starts: np.ndarray  # (questions, n) int64
    ends: np.ndarray  # (questions, n) int64, after the last character
    scores: np.ndarray  # (questions, n) float32, -inf where there are fewer
    null_scores: np.ndarray  # (questions,) float32: of no answer, the lowest of all windows

    @property
    def odds(self) -> np.ndarray:
        """How much more no answer scores than the best answer, (questions,) float64; NO_CANDIDATE without one."""
        found = np.isfinite(self.scores[:, 0])
        return np.where(found, self.null_scores.astype(np.float64) - self.scores[:, 0], NO_CANDIDATE)

    def texts(self, contexts: Iterable[str]) -> list[str]:
        """The best answer of each question, "" where there is none."""
        return [
            context[i:j]
            for context, i, j in zip(contexts, self.starts[:, 0].tolist(), self.ends[:, 0].tolist(), strict=True)
        ]

    def n_best(self, contexts: Iterable[str], with_null: bool) -> Iterator[list[dict[str, Any]]]:
        """All answers of each question, likeliest first: text, probability, score, and where the text starts. No
        answer is the text "" without a start."""
        shares, null_shares = self.probabilities(with_null)
        counts = np.isfinite(self.scores).sum(axis=1)
        columns = (self.starts, self.ends, shares, self.scores, counts, null_shares, self.null_scores)
        for context, *values in zip(contexts, *(column.tolist() for column in columns), strict=True):
            starts, ends, row_shares, scores, count, null_share, null_score = values
            answers: list[dict[str, Any]] = [
                {"text": context[i:j], "probability": share, "score": score, "answer_start": i}
                for i, j, share, score in zip(starts[:count], ends[:count], row_shares, scores, strict=False)
            ]
            if with_null:
                answers.append({"text": "", "probability": null_share, "score": null_score, "answer_start": None})
            yield sorted(answers, key=lambda answer: -answer["score"])

    def probabilities(self, with_null: bool) -> tuple[np.ndarray, np.ndarray]:
        """Of each answer, (questions, n), and of no answer, (questions,); float64, together 1 for each question.

        They are shares of what was kept, as in the first SQuAD scripts, not of all pairs of tokens.
        """
        null = self.null_scores[:, None] if with_null else np.full((len(self.scores), 1), -np.inf)
        scores = np.concatenate([self.scores, null], axis=1).astype(np.float64)
        highest = scores.max(axis=1, keepdims=True)
        shares = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return shares[:, :-1], shares[:, -1]


def merge_windows(windows: Any, found: Sequence[np.ndarray], questions: int, at_once: int = 1000) -> BestAnswers:
    """The n best answers of each question from those of its windows; a span that two windows share counts once.

    `windows`: the Dataset of `make_windows`, in its order, for questions 0 to `questions` - 1; `found`: what
    `keep_best_spans` returned for them. The tokens of `at_once` questions are in memory at a time.
    """
    spans, scores, null_scores = found
    columns = windows.select_columns(["row", "token_starts", "token_ends"]).with_format("arrow")
    rows = columns.select_columns(["row"])[:]["row"].to_numpy()
    best = BestAnswers(
        starts=np.zeros((questions, scores.shape[1]), dtype=np.int64),
        ends=np.zeros((questions, scores.shape[1]), dtype=np.int64),
        scores=np.full((questions, scores.shape[1]), -np.inf, dtype=np.float32),
        null_scores=np.full(questions, np.inf, dtype=np.float32),
    )
    np.minimum.at(best.null_scores, rows, null_scores[:, 0])
    for begin in range(0, questions, at_once):
        part = slice(*np.searchsorted(rows, (begin, begin + at_once)))
        if part.start < part.stop:
            _merge(rows[part], columns[part], spans[part], scores[part], best)
    return best


def _merge(rows: np.ndarray, tokens: Any, spans: np.ndarray, scores: np.ndarray, best: BestAnswers) -> None:
    """Write the best answers of the questions `rows` into `best`."""
    window, place = np.nonzero(np.isfinite(scores))
    scores, spans = scores[window, place], spans[window, place]
    starts, ends = (_take(tokens[name], window, spans[:, i]) for i, name in enumerate(("token_starts", "token_ends")))
    order = np.lexsort((-scores, rows[window]))  # stable: equal scores stay in the order of the windows
    order = order[starts[order] <= ends[order]]  # not white space alone, see `bare_edges`
    found, scores = np.stack([rows[window], starts, ends], axis=1)[order], scores[order]
    first = np.sort(np.unique(found, axis=0, return_index=True)[1])  # the first of equal spans is the best one
    (question, starts, ends), scores = found[first].T, scores[first]
    rank = np.arange(len(question)) - np.searchsorted(question, question)
    kept = rank < best.scores.shape[1]
    cells = question[kept], rank[kept]
    best.starts[cells], best.ends[cells], best.scores[cells] = starts[kept], ends[kept], scores[kept]


def _take(column: Any, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`column[row][place]` for each pair, of a pyarrow column of lists."""
    lists = column.combine_chunks()
    return lists.values.to_numpy()[lists.offsets.to_numpy()[rows] + places]
