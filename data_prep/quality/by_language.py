"""Thresholds by language, of the rules whose published ones hold for English alone.

Those of FineWeb2 (Penedo et al. 2025, https://arxiv.org/abs/2506.20920), rounded as in its configs/: its authors
measured them on each language's Wikipedia and CommonCrawl. Derived, since our words are those between spaces and its
own are not: the lengths of Korean and Vietnamese, whose share of lines is left out. Chinese written elsewhere takes
the value of `zh`. For a language without an entry the rule is skipped, and counted.
"""

from collections.abc import Mapping

# Word length at least and at most, share of words with a letter, of lines that end as a sentence, lines for each word.
_RULES = (
    "gopher_min_word_length", "gopher_max_word_length", "gopher_words_with_letter", "fineweb_line_punctuation",
    "fineweb_list",
)  # fmt: skip
_SPACED = """
ar 2  9 .787 .143 .189    bg 3 10 .756 .154 .142    ca 2 11 .832 .154 .118    cs 3 11 .781 .060 .182
da 3 11 .798 .100 .182    de 0 15 .774 .000 .152    el 3 11 .809 .167 .116    es 3 14 .825 .182 .138
fa 2  9 .812 .200 .150    fi 3 14 .755 .114 .161    fr 2 11 .812 .100 .185    he 2  9 .799 .200 .126
hi 2 21 .837 .091 .316    hr 2 11 .751 .099 .198    hu 3 15 .766 .067 .231    id 3 12 .805 .111 .157
it 3 21 .807 .025 .200    ko 1 10 .791 .062 -       nl 3 17 .828 .102 .154    no 3 12 .783 .107 .167
pl 3 12 .726 .087 .158    pt 3 13 .814 .077 .186    ro 1 14 .779 .081 .207    ru 3 11 .713 .231 .139
sk 2 11 .752 .000 .214    sr 3 10 .800 .156 .239    sv 3 12 .841 .200 .135    tr 3 21 .773 .091 .222
uk 3 11 .694 .167 .175    vi 2 11 .803 .333 -
"""
_UNSPACED = "bo 0 gan .106 ja .096 km 0 lo 0 lzh .106 my 0 th 0 wuu .106 yue .111 zh .106"  # lines that end as one


def _read() -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    words = _SPACED.split()
    for start in range(0, len(words), 6):
        language, *values = words[start : start + 6]
        table[language] = {rule: float(value) for rule, value in zip(_RULES, values, strict=True) if value != "-"}
    words = _UNSPACED.split()
    for language, value in zip(words[::2], words[1::2], strict=True):
        table[language] = {"fineweb_line_punctuation": float(value)}
    return table | {"nb": table["no"]}


THRESHOLDS = _read()
OF_ENGLISH = frozenset((*_RULES, "fineweb_short_lines"))  # FineWeb2 has no rule for short lines
OTHERS = {"fineweb_duplicate_characters": 0.1}  # FineWeb2's for every language but English


def limits_for(limits: Mapping[str, float], own: frozenset[str], language: str) -> dict[str, float]:
    """The thresholds for a language, without the rules that say nothing of it. What the user has set, which `own`
    names, holds for any language."""
    if language == "en":
        return dict(limits)
    table = OTHERS | THRESHOLDS.get(language, {})
    return {
        name: limit if name in own else table.get(name, limit)
        for name, limit in limits.items()
        if name in own or name not in OF_ENGLISH or name in table
    }
