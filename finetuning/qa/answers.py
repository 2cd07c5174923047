"""The files of a question-answering run: its answers, and where it errs."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.common.error_analysis import confusion_matrix, length_table, worst_rows, write_json_lines, write_page
from finetuning.metrics.squad_answers import is_unspaced, score_answer
from finetuning.qa.spans import BestAnswers
from finetuning.qa.squad import Questions
from shared.files import atomic_file
from shared.markdown import markdown_table

_KIND = re.compile(r"\b(how many|how much|how|what|which|whose|whom|who|when|where|why)\b", re.IGNORECASE)


def question_kind(question: str) -> str:
    """Its first question word in lower case, or "other"."""
    found = _KIND.search(question)
    return found[1].lower() if found else "other"


def kind_table(kinds: list[str], exact: np.ndarray, f1: np.ndarray) -> str:
    """Scores of each kind of question as Markdown, the most frequent kind first."""
    of_kind = np.array(kinds)
    rows = [
        [name, count, f"{exact[of_kind == name].mean():.3f}", f"{f1[of_kind == name].mean():.3f}"]
        for name, count in Counter(sorted(kinds)).most_common()
    ]
    return markdown_table(["question word", "questions", "exact match", "F1"], rows)


def given_answers(questions: Any, best: BestAnswers, threshold: float | None) -> list[str]:
    """The answer to each question, "" where no answer scores by more than `threshold` better."""
    texts = best.texts(questions["context"])
    return [
        "" if threshold is not None and value > threshold else text
        for text, value in zip(texts, best.odds.tolist(), strict=True)
    ]


def write_predictions(folder: Path, prefix: str, questions: Any, best: BestAnswers, threshold: float | None) -> None:
    """Write the answers in the order of the questions, as SQuAD's scripts do.

    predictions.json: id to text, "" for no answer. nbest_predictions.json: id to `BestAnswers.n_best`. With a
    threshold also null_odds.json: id to how much more no answer scores than the best one.
    """
    ids, answers = questions["id"][:], given_answers(questions, best, threshold)
    n_best = best.n_best(questions["context"], with_null=threshold is not None)
    _write_object(folder / f"{prefix}predictions.json", zip(ids, answers, strict=True))
    _write_object(folder / f"{prefix}nbest_predictions.json", zip(ids, n_best, strict=True))
    if threshold is not None:
        _write_object(folder / f"{prefix}null_odds.json", zip(ids, best.odds.tolist(), strict=True))


def _write_object(path: Path, entries: Iterable[tuple[str, Any]]) -> None:
    """A JSON object with an entry per line, one of which at a time is in memory."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for number, (name, value) in enumerate(entries):
            key, content = json.dumps(name, ensure_ascii=False), json.dumps(value, ensure_ascii=False, allow_nan=False)
            file.write(("," if number else "{") + f"\n{key}: {content}")
        file.write("\n}\n")


def write_misplaced(record: Any, questions: dict[str, Questions]) -> None:
    """Write the answers that were left out, if there are any, as misplaced_answers.jsonl, and say how many."""
    misplaced = [answer for split in questions.values() for answer in split.misplaced]
    if misplaced and record.is_writer:
        write_json_lines(record.folder / "misplaced_answers.jsonl", misplaced)
        dropped = sum(split.dropped for split in questions.values())
        record.print(f"Left out {len(misplaced):,} misplaced answers and {dropped:,} questions that have no other.")


def write_answer_errors(folder: Path, questions: Any, best: BestAnswers, threshold: float | None) -> None:
    """Write errors.md and worst_mistakes.jsonl into `folder`.

    `questions`: a Dataset with id, question, context and answers, and `best` what was found for them. A mistake is the
    worse the lower its F1 and the higher the probability of what was answered.
    """
    answers = given_answers(questions, best, threshold)
    shares, null_shares = best.probabilities(with_null=threshold is not None)
    confidence = np.where([bool(text) for text in answers], shares[:, 0], null_shares)
    golds = [value["text"] for value in questions["answers"]]
    how = (threshold is not None, is_unspaced([text for gold in golds for text in gold]))
    scores = [score_answer(text, gold, *how) for text, gold in zip(answers, golds, strict=True)]
    exact, f1 = np.array(scores).T
    words = np.array([len(context.split()) for context in questions["context"][:]])
    is_answered, is_answerable = (np.array([bool(value) for value in values]) for values in (answers, golds))
    matrix = confusion_matrix(~is_answerable, ~is_answered, 2).tolist()
    rows = [["has an answer", *matrix[0]], ["has none", *matrix[1]]]
    table = markdown_table(["", "answered", "not answered"], rows)
    mistakes = []
    for row in worst_rows((1 - f1) * confidence, f1 < 1):
        question = questions[row]
        mistakes.append(
            {
                "index": row,
                "id": question["id"],
                "predicted": answers[row],
                "gold": question["answers"]["text"],
                "probability": float(confidence[row]),
                "f1": float(f1[row]),
                "text": {"question": question["question"], "context": question["context"]},
            }
        )
    wrong = (
        f"Exact match {exact.mean():.3f}, F1 {f1.mean():.3f} on {len(f1):,} questions; the answers to "
        f"{int((f1 == 0).sum()):,} share no {'character' if how[1] else 'word'} with a right one."
    )
    more = f"Likeliest and most wrong first; `worst_mistakes.jsonl` holds {len(mistakes)}, with their whole context."
    sections = {
        "Overview": f"{wrong}\n\n{table}",
        "Scores by question word": kind_table([question_kind(text) for text in questions["question"][:]], exact, f1),
        "F1 by length of the context": length_table(words, f1, "F1", "words"),
        "Worst mistakes": more,
    }
    write_page(folder, sections, mistakes)
