"""Sentences without their words of praise or blame: which are taken, what is masked, and which labels they get."""

import json
import random

import pytest
from conftest import read_splits

from data_prep.make_opinions import OpinionArguments, find_label, main, mask
from shared.errors import InputError


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """200 documents, each with two sentences of praise, one of blame, and some that are of neither use."""
    rng, documents = random.Random(0), []
    for number in rng.sample(range(2, 9999), 200):
        documents.append(
            f"The critics praised the excellent plot of film {number}. They found its music beautiful and its end "
            f"{number} brilliant. A reader of paper {number} called the very same\nfilm boring and dull. It was good "
            f"in part {number} and bad in others. Nobody saw film {number} in the whole of that year. The plot was "
            f"not good in film {number}."
        )
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    return str(path)


def make(text, folder, **more):
    return main(OpinionArguments([text], str(folder), **{"validation_fraction": 0.1, **more}))


def test_the_label_is_that_of_the_words_unless_they_disagree_or_are_denied():
    assert find_label("Critics praised its plot.") == "positive" and find_label("A DULL film.") == "negative"
    assert find_label("Critics saw it.") is None and find_label("Good music, bad plot.") is None
    assert find_label("It was not good.") is None and find_label("The goods were praiseworthy.") is None


def test_all_words_of_the_label_are_masked_and_no_others():
    assert (
        mask("Good \n music, the best of the goods.", "positive", "<mask>") == "<mask> music, the <mask> of the goods."
    )


def test_both_labels_are_equally_frequent_and_right(text, tmp_path):
    report = make(text, tmp_path / "opinions")
    splits = read_splits(tmp_path / "opinions")
    assert report["sentences"] == {name: len(rows) for name, rows in splits.items()}
    rows = [row for split in splits.values() for row in split]
    labels = [row["label"] for row in rows]
    assert labels.count("positive") == labels.count("negative") == report["of_each_label"] == 200
    for row in rows:
        assert "[MASK]" in row["sentence"] and "\n" not in row["sentence"] and find_label(row["sentence"]) is None
        assert row["label"] == ("negative" if "reader" in row["sentence"] else "positive")


def test_fewer_are_the_first_of_more_and_the_same_input_gives_the_same_bytes(text, tmp_path):
    for name in ("one", "two"):
        make(text, tmp_path / name, max_sentences=100)
    one, two = ((tmp_path / name / "train.parquet").read_bytes() for name in ("one", "two"))
    assert one == two and sum(map(len, read_splits(tmp_path / "one").values())) == 100
    make(text, tmp_path / "more")
    few, many = ({row["sentence"] for row in read_splits(tmp_path / name)["train"]} for name in ("one", "more"))
    assert few < many


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"max_sentences": 1}, "--max_sentences 1: must be at least 2"),
        ({"validation_fraction": 1e-9}, "--input: [0-9]+ sentences with an opinion; give more text"),
    ],
)
def test_wrong_flags_are_refused_and_leave_nothing(text, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        make(text, tmp_path / "opinions", **more)
    assert not (tmp_path / "opinions").exists()
