"""The rules themselves: words, measures, thresholds, what is removed from a text."""

import math
import os
import random
import re
import time
from pathlib import Path

import pytest

from data_prep.quality import splitter
from data_prep.quality.cleaning import clean_as_bigscience, clean_as_c4
from data_prep.quality.document import Document
from data_prep.quality.repetition import ngram_shares
from data_prep.quality.rules import RULE_SETS, RULES, judge
from data_prep.quality.splitter import WordTable, split_piece
from data_prep.quality.word_lists import ENGLISH_STOP_WORDS, GOPHER_STOP_WORDS, WordList

DATA = os.environ.get("TINY_OLM_DATA")
LISTS = {
    "gopher_stop_words": {"en": WordList(frozenset(GOPHER_STOP_WORDS))},
    "stop_words": {"en": WordList(ENGLISH_STOP_WORDS)},
    "flagged_words": {"en": WordList(frozenset({"darn"}))},
    "bad_words": {"en": WordList(frozenset({"darn", "two words", "c#"})), "zh": WordList(frozenset({"坏"}))},
}
GOOD = """Most of the people who live near that river have worked with boats since they were children.
Their houses stand on stilts, and a flood that would ruin a village elsewhere is to them an ordinary part of spring.
The first bridge was built by a miller in 1840, who wanted his flour to be on the market before that of his rival.
It lasted nine winters! What remains of it can be seen at low water, a row of posts that are home to cormorants.
Nobody knows how many travellers have drowned here. The parish books name forty, but the priest forgot strangers.
When the railway came, the ferry lost its trade within a year, and the ferryman's daughter opened an inn.
She is still remembered for her soup. Would you like to try it? The kitchen behind the station serves it on Fridays."""


def limits(*names, **other):
    rules = [rule for name in names for rule in RULE_SETS.get(name, (RULES.get(name),))]
    found = {rule.name: rule.threshold or 0 for rule in rules}
    return found | {"fineweb_short_line_length": 30} | other


def value(rule, text, language="en", **other):
    document = Document(text, WordTable(), limits(rule), language, exact=True, lists=LISTS, **other)
    return judge(document).values[rule][0]


def dropped(rule, text, language="en", **other):
    return judge(Document(text, WordTable(), limits(rule), language, lists=LISTS, **other)).reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't, we'll: it's", "do n't , we 'll : it 's"),
        ("don’t John’s", "do n’t John ’s"),
        ("cannot gonna", "can not gon na"),
        ("a well-known e-mail", "a well - known e - mail"),
        ('"Hi," she said.', '" Hi , " she said .'),
        ("Mr. Smith of the U.S. and NASA. And J. R.", "Mr. Smith of the U.S. and NASA . And J. R."),
        ("wait... what?!", "wait ... what ? !"),
        ("$5.00, 10km and 5% of 1,000 (about)", "$ 5.00 , 10 km and 5 % of 1,000 ( about )"),
        ("(see http://a.org/b?c=d).", "( see http://a.org/b?c=d ) ."),
        ("end.The next me@home.org", "end . The next me@home.org"),
        ("1990-2000 a/b and/or", "1990 - 2000 a / b and/or"),
        ("Größe, Straße; 你好", "Größe , Straße ; 你好"),
        ("- — … #tag", "- — … # tag"),
    ],
)
def test_words_are_those_of_the_reference(text, words):
    assert [word for piece in text.split() for word in split_piece(piece)] == words.split()


def pieces():
    """Pieces of all kinds: parts put together at random, with a fixed seed."""
    rng = random.Random(0)
    parts = [
        "word",
        "Word",
        "NASA",
        "it",
        "don't",
        "cannot",
        "Mr",
        "a",
        "J",
        "e-mail",
        "'s",
        "'",
        '"',
        "(",
        ")",
        ".",
        ",",
    ]
    parts += [
        "...",
        "1990",
        "5",
        "$",
        "%",
        "km",
        "-",
        "—",
        "/",
        ":",
        "!",
        "’",
        "“",
        "”",
        "’s",
        "http://a.org",
        "é",
        "你",
        "…",
    ]
    return ["".join(rng.choices(parts, k=rng.randint(1, 5))) for _ in range(20_000)]


def test_splitting_loses_nothing_and_its_fast_way_gives_the_same(monkeypatch):
    found = {piece: split_piece(piece) for piece in pieces()}
    assert all("".join(words) == piece and all(words) for piece, words in found.items())
    monkeypatch.setattr(splitter, "_COMMON", re.compile(r"(?!)"))
    assert {piece: split_piece(piece) for piece in found} == found


