"""Names marked in plain text: where they begin and end, what the hints say of them, and that run_ner can read them."""

import json
import random
from collections import Counter

import pytest
from conftest import read_splits

from data_prep.corpus.made_tasks import WORD, SentenceTaskArguments
from data_prep.make_names import count_hints, find_names, kind_of, main
from finetuning.common.data import Split
from finetuning.ner.sentences import find_types, read_sentences
from shared.errors import InputError

PLACES = ["Oslo", "New York", "Rio de Janeiro", "Lima"]
PERSONS = ["Anna Hill", "Rosa Lind", "Mary Seacole", "Otto Brand"]
GROUPS = ["Senate", "Bank of Lima", "Acme Company", "Red Cross"]


def names_in(sentence, **usual):
    words = WORD.findall(sentence)
    return [" ".join(words[start:end]) for start, end in find_names(words, Counter(usual))]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """400 documents of four sentences, in which all three kinds of names are hinted at, and one that is too short."""
    rng, documents = random.Random(0), ["Too short."]
    for day in range(400):
        person, place, group = rng.choice(PERSONS), rng.choice(PLACES), rng.choice(GROUPS)
        documents.append(
            f"{person} said that the rain in {place} was cold and wet on day {day}. It fell on {day} horses near "
            f"{place} that day. Nobody in town saw {person} or the {group} on day {day}. And {group} sold them to "
            f"{person} for {day} songs."
        )
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    return str(path)


def make(text, folder, **more):
    return main(SentenceTaskArguments([text], str(folder), **{"validation_fraction": 0.1, **more}))


def test_names_are_runs_of_capitals():
    assert names_in("On Monday I saw Rosa Lind of the U.S. Coast Guard in Rio de Janeiro.") == [
        "Rosa Lind",
        "U.S. Coast Guard",
        "Rio de Janeiro",
    ]
    assert names_in("the Bank of Lima and the bank of Lima") == ["Bank of Lima", "Lima"]
    assert names_in("The rain fell.", the=-5) == [] and names_in("Rain fell on Oslo.", rain=-1) == ["Oslo"]
    assert names_in("Oslo fell.", oslo=3) == ["Oslo"]


def test_kinds_are_those_that_are_hinted_at():
    sentences = ["Anna Hill said so in Oslo .", "Anna Hill wrote to the Senate .", "We met in Oslo near the Senate ."]
    words = [one.split() for one in sentences * 2]
    usual = Counter({"anna": 1})
    hints = count_hints(words, usual)
    found = [kind_of(name.split(), hints) for name in ("Anna Hill", "Oslo", "Senate", "Lima", "Anna Brand")]
    assert found == ["PER", "LOC", "ORG", "MISC", "PER"]  # of the last one the first word is known


def test_run_ner_reads_the_folder_and_kinds_are_right(text, tmp_path):
    report = make(text, tmp_path / "names")
    splits = read_splits(tmp_path / "names")
    assert report["sentences"] == {name: len(rows) for name, rows in splits.items()} and len(splits["train"]) > 800
    assert report["skipped"]["no sentence of a fitting length"] == 1
    train = Split(splits["train"], "names")
    assert find_types(train, "ner_tags") == ["LOC", "ORG", "PER"]
    assert len(read_sentences(train, "tokens", "ner_tags", repair=False).words) == len(splits["train"])
    kinds = {name: Counter() for name in (*PLACES, *PERSONS, *GROUPS)}
    for row in splits["train"]:
        tags = [*row["ner_tags"], "O"]
        for start, tag in enumerate(tags):
            if tag.startswith("B-"):
                end = next(place for place in range(start + 1, len(tags)) if not tags[place].startswith("I-"))
                kinds[" ".join(row["tokens"][start:end])][tag[2:]] += 1
    for kind, names in (("LOC", PLACES), ("PER", PERSONS), ("ORG", GROUPS)):
        assert all(set(kinds[name]) == {kind} for name in names), kinds


def test_the_same_settings_give_the_same_bytes(text, tmp_path):
    for name in ("one", "two"):
        make(text, tmp_path / name, max_sentences=300)
    one, two = ((tmp_path / name / "train.parquet").read_bytes() for name in ("one", "two"))
    assert one == two and sum(map(len, read_splits(tmp_path / "one").values())) == 300


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"max_sentences": 1}, "--max_sentences 1: must be at least 2"),
        ({"validation_fraction": 0}, "--validation_fraction 0: must be above 0 and below 1"),
        ({"validation_fraction": 1e-9}, "--input: [0-9]+ sentences with [0-9]+ names; give more text"),
    ],
)
def test_wrong_flags_are_refused_and_leave_nothing(text, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        make(text, tmp_path / "names", **more)
    assert not (tmp_path / "names").exists()
