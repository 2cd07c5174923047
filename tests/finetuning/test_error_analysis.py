import json

import numpy as np
import pytest

from finetuning.common.error_analysis import (
    calibration_error,
    confusion_matrix,
    confusion_table,
    draw_reliability,
    label_table,
    reliability,
    score_by_length,
    worst_rows,
    write_error_analysis,
)
from shared.markdown import escape, markdown_table

PNG = b"\x89PNG\r\n"


def read_mistakes(folder):
    return [json.loads(line) for line in (folder / "worst_mistakes.jsonl").read_text().splitlines()]


def error_of(probabilities, labels, bins=15):
    """Of the predicted classes."""
    return calibration_error(*reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins))


def test_calibration_error_by_hand():
    # Two answers at .9, one of them right; two at .6, both right: (2 * |.9 - .5| + 2 * |.6 - 1|) / 4.
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    assert error_of(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0.4)
    # In one bin: |.75 - .75|.
    assert error_of(probabilities, np.array([0, 0, 0, 1]), bins=1) == pytest.approx(0, abs=1e-12)
    assert error_of(np.eye(3), np.arange(3)) == 0
    assert error_of(np.eye(3), np.array([1, 2, 0])) == 1


def test_bins_are_closed_above():
    counts, confidence, accuracy = reliability(np.array([0.0, 0.2, 0.21, 1.0]), np.array([0, 1, 1, 1]), bins=5)
    assert counts.tolist() == [2, 1, 0, 0, 1]
    assert confidence.tolist() == pytest.approx([0.1, 0.21, 0, 0, 1]) and accuracy.tolist() == [0.5, 1, 0, 0, 1]


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_has_not():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.5, 1, 20_000)
    labels = (rng.random(20_000) > chance).astype(int)
    assert error_of(np.stack([chance, 1 - chance], 1), labels) < 0.015
    sure = np.full(20_000, 0.99)
    assert error_of(np.stack([sure, 1 - sure], 1), labels) == pytest.approx(0.24, abs=0.01)


def test_length_bins_hold_every_row_once_and_equal_lengths_together():
    lengths = np.array([5] * 60 + list(range(6, 46)))
    scores = (lengths == 5).astype(float)
    bins = score_by_length(lengths, scores)
    assert [(part["from"], part["to"], part["rows"]) for part in bins] == [(5, 5, 60), (6, 25, 20), (26, 45, 20)]
    assert [part["score"] for part in bins] == [1, 0, 0]
    assert [part["rows"] for part in score_by_length(np.arange(100), scores)] == [20] * 5
    (one,) = score_by_length(np.array([7]), np.array([0.5]))
    assert one == {"from": 7, "to": 7, "rows": 1, "score": 0.5, "error": 0}
    (part,) = score_by_length(np.array([3, 3, 3, 3]), np.array([True, False, True, False]))
    assert (part["score"], part["error"]) == (0.5, 0.25)


def test_worst_rows_are_wrong_ones_by_falling_loss():
    losses, wrong = np.array([1.0, 9.0, 3.0, 3.0, 4.0]), np.array([True, False, True, True, True])
    assert worst_rows(losses, wrong) == [4, 2, 3, 0]
    assert worst_rows(losses, wrong, most=2) == [4, 2]
    assert worst_rows(losses, ~wrong | True, most=1) == [1]


def test_confusions():
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    table = confusion_table(matrix, ["a", "b|c", "d"]).splitlines()
    assert table[2:] == ["| **a** | 1 | 1 | 0 |", "| **b\\|c** | 0 | 1 | 0 |", "| **d** | 1 | 0 | 0 |"]
    many = confusion_matrix(np.array([3, 3, 3, 5, 9]), np.array([4, 4, 3, 6, 9]), 150)
    assert confusion_table(many, [f"n{i}" for i in range(150)]).splitlines()[2:] == [
        "| n3 | n4 | 2 |",
        "| n5 | n6 | 1 |",
    ]


def test_label_table_shows_what_is_undefined_as_undefined():
    rows = label_table(np.array([2, 0]), np.array([4, 1]), np.array([3, 0]), ["a", "b"]).splitlines()[2:]
    assert rows == ["| a | 0.667 | 0.500 | 0.571 | 4 | 3 |", "| b | – | 0.000 | 0.000 | 1 | 0 |"]
    assert markdown_table(["a", "b"], [["x", 1234]]) == "| a | b |\n| --- | ---: |\n| x | 1,234 |"


def test_text_cannot_break_the_page():
    assert escape("a\n# b | <script>*x*") == r"a \# b \| \<script\>\*x\*"
    assert escape("x" * 600) == "x" * 500 + " ..." and escape("nul \x00 \u202e") == "nul � �"


def test_single_label(tmp_path):
    names, gold = ["negative", "positive"], np.array([0, 1, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], dtype=np.float32)
    rows = [{"text_a": f"first {i}", "text_b": "| *second*\nline", "other": object()} for i in range(4)]
    summary = write_error_analysis(
        tmp_path / "new", "single_label_classification", rows, ["text_a", "text_b"], [5, 6, 7, 8], gold, probabilities,
        names,
    )  # fmt: skip
    assert summary == {"expected_calibration_error": pytest.approx((0.1 + 0.8 + 0.3 + 0.6) / 4)}
    worst, second = read_mistakes(tmp_path / "new")
    assert worst == {
        "index": 1, "gold": "positive", "predicted": "negative", "probability": pytest.approx(0.8),
        "loss": pytest.approx(-np.log(0.2)), "tokens": 6,
        "text": {"text_a": "first 1", "text_b": "| *second*\nline"},
    }  # fmt: skip
    assert (second["index"], second["gold"], second["predicted"]) == (3, "negative", "positive")
    page = (tmp_path / "new" / "errors.md").read_text()
    assert page.startswith("# Error analysis\n")
    assert "Accuracy 0.500 on 4 rows; 0.500 for always saying **negative**" in page
    assert "| **positive** | 1 | 1 |" in page and "2 of 4 rows are wrong" in page
    assert r"- text\_b: \| \*second\* line" in page and "reliability.png" in page
    assert (tmp_path / "new" / "reliability.png").read_bytes().startswith(PNG)


