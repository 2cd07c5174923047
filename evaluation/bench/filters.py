"""How often the rules of `quality/rules.py` decide as datatrove's classes do, rule by rule, and where they do not.

    python evaluation/bench/filters.py --input corpus/ --max_documents 2000

Needs datatrove and spaCy (pip install datatrove spacy): their word splitter is the slow part. Prints a table with one
line for each rule, then each disagreement with what was measured.
"""

import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from data_prep.quality.document import Document
from data_prep.quality.rules import RULE_SETS, RULES, Judgement, judge
from data_prep.quality.splitter import WordTable
from data_prep.quality.word_lists import GOPHER_STOP_WORDS, WordList
from shared.command_line import run_script
from shared.errors import InputError
from shared.files import write_json
from shared.markdown import markdown_table
from shared.rows import find_sources, read_rows

LISTS = {"gopher_stop_words": {"en": WordList(frozenset(GOPHER_STOP_WORDS))}}
WHOLE = "FineWeb, all four sets one after the other"
FINEWEB = ("gopher_repetition", "gopher_quality", "c4", "fineweb")  # in the order of datatrove_blocks.filters


@dataclass
class CompareArguments:
    input: list[str] = field(metadata={"help": "Files or folders of English documents."})
    max_documents: int = field(default=2000, metadata={"help": "Spread evenly over each file; 0: all of them."})
    show: int = field(default=10, metadata={"help": "Disagreements to show for each rule."})
    output: str | None = field(default=None, metadata={"help": "A JSON file for the table and the disagreements."})


def reference_filters() -> dict[str, Any]:
    """datatrove's filters by the name of our rule (all others in them switched off), and whole sets by their name."""
    try:
        import datatrove.utils.text
        import spacy  # noqa: F401
        from datatrove.pipeline import filters
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; pip install datatrove spacy") from error
    # It remembers the words of 5 texts; with more, no text and no line is split twice here.
    split = datatrove.utils.text.split_into_parts.__wrapped__
    datatrove.utils.text.split_into_parts = lru_cache(10_000)(split)
    return {
        **gopher_quality(filters.GopherQualityFilter),
        **gopher_repetition(filters.GopherRepetitionFilter),
        **c4(filters.C4QualityFilter),
        **fineweb(filters.FineWebQualityFilter),
        "gopher_repetition": filters.GopherRepetitionFilter(),
        "gopher_quality": filters.GopherQualityFilter(),
        "c4": filters.C4QualityFilter(),
        "fineweb": filters.FineWebQualityFilter(),
    }


def gopher_quality(make: Any) -> dict[str, Any]:
    quality = {
        "gopher_min_words": "min_doc_words",
        "gopher_max_words": "max_doc_words",
        "gopher_min_word_length": "min_avg_word_length",
        "gopher_max_word_length": "max_avg_word_length",
        "gopher_bullet_lines": "max_bullet_lines_ratio",
        "gopher_ellipsis_lines": "max_ellipsis_lines_ratio",
        "gopher_words_with_letter": "max_non_alpha_words_ratio",
        "gopher_stop_words": "min_stop_words",
    }
    off = dict.fromkeys((*quality.values(), "max_symbol_word_ratio"))
    filters = {rule: make(**off | {flag: RULES[rule].threshold}) for rule, flag in quality.items()}
    return filters | {"gopher_hashes gopher_ellipses": make(**off | {"max_symbol_word_ratio": 0.1})}


def gopher_repetition(make: Any) -> dict[str, Any]:
    repetition = {
        "gopher_duplicate_paragraphs": "dup_para_frac",
        "gopher_duplicate_paragraph_characters": "dup_para_char_frac",
        "gopher_duplicate_lines": "dup_line_frac",
        "gopher_duplicate_line_characters": "dup_line_char_frac",
    }
    off = dict.fromkeys(repetition.values()) | {"top_n_grams": (), "dup_n_grams": ()}
    filters = {rule: make(**off | {flag: RULES[rule].threshold}) for rule, flag in repetition.items()}
    for n in range(2, 11):
        rule, flag = (f"gopher_top_{n}_gram", "top") if n < 5 else (f"gopher_repeated_{n}_grams", "dup")
        filters[rule] = make(**off | {f"{flag}_n_grams": ((n, RULES[rule].threshold),)})
    return filters


def c4(make: Any) -> dict[str, Any]:
    lines = {
        "c4_long_words": ("max_word_length", -1),
        "c4_citations": ("remove_citations", False),
        "c4_terminal_punctuation": ("filter_no_terminal_punct", False),
        "c4_words_per_line": ("min_words_per_line", -1),
        "c4_javascript": ("filter_javascript", False),
        "c4_policy": ("filter_policy", False),
        "c4_lorem_ipsum": ("filter_lorem_ipsum", False),
        "c4_curly_bracket": ("filter_curly_bracket", False),
    }
    off = dict(lines.values()) | {"min_num_sentences": -1}
    filters = {rule: make(**off | {flag: RULES[rule].threshold or True}) for rule, (flag, _) in lines.items()}
    # Without a least number of words datatrove counts an empty line as a sentence.
    filters["c4_words_per_line c4_sentences"] = make(**off | {"min_words_per_line": 3, "min_num_sentences": 5})
    return filters


