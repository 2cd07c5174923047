"""Keep the documents that the quality rules of Gopher, C4, FineWeb and BigScience accept.

    python data_prep/filter_documents.py --config data_prep/recipes/filter_web.yaml --input data/web

Reads the output folder of a stage, parquet or JSON lines. Writes what is kept to OUTPUT/*.parquet and the rest, with
the rule that dropped it and what it measured, to OUTPUT/dropped/; with --explain what every rule measured to
OUTPUT/explain/. `--why URL` prints that for one document and writes nothing. The rules stand in quality/rules.py. C4's
rules remove lines and BigScience's words: the text that is kept is the text as they leave it. The rules are published
for English: other languages have thresholds of their own (quality/by_language.py) or skip a rule, which the manifest
counts (`skipped_rules`). Rows without `language` are judged as English if their letters are Latin; --languages drops
them.
"""

import importlib.metadata
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.engine.run import run_stage
from data_prep.engine.stage import StageArguments, document_phase, settings_of
from data_prep.quality.by_language import THRESHOLDS
from data_prep.quality.models import closest
from data_prep.quality.rules import RULE_SETS, RULES
from data_prep.quality.step import EXPLAIN, Filter, tell_why
from data_prep.quality.word_lists import ENGLISH_STOP_WORDS, GOPHER_STOP_WORDS, WordList, check_codes, read_lists
from shared.command_line import run_script
from shared.errors import InputError
from shared.files import sha256_of
from shared.rows import find_sources

NEEDS_LIST = {"bigscience_flagged_words": "flagged_words", "c4_bad_words": "bad_words"}


@dataclass
class FilterArguments:
    rules: list[str] = field(
        default_factory=lambda: ["gopher_repetition", "gopher_quality", "c4", "fineweb"],
        metadata={
            "help": "Sets (those of the default, bigscience) or single rules; always applied in FineWeb's order."
        },
    )
    disable: list[str] = field(default_factory=list, metadata={"help": "Rules of these sets to leave out."})
    thresholds: list[str] = field(
        default_factory=list,
        metadata={"help": "Thresholds other than the published ones, for all languages: gopher_min_words=30 ..."},
    )
    languages: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Codes of languages (column `language`) to keep; a row without one is then dropped. Default: all; "
            "a row without one is then judged as English if its letters are Latin, else by rules for any language."
        },
    )
    min_language_score: float | None = field(
        default=None, metadata={"help": "Least `language_score`; FineWeb's is 0.65. Rows without one are kept."}
    )
    stop_words: list[str] = field(
        default_factory=list, metadata={"help": "LANGUAGE=FILE, a word a line. Without one only English is judged."}
    )
    flagged_words: list[str] = field(
        default_factory=list, metadata={"help": "LANGUAGE=FILE for bigscience_flagged_words."}
    )
    bad_words: list[str] = field(default_factory=list, metadata={"help": "LANGUAGE=FILE for c4_bad_words."})
    mask_pii: bool = field(default=False, metadata={"help": "Replace e-mail and public IP addresses in what is kept."})
    fasttext_model: str | None = field(default=None, metadata={"help": "A fastText classifier (.bin or .ftz)."})
    fasttext_label: str | None = field(default=None, metadata={"help": "The label whose score is compared."})
    min_fasttext_score: float | None = field(default=None, metadata={"help": "Least score of that label."})
    kenlm_model: str | None = field(default=None, metadata={"help": "A KenLM language model (ARPA or binary)."})
    sentencepiece_model: str | None = field(
        default=None, metadata={"help": "Splits text for --kenlm_model. Default: words between spaces."}
    )
    max_perplexity: float | None = field(default=None, metadata={"help": "Highest perplexity under --kenlm_model."})
    explain: bool = field(
        default=False, metadata={"help": "Write what every rule measured of every document to OUTPUT/explain/."}
    )
    why: str | None = field(
        default=None, metadata={"help": "A URL or id: print what every rule says of this document, write nothing."}
    )


def chosen_rules(args: FilterArguments) -> dict[str, float]:
    """The thresholds of the rules that are on, by name, in the order in which they are applied.

    Raises InputError for a name that no rule has, and for a rule that lacks its list.
    """
    wanted: set[str] = set()
    for name in args.rules:
        if name not in RULE_SETS and name not in RULES:
            raise closest("rules", name, [*RULE_SETS, *RULES])
        rules = [rule.name for rule in RULE_SETS.get(name, (RULES.get(name),)) if rule]
        for rule in rules:
            if rule in NEEDS_LIST and not getattr(args, NEEDS_LIST[rule]):
                if name == rule:
                    raise InputError(f"--rules {rule}: needs a list, --{NEEDS_LIST[rule]} LANGUAGE=FILE")
            elif name != "models":
                wanted.add(rule)
    limits = {name: rule.threshold or 0 for name, rule in RULES.items()}
    for name in args.disable:
        if name not in RULES:
            raise closest("disable", name, list(RULES))
        wanted.discard(name)
    for entry in args.thresholds:
        name, _, value = entry.partition("=")
        if name not in RULES:
            raise closest("thresholds", name, list(RULES))
        if RULES[name].threshold is None:
            raise InputError(f"--thresholds {entry}: this rule has no threshold; switch it off with --disable {name}")
        try:
            limits[name] = float(value)
        except ValueError:
            limits[name] = math.nan
        if math.isnan(limits[name]):
            raise InputError(f"--thresholds {entry}: write NAME=NUMBER")
    for name, value in (
        ("language_score", args.min_language_score),
        ("min_fasttext_score", args.min_fasttext_score),
        ("max_perplexity", args.max_perplexity),
    ):
        if value is not None:
            limits[name] = value
            wanted.add(name)
    if "fineweb_short_lines" in wanted:
        wanted.add("fineweb_short_line_length")
    _refuse_useless(args, wanted)
    return {name: limits[name] for name in RULES if name in wanted}


