import json
import math
import re

import evaluate
import numpy as np
import pytest

from data_prep.languages import IDEOGRAPHS, LETTERS, TIBETAN
from finetuning.metrics import squad_answers
from finetuning.metrics.squad_answers import best_threshold, normalize, score_answer

METRIC = "finetuning/metrics/squad_answers.py"


@pytest.fixture(scope="module")
def v1():
    return evaluate.load(METRIC, "v1.1", keep_in_memory=True)


@pytest.fixture(scope="module")
def v2():
    return evaluate.load(METRIC, "v2.0", keep_in_memory=True)


def compute(metric, rows, **more):
    """`rows`: (answered, right answers, odds)."""
    return metric.compute(
        predictions=[
            {"id": str(i), "prediction_text": text, "no_answer_probability": odds}
            for i, (text, _, odds) in enumerate(rows)
        ],
        references=[
            {"id": str(i), "answers": {"text": golds, "answer_start": [0] * len(golds)}}
            for i, (_, golds, _) in enumerate(rows)
        ],
        **more,
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Cat's  pyjamas.", "cats pyjamas"),
        ("AN apple,\ta day", "apple day"),
        ("U.S.A.", "usa"),
        ("the", ""),
        ("a-the", "athe"),  # punctuation goes first, so these are no articles any more
        ("theatre an", "theatre"),
        ("naïve – Zürich", "naïve – zürich"),  # only ASCII punctuation
    ],
)
def test_normalization_is_that_of_the_official_scripts(text, wanted):
    assert normalize(text) == wanted


