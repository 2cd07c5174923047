"""Writes sentences.txt, the text of the smoke recipe: small talk from a grammar, easy to learn in seconds.

python tests/data/make_sentences.py > tests/data/sentences.txt
"""

import random

PEOPLE = ["the baker", "the old sailor", "a young doctor", "my neighbour", "the teacher", "her brother", "the painter"]
ANIMALS = ["horse", "grey cat", "small dog", "goose", "clever crow", "lazy donkey", "red fox", "quiet owl"]
PLACES = ["near the river", "behind the school", "in the garden", "on the long bridge", "at the market"]
VERBS = ["watched", "followed", "fed", "painted", "called", "lost", "found", "carried"]
TIMES = ["in the morning", "after lunch", "late at night", "every winter", "on Sunday", "before the rain"]
FEELINGS = ["happy", "hungry", "cold", "proud", "afraid", "calm"]

choose = random.Random(0).choice


def document() -> str:
    person, animal, place = choose(PEOPLE), choose(ANIMALS), choose(PLACES)
    sentences = [
        f"{choose(TIMES)}, {person} {choose(VERBS)} a {animal} {place}.",
        f"the {animal} was {choose(FEELINGS)}, and {person} was {choose(FEELINGS)} too.",
        f"nobody {choose(VERBS)} the {animal} {choose(TIMES)}.",
        f"{place}, the {animal} {choose(VERBS)} {choose(PEOPLE)}.",
        f"when the {animal} came back {choose(TIMES)}, {person} {choose(VERBS)} it again.",
    ]
    return "\n".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


if __name__ == "__main__":
    print("\n\n".join(document() for _ in range(250)))
