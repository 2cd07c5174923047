"""Make questions, with their answers in a text, out of the statements of documents.

    python data_prep/make_questions.py --input data/corpus --output_dir data/questions

Each is a part of a sentence without a name, date, number or noun phrase, which is its answer, with a question word
("where did Engel 1994 in The work third its kind in?"), as in Lewis et al., 2019, Unsupervised Question Answering by
Cloze Translation. Nobody would ask like this, but a model that learns to answer has learned to look up in one text
what another one asks for, which plain masking does not teach a small one. For English: capitals and word lists. Writes
train.parquet and validation.parquet with the columns of SQuAD, for --dataset_name of finetuning/run_qa.py, and
report.json. The same input and settings give the same bytes, and more of --max_questions only adds.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data_prep.corpus.made_tasks import SENTENCE_END, Lowest, TaskArguments, write_task
from shared.command_line import check_ranges, run_script
from shared.documents import Documents, is_held_out
from shared.errors import InputError

CONTEXT_WORDS = (40, 130)
SENTENCE_WORDS = 7  # in a shorter one there is nothing to ask for
ANSWER_WORDS = 6
PARAGRAPHS, QUESTIONS = 3, 2  # of a document, and of a paragraph, at most
MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
UNIT = r"(?:\s?%|\s+(?:million|billion|percent|per cent|km|miles|m|kg|years|days|people))"
NUMBER_WORDS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundreds|thousands"
CAPITAL = r"[A-Z][\w'’.-]*"
# In this order: what one has found is gone for the next.
ANSWERS = {
    "date": re.compile(rf"\b((?:\d{{1,2}}\s+)?{MONTH}(?:\s+\d{{1,2}})?(?:,?\s+\d{{4}})?|(?:1[0-9]|20)\d\d)\b"),
    "name": re.compile(rf"\b({CAPITAL}(?:\s+(?:of|the|de|van|von|and)\s+{CAPITAL}|\s+{CAPITAL}|\s+\d+)*)"),
    "number": re.compile(rf"(?<!\w)([$£€]?\d[\d,.]*{UNIT}?|(?:{NUMBER_WORDS})\b)"),
    "noun": re.compile(
        r"\b(?:the|an?|his|her|its|their)\s+((?:[a-z-]+\s+){0,3}[a-z-]{4,})"
        r"(?=[.,;:]|\s+(?:of|in|on|at|by|for|with|from|to|and|that|which|who|was|is|were|are|had|has)\b)"
    ),
}
CHANCE = {"date": 0.6, "name": 0.7, "number": 0.5, "noun": 0.5}  # of being asked for
OF_A_KIND = 3  # in the context at least, or the question word alone would give away the answer
ASKS = {
    "date": ["when", "when", "in what year", "what year", "on what date"],
    "number": ["how many", "how much", "what number of"],
    "noun": ["what", "what", "what kind of", "which", "how"],
    "place": ["where", "where", "what", "in what place", "what city", "what country"],
    "person": ["who", "who", "what", "which"],
    "name": ["who", "what", "what", "which", "what is the name of"],
}
AUXILIARIES = ["did", "was", "is", "does", "were", ""]
JOINING_WORDS = "in|on|at|by|for|with|from|to|of|as|during|since|until|about|around|over|under|the|an?|and"
JOINING = re.compile(JOINING_WORDS, re.IGNORECASE)
LIGHT = re.compile(
    rf"{JOINING_WORDS}|that|which|who|was|is|were|are|had|has|his|her|its|their|it|he|she|they|this|be|or",
    re.IGNORECASE,
)


@dataclass
class QuestionArguments(TaskArguments):
    max_questions: int = field(default=80_000, metadata={"help": "Keep as many at most, chosen by a hash."})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, max_questions=">= 2")


class Answer(NamedTuple):
    """A part of a sentence that can be asked for."""

    kind: str
    start: int
    end: int


def find_answers(sentence: str) -> list[Answer]:
    """What can be asked for in a sentence; no two overlap. A capital alone makes no name of the first word."""
    found: list[Answer] = []
    for kind, pattern in ANSWERS.items():
        left = sentence
        for one in found:
            left = left[: one.start] + "\0" * (one.end - one.start) + left[one.end :]
        for match in pattern.finditer(left):
            text = match[1].rstrip(".,")
            if kind != "name" or match.start(1) > 0 or " " in text:
                found.append(Answer(kind, match.start(1), match.start(1) + len(text)))
    return found


def question_word(sentence: str, answer: Answer, rng: random.Random) -> str:
    """A question word for the kind of the answer; of a name, by the words beside it."""
    kind = answer.kind
    if kind == "name":
        before = sentence[: answer.start].lower().split()[-1:]
        after = sentence[answer.end :].split()[:1]
        if before and before[0] in ("in", "at", "from", "near", "to"):
            kind = "place"
        elif before[:1] == ["by"] or (after and after[0] in ("said", "wrote", "was", "had", "became", "won", "is")):
            kind = "person"
    return rng.choice(ASKS[kind])


def ask(sentence: str, answer: Answer, rng: random.Random) -> str | None:
    """The words around the answer, some of them left out or moved, with a question word; None if too few are left."""
    before = sentence[: answer.start].split()[-rng.randint(3, 10) :]
    after = sentence[answer.end :].split()[: rng.randint(2, 9)]
    while before and JOINING.fullmatch(before[-1].strip(",(")) and rng.random() < 0.8:
        before.pop()
    sides = []
    for side in (before, after):
        words = [word.strip(".,;:()\"'") for word in side]
        sides.append([word for word in words if word and rng.random() > (0.45 if LIGHT.fullmatch(word) else 0.12)])
    before, after = sides
    if sum(not LIGHT.fullmatch(word) for word in before + after) < 3:
        return None
    asked, auxiliary, order = question_word(sentence, answer, rng), rng.choice(AUXILIARIES), rng.random()
    if order < 0.45:
        words = [asked, auxiliary, *before, *after]
    elif order < 0.75:
        words = [asked, auxiliary, *after, *before]
    else:
        words = [*before, asked, *after]
    words = [word for word in words if word]
    for place in range(len(words) - 1):
        if rng.random() < 0.08:
            words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words) + "?"


def ask_about(document: str, rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind of answer and the row of each question about a document."""
    paragraphs = [one for one in document.split("\n") if len(one.split()) >= CONTEXT_WORDS[0]]
    for paragraph in rng.sample(paragraphs, min(PARAGRAPHS, len(paragraphs))):
        sentences, context, asked = SENTENCE_END.split(paragraph), "", []
        most = rng.randint(*CONTEXT_WORDS)
        for sentence in sentences[rng.randrange(max(1, len(sentences) - 3)) :]:
            if len(context.split()) + len(sentence.split()) > most:
                break
            context += " " * bool(context)
            asked += [(sentence, len(context), answer) for answer in find_answers(sentence)]
            context += sentence
        if len(context.split()) < CONTEXT_WORDS[0]:
            continue
        rng.shuffle(asked)
        left, kinds = QUESTIONS, Counter(answer.kind for *_, answer in asked)
        for sentence, start, answer in asked:
            text = sentence[answer.start : answer.end]
            fits = len(text.split()) <= ANSWER_WORDS and len(sentence.split()) >= SENTENCE_WORDS
            fits = fits and kinds[answer.kind] >= OF_A_KIND
            if left and fits and rng.random() < CHANCE[answer.kind] and (question := ask(sentence, answer, rng)):
                left -= 1
                answers = {"text": [text], "answer_start": [start + answer.start]}
                yield answer.kind, {"context": context, "question": question, "answers": answers}


