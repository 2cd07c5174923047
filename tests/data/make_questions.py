"""Write questions_train.json and questions_validation.json in SQuAD's form, for recipes/qa_smoke.yaml: who, what,
where and when in small talk from a grammar. What a context does not tell cannot be answered.

python tests/data/make_questions.py
"""

import json
import random
from pathlib import Path

from make_sentences import ANIMALS, FEELINGS, PEOPLE, PLACES, TIMES, VERBS

FACTS = {"person": PEOPLE, "animal": ANIMALS, "place": PLACES, "time": TIMES}
QUESTIONS = {
    "person": "Who {verb} it?",
    "animal": "What animal was it?",
    "place": "Where was it?",
    "time": "When was it?",
}
FILLERS = ["Nobody was {0}.", "It was {0} and {1}.", "It came back and was {0} again.", "It was {0} too."]

chance = random.Random(7)


def paragraph(number: int) -> dict:
    facts = {name: chance.choice(values) for name, values in FACTS.items()}
    known = {name for name in facts if name == "animal" or chance.random() < 0.7}
    verb = chance.choice(VERBS)
    told = " ".join(
        [
            *([facts["time"] + ","] if "time" in known else []),
            facts["person"] if "person" in known else "it",
            verb,
            f"a {facts['animal']}",
            *([facts["place"]] if "place" in known else []),
        ]
    )
    sentences = [chance.choice(FILLERS).format(*chance.sample(FEELINGS, 2)) for _ in range(chance.randrange(2, 9))]
    sentences.insert(chance.randrange(len(sentences)), f"{told[0].upper()}{told[1:]}.")
    context = " ".join(sentences)
    asked = []
    for name in chance.sample(sorted(FACTS), 2):
        at = context.lower().find(facts[name].lower()) if name in known else -1
        answers = [{"text": context[at : at + len(facts[name])], "answer_start": at}] if at >= 0 else []
        question = QUESTIONS[name].format(verb=verb)
        asked.append(
            {"id": f"{number}-{name}", "question": question, "answers": answers, "is_impossible": not answers}
        )
    return {"context": context, "qas": asked}


for name, numbers in (("train", range(240)), ("validation", range(240, 280))):
    content = {"version": "v2.0", "data": [{"title": "small talk", "paragraphs": [paragraph(n) for n in numbers]}]}
    text = json.dumps(content, separators=(",", ":")).replace('{"context"', '\n{"context"')
    (Path(__file__).parent / f"questions_{name}.json").write_text(text + "\n", encoding="utf-8")
