import random

import evaluate
import pytest
from conftest import ROOT

from finetuning.ner.tags import find_entities, write_tags

TYPES = ("PER", "LOC", "creative-work")
PREFIXES = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES"}


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(ROOT / "finetuning" / "metrics" / "entities.py"), keep_in_memory=True)


def strict_entities(tags, scheme):
    """What a scheme allows, straightforwardly: try every stretch of words."""
    found = set()
    for begin in range(len(tags)):
        for end in range(begin + 1, len(tags) + 1):
            kind = tags[begin][2:]
            prefixes = "".join(tag[0] if tag[2:] == kind else "x" for tag in tags[begin:end])
            if scheme == "IOB2":
                goes_on = end < len(tags) and tags[end] == f"I-{kind}"
                legal = prefixes == "B" + "I" * (end - begin - 1) and not goes_on
            else:
                legal = prefixes == "S" or (len(prefixes) > 1 and prefixes == "B" + "I" * (len(prefixes) - 2) + "E")
            if kind and legal:
                found.add((kind, begin, end))
    return found


def f1_of(gold, found):
    """Precision, recall and F1 from sets of entities, each with the number of its sentence."""
    hits = len(gold & found)
    precision = hits / len(found) if found else 0.0
    recall = hits / len(gold) if gold else 0.0
    return precision, recall, 2 * hits / (len(gold) + len(found)) if gold or found else 0.0


def collect(sentences, read):
    return {(number, *entity) for number, tags in enumerate(sentences) for entity in read(tags)}


def test_values_published_for_the_scorer_of_conll_2000(metric):
    """The example in conlleval's documentation: 459 phrases, 539 found, 371 of them right."""
    gold = [["B-NP"]] * 371 + [["O"]] * (539 - 371) + [["B-NP"]] * (459 - 371)
    found = [["B-NP"]] * 539 + [["O"]] * (459 - 371)
    scores = metric.compute(predictions=found, references=gold)
    values = [round(100 * scores[name], 2) for name in ("precision", "recall", "f1")]
    assert values == [68.83, 80.83, 74.35]
    assert scores["types"]["NP"]["support"] == 459


def test_values_published_for_seqeval(metric):
    """The examples of its README, in both modes."""
    gold = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    found = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    scores = metric.compute(predictions=found, references=gold)
    assert (scores["f1"], scores["strict_f1"], scores["accuracy"]) == (0.5, 0.5, 0.8)
    assert (scores["types"]["MISC"]["f1"], scores["types"]["PER"]["f1"]) == (0.0, 1.0)
    scores = metric.compute(predictions=[["I-NP", "I-NP", "O"]], references=[["B-NP", "I-NP", "O"]])
    assert (scores["f1"], scores["strict_f1"]) == (1.0, 0.0)


def test_by_hand(metric):
    # Two PER, one LOC in the references; found: one PER right, one PER too long, a LOC made up.
    gold = [["B-PER", "I-PER", "O", "B-PER", "O"], ["B-LOC"], ["O"]]
    found = [["B-PER", "I-PER", "O", "B-PER", "I-PER"], ["O"], ["B-LOC"]]
    scores = metric.compute(predictions=found, references=gold)
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert scores["accuracy"] == 4 / 7
    person, place = scores["types"]["PER"], scores["types"]["LOC"]
    assert (person["precision"], person["recall"], person["f1"], person["support"]) == (0.5, 0.5, 0.5, 2)
    assert (place["precision"], place["recall"], place["f1"], place["support"]) == (0.0, 0.0, 0.0, 1)


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES"])
@pytest.mark.parametrize("is_legal", [True, False])
def test_agrees_with_a_straightforward_count(metric, scheme, is_legal):
    chance = random.Random(f"{scheme} {is_legal}")
    labels = ["O", "O", "O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] for kind in TYPES)]

    def draw():
        tags = [[chance.choice(labels) for _ in range(number % 12)] for number in range(400)]
        return [write_tags(find_entities(row), len(row), scheme) for row in tags] if is_legal else tags

    gold, found = draw(), draw()
    found = [a if chance.random() < 0.5 else b for a, b in zip(gold, found, strict=True)]
    scores = metric.compute(predictions=found, references=gold, scheme=scheme)

    def check(mode, read, kinds):
        sides = collect(gold, read), collect(found, read)
        for kind, values in [(None, scores), *((kind, scores["types"][kind]) for kind in kinds)]:
            wanted = f1_of(*({e for e in side if kind in (None, e[1])} for side in sides))
            assert [values[f"{mode}{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(wanted)
            if kind:
                assert values["support"] == sum(e[1] == kind for e in collect(gold, find_entities))

    check("", find_entities, TYPES)
    if is_legal:  # then both modes read the same
        check("strict_", find_entities, TYPES)
    elif scheme != "IOB1":
        check("strict_", lambda tags: strict_entities(tags, scheme), TYPES)
        assert scores["strict_f1"] < scores["f1"]


def test_nothing_found_is_zero_without_a_warning(metric, recwarn):
    scores = metric.compute(predictions=[["O"], []], references=[["O"], []])
    assert (scores["f1"], scores["strict_f1"], scores["accuracy"], scores["types"]) == (0.0, 0.0, 1.0, {})
    scores = metric.compute(predictions=[["I-PER"]], references=[["B-PER"]])
    assert scores["f1"] == 1.0 and scores["strict_recall"] == scores["types"]["PER"]["strict_f1"] == 0.0
    assert not [warning for warning in recwarn if "ill-defined" in str(warning.message)]


def test_what_cannot_be_scored_is_an_error(metric):
    for found, gold, scheme, message in (
        ([["O"]], [["O", "O"]], "IOB2", "1 predictions and 2 references"),
        ([[]], [[]], "IOB2", "there are no words"),
        ([["O"]], [["O"]], "IOE2", "unknown scheme 'IOE2'"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.compute(predictions=found, references=gold, scheme=scheme)
