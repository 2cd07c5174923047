"""Write tagged_train.conll and tagged_validation.conll: people, places and firms from a grammar, tagged in IOB2, for
recipes/ner_smoke.yaml.

python tests/data/make_tagged.py
"""

import random
from pathlib import Path

NAMES = {
    "PER": ["Anna", "Otto Brand", "Mary Anne Hill", "Tom", "Rosa Lind", "Paul"],
    "LOC": ["Berlin", "New York", "Rio de Janeiro", "Oslo", "the North Sea", "Lima"],
    "ORG": ["Acme", "Hill & Sons", "Bank of Lima", "Otto Oil", "Rosa", "Tom 's Bread Works"],
}
FRAMES = [
    "{PER} went to {LOC} .",
    "{PER} works for {ORG} in {LOC} , but lives in {LOC} .",
    "Did {PER} and {PER} sell {ORG} to {ORG} ?",
    "The rain in {LOC} was cold .",
    "{ORG} hired {PER} , {PER} and the cook of {PER} .",
    "Nobody saw the horse .",
]

chance = random.Random(42)
for name, sentences in (("train", 300), ("validation", 60)):
    lines = []
    for _ in range(sentences):
        for word in chance.choice(FRAMES).split():
            kind = word.strip("{}")
            if kind == word:
                lines.append(f"{word} O")
                continue
            for number, part in enumerate(chance.choice(NAMES[kind]).split()):
                lines.append(f"{part} {'I' if number else 'B'}-{kind}")
        lines.append("")
    Path(__file__).with_name(f"tagged_{name}.conll").write_text("\n".join(lines), encoding="utf-8")