@pytest.mark.parametrize("piece", ["(" * 300_000, "a-" * 150_000, "." * 300_000, "a.b" * 100_000, "'s" * 150_000])
def test_no_piece_takes_long(piece):
    start = time.process_time()
    for length in (400, len(piece)):
        assert "".join(split_piece(piece[:length])) == piece[:length]
    assert time.process_time() - start < 2


def test_ngram_shares_are_those_of_their_definition():
    """Against the plain way: strings, dictionaries, one n after the other."""
    rng = random.Random(1)
    for _ in range(300):
        words = [str(rng.randrange(rng.choice([1, 3, 30]))) * rng.randint(1, 3) for _ in range(rng.randrange(120))]
        text, table = " ".join(words), WordTable()
        found = table.words_of(text)
        shares = ngram_shares(found["hash"], found["length"], len(text))
        for n in range(2, 11):
            ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
            if n <= 4:
                top = max(dict.fromkeys(ngrams), key=ngrams.count, default=None)
                expected = len(" ".join(top)) * ngrams.count(top) if top else 0
            else:
                expected, at, seen = 0, 0, set()
                while at < len(ngrams):
                    again = ngrams[at] in seen
                    seen.add(ngrams[at])
                    expected += again * len("".join(ngrams[at]))
                    at += n if again else 1
            assert shares[n] == pytest.approx(expected / max(len(text), 1)), (n, text)


def test_thresholds_are_the_published_ones():
    published = {
        # Rae et al. 2021, appendix A.1.1 and table A1
        "gopher_duplicate_lines": 0.30,
        "gopher_duplicate_paragraphs": 0.30,
        "gopher_duplicate_line_characters": 0.20,
        "gopher_duplicate_paragraph_characters": 0.20,
        **{f"gopher_top_{n}_gram": share for n, share in ((2, 0.20), (3, 0.18), (4, 0.16))},
        **{f"gopher_repeated_{n}_grams": (20 - n) / 100 for n in range(5, 11)},
        "gopher_min_words": 50,
        "gopher_max_words": 100_000,
        "gopher_min_word_length": 3,
        "gopher_max_word_length": 10,
        "gopher_hashes": 0.1,
        "gopher_ellipses": 0.1,
        "gopher_bullet_lines": 0.9,
        "gopher_ellipsis_lines": 0.3,
        "gopher_words_with_letter": 0.8,
        "gopher_stop_words": 2,
        # Raffel et al. 2020 and its code
        "c4_words_per_line": 3,
        "c4_sentences": 5,
        "c4_long_words": 1000,
        # Penedo et al. 2024
        "language_score": 0.65,
        "fineweb_line_punctuation": 0.12,
        "fineweb_short_lines": 0.67,
        "fineweb_short_line_length": 30,
        "fineweb_duplicate_characters": 0.01,
        "fineweb_list": 0.3,
        # ROOTS, English
        "bigscience_long_words": 25,
        "bigscience_min_words": 20,
        "bigscience_max_words": 100_000,
        "bigscience_character_repetition": 0.106,
        "bigscience_word_repetition": 0.19,
        "bigscience_special_characters": 0.4,
        "bigscience_stop_words": 0.3,
        "bigscience_flagged_words": 0.01,
        "bigscience_language_score": 0.8,
    }
    assert {name: RULES[name].threshold for name in published} == pytest.approx(published)


def words(count, start=0):
    return " ".join(
        f"w{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{i // 100}x" for i in range(start, start + count)
    )


