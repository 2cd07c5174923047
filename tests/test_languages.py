"""The list of languages and scripts without spaces, against Unicode's properties, and the four places that use it."""

import re
import unicodedata

import pytest
import regex

from data_prep.corpus.words import count_words, normalised_words
from data_prep.duplicates.minhash import words_of
from data_prep.languages import IDEOGRAPHS, LETTERS, TIBETAN, WITHOUT_SPACES
from data_prep.quality.document import Document
from data_prep.quality.splitter import WordTable
from data_prep.wikipedia.names import names_of
from data_prep.wikipedia.wikitext import clean_wikitext

ALL = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
# Article 1 of the Universal Declaration of Human Rights, or its beginning.
THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม"
TIBETAN_TEXT = "འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་"


@pytest.mark.parametrize(
    ("ours", "unicode"),
    [
        (IDEOGRAPHS, r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]"),
        (LETTERS, r"\p{Line_Break=SA}"),
        (TIBETAN, r"\p{Script=Tibetan}"),
    ],
)
def test_scripts_hold_all_letters_that_unicode_counts_to_them(ours, unicode):
    letters = {character for character in regex.findall(unicode, ALL) if unicodedata.category(character)[0] in "LM"}
    assert letters <= set(re.findall(f"[{ours}]", ALL))


def test_scripts_hold_no_letter_of_a_script_with_spaces():
    ours = re.findall(f"[{IDEOGRAPHS}{LETTERS}{TIBETAN}]", ALL)
    spaced = r"[\p{Latin}\p{Cyrillic}\p{Greek}\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Hangul}\p{Georgian}\p{Ethiopic}]"
    assert not [character for character in ours if regex.match(spaced, character)]


@pytest.mark.parametrize("language", sorted(WITHOUT_SPACES))
def test_lines_are_joined_without_a_space_and_words_are_not_judged(language):
    assert clean_wikitext("東京は\n都市", names=names_of({}, language)) == "東京は都市"
    assert not Document("東京は都市", WordTable(), {}, language).spaces


@pytest.mark.parametrize("language", ["en", "ko", "vi", "nan", "hak", "cdo", "jv", None])
def test_other_languages_have_spaces(language):
    assert clean_wikitext("Hello\nworld", names=names_of({}, language)) == "Hello world"
    assert Document("Hello world", WordTable(), {}, language).spaces


def test_words_of_contamination_are_characters_of_chinese_and_a_few_letters_of_thai():
    assert normalised_words("東京 人々") == ["東", "京", "人", "々"]
    words = normalised_words(THAI)
    assert 2 < sum(map(len, words)) / len(words) < 5  # 13 of them say as much as 13 words, not as 3


def test_estimates_count_words_where_no_spaces_do():
    assert count_words("東京都 Tokyo") == 5
    assert 15 <= count_words(THAI) <= 30  # 18 words, of which one space tells 2
    assert 13 <= count_words(TIBETAN_TEXT) <= 26  # 13 syllables
    assert count_words("Größe ist schön") == 3


def test_near_duplicates_of_tibetan_are_found_by_its_syllables():
    assert [word.decode() for word in words_of(TIBETAN_TEXT)] == TIBETAN_TEXT.strip("་").split("་")
    assert len(words_of("ไทย")) == len(words_of("東京都")) == 3
