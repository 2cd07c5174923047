"""Questions made of statements: what is asked for, where the answers stand, and that run_qa can read them."""

import json
import random

import pytest
from conftest import read_splits

from data_prep.make_questions import QuestionArguments, ask, find_answers, main
from finetuning.common.data import Split
from finetuning.qa.squad import check_questions
from shared.errors import InputError

SENTENCE = "In March 1912 Robert Falcon Scott left the South Pole with five men, 80 kg of stones and a small sledge."
NAMES = ["Amundsen", "Robert Scott", "Ann Bancroft", "Nansen", "Mary Seacole", "Ibn Battuta", "Zheng He", "Sacagawea"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """303 documents of two paragraphs, three of them twice, and one that is too short."""
    rng, documents = random.Random(0), ["Too short."]
    for _ in range(300):
        paragraphs = [
            " ".join(
                f"{rng.choice(NAMES)} went from Oslo to {rng.choice(NAMES)} Bay in {rng.randint(1800, 2020)}, and "
                f"{rng.randint(2, 90)} people saw the {rng.choice(['red', 'blue'])} ship of the company leave."
                for _ in range(5)
            )
            for _ in range(2)
        ]
        documents.append("\n".join(paragraphs))
    documents += documents[-3:]  # of which no question may be twice
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    return str(path)


def make(text, folder, **more):
    return main(QuestionArguments([text], str(folder), **{"validation_fraction": 0.1, **more}))


def test_names_dates_numbers_and_nouns_are_asked_for():
    found = [(one.kind, SENTENCE[one.start : one.end]) for one in find_answers(SENTENCE)]
    assert found == [
        ("date", "March 1912"),
        ("name", "Robert Falcon Scott"),
        ("name", "South Pole"),
        ("number", "five"),
        ("number", "80 kg"),
        ("noun", "small sledge"),
    ]


def test_a_question_has_words_of_its_sentence_without_the_answer():
    scott = next(one for one in find_answers(SENTENCE) if SENTENCE[one.start :].startswith("Robert"))
    asked = [ask(SENTENCE, scott, random.Random(seed)) for seed in range(50)]
    words = [question.rstrip("?").split() for question in asked if question]
    assert len(words) > 40 and not any({"Robert", "Falcon", "Scott"} & set(one) for one in words)
    own = "who what which is the name of did was does were when"  # question words and auxiliaries
    assert all(set(one) <= set(SENTENCE.replace(",", "").replace(".", "").split()) | set(own.split()) for one in words)


def test_answers_stand_where_they_are_said_to_and_run_qa_reads_the_folder(text, tmp_path):
    report = make(text, tmp_path / "questions")
    splits = read_splits(tmp_path / "questions")
    assert report["questions"] == {name: len(rows) for name, rows in splits.items()} and len(splits["train"]) > 500
    assert sum(report["answers"].values()) == sum(report["questions"].values())
    assert report["skipped"] == {"nothing to ask for": 1}
    for rows in splits.values():
        check_questions(
            Split(rows, "questions"), True, False, False
        )  # raises for an answer elsewhere, and for a repeated id
        for context, answers in zip(rows["context"], rows["answers"], strict=True):
            start, found = answers["answer_start"][0], answers["text"][0]
            assert context[start : start + len(found)] == found
    assert not set(splits["train"]["context"]) & set(splits["validation"]["context"])


def test_the_same_settings_give_the_same_bytes_and_more_questions_only_add(text, tmp_path):
    for name, most in (("all", 1000), ("again", 1000), ("fewer", 300)):
        make(text, tmp_path / name, max_questions=most)
    both = [(tmp_path / name / "train.parquet").read_bytes() for name in ("all", "again")]
    assert both[0] == both[1]
    fewer, more = (
        {one for rows in read_splits(tmp_path / name).values() for one in rows["id"]} for name in ("fewer", "all")
    )
    assert len(fewer) == 300 and fewer < more


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"max_questions": 1}, "--max_questions 1: must be at least 2"),
        ({"validation_fraction": 1}, "--validation_fraction 1: must be above 0 and below 1"),
        ({"validation_fraction": 1e-9}, "--input: [0-9]+ questions, none of them in validation; give more text"),
    ],
)
def test_wrong_flags_are_refused_and_leave_nothing(text, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        make(text, tmp_path / "questions", **more)
    assert not (tmp_path / "questions").exists()