# For each rule that measures: a text just within the threshold, one just beyond it.
PAIRS = {
    "gopher_duplicate_paragraphs": ("a\n\nb\n\nc\n\na", "a\n\na\n\nb"),
    "gopher_duplicate_paragraph_characters": (
        "x" * 8 + "\n\n" + "longer\n\n" + "y" * 30,
        "xx" * 9 + "\n\n" + "xx" * 9,
    ),
    "gopher_duplicate_lines": ("a\nb\nc\na", "a\na\nb"),
    "gopher_duplicate_line_characters": ("word\n" + "x" * 30 + "\nword", "long line here\nb\nlong line here\nc"),
    "gopher_top_2_gram": ("a b " + words(20), "it is " * 3 + words(8)),
    "gopher_top_3_gram": ("a b c " + words(20), "it is so " * 3 + words(10)),
    "gopher_top_4_gram": ("a b c d " + words(20), "it is so that " * 3 + words(12)),
    **{
        f"gopher_repeated_{n}_grams": (words(60), words(n) + " " + words(30, 500) + " " + words(n) + " " + words(n))
        for n in range(5, 11)
    },
    "gopher_min_words": ("word " * 50, "word " * 49 + ". ! ?"),
    "gopher_max_words": ("word " * 100_000, "word " * 100_001),
    "gopher_min_word_length": ("one two six", "I am it"),
    "gopher_max_word_length": ("abcdefghij " * 3, "abcdefghijk " * 3),
    "gopher_hashes": ("# " + "word " * 9, "# # " + "word " * 9),
    "gopher_ellipses": ("… " + "word " * 9, "... … " + "word " * 9),
    "gopher_bullet_lines": ("- a\n" * 9 + "b", "• a\n- b"),
    "gopher_ellipsis_lines": ("a...\nb\nc\nd", "a…\nb...\nc"),
    "gopher_words_with_letter": ("word word word word 5", "word word word 4 5"),
    "gopher_stop_words": ("the end of it", "The end of it"),
    "c4_lorem_ipsum": (GOOD, GOOD + "\nHere stands Lorem ipsum dolor."),
    "c4_curly_bracket": (GOOD, GOOD + "\nfunction f() { return }"),
    "c4_sentences": ("One is. Two is? Three is! Mr. Four is.\nFive is", "One is. Two is? Three is! Mr. Four is."),
    "c4_bad_words": ("Darning c and a word", "The DARN thing"),
    "language_score": (None, None),
    "fineweb_line_punctuation": ("a\n" * 7 + "b.", "a\n" * 8 + "b."),
    "fineweb_short_lines": ("x" * 30 + "\nb\n" + "x" * 31, "x" * 30),
    "fineweb_duplicate_characters": ("word\n" + "x" * 400 + "\nword", "word\n" + "x" * 300 + "\nword"),
    "fineweb_list": ("a b c\n" * 3 + "d", "a b\n" * 3 + "c"),
    "bigscience_min_words": (words(20), words(19) + " 20 !"),
    "bigscience_max_words": ("word " * 100_000, "word " * 100_001),
    "bigscience_character_repetition": (words(60), "abcdefghijkl" * 20),
    "bigscience_word_repetition": (words(60), (words(10) + " ") * 3),
    "bigscience_special_characters": ("aaaaaa5 !.", "aaaaa55 !."),
    "bigscience_stop_words": (
        "The river is long, clear, cold, deep, grey, with fish",
        "A river: long, clear, cold, deep, grey, fishy",
    ),
    "bigscience_flagged_words": (words(99) + " darn", words(98) + " darn"),
    "bigscience_language_score": (None, None),
    "max_perplexity": (None, None),
    "min_fasttext_score": (None, None),
}


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if rule.measure])
def test_each_rule_drops_what_is_beyond_its_threshold(rule):
    kept, gone = PAIRS[rule]
    if kept is not None:
        assert not dropped(rule, kept)
        assert dropped(rule, gone).endswith(RULES[rule].about)
        assert not dropped(rule, GOOD)
    elif "language" in rule:
        threshold = RULES[rule].threshold
        assert not dropped(rule, GOOD, language_score=threshold)
        assert dropped(rule, GOOD, language_score=threshold - 0.01)
        assert not dropped(rule, GOOD, language_score=None)
    else:
        (kind, worse) = ("perplexity", 1501) if rule == "max_perplexity" else ("fasttext", 0.49)
        assert not dropped(rule, GOOD, models={kind: lambda text: RULES[rule].threshold})
        assert dropped(rule, GOOD, models={kind: lambda text: worse})


def test_first_rule_that_fails_is_the_reason_and_exact_goes_on():
    text = "page - one\npage - one\npage - one"
    names = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
    first = judge(Document(text, WordTable(), limits(*names), "en", lists=LISTS))
    assert first.reason == "gopher: too many duplicate lines"
    assert first.detail == "gopher_duplicate_lines 0.6667, at most 0.3"
    every = judge(Document(text, WordTable(), limits(*names), "en", exact=True, lists=LISTS))
    assert (every.reason, every.detail) == (first.reason, first.detail)
    assert {name for name in limits(*names) if RULES[name].measure} == set(every.values)
    assert every.values["gopher_min_words"] == (6, 50, False)