def fineweb(make: Any) -> dict[str, Any]:
    never = {"line_punct_thr": 0, "short_line_thr": 2, "char_duplicates_ratio": 2, "new_line_ratio": float("inf")}
    rules = ("fineweb_line_punctuation", "fineweb_short_lines", "fineweb_duplicate_characters", "fineweb_list")
    return {rule: make(**never | {flag: RULES[rule].threshold}) for rule, flag in zip(rules, never, strict=True)}


def limits_of(name: str) -> dict[str, float]:
    """Thresholds of the rules, or of the rules of the sets, named in `name`."""
    rules = [rule for part in name.split() for rule in RULE_SETS.get(part, (RULES.get(part),)) if rule]
    rules = [rule for rule in rules if rule.name != "c4_bad_words"]
    if "fineweb_short_lines" in name:
        rules.append(RULES["fineweb_short_line_length"])
    return {rule.name: rule.threshold or 0 for rule in rules}


def ask_reference(reference: Any, text: str) -> tuple[bool, str]:
    """Whether it keeps the document, and the text as it leaves it (or its reason)."""
    from datatrove.data import Document as ReferenceDocument

    document = ReferenceDocument(text=text, id="")
    answer = reference.filter(document)
    return (True, document.text) if answer is True else (False, answer[1])


def same(ours: Judgement, theirs: tuple[bool, str]) -> bool:
    """The same decision and, where both keep it, the same text. datatrove keeps a text of which nothing is left."""
    if theirs == (True, ""):
        return ours.reason.startswith("nothing is left")
    return (not ours.reason) == theirs[0] and (not theirs[0] or ours.text == theirs[1])


def read_texts(args: CompareArguments) -> list[tuple[str, str]]:
    """Id and text of documents, evenly spread over each file."""
    found = []
    sources = find_sources(args.input)
    for source in sources:
        rows = [row for _, _, row, _ in read_rows(source) if row and row["text"].strip()]
        step = max(1, len(rows) * len(sources) // args.max_documents) if args.max_documents else 1
        found += [(row["url"] or row["id"], row["text"]) for row in rows[::step]]
    return found


def main(args: CompareArguments) -> dict[str, float]:
    """Print the comparison; return the share of agreement by rule, and of the whole way of FineWeb."""
    filters = reference_filters()
    limits = {name: limits_of(name) for name in filters}
    texts = read_texts(args)
    words = WordTable()
    differ: dict[str, list[str]] = {name: [] for name in filters}
    dropped = {name: {"ours": 0, "datatrove": 0} for name in filters}
    for key, text in tqdm(texts, desc="compare_filters"):
        for name, reference in filters.items():
            ours = judge(Document(text, words, limits[name], "en", lists=LISTS))
            theirs = ask_reference(reference, text)
            dropped[name]["ours"] += bool(ours.reason)
            dropped[name]["datatrove"] += not theirs[0]
            if not same(ours, theirs):
                exact = judge(Document(text, words, limits[name], "en", exact=True, lists=LISTS)).values
                numbers = {rule: value for rule, (value, *_) in exact.items()} if len(exact) < 4 else ""
                verdict = "kept" if theirs[0] else theirs[1]
                differ[name].append(f"{name}: {key}: {ours.detail or 'kept'} {numbers}; datatrove: {verdict}")
        words.trim()
    agree = {name: 1 - len(found) / len(texts) for name, found in differ.items()}
    agree[WHOLE] = compare_whole(texts)
    report = {"documents": len(texts), "agree": agree, "dropped": dropped, "differ": differ}
    print(make_table(report))
    print("\nDisagreements:", *(line for found in differ.values() for line in found[: args.show]), sep="\n")
    if args.output:
        write_json(Path(args.output), report)
    return agree


def make_table(report: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = []
    for name, share in report["agree"].items():
        dropped = report["dropped"].get(name, {})
        rows.append((name, f"{share:.2%}", dropped.get("ours", ""), dropped.get("datatrove", "")))
    head = ("rule", "the same decision", "dropped by ours", "by datatrove's")
    return markdown_table(head, rows, "| --- | --- | ---: | ---: |")


def compare_whole(texts: list[tuple[str, str]]) -> float:
    """Share of the documents on which FineWeb's four filters, one after the other, decide as all rules do; prints the
    speed of both."""
    from evaluation.bench.datatrove_blocks import filters

    chain = filters()
    limits = limits_of(" ".join(FINEWEB))
    limits.pop("c4_terminal_punctuation")
    start = time.perf_counter()
    words = WordTable()
    ours = [judge(Document(text, words, limits, "en", lists=LISTS)) for _, text in texts]
    between = time.perf_counter()
    agree = 0
    for (_, text), verdict in zip(texts, ours, strict=True):
        theirs = (True, text)
        for reference in chain:
            theirs = ask_reference(reference, theirs[1])
            if not theirs[0]:
                break
        agree += same(verdict, theirs)
    end = time.perf_counter()
    print(f"documents a second: {len(texts) / (between - start):,.0f}, datatrove {len(texts) / (end - between):,.0f}")
    return agree / len(texts)


if __name__ == "__main__":
    run_script(main, CompareArguments)