def test_a_model_that_is_always_right_or_sure_and_wrong(tmp_path):
    rows = [{"s": "x"}, {"s": "y"}]
    args = ("single_label_classification", rows, ["s"], [1, 1])
    assert write_error_analysis(tmp_path, *args, [0, 1], np.eye(2), ["a", "b"])["expected_calibration_error"] == 0
    assert read_mistakes(tmp_path) == [] and "0 of 2 rows are wrong" in (tmp_path / "errors.md").read_text()
    write_error_analysis(tmp_path, *args, [1, 0], np.eye(2), ["a", "b"])  # probability 0: the loss stays finite
    assert [mistake["loss"] for mistake in read_mistakes(tmp_path)] == [pytest.approx(87.3, abs=0.1)] * 2


def test_multi_label(tmp_path):
    gold = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=np.float32)
    probabilities = np.array([[0.9, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.9]])
    rows = [{"sentence": f"row {i}"} for i in range(3)]
    summary = write_error_analysis(
        tmp_path,
        "multi_label_classification",
        rows,
        ["sentence"],
        [3, 4, 5],
        gold,
        probabilities,
        ["joy", "fear", "x"],
    )
    assert 0 < summary["expected_calibration_error"] < 1
    first, second = read_mistakes(tmp_path)
    assert first["index"] == 1 and (first["gold"], first["predicted"]) == (["joy", "fear"], ["fear"])
    assert first["probabilities"] == {"joy": 0.1, "fear": 0.6}
    assert first["loss"] == pytest.approx(-np.log(0.1 * 0.6 * 0.7))
    assert (second["gold"], second["predicted"]) == ([], ["x"])
    page = (tmp_path / "errors.md").read_text()
    assert "All labels right in 0.333 of 3 rows" in page and "1 rows get none" not in page
    assert "| joy | 1.000 | 0.500 | 0.667 | 2 | 1 |" in page and "| x | 0.000 | – | 0.000 | 0 | 1 |" in page
    assert "gold **none**, predicted **x**" in page
    assert (tmp_path / "reliability.png").read_bytes().startswith(PNG)


def test_regression(tmp_path):
    gold, predicted = np.array([0.0, 1, 2, 5]), np.float32([0, 2, 2, 2])
    rows = [{"s1": f"a{i}", "s2": f"b{i}"} for i in range(4)]
    summary = write_error_analysis(tmp_path, "regression", rows, ["s1", "s2"], [2, 3, 4, 5], gold, predicted)
    assert summary == {"mean_absolute_error": 1.0}
    assert [mistake["index"] for mistake in read_mistakes(tmp_path)] == [3, 1]
    assert read_mistakes(tmp_path)[0] == {
        "index": 3, "gold": 5, "predicted": 2, "error": -3, "tokens": 5, "text": {"s1": "a3", "s2": "b3"}
    }  # fmt: skip
    assert (tmp_path / "scatter.png").read_bytes().startswith(PNG)
    page = (tmp_path / "errors.md").read_text()
    assert "correlations are undefined" not in page and "rows are wrong" not in page
    write_error_analysis(tmp_path, "regression", rows, ["s1", "s2"], [2, 3, 4, 5], gold, np.full(4, 1.5), ["LABEL_0"])
    assert "correlations are undefined, and reported as 0" in (tmp_path / "errors.md").read_text()


def test_only_the_worst_rows_are_read_and_shown(tmp_path):
    class Rows:
        read = 0

        def __len__(self):
            return 5000

        def __getitem__(self, index):
            self.read += 1
            return {"s": "word " * 1000}

    rows = Rows()
    predicted = np.tile([0.3, 0.7], (5000, 1))
    args = (["s"], np.arange(5000), np.zeros(5000, int), predicted, ["a", "b"])
    write_error_analysis(tmp_path, "single_label_classification", rows, *args)
    assert rows.read == len(read_mistakes(tmp_path)) == 100
    assert (tmp_path / "errors.md").stat().st_size < 20_000


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    rows = [{"s": "x"}, {"s": "y"}]
    for gold, predicted, lengths in (([0], np.eye(2), [1, 1]), ([0, 1], np.eye(2), [1]), ([0, 1], np.eye(3), [1, 1])):
        with pytest.raises(ValueError, match="2 rows"):
            write_error_analysis(
                tmp_path, "single_label_classification", rows, ["s"], lengths, gold, predicted, ["a", "b"]
            )
    with pytest.raises(ValueError, match="0 rows"):
        write_error_analysis(tmp_path, "regression", [], ["s"], [], [], [])
    assert not list(tmp_path.iterdir())


def test_a_picture_of_answers_of_any_kind(tmp_path):
    draw_reliability(np.array([0.2, 0.4]), np.array([True, False]), tmp_path / "one" / "answers.png")
    assert (tmp_path / "one" / "answers.png").read_bytes().startswith(PNG)