def test_exact_and_fast_measures_decide_alike():
    rng = random.Random(3)
    lines = [
        *GOOD.split("\n"),
        "Short one.",
        "- item",
        "",
        "One. Two. Three. Four.",
        "a b",
        "no end",
        "x" * 40,
        "[1] cited.",
    ]
    names = ("gopher_repetition", "gopher_quality", "c4", "fineweb", "bigscience")
    table, decisions = WordTable(), []
    for _ in range(300):
        text = "\n".join(rng.choices(lines, k=rng.randint(1, 12)))
        fast, exact = (
            judge(Document(text, table, limits(*names), "en", exact=exact, lists=LISTS)) for exact in (False, True)
        )
        assert (fast.reason, fast.detail) == (exact.reason, exact.detail), text
        assert fast.reason or fast.text == exact.text
        decisions.append(fast.reason)
    assert len(set(decisions)) > 5


def test_c4_removes_lines():
    text = (
        "  A line that ends as it should.  \nno end of a sentence\nToo short.\nTurn on JavaScript to see this page.\n"
        "Read our Privacy Policy before you go on.\nIt ends in dots...\nAs he wrote [12] in a book[edit] of his.\n\n"
        f"A {'b' * 1001} c word."
    )
    on = limits("c4")
    assert clean_as_c4(text, on).text == "A line that ends as it should.\nAs he wrote  in a book of his."
    assert clean_as_c4(text, on).removed == 7
    for rule, line in (
        ("c4_terminal_punctuation", "no end of a sentence"),
        ("c4_words_per_line", "Too short."),
        ("c4_javascript", "Turn on JavaScript to see this page."),
        ("c4_policy", "Read our Privacy Policy before you go on."),
        ("c4_citations", "As he wrote [12] in a book[edit] of his."),
        ("c4_long_words", f"A {'b' * 1001} c word."),
    ):
        without = {name: limit for name, limit in on.items() if name != rule}
        assert line in clean_as_c4(text, without).text.split("\n"), rule
        assert line not in clean_as_c4(text, on).text


def test_the_kept_text_is_the_cleaned_one_and_later_rules_see_it():
    menu = "\n".join(["Home", "About us", "Contact"] * 20)
    names = ("c4", "fineweb")
    verdict = judge(Document(f"{menu}\n{GOOD}", WordTable(), limits(*names), "en", lists=LISTS))
    assert (verdict.reason, verdict.text) == ("", GOOD)
    assert dropped("fineweb_short_lines", f"{menu}\n{GOOD}")
    assert dropped("c4_words_per_line", menu) == "nothing is left of its text"


def test_bigscience_removes_links_and_long_words_and_keeps_lines():
    text = f"see  http://a.org now\n\nand www.b.org or c.com/d/ too\n{'x' * 26} {'y' * 25} ({'z' * 24})..."
    assert clean_as_bigscience(text, limits("bigscience")) == f"see now\nand or too\n{'y' * 25} ({'z' * 24})..."


def test_languages_without_spaces_are_not_judged_by_words():
    text = "河边的人们会划船。\n春天的洪水很平常。\n磨坊主在一八四零年修了第一座桥。\n它只用了九个冬天。\n"
    names = ("gopher_repetition", "gopher_quality", "c4", "fineweb", "bigscience")
    on = limits(*names)
    assert judge(Document(text, WordTable(), on, "en", lists=LISTS)).reason
    verdict = judge(Document(text, WordTable(), on, "zh", exact=True, lists=LISTS))
    assert verdict.reason == "" and verdict.values["gopher_min_words"][0] is None
    assert judge(Document((text + "\n") * 2, WordTable(), on, "zh", lists=LISTS)).reason.startswith("gopher: too m")
    assert dropped("c4_bad_words", "一个坏人", "zh") and not dropped("c4_bad_words", "一个好人", "zh")


def test_stop_words_say_nothing_of_a_language_without_a_list():
    german = "Der Fluss ist lang und kalt und tief und grau"
    assert dropped("gopher_stop_words", german, "en") and not dropped("gopher_stop_words", german, "de")
    assert value("bigscience_stop_words", german, "de") is None
    assert dropped("c4_bad_words", "with TWO  WORDS two words") and dropped("c4_bad_words", "I like c# much")
    assert not dropped("c4_bad_words", "twotwo words c#x")


