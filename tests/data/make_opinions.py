"""Write opinions_train.csv and opinions_validation.csv: praise and blame from a grammar, for recipes/glue_smoke.yaml.

python tests/data/make_opinions.py
"""

import csv
import random
from pathlib import Path

THINGS = ["film", "book", "soup", "hotel", "song", "game", "play", "bread", "garden", "train"]
WORDS = {
    "praise": ["lovely", "splendid", "a joy", "worth every penny", "wonderful", "better than I hoped"],
    "blame": ["dull", "dreadful", "a mess", "a waste of time", "terrible", "worse than I feared"],
}
FRAMES = [
    "The {0} was {1}.",
    "What a {0}: {1}!",
    "We saw the {0} twice, and it was {1}.",
    "I found the {0}, to be short, {1}.",
]

chance = random.Random(42)
rows = [
    (frame.format(thing, word), label)
    for label in WORDS
    for word in WORDS[label]
    for thing in THINGS
    for frame in FRAMES
]
chance.shuffle(rows)
for name, part in (("train", rows[:320]), ("validation", rows[320:400])):
    with open(Path(__file__).parent / f"opinions_{name}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sentence", "label"), *part])
