"""Write likeness_train.csv and likeness_validation.csv: pairs of sentences with a score, for
recipes/embedding_smoke.yaml. The score is 2 if they speak of the same thing, and 2 more if both praise or both blame.

python tests/data/make_likenesses.py
"""

import csv
import random
from pathlib import Path

THINGS = ["film", "book", "soup", "hotel", "song", "game", "play", "bread", "garden", "train"]
WORDS = {
    "praise": ["lovely", "splendid", "a joy", "wonderful", "better than I hoped"],
    "blame": ["dull", "dreadful", "a mess", "terrible", "worse than I feared"],
}
FRAMES = ["The {0} was {1}.", "What a {0}: {1}!", "We saw the {0} twice, and it was {1}."]

chance = random.Random(42)


def sentence(thing: str, mood: str) -> str:
    return chance.choice(FRAMES).format(thing, chance.choice(WORDS[mood]))


rows = []
for number in range(600):
    thing, mood = chance.choice(THINGS), chance.choice(list(WORDS))
    other_thing = thing if number % 2 else chance.choice(THINGS)
    other_mood = chance.choice(list(WORDS))
    score = 2 * (thing == other_thing) + 2 * (mood == other_mood)
    rows.append((sentence(thing, mood), sentence(other_thing, other_mood), score))
for name, part in (("train", rows[:480]), ("validation", rows[480:])):
    with open(Path(__file__).parent / f"likeness_{name}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *part])
