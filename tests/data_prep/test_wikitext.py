"""Wikitext becomes prose: what stays, what goes, and that nothing hostile takes long."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.wikipedia.expansion import BUDGET, Expansion, prepare_template
from data_prep.wikipedia.inline import strip_quotes
from data_prep.wikipedia.names import names_of
from data_prep.wikipedia.wikitext import clean_wikitext

SENTENCE = "The committee met again in the spring, and nobody was absent from that long first session."


@pytest.mark.parametrize(
    ("wikitext", "prose"),
    [
        # links
        ("An [[apple]] and [[pear tree|pears]], [[plum]]s.", "An apple and pears, plums."),
        ("[[:Category:Trees|trees]] and [[:File:A.png]]", "trees and File:A.png"),
        ("Text.[[Category:Trees]][[category:X|y]]\n[[Category:Fruit]]", "Text."),
        ("[[File:A b.jpg|thumb|A [[caption|with]] [[links]] and {{t}}]]Text.", "Text."),
        ("[[image:A.png|x]] a\n\n[[Media:A.ogg|listen]] b", "a\n\nlisten b"),
        ("Text.\n[[de:Baum]]\n[[zh-min-nan:X]]", "Text."),
        ("[[wikt:tree]], [[s:Poem|a poem]], [[Wikipedia:About|about]]", "tree, a poem, about"),
        ("See [http://a.org the page] and [//b.org], [mailto:a@b.c mail].", "See the page and, mail."),
        ("[[http://a.org the page]]", "the page"),
        ("[[A#B|c]] [[#D|e]] array[1]", "c e array[1]"),
        ("[[Broken|label] goes on", "label goes on"),
        ("[[File:A.jpg|thumb|never closed\nNext line.", "Next line."),
        # templates
        ("{{Infobox|a={{b|c=[[d]]}}|\n{| x\n|}\n}}Text{{cite web|url=x}} goes on.", "Text goes on."),
        ("A {{convert|5|km|mi}} walk, {{convert|3|to|4|sqmi|km2|0}}", "A 5 km walk, 3 to 4 sq mi"),
        ("{{convert|6|ft|2|in|m}} tall, {{cvt|20|C}}", "6 ft 2 in tall, 20 °C"),
        ("{{lang|fr|bonjour}} {{lang-de|Guten Tag}} {{nowrap|a b}}", "bonjour Guten Tag a b"),
        ("{{Audio|a.ogg|Vädersolstavlan}} (Swedish)", "Vädersolstavlan (Swedish)"),
        ("a{{nbsp}}b{{snd}}c{{'}}s 10{{sup|6}} H{{sub|2}}O", "a b – c's 10⁶ H2O"),
        ("{{As of|2010|5}}, and {{as of|2011|lc=y}}", "As of May 2010, and as of 2011"),
        ("{{formatnum:12345}} {{lc:ABC}} {{#if:a|b|c}}d {{PAGENAME}}", "12345 abc bd The title"),
        ("{{#if: |a|b}}, {{#ifeq:x|x|y|z}}, {{#switch: b | a = 1 | b | c = 2 | 3}} a {{|x}}", "b, y, 2 a x"),
        ("{{frac|1|2}}, {{frac|3|1|2}}, {{val|5.0|u=m}}", "1/2, 3 1/2, 5.0 m"),
        ("{{nihongo|Tokyo|東京|Tōkyō}}", "Tokyo (東京, Tōkyō)"),
        ("{{quote|Words (a = b).|An author}}", "Words (a = b)."),
        ("{{quote|text=To be.|author=W}}", "To be."),
        ("{{{parameter|default}}} {{{none}}}", "default"),
        ("{{unclosed|a=b\nText goes on.", "Text goes on."),
        ("Text }} goes ]] on |}", "Text goes on |}"),
        # gaps
        ("Rome ({{IPA|x}}; {{lang-it|Roma}}) is", "Rome (Roma) is"),
        ("Rome ({{IPA|x}}) is ({{a}}, {{b}}) a [{{c}}] city", "Rome is a city"),
        ("Rome (Roma, {{IPA|x}}), city {{x}} , a {{y}} b{{z}}.", "Rome (Roma), city, a b."),
        ("Un mot ; un autre : « oui » !", "Un mot ; un autre : « oui » !"),
        ("f() and g( ) stay", "f() and g( ) stay"),
        ("'''''{{lang|sv}}''''' name", "name"),
        # references, comments, extensions
        ('A<ref name="x">{{cite|a=<b>}} z</ref> b<ref name=y /> c<REF>d</REF>.', "A b c."),
        ("A <!-- hidden\n\n-->b", "A b"),
        ("A\n<!-- alone on its line -->\nb", "A b"),
        ("A <!-- never closed [[b]]", "A"),
        ("Let <math>x^2</math> be. <gallery>\nA.jpg|b\n</gallery>", "Let be."),
        ("<syntaxhighlight lang=c>a[[0]]</syntaxhighlight>Text<source>b</source>", "Text"),
        ("<nowiki>[[a]] {{b}} ''c''</nowiki> ''d''", "[[a]] {{b}} ''c'' d"),
        ("<pre>a '''b'''\n* c</pre>", "a '''b'''\n* c"),
        ("<poem>\nRoses are [[red]],\nviolets blue<ref>x</ref>.\n</poem>", "Roses are red,\nviolets blue."),
        ("<ref>never closed\nText", "never closed Text"),
        # entities, once
        ("&lt;b&gt; &amp;lt; &#91;&#x5B; R&amp;D AT&T &nbsp;x&ndash;y", "<b> &lt; [[ R&D AT&T x–y"),
        ("&#42; not a list &#0;&#xD800;&#x110000;", "* not a list"),
        # tags
        ("a<br>b<br />c <small>d</small> <span style='x'>e</span> 2<sup>10</sup>", "a\nb\nc d e 2¹⁰"),
        ("x < y and a > b, <unknown> stays", "x < y and a > b, <unknown> stays"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ("<div>a</div><div>b</div>", "a\n\nb"),
        ("<table><tr><td>x<table><tr><td>y</table></table>Text", "Text"),
        # bold and italic
        ("'''Bold''' and ''it''; '''''both'''''; it's", "Bold and it; both; it's"),
        ("L'''amour'' et '''x'''", "L'amour et x"),
        ("''''x''''", "'x'"),
        # tables
        ("Before\n{| class=x\n|-\n! a\n| b {{!}} c\n{|\n| inner\n|}\n|}\nAfter", "Before\n\nAfter"),
        (":{|\n| a\n|}\nAfter", "After"),
        ("{|\n| a\n{{end}}\nText after a table that a template closes.", "Text after a table that a template closes."),
        # tables that are not closed, or closed by HTML: </table> ends both kinds in the HTML that MediaWiki writes
        ('Text.\n\n{| class="wikitable" style="width:100%"\n|-\n| a || b\n\nMore.', "Text.\n\nMore."),
        ("Text.\n\n{| class=x\n|-\n| a || b\n</table>\nMore.", "Text.\n\nMore."),
        ("Text.\n{| class=x\n| a\n{| class=y\n| b\n|}\nMore.\n\nEnd.", "Text.\n\nMore.\n\nEnd."),
        ("{| class=x\n|+ Caption\n! h\n|-\n| a\nb\n* c\n\nMore.\n|-\n| d\n== Next ==\nEnd!", "More.\n\nNext\n\nEnd!"),
        ("{| class=x\n| a\n\nOne.\n\n{|\n| b\n|}\n\nTwo.", "One.\n\nTwo."),
        ("<table border=1><tr><td>a</td>\n<td>b\n</td></tr>\n\nMore.\n\n<tr><td>c", "More."),
        ("<table>\n{| class=x\n| a\n</table>\nMore.", "More."),
        # lists and lines
        ("* one\n** two\n# three\n*\n* {{x}}", "- one\n  - two\n- three"),
        ("; Term : meaning\n: indented", "Term: meaning\n\nindented"),
        ("One line\nof a paragraph.\n\nAnother.\n----\n pre", "One line of a paragraph.\n\nAnother.\n\npre"),
        ("__NOTOC__ a __БЕЗ_ОГЛ__ b __init__", "a b __init__"),
        ("-{zh-hans:计算机; zh-hant:電腦}-", "计算机"),
        ("", ""),
        ("{{only}} [[Category:X]]", ""),
    ],
)
def test_markup_becomes_prose(wikitext, prose):
    assert clean_wikitext(wikitext, "The title") == prose


# What each shows stands on the page of the template in its own Wikipedia.
@pytest.mark.parametrize(
    ("wikitext", "prose"),
    [
        ("Il voit {{lien|langue=en|trad=Dog|fr=Chien|texte=le chien}} ici.", "Il voit le chien ici."),
        ("Il voit {{lien|Chien|en|Dog}} ici.", "Il voit Chien ici."),
        (
            "Né le {{date|1|janvier|2000}}, le {{date|12|6|1998|en football}}.",
            "Né le 1er janvier 2000, le 12 juin 1998 en football.",
        ),
        ("Au {{s|XIX|e}}, au {{s-|XX|e}} et au {{XVIIIe siècle}}.", "Au XIXe siècle, au XXe et au XVIIIe siècle."),
        (
            "Du {{sp|XVI|e|au|XIX|e}}, {{unité|12|km}}, {{n°|5}}, {{1er}} {{M.}} X",
            "Du XVIe au XIXe siècle, 12 km, n° 5, 1er M. X",
        ),
        ("Это {{нп5|Кот||en|Cat}} и {{Не переведено|Кот|коты|en|Cat}}.", "Это Кот и коты."),
        ("これは{{仮リンク|犬|en|Dog}}と{{仮リンク|犬|en|Dog|label=猫}}。", "これは犬と猫。"),
        ("{{読み仮名|東京|とうきょう}}は{{by|1868}}から。", "東京（とうきょう）は1868年から。"),
        (
            "他（{{bd|1950年|1月2日|2000年|3月4日|x}}）是{{link-en|甲|A}}和{{tsl|en|A|甲|乙}}。",
            "他（1950年1月2日－2000年3月4日）是甲和乙。",
        ),
        (
            "An {{w|a|b}} in C{{music|sharp}} minor, {{music|flat}} and {{music|time|3|4}}",
            "An b in C♯ minor, ♭ and 3/4",
        ),
        (
            "A {{sclass|Nimitz|aircraft carrier}}, the {{USS|Nimitz}}",
            "A Nimitz-class aircraft carrier, the USS Nimitz",
        ),
        (
            "Born {{birth date|1950|1|2}}, {{birth date and age|1950|1|2|df=y}}.",
            "Born January 2, 1950, 2 January 1950.",
        ),
        ("The {{ill|Dog|de|Hund|lt=dogs}}, a {{ill|Cat|de|Katze}}.", "The dogs, a Cat."),
        ("Nació el {{fecha|1|1|2000}} en el siglo {{siglo|XIX}}.", "Nació el 1 de enero de 2000 en el siglo XIX."),
        ("Nasceu em {{dni|lang=br|4|7|1970}}.", "Nasceu em 4 de julho de 1970."),
        ("Der Hund ({{enS|dog}}, {{grcS|κύων}})", "Der Hund (dog, κύων)"),
        ("يقع في {{وإو|عر=المدينة|تر=City|لغ=en}} هنا", "يقع في المدينة هنا"),
        ("Puiškins ({{Vol-ru|Пушкин}}) beja", "Puiškins (Пушкин) beja"),
    ],
)
def test_templates_of_large_editions_show_their_words(wikitext, prose):
    expansion = Expansion()
    assert clean_wikitext(wikitext, expansion=expansion) == prose
    assert not expansion.removed


def test_templates_removed_from_within_lines_are_counted_by_name():
    text = (
        "{{Infobox}}\n{{Stub}}''It'' met {{odd one|x}} a ({{odd one}}, {{Other_one|{{inner}}}}) day{{sfn|A}}.\n{{z}}"
    )
    expansion = Expansion()
    assert clean_wikitext(text, expansion=expansion) == "It met a day."
    assert expansion.removed == {"odd one": 2, "other one": 1}
    expansion = Expansion()
    assert clean_wikitext("{{Odd}} is {{nowrap|a {{#invoke:x|y}} b}} {{#expr:1+1}}", expansion=expansion) == "is a b"
    assert expansion.removed == {"odd": 1, "#invoke:x": 1, "#expr": 1}


# The rules are those of https://www.mediawiki.org/wiki/Help:Templates; each text is what that page describes.
PAGES = {
    "in": "[[Language|lang.]] ''{{{1}}}''<noinclude>Documentation {{{1}}}</noinclude>",
    "named": "<includeonly>{{{who|{{{2|nobody}}}}}}{{#if:{{{1|}}}|, of {{{1}}}}}</includeonly>",
    "only": "Page text <onlyinclude>shown {{In|{{{1}}}}}</onlyinclude> and more",
    "choice": "{{#switch:{{{1}}}\n| a = A\n| b\n| c = BC\n| #default = D\n}}<ref>r</ref>",
    "loop": "x{{loop}}",
    "twice": "{{twice2}}{{twice2}}", "twice2": "{{twice3}}{{twice3}}", "twice3": "{{{1|a}}}",
    "long": "word " * 100,
    "lines": "a\n\nb",
    "lua": "{{#invoke:m|f}}",
    "box": "{|\n| x\n|}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("wikitext", "prose", "removed"),
    [
        ("It is ({{in|kaķis}}).", "It is (lang. kaķis).", {}),
        ("By {{named}} or {{Named|x|y}} or {{template:named|who=z}}.", "By nobody or y, of x or z.", {}),
        ("It {{only|[[a|b]]}} now", "It shown lang. b now", {}),
        ("{{choice|a}}, x {{choice|b}}{{choice|q}}.", "A, x BCD.", {}),
        ("It {{twice}} is", "It aaaa is", {}),
        ("It {{loop}} is {{lua}} and {{lines}} so.", "It x is and so.", {"loop": 1, "lua": 1, "lines": 1}),
        ("It {{box}} is{{long}}.", "It is.", {"box": 1, "long": 1}),
        ("{{in|a}}\n\n{{lines}}Text.\n* {{in|b}}", "Text.", {}),
    ],
)  # fmt: skip
def test_templates_of_the_wiki_are_expanded_within_lines(wikitext, prose, removed):
    pages = {name: body for name, page in PAGES.items() if (body := prepare_template(page))}
    expansion = Expansion("Title", pages=pages)
    assert clean_wikitext(wikitext, expansion=expansion) == prose
    assert expansion.removed == removed


def test_templates_that_grow_are_expanded_up_to_a_budget():
    pages = {f"t{number}": f"{{{{t{number + 1}|{{{{{{1}}}}}}}}}}" * 80 for number in range(7)} | {"t7": "{{{1}}}"}
    expansion = Expansion(pages=pages)
    assert clean_wikitext("It is {{t0|" + "a" * 900 + "}} so.", expansion=expansion) == "It is so."
    assert -10 * BUDGET < expansion.left <= 0


def test_titles_of_empty_sections_go_and_those_above_prose_stay():
    text = (
        f"Lead.\n== Life ==\n=== Early ''life'' ===\n{SENTENCE}\n=== Empty ===\n== Gone ==\n=== Too ===\n{{{{x}}}}\n"
    )
    assert clean_wikitext(text) == f"Lead.\n\nLife\n\nEarly life\n\n{SENTENCE}"


@pytest.mark.parametrize(
    "title", ["References", "See also", "EXTERNAL LINKS", "Вижте също", "Einzelnachweise", "脚注"]
)
def test_sections_of_sources_and_links_go_unless_they_hold_prose(title):
    links = "* [[A]]\n* [http://a.org b]\nShort line"
    assert clean_wikitext(f"Lead.\n== {title} ==\n{links}\n=== Books ===\n* C\n== Next ==\nD") == "Lead.\n\nNext\n\nD"
    assert clean_wikitext(f"Lead.\n== {title} ==\n{links}\n\n{SENTENCE}") == f"Lead.\n\n{title}\n\n{SENTENCE}"


def test_names_of_files_and_categories_come_from_the_site():
    names = names_of({6: "Skrá", 14: "Flokkur", -2: "Miðill"})
    assert clean_wikitext("a [[Skrá:B.jpg|thumb|x]] b [[flokkur:Tré]]", names=names) == "a b"
    assert clean_wikitext("a [[Skrá:B.jpg|x]]") == "a x"


def test_lines_of_a_language_without_spaces_are_joined_without_one():
    assert clean_wikitext("東京は\n都市", names=names_of({}, "ja")) == "東京は都市"


def test_quotes_are_read_as_mediawiki_reads_them():
    assert strip_quotes("d'''un'' '''mot'''") == "d'un mot"
    assert strip_quotes("''''''a''''''") == "'a'"


MARKUP = (
    "{{ }} [[ ]] {| |} {{{ }}} [ ] { } | = == \n \n* \n; : ' '' ''' <ref> </ref> <ref <!-- --> <table> </table> <br> "
    "File: Category: a b {{lang|fr| {{nowrap| [http://x.y -{ }- __ ( ) , ; <poem> </poem> é 漢 \x00 \ufdd0 \ufdd5 "
    "\ud800 ~~~~ <math> </math> ---- # * !"
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(MARKUP.split(" ")) | st.text(max_size=4), max_size=60).map("".join))
def test_no_input_crashes_or_leaves_brackets_of_markup(wikitext):
    text = clean_wikitext(wikitext, "T")
    text.encode("utf-8")
    assert not re.search("[\ufdd0-\ufdef\x00-\x08]", text)
    if "&" not in wikitext and "<pre" not in wikitext.lower() and "nowiki" not in wikitext.lower():
        assert not re.search(r"\[\[|\]\]|\{\{|\}\}", text)


HOSTILE = (
    "{ {{ [[ [[a| {{a| {{{a| [[File:a| {{nowrap|x ({{a}} <ref> <!-- \n{| [http://a [http://a_b == ''' __A -{ ({{a}}, "
)
HOSTILE += "<table> * &amp; ( \n=a= <ref"


@pytest.mark.parametrize("piece", [*HOSTILE.split(" "), " ", "{{a}} ", ", ", "]] }} ", "{{convert|1", "{{a| "])
def test_time_is_linear_in_hostile_input(piece):
    def seconds(size):
        text = piece * (size // len(piece))
        start = time.process_time()
        clean_wikitext(text)
        return time.process_time() - start

    # A quadratic step takes 100 times as long for 10 times the text. Half a second for 200 kB is 20 times the usual.
    assert seconds(200_000) < max(0.5, 40 * seconds(20_000))


@pytest.mark.parametrize(
    "pair", [("{{nowrap|", "}}"), ("[[a|", "]]"), ("{{", "}}"), ("{{{a|", "}}}"), ("\n{|", "\n|}")]
)
def test_deep_nesting_is_dropped_in_time(pair):
    start = time.process_time()
    text = clean_wikitext("Kept. " + pair[0] * 20_000 + "x" * 100_000 + pair[1] * 20_000)
    assert text.startswith("Kept.") and len(text) < 1000
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "start", ["{{", "{{convert|", "{{lang|", "[[", "<ref", "#a", "== a ", "* ", "(", "__A", "{{a|b"]
)
@pytest.mark.parametrize("run", [" ", "1", "a", "=", "\t", "(", ","])
def test_one_long_run_of_a_character_takes_no_time(start, run):
    begin = time.process_time()
    for end in ("", "}}", "!", "=x}}", "]]"):
        clean_wikitext(start + run * 100_000 + end)
    assert time.process_time() - begin < 2