@pytest.mark.parametrize(
    ("found", "golds", "exact", "f1"),
    [
        ("the Denver Broncos", ["Denver Broncos!"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),  # precision 1, recall 1/2
        ("in the city of Paris", ["Paris", "the city of Paris"], 0, 6 / 7),  # precision 3/4, recall 1, of the better
        ("a b b c", ["b b b"], 0, 2 * (2 / 3) * (2 / 3) / (4 / 3)),  # "a" is an article; b counts twice, not thrice
        ("Rome", ["Paris"], 0, 0),
    ],
)
def test_scores_computed_by_hand(found, golds, exact, f1):
    for version_2 in (False, True):
        assert score_answer(found, golds, version_2) == pytest.approx((exact, f1))


def test_where_the_versions_differ():
    assert score_answer("a", ["the"], version_2=False) == (1, 0)
    assert score_answer("a", ["the"], version_2=True) == (1, 1)
    assert score_answer("", ["the", "Paris"], version_2=False) == (1, 0)
    assert score_answer("", ["the", "Paris"], version_2=True) == (0, 0)
    assert score_answer("", [], version_2=True) == (1, 1)
    assert score_answer("Paris", [], version_2=True) == (0, 0)


def test_version_1(v1):
    rows = [("Paris", ["Paris"], 0.0), ("Denver", ["Denver Broncos"], 0.0), ("x", ["y"], 0.0), ("", ["y"], 0.0)]
    assert compute(v1, rows) == pytest.approx({"exact_match": 25, "f1": 100 * (1 + 2 / 3) / 4})
    with pytest.raises(ValueError, match="question 1 has no answer"):
        compute(v1, [("Paris", ["Paris"], 0.0), ("Paris", [], 0.0)])


ROWS = [
    ("Paris", ["Paris"], -5.0),
    ("Denver", ["Denver Broncos"], -1.0),
    ("Rome", [], -3.0),
    ("Oslo", [], 2.0),
    ("Kyoto", ["Kyoto"], 1.0),
]


def test_version_2_and_its_parts(v2):
    answered = compute(v2, ROWS)
    assert answered["exact_match"] == 40 and answered["f1"] == pytest.approx(100 * (2 + 2 / 3) / 5)
    assert (answered["has_answer_exact_match"], answered["no_answer_exact_match"]) == (pytest.approx(200 / 3), 0)
    # By hand, answering one more at a time from the lowest odds on: exact 2, 3, 2, 2, 3, 2; F1 2, 3, 2, 8/3, 11/3, ...
    assert answered["best_exact_match"] == 60 and answered["best_exact_match_threshold"] == -4
    assert answered["best_f1_threshold"] == 1.5
    assert answered["best_f1"] == pytest.approx(100 * (1 + 2 / 3 + 0 + 1 + 1) / 5)
    tuned = compute(v2, ROWS, no_answer_threshold=answered["best_f1_threshold"])
    assert tuned["f1"] == answered["best_f1"] and tuned["no_answer_f1"] == 50
    nothing = compute(v2, ROWS, no_answer_threshold=-10.0)
    assert nothing["f1"] == 40 and nothing["no_answer_f1"] == 100 and nothing["has_answer_f1"] == 0
    assert compute(v2, ROWS, no_answer_threshold=1.0)["f1"] == pytest.approx(100 * (1 + 2 / 3 + 0 + 1 + 1) / 5)


def test_one_kind_of_question_alone(v2):
    assert "no_answer_f1" not in compute(v2, [("Paris", ["Paris"], 0.0)])
    only = compute(v2, [("Paris", [], 0.0), ("", [], 1.0)])
    assert "has_answer_f1" not in only and only["f1"] == 50 and only["best_f1"] == 100


def test_the_best_threshold_is_better_than_every_other():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores, odds = rng.integers(0, 3, 12) / 2, rng.integers(-4, 5, 12).astype(float)
        is_answerable = rng.random(12) < 0.6
        scores[~is_answerable] = 0

        def reached(threshold, scores=scores, odds=odds, is_answerable=is_answerable):
            return np.where(odds > threshold, ~is_answerable, scores).mean()

        best, threshold = best_threshold(scores, odds, is_answerable)
        assert reached(threshold) == pytest.approx(best)
        assert best == pytest.approx(max(reached(t) for t in np.arange(-6, 6, 0.5)))
        assert math.isfinite(threshold) and threshold not in odds
        assert json.loads(json.dumps(threshold)) == threshold


@pytest.mark.parametrize(
    ("found", "gold", "exact", "f1"),
    [
        ("北京大學", "北京大学", 0, 75.0),  # three of four characters, by hand
        ("《北京大学》。", "北京大学", 100, 100),  # MLQA removes all punctuation of Unicode
        ("NBA 总决赛场", "NBA总决赛场2", 0, 200 * 5 / 11),  # 5 words of 5 and 6
        ("กรุงเทพ", "กรุงเทพฯ", 0, 200 * 7 / 15),
        ("東京", "とうきょう", 0, 0),
    ],
)
def test_f1_of_scripts_without_spaces_compares_characters(v1, found, gold, exact, f1):
    predictions = [{"id": "1", "prediction_text": found, "no_answer_probability": 0.0}]
    references = [{"id": "1", "answers": {"text": [gold], "answer_start": [0]}}]
    scores = v1.compute(predictions=predictions, references=references)
    assert scores["exact_match"] == exact and scores["f1"] == pytest.approx(f1)
    assert scores["word_f1"] == 0


def test_f1_of_scripts_with_spaces_stays_that_of_squad(v1):
    predictions = [{"id": "1", "prediction_text": "the 北京 opera", "no_answer_probability": 0.0}]
    references = [{"id": "1", "answers": {"text": ["Peking opera"], "answer_start": [0]}}]
    assert v1.compute(predictions=predictions, references=references) == {"exact_match": 0, "f1": 50}


def test_the_scripts_are_those_of_the_list_of_languages():
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    ours = [char for char in squad_answers._UNSPACED.findall(every) if char.isalpha()]
    listed = re.findall(f"[{IDEOGRAPHS}{LETTERS}{TIBETAN}]", every)
    assert ours == [char for char in listed if char.isalpha()]


def test_wrong_input(v2):
    with pytest.raises(ValueError, match="same ids in the same order"):
        v2.compute(
            predictions=[{"id": "a", "prediction_text": "x", "no_answer_probability": 0.0}],
            references=[{"id": "b", "answers": {"text": [], "answer_start": []}}],
        )
    with pytest.raises(ValueError, match="of 0 is NaN"):
        compute(v2, [("x", [], math.nan)])
    with pytest.raises(ValueError, match="unknown configuration 'v3'"):
        evaluate.load(METRIC, "v3")
