"""The list of languages and scripts without spaces, against Unicode's properties, and the four places that use it."""

import re
import unicodedata

import pytest
import regex

from data_prep.corpus.words import count_words, normalised_words
from data_prep.crawl.page import tidy
from data_prep.duplicates.minhash import words_of
from data_prep.languages import IDEOGRAPHS, LETTERS, TIBETAN, WITHOUT_SPACES, language_of_code, puts_spaces
from data_prep.quality.by_language import THRESHOLDS
from data_prep.quality.document import Document
from data_prep.quality.rules import RULE_SETS, RULES, judge
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


@pytest.mark.parametrize(
    ("code", "language"),
    [("zh-classical", "lzh"), ("zh-min-nan", "nan"), ("zh_yue", "yue"), ("zh-TW", "zh"), ("cmn_Hani", "zh"),
     ("EN", "en"), ("jpn_Jpan", "ja"), ("simple", "en"), ("pt-BR", "pt"), ("wuu", "wuu"), ("kor_Hang", "ko"),
     ("ger", "de"), ("est", "et"), ("als_Latn", "sq"), ("als", "gsw")],
)  # fmt: skip
def test_codes_of_wikipedias_hubs_and_countries_lead_to_a_language(code, language):
    assert language_of_code(code) == language
    assert puts_spaces(code, "") == (language not in WITHOUT_SPACES)


# Article 1 of the Universal Declaration of Human Rights.
ARTICLE = {
    "zh": "人人生而自由，在尊严和权利上一律平等。\n他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "lzh": "人人生而自由，於尊嚴及權利均各平等。\n人各賦有理性良知，誠應和睦相處，情同手足。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\n"
    "人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
    "th": THAI.replace(" ", "\n"),
    "bo": TIBETAN_TEXT,
    "km": "មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។",
    "lo": "ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ, ສິດທິ, ເສລີພາບແລະຄວາມສະເໝີພາບເທົ່າທຽມກັນ.",
    "my": "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ "
    "တူညီလွတ်လပ်သော အခွင့်အရေးများဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။",
}  # fmt: skip
CODES = {
    "zh-classical": "lzh",
    "gan": "zh",
    "wuu": "zh",
    "yue": "zh",
    "zh-TW": "zh",
    "": "ja",
    **{key: key for key in ARTICLE},
}
DEFAULT = [rule.name for name in ("gopher_repetition", "gopher_quality", "c4", "fineweb") for rule in RULE_SETS[name]]


@pytest.mark.parametrize("code", sorted(CODES))
def test_prose_without_spaces_is_kept_by_the_default_rules(code):
    limits = {name: RULES[name].threshold or 0 for name in DEFAULT}
    verdict = judge(Document(ARTICLE[CODES[code]], WordTable(), limits, code or None))
    assert (verdict.reason, verdict.text) == ("", ARTICLE[CODES[code]])
    assert {"gopher_min_words", "gopher_stop_words", "fineweb_short_lines"} <= set(verdict.skipped)
    assert verdict.judged_as == (language_of_code(code) or "unknown")


SPACED = {
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "
    "인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm "
    "và quyền lợi. Mọi con người đều được tạo hoá ban cho lý trí và lương tâm.",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد "
    "وهبوا عقلاً وضميراً وعليهم أن يعامل بعضهم بعضاً بروح الإخاء.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें "
    "बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind "
    "mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "xx": "Abcdefghijklmno pqrstuvwxyzabcd efghijklmnopqrs tuvwxyzabcdefgh.",
}  # fmt: skip


@pytest.mark.parametrize("code", sorted(SPACED))
def test_english_lengths_and_marks_are_asked_of_english_alone(code):
    names = ["gopher_min_word_length", "gopher_max_word_length", "c4_terminal_punctuation", "fineweb_line_punctuation"]
    limits = {name: RULES[name].threshold or 0 for name in names}
    verdict = judge(Document(SPACED[code], WordTable(), limits, code))
    assert (verdict.reason, verdict.text) == ("", SPACED[code])
    assert bool(verdict.skipped) == (code == "xx")
    if code in ("hi", "xx"):
        assert judge(Document(SPACED[code], WordTable(), limits, "en")).reason
    own = frozenset({"gopher_max_word_length"})
    short = limits | {"gopher_max_word_length": 1}
    assert (
        judge(Document(SPACED[code], WordTable(), short, code, own=own)).reason == "gopher: words too long on average"
    )


def test_thresholds_of_large_wikipedias_are_those_of_fineweb2():
    assert {"de", "fr", "es", "it", "ru", "ja", "zh", "pt", "pl", "nl", "ar", "sv"} <= set(THRESHOLDS)
    # deu_Latn.yml, arb_Arab.yml and jpn_Jpan.yml of https://github.com/huggingface/fineweb-2, read in 2026-11
    assert list(THRESHOLDS["de"].values()) == [0, 15, 0.774, 0, 0.152]
    assert list(THRESHOLDS["ar"].values()) == [2, 9, 0.787, 0.143, 0.189]
    assert THRESHOLDS["ja"] == {"fineweb_line_punctuation": 0.096}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ភាសា\u200bខ្មែរ\u200b\u200b២០២៦", "ភាសា\u200bខ្មែរ\u200b២០២៦"),
        ("ไทย\u200bคำ \u200bA", "ไทย\u200bคำ A"),
        ("မြန်မာ\u200bစာ\u200b", "မြန်မာ\u200bစာ"),
        ("ພາສາ\u200bລາວ", "ພາສາ\u200bລາວ"),
        ("exam\u200bple.org/\u200bpage 東\u200b京 Größe\u200b", "example.org/page 東京 Größe"),
    ],
)
def test_zero_width_spaces_stay_where_they_divide_words(text, kept):
    assert tidy(text) == kept
    assert clean_wikitext(text) == kept
    assert (
        clean_wikitext(text.replace("\u200b", "&#8203;")) == clean_wikitext(text.replace("\u200b", "{{zwsp}}")) == kept
    )


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