def _refuse_useless(args: FilterArguments, wanted: set[str]) -> None:
    """Raise InputError for thresholds and lists of rules that are not among those to be applied."""
    for entry in args.thresholds:
        if entry.partition("=")[0] not in wanted:
            raise InputError(
                f"--thresholds {entry}: this rule is not applied; name it in --rules, or remove the entry"
            )
    for flag in (*NEEDS_LIST.values(), "stop_words"):
        users = [rule for rule, needed in NEEDS_LIST.items() if needed == flag]
        users += ["gopher_stop_words", "bigscience_stop_words"] if flag == "stop_words" else []
        if getattr(args, flag) and not wanted & {*users}:
            raise InputError(f"--{flag}: is for {' or '.join(users)}; name it in --rules, or remove the flag")


def make_step(args: FilterArguments) -> tuple[Filter, dict[str, Any], list[str]]:
    """The step, the settings that its output depends on (files by their hash), and the packages. Raises InputError."""
    limits = chosen_rules(args)
    check_codes("languages", args.languages)
    stop_words = read_lists("stop_words", args.stop_words)
    lists = {
        "gopher_stop_words": {"en": WordList(frozenset(GOPHER_STOP_WORDS))} | stop_words,
        "stop_words": {"en": WordList(ENGLISH_STOP_WORDS)} | stop_words,
        "flagged_words": read_lists("flagged_words", args.flagged_words),
        "bad_words": read_lists("bad_words", args.bad_words),
    }
    fasttext = kenlm = None
    packages = ["numpy", "regex", "xxhash"]
    if args.fasttext_model:
        if args.fasttext_label is None or args.min_fasttext_score is None:
            raise InputError("--fasttext_model: name --fasttext_label and --min_fasttext_score")
        fasttext = (str(Path(args.fasttext_model).absolute()), args.fasttext_label)
    elif args.min_fasttext_score is not None or args.fasttext_label:
        raise InputError("--min_fasttext_score and --fasttext_label: name the --fasttext_model")
    if args.kenlm_model:
        if args.max_perplexity is None:
            raise InputError("--kenlm_model: name --max_perplexity (BigScience took 1500 for English)")
        pieces = args.sentencepiece_model
        kenlm = (str(Path(args.kenlm_model).absolute()), str(Path(pieces).absolute()) if pieces else None)
    elif args.max_perplexity is not None or args.sentencepiece_model:
        raise InputError("--max_perplexity and --sentencepiece_model: name the --kenlm_model")
    own = frozenset(entry.partition("=")[0] for entry in args.thresholds)
    step = Filter(limits, tuple(args.languages), lists, args.mask_pii, args.explain, fasttext, kenlm, own)
    step.models()
    for module, used in (("fasttext", fasttext), ("kenlm", kenlm)):
        packages += importlib.metadata.packages_distributions()[module][:1] if used else []
    settings: dict[str, Any] = {"rules": limits, "languages": args.languages, "mask_pii": args.mask_pii}
    settings["by_language"] = {"own": sorted(own), "thresholds": THRESHOLDS}
    settings |= {"explain": args.explain, "fasttext_label": args.fasttext_label}
    for name in ("fasttext_model", "kenlm_model", "sentencepiece_model"):
        path = getattr(args, name)
        settings[name] = sha256_of(path) if path else None
    for name in ("stop_words", "flagged_words", "bad_words"):
        settings[name] = {
            language: sha256_of(path)
            for language, path in sorted(entry.split("=", 1) for entry in getattr(args, name))
        }
    return step, settings, packages


def main(stage_args: StageArguments, args: FilterArguments) -> dict[str, Any]:
    """Filter; return the manifest (with --why an empty one)."""
    step, settings, packages = make_step(args)
    sources = find_sources(stage_args.input)
    if args.why is not None:
        tell_why(step, sources, args.why)
        return {}
    phase = document_phase(stage_args, sources, step, {"explain": EXPLAIN})
    return run_stage(
        "filter_documents", stage_args, settings_of(stage_args) | settings, sources, [phase], libraries=packages
    )


if __name__ == "__main__":
    run_script(main, StageArguments, FilterArguments)
