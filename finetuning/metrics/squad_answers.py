"""SQuAD's exact match and F1, versions 1.1 and 2.0, without the network.

    metric = evaluate.load("finetuning/metrics/squad_answers.py", "v1.1")
    metric.compute(predictions=[{"id": "1", "prediction_text": "Paris", "no_answer_probability": 0.0}],
                   references=[{"id": "1", "answers": {"text": ["Paris", "in Paris"], "answer_start": [3, 0]}}])

The definitions are those of the official scripts, evaluate-v1.1.py (Rajpurkar et al., 2016) and evaluate-v2.0.py
(2018): texts are compared without case, punctuation, articles and extra white space; of several right answers the
best counts; values are in percent. The two differ in a rare case. A right answer of which nothing is left ("the") is
in v1.1 an exact match for every other such text and has an F1 of 0; in v2.0 it is passed over, and where no other is
left, no answer is right. Configuration v2.0 scores questions with and without an answer also apart.

Where the right answers are written without spaces between words (Chinese, Japanese, Thai), F1 of words would be nearly
exact match. Then texts are compared as MLQA's script compares Chinese (mlqa_evaluation_v1.py, Lewis et al. 2020, after
that of CMRC 2018): without any punctuation of Unicode, each character of such a script a word of its own. `word_f1` is
what SQuAD's words would have given, and is there for such sets alone.

`no_answer_probability` is any number that grows with it, such as log-odds; where it is above `no_answer_threshold`, by
default nowhere, a prediction counts as no answer. The best threshold for each of the two measures is found as by the
official script, but it lies halfway between the numbers of two questions, and never between equal ones.
"""

import re
import string
import unicodedata
from collections import Counter

import datasets
import evaluate
import numpy as np

CONFIGURATIONS = ("v1.1", "v2.0")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# The scripts of data_prep/languages.py; this file stands alone, so that `evaluate` can load it from anywhere.
_UNSPACED = re.compile(
    "([\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u19e0-\u19ff\u1a20-\u1aaf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b"
    "\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaadf\uf900-\ufaff\uff66-\uff9f"
    "\U000116d0-\U000116ff\U00011700-\U0001174f\U00016fe2-\U00016ff6\U0001aff0-\U0001b16f\U00020000-\U0003ffff])"
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation and then articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalize_characters(text: str) -> str:
    """Lower case, without punctuation, with spaces around each character of a script that has none."""
    kept = "".join(" " if char == "\u200b" else char for char in text.lower() if not _is_punctuation(char))
    return " ".join(_UNSPACED.sub(r" \1 ", kept).split())


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char)[0] == "P"


def is_unspaced(texts: list[str]) -> bool:
    """Whether most letters of these texts are of scripts without spaces between words."""
    letters = sum(map(str.isalpha, "".join(texts)))
    return 2 * sum(char.isalpha() for char in _UNSPACED.findall("".join(texts))) > letters


def f1(found: str, gold: str, version_2: bool) -> float:
    """The harmonic mean of precision and recall of words, of two normalized texts."""
    words, right = found.split(), gold.split()
    if version_2 and not (words and right):
        return float(words == right)
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right)) if common else 0.0


def score_answer(found: str, golds: list[str], version_2: bool, characters: bool = False) -> tuple[float, float]:
    """Exact match and F1 of one prediction against the right answers; without any, "" alone is right."""
    normal = normalize_characters if characters else normalize
    found, golds = normal(found), [normal(gold) for gold in golds]
    if version_2:
        golds = [gold for gold in golds if gold] or [""]
    return float(found in golds), max(f1(found, gold, version_2) for gold in golds)


def best_threshold(scores: np.ndarray, odds: np.ndarray, is_answerable: np.ndarray) -> tuple[float, float]:
    """The highest mean score that a threshold on `odds` can reach, and the threshold, for arrays of (questions,).

    `scores`: of the answers, if all are given; for a question that has none, giving no answer scores 1. Of thresholds
    that are as good, the one that answers least.
    """
    order = np.argsort(odds, kind="stable")
    sorted_odds = odds[order].astype(np.float64)
    gains = np.where(is_answerable, scores, scores - 1.0)[order]  # of answering a question more
    totals = np.concatenate([[0.0], np.cumsum(gains)]) + np.count_nonzero(~is_answerable)
    edges = np.concatenate([[True], np.diff(sorted_odds) > 0, [True]])  # not between equal odds
    best = int(np.argmax(np.where(edges, totals, -np.inf)))
    around = np.concatenate([[sorted_odds[0] - 2.0], sorted_odds, [sorted_odds[-1] + 2.0]])
    return float(totals[best]) / len(odds), float(around[best] + around[best + 1]) / 2


class SquadAnswers(evaluate.Metric):
    """SQuAD's measures of one version; `compute` returns a dict of floats and counts."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in CONFIGURATIONS:
            known = " and ".join(CONFIGURATIONS)
            raise ValueError(f"squad_answers: unknown configuration {self.config_name!r}; there are {known}")
        text = datasets.Value("string")
        answers = {"text": datasets.Sequence(text), "answer_start": datasets.Sequence(datasets.Value("int32"))}
        prediction = {"id": text, "prediction_text": text, "no_answer_probability": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description="Exact match and F1 of SQuAD 1.1 and 2.0.",
            citation="Rajpurkar et al., 2016 and 2018",
            features=datasets.Features({"predictions": prediction, "references": {"id": text, "answers": answers}}),
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], no_answer_threshold: float = float("inf")
    ) -> dict[str, float]:
        ids = [prediction["id"] for prediction in predictions]
        if ids != [reference["id"] for reference in references]:
            raise ValueError("squad_answers: predictions and references are not of the same ids in the same order")
        golds = [reference["answers"]["text"] for reference in references]
        texts = [prediction["prediction_text"] for prediction in predictions]
        odds = np.array([prediction["no_answer_probability"] for prediction in predictions], dtype=np.float64)
        is_answerable = np.array([bool(gold) for gold in golds])
        version_2 = self.config_name == "v2.0"
        if not version_2 and not is_answerable.all():
            row = int(np.argmin(is_answerable))
            raise ValueError(f"squad_answers: question {ids[row]} has no answer, which v1.1 does not know")
        if version_2 and np.isnan(odds).any():
            row = int(np.argmax(np.isnan(odds)))
            raise ValueError(f"squad_answers: the no_answer_probability of {ids[row]} is NaN")
        characters = is_unspaced([text for gold in golds for text in gold])
        pairs = list(zip(texts, golds, strict=True))
        answered = np.array([score_answer(text, gold, version_2, characters) for text, gold in pairs])
        result: dict[str, float] = {}
        if characters:
            result["word_f1"] = 100 * float(np.mean([score_answer(text, gold, version_2)[1] for text, gold in pairs]))
        if not version_2:
            return result | dict(zip(("exact_match", "f1"), (100 * answered.mean(axis=0)).tolist(), strict=True))
        nothing = np.array([score_answer("", gold, True, characters) for gold in golds])
        scores = np.where((odds > no_answer_threshold)[:, None], nothing, answered)
        for column, name in enumerate(("exact_match", "f1")):
            result[name] = 100 * float(scores[:, column].mean())
            for part, rows in (("has_answer", is_answerable), ("no_answer", ~is_answerable)):
                if rows.any():
                    result[f"{part}_{name}"] = 100 * float(scores[rows, column].mean())
            best, threshold = best_threshold(answered[:, column], odds, is_answerable)
            result |= {f"best_{name}": 100 * best, f"best_{name}_threshold": threshold}
        return result