def main(args: QuestionArguments) -> dict[str, Any]:
    documents = Documents(args.input)
    documents.check_output(args.output_dir)
    lowest = Lowest(args.max_questions)
    for text in documents.progress("Asking"):
        held_out = is_held_out(text, args.validation_fraction)
        asked = list(ask_about(text, random.Random(f"{args.seed} {text}")))
        documents.skipped["nothing to ask for"] += not asked
        for kind, row in asked:
            lowest.add(f"{row['context']} {row['question']}", held_out, (kind, row))
    kept = lowest.cut()
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for digest, held_out, (_, row) in kept:
        splits["validation" if held_out else "train"].append({"id": digest.hex(), **row})
    if not all(splits.values()):
        raise InputError(
            f"--input: {len(kept)} questions, none of them in "
            f"{' and '.join(name for name, rows in splits.items() if not rows)}; give more text, or another "
            "--validation_fraction"
        )
    facts = {"questions": {name: len(rows) for name, rows in splits.items()}}
    facts["answers"] = dict(Counter(kind for *_, (kind, _) in kept))
    report = write_task(args, documents, splits, facts)
    print(f"{report['questions']} questions about {report['answers']} in {args.output_dir}")
    return report


if __name__ == "__main__":
    run_script(main, QuestionArguments)
