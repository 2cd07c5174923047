"""Edits of plain text: that each kind does what it says, marks the right words, and that run_ner can read them."""

import json
import random
from collections import Counter

import pytest
from conftest import read_splits

from data_prep.corpus.made_tasks import SentenceTaskArguments, draw_sentences
from data_prep.make_edits import EDITS, add, find_forms, leave_out, main, move, replace, replace_function_word, swap
from finetuning.common.data import Split
from finetuning.ner.sentences import find_types
from shared.documents import Documents
from shared.errors import InputError

FORMS = {"walked": ["walk", "walks"]}
WORDS = ["Anna", "Hill", "walked", "to", "the", "old", "bridge", "in", "Lima", "."]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """300 documents of three sentences that hold forms of the same verb, and one that is too short."""
    rng, documents = random.Random(0), ["Too short."]
    for _ in range(300):
        number = rng.randint(2, 999)
        documents.append(
            f"The {number} horses walked to the river in the rain. Nobody in town walks to bridge {number} again. "
            f"They will walk over the hill on day {number}."
        )
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    return str(path)


def make(text, folder, **more):
    return main(SentenceTaskArguments([text], str(folder), **{"validation_fraction": 0.1, **more}))


def tries(kind):
    """What an edit makes of the sentence, and of what it marks, with many seeds."""
    found = [kind(WORDS, FORMS, random.Random(seed)) for seed in range(200)]
    return [one for one in found if one is not None]


def test_a_swap_marks_both_words_and_a_move_the_one_that_moved():
    for words, places in tries(swap):
        first, second = places
        assert second == first + 1 and words[first] == WORDS[second] and words[second] == WORDS[first]
        assert sorted(words) == sorted(WORDS) and words[-1] == "."
    for words, (place,) in tries(move):
        assert sorted(words) == sorted(WORDS) and words[-1] == "."
        rest, before = words[:place] + words[place + 1 :], [one for one in WORDS if one != words[place]]
        assert rest == before and abs(WORDS.index(words[place]) - place) > 1


def test_a_word_is_left_out_or_added_where_the_mark_is():
    for words, (place,) in tries(leave_out):
        assert words == WORDS[:place] + WORDS[place + 1 :]
    for words, (place,) in tries(add):
        assert words[:place] + words[place + 1 :] == WORDS


def test_words_give_way_to_words_of_their_kind():
    assert {(" ".join(words), *places) for words, places in tries(replace)} == {
        ("Anna Hill walk to the old bridge in Lima .", 2),
        ("Anna Hill walks to the old bridge in Lima .", 2),
    }
    for words, (place,) in tries(replace_function_word):
        assert words[place] != WORDS[place] in ("to", "the", "in")
    assert replace(["Walked"], FORMS, random.Random(0))[0][0] in ("Walk", "Walks")
    assert replace(["Lima"], FORMS, random.Random(0)) is None


def test_forms_are_frequent_words_with_other_endings():
    family = ["walk", "walks", "walked", "bake", "bakes", "baked", "baking", "carry", "carries", "carried"]
    often = dict.fromkeys([*family, "thing", "the", "lima"], 10)
    forms = find_forms(Counter(often | {"walking": 9}))
    assert forms["walk"] == ["walked", "walks"] and forms["baking"] == ["bake", "baked", "bakes"]
    assert forms["carried"] == ["carries", "carry"] and not {"walking", "thing", "the", "lima"} & forms.keys()


def test_run_ner_reads_the_folder_and_half_of_it_is_edited(text, tmp_path):
    report = make(text, tmp_path / "edits")
    splits = read_splits(tmp_path / "edits")
    assert report["sentences"] == {name: len(rows) for name, rows in splits.items()}
    assert report["skipped"]["no sentence of a fitting length"] == 1
    assert find_types(Split(splits["train"], "edits"), "ner_tags") == ["EDIT"]
    rows = [row for split in splits.values() for row in split]
    edited = [row for row in rows if "B-EDIT" in row["ner_tags"]]
    assert 0.4 < len(edited) / len(rows) < 0.6 and all(len(row["tokens"]) == len(row["ner_tags"]) for row in rows)
    assert set(report["edits"]) == {"none", *(kind.__name__ for kind in EDITS)}
    assert report["edits"]["none"] == len(rows) - len(edited)
    assert any("walks" in row["tokens"] and "will" in row["tokens"] for row in edited)


def test_a_sentence_that_documents_share_is_taken_once_and_for_one_side(tmp_path):
    shared = "All rights are reserved by the owner of this small page."
    texts = [f"{shared} The baker number{i} sold a loaf of bread to the old miller." for i in range(120)]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    kept = draw_sentences(SentenceTaskArguments([str(path)], "", validation_fraction=0.2), Documents([str(path)]))
    found = [" ".join(words) for _, words in kept]
    assert len(found) == len(set(found)) == 121
    assert [held_out for held_out, words in kept if words[0] == "All"] == [False]
    some = draw_sentences(SentenceTaskArguments([str(path)], "", max_sentences=30), Documents([str(path)]))
    assert [words for _, words in some] == [words for _, words in kept][:30]


def test_the_same_input_gives_the_same_bytes(text, tmp_path):
    for name in ("one", "two"):
        make(text, tmp_path / name)
    make(text, tmp_path / "other", seed=7)
    one, two, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two", "other")
    )
    assert one == two and one["train.parquet"] != other["train.parquet"]


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"max_words": 4}, "--max_words 4"),
        ({"max_sentences": 1}, "--max_sentences 1"),
        ({"validation_fraction": 1e-9}, "--input"),
    ],
)
def test_bad_settings_are_named(text, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        make(text, tmp_path / "edits", **flags)
    assert not (tmp_path / "edits").exists()
