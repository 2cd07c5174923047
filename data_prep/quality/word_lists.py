"""Lists of words: stop words, flagged words, and how they are looked for in a text."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.languages import language_of_code
from data_prep.quality.splitter import hash_of
from shared.errors import InputError

_ENGLISH = """
a about above across after again against all almost along already also although always am among an and another any
anybody anyone anything are around as at away back be became because become been before behind being below between
both but by came can cannot could did do does doing done down during each either else enough even ever every everybody
everyone everything except few first for from further get gets getting go goes going gone got had has have having he
hence her here hers herself him himself his how however i if in instead into is it its itself just last least less let
like made make many may me might mine more most much must my myself neither never no nobody none nor not nothing now
of off often on once one only onto or other others our ours ourselves out over own perhaps quite rather same seem
seemed seems several shall she should since so some somebody someone something still such than that the their theirs
them themselves then there therefore these they this those though through thus to together too toward towards under
unless until up upon us use used very was we well were what whatever when whenever where whether which while who
whoever whole whom whose why will with within without would yet you your yours yourself yourselves don't doesn't
didn't isn't aren't wasn't weren't won't can't couldn't wouldn't shouldn't it's i'm i've i'll i'd you're you've you'll
we're we've we'll they're they've they'll he's she's that's there's what's let's
"""
ENGLISH_STOP_WORDS = frozenset(_ENGLISH.split())
GOPHER_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_WORD_CHARACTERS = re.compile(r"\w+")


@dataclass(frozen=True)
class WordList:
    """Words or phrases, all in lower case, of one language."""

    words: frozenset[str]

    @cached_property
    def hashes(self) -> frozenset[int]:
        """As in an array of words."""
        return frozenset(map(hash_of, self.words))

    def found_in(self, text: str, spaces: bool) -> int:
        """How many of its entries stand in `text`, as whole words where words are divided by spaces."""
        text = text.lower()
        if not spaces:
            return sum(word in text for word in self.words)
        found = self.words & set(_WORD_CHARACTERS.findall(text))
        more = (word for word in self.words - found if not _WORD_CHARACTERS.fullmatch(word) and word in text)
        return len(found) + sum(bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)) for word in more)


def check_codes(flag: str, languages: list[str]) -> None:
    """Raise InputError for a language that is no code of ISO 639."""
    for language in languages:
        if not re.fullmatch("[a-z]{2,3}", language_of_code(language)):
            raise InputError(f"--{flag} {language}: not a code; those of ISO 639 have two or three letters: en, gsw")


def read_lists(flag: str, entries: list[str]) -> dict[str, WordList]:
    """Word lists by language. Raises InputError."""
    lists = {}
    for entry in entries:
        language, equals, name = entry.partition("=")
        if not equals or not language or not name:
            raise InputError(f"--{flag} {entry}: write LANGUAGE=FILE, for example en=words.txt")
        try:
            words = Path(name).read_text(encoding="utf-8-sig").lower().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--{flag} {entry}: {error}; the file holds one word a line, in UTF-8") from error
        check_codes(flag, [language])
        if language in lists:
            raise InputError(f"--{flag} {entry}: {language} is named twice; put its words into one file")
        found = frozenset(filter(None, map(str.strip, words)))
        if not found:
            raise InputError(f"--{flag} {entry}: the file holds no words")
        lists[language] = WordList(found)
        lists.setdefault(language_of_code(language), lists[language])  # deu, DE and de_AT are German
    return lists
