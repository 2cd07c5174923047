import json
import os
import re

import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from finetuning.common.data import Split
from finetuning.qa.squad import QuestionArguments, as_answers, check_questions, has_answers, read_questions
from shared.errors import InputError

CONTEXT = "The baker lives in Oslo. His horse lives in Rome."
NESTED = {
    "version": "v2.0",
    "data": [
        {
            "title": "Bakers",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "Where does the baker live?",
                            "answers": [{"text": "Oslo", "answer_start": 19}, {"text": "in Oslo", "answer_start": 16}],
                            "is_impossible": False,
                        },
                        {
                            "id": "q2",
                            "question": "Where does the cow live?",
                            "answers": [],
                            "plausible_answers": [{"text": "Rome", "answer_start": 44}],
                            "is_impossible": True,
                        },
                    ],
                },
                {"context": "It rains.", "qas": [{"id": "q3", "question": "What?", "answers": []}]},
            ],
        }
    ],
}
ROWS = [
    {
        "id": "q1",
        "question": "Where does the baker live?",
        "context": CONTEXT,
        "answers": {"text": ["Oslo", "in Oslo"], "answer_start": [19, 16]},
    },
    {
        "id": "q2",
        "question": "Where does the cow live?",
        "context": CONTEXT,
        "answers": {"text": [], "answer_start": []},
    },
    {"id": "q3", "question": "What?", "context": "It rains.", "answers": {"text": [], "answer_start": []}},
]


def check(rows, with_answers=True, with_negative=True, drop_misplaced=False):
    rows = Dataset.from_list(rows) if isinstance(rows, list) else rows
    return check_questions(Split(rows, "file.json"), with_answers, with_negative, drop_misplaced)


def changed(number=0, **changes):
    rows = [dict(row) for row in ROWS]
    rows[number] |= changes
    return rows


def write(path, rows):
    kind = "".join(path.suffixes)
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == ".json":
        path.write_text(json.dumps(rows))
    elif kind == ".parquet":
        pq.write_table(Dataset.from_list(rows).data.table, path)
    else:
        Dataset.from_list([row | {"answers": json.dumps(row["answers"])} for row in rows]).to_csv(path)
    return str(path)


def plain(questions):
    return [{name: row[name] for name in ("id", "question", "context", "answers")} for row in questions.rows]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json", "a.csv"])
def test_flat_files(tmp_path, name):
    assert plain(check(read_questions(write(tmp_path / name, ROWS)))) == ROWS


def test_nested_json(tmp_path):
    assert plain(check(read_questions(write(tmp_path / "a.json", NESTED)))) == ROWS
    assert plain(check(read_questions(write(tmp_path / "b.json", {"data": ROWS})))) == ROWS


def test_json_lines_may_be_called_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert plain(check(read_questions(str(path)))) == ROWS