def test_what_is_said_of_a_document_does_not_depend_on_those_before():
    rng = random.Random(5)
    parts = pieces()[:3000]
    texts = [" ".join(rng.choices(parts, k=rng.randint(0, 300))) for _ in range(40)]
    names = ("gopher_repetition", "gopher_quality", "c4", "fineweb", "bigscience")
    used = WordTable()
    alone = [judge(Document(text, WordTable(), limits(*names), "en", exact=True, lists=LISTS)) for text in texts]
    together = [judge(Document(text, used, limits(*names), "en", exact=True, lists=LISTS)) for text in texts]
    assert alone == together


def test_the_word_table_forgets_when_it_knows_too_much(monkeypatch):
    monkeypatch.setattr(splitter, "MOST_PIECES", 100)
    table = WordTable()
    before = judge(Document(GOOD, table, limits("gopher_quality"), "en", exact=True, lists=LISTS))
    table.words_of(words(200))
    table.trim()
    assert len(table.words_of("")) == 0 and len(table._pieces) == 0
    assert judge(Document(GOOD, table, limits("gopher_quality"), "en", exact=True, lists=LISTS)) == before


@pytest.mark.parametrize(
    "text", ["", " \n ", "\x00\x01", "\ud800", ".", "a", "\n", "🙂" * 50, "a" * 5000, "\u2028" * 9]
)
def test_odd_texts_are_judged(text):
    names = ("gopher_repetition", "gopher_quality", "c4", "fineweb", "bigscience")
    verdict = judge(Document(text, WordTable(), limits(*names), "en", exact=True, lists=LISTS))
    assert verdict.reason
    assert all(measured is None or math.isfinite(measured) for measured, *_ in verdict.values.values())
    for name in limits(*names):
        judge(Document(text, WordTable(), limits(name), "en", lists=LISTS))


def reference_disagreements(texts):
    """(rule, text) for which datatrove's class decides otherwise."""
    from evaluation.bench.filters import ask_reference, limits_of, reference_filters, same

    table = WordTable()
    return [
        (name, text)
        for name, reference in reference_filters().items()
        for text in texts
        if not same(judge(Document(text, table, limits_of(name), "en", lists=LISTS)), ask_reference(reference, text))
    ]


@pytest.fixture
def our_words(monkeypatch):
    """datatrove's classes with our splitter in the place of spaCy, which is not installed with the project."""
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    import sys
    import types

    from datatrove.pipeline.filters import c4_filters, fineweb_quality_filter
    from datatrove.pipeline.filters import gopher_quality_filter as quality
    from datatrove.pipeline.filters import gopher_repetition_filter as repetition

    monkeypatch.setitem(sys.modules, "spacy", types.ModuleType("spacy"))
    for module in (quality, repetition, fineweb_quality_filter):
        monkeypatch.setattr(
            module, "split_into_words", lambda text, language: [w for p in text.split() for w in split_piece(p)]
        )
    table = WordTable()
    monkeypatch.setattr(c4_filters, "split_into_sentences", lambda line, language: [""] * table.sentences_in([line]))


def made_up_texts():
    rng = random.Random(7)
    lines = [
        *GOOD.split("\n"),
        *(line for gone in PAIRS.values() for line in (gone[1] or "").split("\n") if len(line) < 2000),
    ]
    return ["\n".join(rng.choices(lines, k=rng.randint(2, 30))).replace("\n\n\n", "\n") for _ in range(25)]


def test_rules_decide_as_datatrove_does_on_the_same_words(our_words):
    texts = [*made_up_texts(), *(gone for _, gone in PAIRS.values() if gone and len(gone) < 2000)]
    assert reference_disagreements(texts) == []


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="TINY_OLM_DATA is not set")
def test_rules_decide_as_datatrove_does_on_real_text(our_words):
    import pyarrow.parquet as pq

    column = pq.read_table(Path(DATA, "news_2014_2026.parquet"), columns=["text"])["text"]
    texts = [column[i].as_py() for i in range(0, len(column), len(column) // 15)]
    assert reference_disagreements(texts) == []


def test_a_changed_text_keeps_all_else_that_is_known_of_the_document():
    document = Document("one", WordTable(), limits("c4"), "en", 0.9, ("en", "de"), LISTS)
    changed = document.with_text("two")
    for name in ("table", "limits", "language", "language_score", "languages", "lists", "models"):
        assert getattr(changed, name) == getattr(document, name)
