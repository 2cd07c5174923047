"""What a page says: the right values are those of HTML's and HTTP's specifications, and of arithmetic."""

import pytest
from test_extract_common_crawl import ENGLISH, members, page, record, run, write

from data_prep.crawl.language import language_of, sample_of
from data_prep.crawl.page import Unwanted, extract_fast, read_page

PROSE = "<p>" + "This is a long sentence of ordinary prose. " * 4 + "</p>"


def text_of(body, headers="Content-Type: text/html", extract=extract_fast):
    return read_page(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{body}".encode(), extract, 2**20).text


@pytest.mark.parametrize("extract", [extract_fast, lambda html, tree: html])  # what the other extractor is given
@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("10<sup>9</sup> bytes", "10⁹ bytes"),
        ("5 km<SUP class='x'> 2 </SUP> more", "5 km² more"),
        ("10<sup><b>&minus;3</b></sup> m", "10⁻³ m"),
        ("2<sup>1/2</sup> is 1.41", "2^1/2 is 1.41"),
        ("log<sub>10</sub>5", "log₁₀5"),
        ("101<sub>2</sub> is five", "101₂ is five"),
    ],
)
def test_numbers_stay_what_they_are(extract, markup, shown):
    assert shown in text_of(
        f"<html><body><article>{PROSE}<p>So {markup}</p>{PROSE}</article></body></html>", extract=extract
    )


def test_lowered_numbers_of_formulas_and_ordinals_are_plain():
    text = text_of(f"<html><body>{PROSE}<p>H<sub>2</sub>O on the 2<sup>nd</sup> day</p></body></html>")
    assert "H2O on the 2nd day" in text


@pytest.mark.parametrize("tag", ["noframes", "noembed", "iframe", "canvas", "datalist"])
@pytest.mark.parametrize("end", ["</{}>", ""])
def test_what_browsers_do_not_show_is_not_read(tag, end):
    text = text_of(f"<html><body>{PROSE}<{tag}><p>Your <b>browser</b></p>{end.format(tag)}")
    assert "browser" not in text and "<" not in text and "ordinary" in text


@pytest.mark.parametrize(
    ("markup", "times"),
    [
        ('<figure><img src="x" alt="CAPTION"><figcaption>CAPTION</figcaption></figure>', 0),
        ('<figure><noscript><img src="x" alt="CAPTION"></noscript><div class="c">CAPTION</div></figure>', 0),
        ('<div class="wp-caption"><a href="x"><img src="x" alt="CAPTION" title="CAPTION"></a><p>CAPTION</p></div>', 1),
        ('<ul><li><img src="x" alt="CAPTION"><p>CAPTION</p></li></ul>', 1),
    ],
)
def test_a_picture_gives_no_text_and_its_caption_stands_alone(markup, times):
    text = text_of(f"<html><body><main>{PROSE}{markup}{PROSE}</main></body></html>")
    assert [line.strip(" •") for line in text.split("\n") if "CAPTION" in line] == ["CAPTION"] * times


def test_references_to_no_character_leave_nothing():
    assert "more a b text" in text_of(f"<html><body>{PROSE}<p>more &#0; a &#xD800; b text</p></body></html>")


@pytest.mark.parametrize("extension", ["", ";a=b", ' ; name="value"'])
def test_chunk_extensions_are_no_text(extension):
    body = f"<html><body>{PROSE}</body></html>"
    chunks = [body[:50], body[50:]]
    sent = "".join(f"{len(chunk):x}{extension}\r\n{chunk}\r\n" for chunk in chunks) + f"0{extension}\r\n\r\n"
    headers = "Content-Type: text/html\r\nTransfer-Encoding: chunked"
    assert text_of(sent, headers) == text_of(body)
    assert text_of(body, headers) == text_of(body)  # a crawler has unpacked it and left the header


def test_a_type_said_twice_is_that_type():
    assert text_of(f"<html><body>{PROSE}</body></html>", "Content-Type: text/html, text/html") == text_of(PROSE)


@pytest.mark.parametrize(
    "body",
    [
        "User-agent: *\nDisallow: /",
        "# robots\n\nSITEMAP: https://a.org/",
        "<?xml version='1.0'?><a>b</a>",
        "<rss><a/>",
    ],
)
def test_files_for_machines_are_no_prose(body):
    with pytest.raises(Unwanted, match="MIME type"):
        text_of(body, "Content-Type: text/plain")
    assert text_of("About robots: the user-agent: line.", "Content-Type: text/plain").startswith("About")


ITALIAN = "La nostra azienda offre servizi di consulenza alle imprese che vogliono crescere nel mercato europeo. "
SLOGAN = "We are the leading company for your business and we make the best of all that you want to do with us. "


@pytest.mark.parametrize(
    "text",
    [
        SLOGAN * 5 + "\n" + ITALIAN * 40,  # the first line of a page
        "Home | Download | Newsletter\n" * 40 + "\n".join([ITALIAN] * 12),  # its menus
        ITALIAN * 3,
        "Chi siamo\nDove siamo\nI nostri contatti\nLe ultime notizie\nTutti gli articoli",  # short lines only
    ],
)
def test_the_language_of_a_page_is_that_of_most_of_its_text(text):
    assert language_of(text)[0] == "it"


def test_the_sample_of_a_text_is_bounded_and_valid():
    for text in ("é" * 50_000, "漢字" * 3000, "", "a\n" * 9000, "x" * 999):
        sample = sample_of(text)
        assert len(sample.encode()) <= 1004 and set(sample) <= set(text) | {"\n"}


def test_resource_records_are_pages_without_http(tmp_path):
    """WARC 1.1, 6.4: the block is the resource, and the record's Content-Type says what it is."""
    kinds = {"text/html; charset=cp1251": page("Это статья, в которой написано много слов о погоде и о природе. " * 9)}
    kinds |= {"text/plain": ENGLISH.encode(), "image/png": b"\x89PNG\r\n", None: page()}
    records = [
        record(block.decode().encode("cp1251") if "cp1251" in str(kind) else block, f"https://a.org/{number}",
               kind="resource", number=number, Content_Type=kind)
        for number, (kind, block) in enumerate(kinds.items())
    ]  # fmt: skip
    records.append(record(b"1 screenshot", "urn:thumbnail:https://a.org/", kind="resource", Content_Type="text/plain"))
    manifest, kept, dropped = run(tmp_path, write(tmp_path / "x.warc.gz", members(records)))
    assert manifest["counts"]["in"] == 5 and [row["url"][-1] for row in kept] == ["0", "1", "3"]
    assert kept[0]["text"].startswith("Это статья") and kept[1]["text"] == ENGLISH.strip()
    assert [row["reason"] for row in dropped] == ["MIME type", "not an address of the web"]