def test_answers_in_every_form():
    wanted = {"text": ["x", "y"], "answer_start": [1, 2]}
    pairs = [{"text": "x", "answer_start": 1}, {"text": "y", "answer_start": 2}]
    for form in (wanted, pairs, json.dumps(wanted), json.dumps(pairs)):
        assert as_answers(form, "row 1") == wanted
    assert as_answers([], "row 1") == {"text": [], "answer_start": []}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Oslo", "must be.*there is 'Oslo'"),
        ({"text": ["x"]}, "must be"),
        ({"text": ["x"], "answer_start": []}, "1 answers, but 0 values of answer_start"),
        ({"text": [None], "answer_start": [1]}, "there is the answer None"),
        ({"text": [" "], "answer_start": [1]}, "there is the answer ' '"),
        ({"text": ["x"], "answer_start": [None]}, "answer_start of 'x' is None"),
        ({"text": ["x"], "answer_start": ["1"]}, "answer_start of 'x' is '1'"),
        (7, "must be"),
        (None, "must be"),
    ],
)
def test_answers_in_no_form(value, message):
    with pytest.raises(InputError, match=f"^row 1: .*{message}"):
        as_answers(value, "row 1")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, id="q1"), "row 2: its id q1 is that of row 1 .1 such rows"),
        (changed(1, context=None), "row 2: column context is empty"),
        (changed(2, question=None), "row 3: column question is empty"),
        (changed(2, id=None), "row 3: column id is empty"),
        (changed(1, answers=None), "row 2: column answers is empty"),
        (changed(1, context=" \n"), r"row 2 \(id q2\): its context is empty"),
        (changed(1, question=""), r"row 2 \(id q2\): its question is empty"),
        ([{"id": "q", "question": 1, "context": "x", "answers": ROWS[1]["answers"]}], "column question holds int64"),
        ([{"id": "q", "question": "x", "text": "x"}], "no column context; there are id, question, text"),
        ([{"id": "q", "question": "x", "context": "x"}], "no column answers; there are id, question, context"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(InputError, match=f"file.json: .*{message}"):
        check(rows)


def test_questions_without_answers_need_the_flag():
    with pytest.raises(InputError, match=r"row 2 \(id q2\): has no answer; .*--version_2_with_negative"):
        check(ROWS, with_negative=False)
    assert has_answers(check(ROWS).rows).tolist() == [True, False, False]
    assert plain(check(ROWS[:1], with_negative=False)) == ROWS[:1]


def test_misplaced_answers_are_listed_and_dropped():
    answers = [{"text": ["Rome", "Oslo"], "answer_start": [19, 19]}, {"text": ["Rome"], "answer_start": [900]}]
    rows = changed(0, answers=answers[0])
    rows[1] |= {"answers": answers[1]}
    rows.append(ROWS[0] | {"id": "q4", "answers": {"text": ["Oslo"], "answer_start": [-30]}})
    with pytest.raises(
        InputError, match=r"3 answers are not .*row 1 \(id q1\): 'Rome' at 19, where 'Oslo' stands;.*drop_misp"
    ):
        check(rows)
    kept = check(rows, drop_misplaced=True)
    assert kept.rows["id"][:] == ["q1", "q3"] and kept.dropped == 2
    assert kept.rows[0]["answers"] == {"text": ["Oslo"], "answer_start": [19]}
    assert has_answers(kept.rows).tolist() == [True, False]
    assert [(line["where"], line["row"], line["id"], line["there"]) for line in kept.misplaced] == [
        ("file.json", 1, "q1", "Oslo"), ("file.json", 2, "q2", ""), ("file.json", 4, "q4", ""),
    ]  # fmt: skip
    with pytest.raises(InputError, match="no question is left"):
        check(rows[1:2], drop_misplaced=True)


def test_offsets_are_characters():
    context = "Zürich 🥖 Oslo"
    answers = {"text": ["Oslo"], "answer_start": [9]}
    assert not check([{"id": "1", "question": "?", "context": context, "answers": answers}]).misplaced


@pytest.mark.parametrize("absent", ["column", "empty", "null"])
def test_a_test_set_without_answers(absent):
    rows = [dict(row) for row in ROWS]
    for row in rows:
        row["answers"] = {"text": [], "answer_start": []} if absent == "empty" else None
    rows = Dataset.from_list(rows)
    rows = rows.remove_columns("answers") if absent == "column" else rows
    found = check(rows, with_answers=False, with_negative=False)
    assert found.rows.column_names == ["question", "context", "id"] and len(found.rows) == 3


def test_a_test_set_with_answers_keeps_them():
    assert plain(check(ROWS, with_answers=False)) == ROWS


def test_whole_numbers_are_ids():
    assert check([row | {"id": number} for number, row in enumerate(ROWS)]).rows["id"][:] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [{"paragraphs": [{"qas": [{"id": 1, "question": "x"}]}]}]}', "entry 1: not as in SQuAD: .*context"),
        ('{"data": [{"paragraphs": [3]}]}', "entry 1: not as in SQuAD"),
        ('{"data": [3]}', "entry 1: is int, not an object"),
        ('{"data": [', "a.json"),
        ("", "a.json"),
    ],
)
def test_damaged_json_is_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_questions(str(path))


@pytest.mark.parametrize("name", ["id", "question", "context", "answer"])
def test_a_column_has_one_role(name):
    flag, other = f"{name}_column", "question_column" if name == "id" else "id_column"
    with pytest.raises(InputError, match=rf"--{flag}.*: column x is taken twice; each needs one of its own"):
        QuestionArguments(**{flag: "x", other: "x"})


def test_columns_with_the_names_of_others_are_renamed():
    args = QuestionArguments(question_column="context", context_column="question", id_column="key")
    rows = [{"key": "1", "id": "2", "question": "The sky is blue.", "context": "What is blue?"}]
    split = args.rename_columns(Split(Dataset.from_list(rows), "data"), needs_answers=False)
    assert split.rows[0] == {"id": "1", "question": "What is blue?", "context": "The sky is blue."}


@pytest.mark.parametrize(("name", "value"), [("id", [1]), ("question", 7), ("context", {"a": 1}), ("context", None)])
def test_entries_that_are_no_text_are_named(tmp_path, name, value):
    nested = json.loads(json.dumps(NESTED))
    paragraph = nested["data"][-1]["paragraphs"][-1]
    (paragraph if name == "context" else paragraph["qas"][-1])[name] = value
    message = (
        rf"a\.json: data, entry {len(nested['data'])}: question .*: its {name} is {re.escape(str(value))}, not text"
    )
    with pytest.raises(InputError, match=message):
        read_questions(write(tmp_path / "a.json", nested))


def test_ids_of_several_types_are_text(tmp_path):
    nested = json.loads(json.dumps(NESTED))
    nested["data"][0]["paragraphs"][0]["qas"][0]["id"] = 7
    for content in (nested, {"data": [ROWS[0] | {"id": 7}, *ROWS[1:]]}):
        assert check(read_questions(write(tmp_path / "a.json", content))).rows["id"][0] == "7"


def test_impossible_with_answers_is_refused(tmp_path):
    nested = json.loads(json.dumps(NESTED))
    nested["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"] = True
    with pytest.raises(InputError, match="question q1: is_impossible, but has answers"):
        read_questions(write(tmp_path / "a.json", nested))


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_questions(str(tmp_path / "none.json"))
    (tmp_path / "a.xml").write_text("x")
    with pytest.raises(InputError, match="unknown kind of file"):
        read_questions(str(tmp_path / "a.xml"))


@pytest.mark.data
@pytest.mark.skipif("TINY_OLM_DATA" not in os.environ, reason="TINY_OLM_DATA is not set")
def test_the_squad_sample_is_whole():
    path = f"{os.environ['TINY_OLM_DATA']}/squad_sample/validation.parquet"
    found = check(read_questions(path), with_negative=False)
    assert len(found.rows) == 485 and not found.misplaced
