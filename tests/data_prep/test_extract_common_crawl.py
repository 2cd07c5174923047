import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from data_prep import extract_common_crawl as script
from data_prep.crawl import files, warc
from data_prep.crawl.page import Unwanted, decode, extract_fast, parse_date, plausible_last_modified, read_page, tidy
from data_prep.crawl.page_process import PageProcess
from data_prep.crawl.urls import clean_url, is_wikipedia, read_block_list
from data_prep.crawl.warc import MEMBER, read_records
from data_prep.engine.stage import StageArguments
from data_prep.extract_common_crawl import ExtractArguments, ExtractPages
from shared.errors import BadRecordsError, InputError
from shared.rows import find_sources

DATA = Path(os.environ.get("TINY_OLM_DATA", "nowhere"), "commoncrawl")
ENGLISH = "The river rose for three days, and on the fourth the people of the town carried their books to the hill. "
GERMAN = "Der Fluss stieg drei Tage lang, und am vierten trugen die Leute der Stadt ihre Bücher auf den Hügel. "
KINDS = ("response", "conversion")


def page(text=ENGLISH, title="A title", head=""):
    return f"<!doctype html><html><head><title>{title}</title>{head}</head><body><p>{text}</p></body></html>".encode()


def http(body, headers="Content-Type: text/html; charset=utf-8", status="200 OK"):
    return f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body


def record(block, url="https://example.org/", kind="response", number=0, length=None, **more):
    """One record of a WARC file; a header of None is left out."""
    headers = {
        "WARC-Type": kind,
        "WARC-Target-URI": url,
        "WARC-Date": "2026-10-20T12:00:00Z",
        "WARC-Record-ID": f"<urn:uuid:00000000-0000-0000-0000-{number:012d}>",
        "Content-Length": str(len(block) if length is None else length),
    } | {name.replace("_", "-"): value for name, value in more.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value is not None)
    return f"WARC/1.0\r\n{lines}\r\n".encode() + block + b"\r\n\r\n"


def numbered(count, **more):
    return [
        record(http(page(f"{ENGLISH} Page {n}.")), f"https://example.org/{n}", number=n, **more) for n in range(count)
    ]


def members(records):
    return b"".join(gzip.compress(each, mtime=0) for each in records)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def run(tmp_path, *inputs, name="out", workers=1, part_records=2000, max_bad_records=1.0, **flags):
    """The manifest, the documents in order, and the dropped ones."""
    stage_args = StageArguments(
        output_dir=str(tmp_path / name),
        input=[str(path) for path in inputs],
        workers=workers,
        part_records=part_records,
        max_bad_records=max_bad_records,
    )
    manifest = script.main(stage_args, ExtractArguments(**flags))
    return manifest, rows(tmp_path / name), rows(tmp_path / name / "dropped")


def rows(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def reasons(dropped):
    return {row["url"].rpartition("/")[2]: row["reason"] for row in dropped}


def read(path, position=0, kinds=KINDS, max_bytes=2**20):
    return list(read_records(str(path), position, kinds, max_bytes))


def numbers(records):
    return [int(r.headers["warc-record-id"][-13:-1]) for r in records if not r.problem]


def text_of(block):
    return read_page(block, extract_fast, 2**20).text


def test_a_page_becomes_a_document_that_can_be_traced_to_its_record(tmp_path):
    headers = "Content-Type: text/html; charset=utf-8\r\nLast-Modified: Fri, 09 Oct 2026 23:54:35 GMT"
    page_record = record(
        http(page(), headers),
        "<HTTPS://user@Example.ORG:443/a?utm_source=x&id=7#top>",
        WARC_Date="2026-10-20T12:00:00Z",
    )
    content = members(
        [record(b"isPartOf: CC-MAIN-2026-43\r\n", kind="warcinfo"), record(b"", kind="request"), page_record]
    )
    path = write(tmp_path / "first.warc.gz", content)
    manifest, (row,), _ = run(tmp_path, path)
    assert (row["id"], row["url"]) == ("00000000-0000-0000-0000-000000000000", "https://example.org/a?id=7")
    assert (row["title"], row["text"]) == ("A title", ENGLISH.strip())
    assert (row["date"], row["last_modified"]) == ("2026-10-20T12:00:00Z", "2026-10-09T23:54:35Z")
    assert row["language"] == "en" and row["language_score"] > 0.9
    assert (row["source"], row["warc_file"]) == ("CC-MAIN-2026-43", "first.warc.gz")
    assert gzip.decompress(content[row["offset"] :]) == page_record
    assert manifest["counts"] == {"in": 1, "kept": 1, "text_bytes": len(row["text"]), "dropped": {}, "bad": {}}


def test_the_snapshot_is_in_the_path_or_the_file_or_else_the_files_name(tmp_path):
    info = record(b"software: x\r\nisPartOf: CC-MAIN-2014-35\r\n", kind="warcinfo")
    assert files.snapshot_of(str(write(tmp_path / "a/CC-MAIN-2026-43/x.warc", info))) == "CC-MAIN-2026-43"
    assert files.snapshot_of(str(write(tmp_path / "CC-MAIN-20140820-00006.warc", info))) == "CC-MAIN-2014-35"
    assert files.snapshot_of(str(write(tmp_path / "mine.warc", record(b"")))) == "mine"


def test_what_is_not_wanted_is_dropped_with_its_reason(tmp_path):
    html = "Content-Type: text/html"
    cases = {
        "kept": http(page()),
        "xhtml": http(page(), "Content-Type: application/xhtml+xml"),
        "plain": http(ENGLISH.encode(), "Content-Type: text/plain"),
        "unlabelled": http(page(), "Server: x"),
        "status": http(page(), status="404 Not Found"),
        "moved": http(b"", "Location: /elsewhere", "301 Moved"),
        "pdf": http(b"%PDF-1.4", "Content-Type: application/pdf"),
        "disguised": http(b"%PDF-1.4 " + page(), html),
        "script": http(b"<html><body><script>var text = 'no text';</script></body></html>", html),
        "german": http(page(GERMAN)),
        "nested": http(b"<div>" * 1000 + page(), html),
        "large": http(page(ENGLISH * 2000)),
        "packed": http(gzip.compress(page(ENGLISH * 2000)), f"{html}\r\nContent-Encoding: gzip"),
        "no-http": page(),
    }
    records = [record(block, f"https://example.org/{name}") for name, block in cases.items()]
    records += [
        record(http(page()), url) for url in ("https://de.m.wikipedia.org:443/wiki/wiki", "dns:example.org/dns")
    ]
    records += [
        record(http(page()), "https://cdn.bad.example/blocked"),
        record(http(page()), "https://notbad.example/fine"),
    ]
    blocked = write(tmp_path / "blocked.txt", b"# a comment\n\n*.Bad.example.\n")
    path = write(tmp_path / "x.warc.gz", members(records))
    manifest, kept, dropped = run(
        tmp_path, path, languages=["en", "fr"], block_list=str(blocked), max_record_bytes=100_000
    )
    assert [row["url"].rpartition("/")[2] for row in kept] == ["kept", "xhtml", "plain", "unlabelled", "fine"]
    assert reasons(dropped) == {
        "status": "HTTP status",
        "moved": "HTTP status",
        "pdf": "MIME type",
        "disguised": "MIME type",
        "script": "no text",
        "german": "other language",
        "nested": "elements nested too deeply",
        "large": "larger than --max_record_bytes",
        "packed": "larger than --max_record_bytes",
        "no-http": "no HTTP header",
        "wiki": "Wikipedia page",
        "dns": "not an address of the web",
        "blocked": "blocked domain",
    }
    assert manifest["counts"]["in"] == len(records) and manifest["counts"]["bad"] == {"no HTTP header": 1}
    details = {row["reason"]: row["detail"] for row in dropped}
    assert details["other language"].startswith("de ") and details["HTTP status"] == "301"
    assert len(run(tmp_path, path, name="all", wikipedia="keep")[1]) == len(kept) + 5  # and too large, German, blocked


def test_a_language_that_is_uncertain_is_dropped_by_flag(tmp_path):
    path = write(tmp_path / "x.warc.gz", members([record(http(page(text))) for text in (ENGLISH, "12 34 56")]))
    _, kept, dropped = run(tmp_path, path, min_language_score=0.65)
    assert [row["text"] for row in kept] == [ENGLISH.strip()] and dropped[0]["reason"] == "language uncertain"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("HTTP://u:p@EN.Example.COM:80/A?utm_source=x&b=1&fbclid=3&PHPSESSID=9#f", "http://en.example.com/A?b=1"),
        ("<https://example.org>", "https://example.org/"),
        ("https://example.org:8443/;jsessionid=12?a=%20 b", "https://example.org:8443/?a=%20%20b"),
        ("http://bücher.example/ä", "http://xn--bcher-kva.example/ä"),
        ("http://[::1]:80/", "http://[::1]/"),
        *(
            (url, None)
            for url in ("ftp://a.b/", "dns:a.b", "http://", "http://[x", "http://a:99999/", "//a.b", "http://a b/")
        ),
    ],
)
def test_addresses_are_cleaned(url, clean):
    assert clean_url(url) == clean


def test_every_variant_of_wikipedia_is_known_and_no_other_site():
    hosts = (
        "en.wikipedia.org",
        "www.wikipedia.org:443",
        "DE.m.Wikipedia.org",
        "zh.zero.wikipedia.org.",
        "wikipedia.org",
    )
    assert all(is_wikipedia(f"{scheme}://{host}/wiki/X") for host in hosts for scheme in ("http", "https"))
    others = ("notwikipedia.org", "wikipedia.org.example.com", "en.wikipedia.org@example.com", "en.wiktionary.org")
    assert not any(is_wikipedia(f"http://{host}/wikipedia.org") for host in others)


RUSSIAN = "Река поднималась три дня, а на четвёртый жители города понесли свои книги на холм. " * 5
POLISH = "Rzeka wzbierała przez trzy dni, a czwartego ludzie zanieśli książki na wzgórze. " * 5
JAPANESE = "川は三日間増水し、四日目に町の人々は本を丘に運んだ。" * 9


@pytest.mark.parametrize("codec", ["iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext", "iso2022_kr", "hz"])
@pytest.mark.parametrize("label", [None, "utf-8", "windows-1252"])
def test_encodings_of_seven_bits_are_known_without_their_label(codec, label):
    text = {"iso2022_kr": "모든 인간은 태어날 때부터", "hz": "人人生而自由，\n在尊严和权利上"}.get(codec, JAPANESE)
    assert decode(text.encode(codec), label, False) == text
    cut = text.encode("iso2022_jp" if codec == "hz" else codec, "ignore")[:-4]
    assert text.startswith(decode(cut, label, False)[:3])


@pytest.mark.parametrize(
    "content", [b"a \x1b$)A\x0e1\x22\x0f b", b"\x1b$B\x22\x7f!\x1b(B and more", b"\x1b$Bzzzz\x1b(B"]
)
def test_escape_sequences_that_cannot_be_read_are_no_text(content):
    with pytest.raises(Unwanted, match="encoding that cannot be read"):
        decode(content, "utf-8", True)
    assert decode(b"\x1b[31mred\x1b[0m ~{ a } ~", None, False) == "\x1b[31mred\x1b[0m ~{ a } ~"


@pytest.mark.parametrize(
    ("text", "encoding", "label", "declared"),
    [
        (RUSSIAN, "utf-8", None, None),
        (RUSSIAN, "utf-8", "iso-8859-1", "windows-1251"),  # a wrong label
        (RUSSIAN, "cp1251", "windows-1251", None),
        (RUSSIAN, "cp1251", "iso-8859-1", None),  # the label of a server's default settings
        (RUSSIAN, "koi8-r", "utf-8", None),
        (RUSSIAN, "koi8-r", None, "koi8-r"),
        (GERMAN * 5, "latin-1", "ISO-8859-1", None),
        (GERMAN * 5, "latin-1", "utf-8", "utf-8"),
        (GERMAN * 5, "latin-1", None, None),
        (POLISH, "iso8859-2", "iso-8859-1", "iso-8859-2"),
        (JAPANESE, "shift_jis", None, "x-sjis"),
        (JAPANESE, "iso2022_jp", "iso-2022-jp", None),
        (JAPANESE, "euc_jp", None, None),
        (RUSSIAN, "utf-16", None, None),  # with a byte order mark
        (RUSSIAN, "utf-16-le", None, None),
        (GERMAN, "utf-16-be", "utf-16be", None),
        (RUSSIAN, "utf-8-sig", "iso-8859-1", None),
        (GERMAN, "utf-8", "no-such-encoding", "utf-16"),
    ],
)
def test_text_is_read_in_the_encoding_that_it_has(text, encoding, label, declared):
    meta = f'<meta charset="{declared}">' if declared else ""
    content = f"<html><head>{meta}</head><body><p>{text}</p></body></html>".encode(encoding)
    headers = "Content-Type: text/html" + (f"; charset={label}" if label else "")
    assert text_of(http(content, headers)) == text.strip()


def test_a_cut_or_broken_byte_does_not_spoil_a_page():
    content = RUSSIAN.encode()
    assert decode(content[:-101], "utf-8", False) == RUSSIAN[: len(content[:-101].decode("utf-8", "ignore"))]
    assert decode(content[:100] + b"\xff\xfe" + content[100:], "utf-8", True) == RUSSIAN
    assert text_of(http(b"<p>one\0 two \xed\xa0\x80three</p><p>\xff\xfe&#0;&#xD800;four")).isprintable() is False


@pytest.mark.parametrize(
    ("headers", "pack"),
    [
        ("Content-Encoding: gzip", gzip.compress),
        ("Content-Encoding: x-gzip", gzip.compress),
        ("Content-Encoding: gzip", bytes),  # as many crawlers store it: unpacked, with the old header
        ("Content-Encoding: deflate", zlib.compress),
        ("Content-Encoding: deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("Content-Encoding: br", bytes),
        ("Content-Encoding: made-up", bytes),
        ("Transfer-Encoding: chunked", lambda body: b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)),
        ("Transfer-Encoding: chunked", bytes),
        ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked", lambda body: _chunks(gzip.compress(body))),
        ("Content-Length: 5", bytes),
        ("X-Crawl-Content-Encoding: gzip", gzip.compress),
    ],
)
def test_bodies_are_unpacked(headers, pack):
    assert text_of(http(pack(page()), f"Content-Type: text/html\r\n{headers}")) == ENGLISH.strip()


def _chunks(body):
    return (
        b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 50]), body[i : i + 50]) for i in range(0, len(body), 50))
        + b"0\r\n\r\n"
    )


def test_text_is_tidy_and_keeps_paragraphs_and_lists():
    assert (
        tidy("a  b\t \u00a0c \r\n  - x\u00ad  y\r\r\r\r \n\u200bz\x00\ud800\u2028.\n\n") == "a b\tc\n  - x y\n\nz\n."
    )
    items = [f"{number} {ENGLISH.strip()}" for number in ("First,", "Second,")]
    body = f"<nav><a href=/>Home</a></nav><h1>Head</h1><p>A <b>bold</b> word.</p><ul><li>{items[0]}<li>{items[1]}</ul>"
    text = text_of(http(f"<html><body id=top><main>{body}".encode()))
    assert text == f"Head\n\nA bold word.\n\n  • {items[0]}\n  • {items[1]}"


@pytest.mark.parametrize(
    ("value", "date"),
    [
        ("Fri, 09 Aug 2013 23:54:35 GMT", "2013-08-09T23:54:35Z"),
        ("Friday, 09-Aug-13 23:54:35 GMT", "2013-08-09T23:54:35Z"),
        ("Fri Aug  9 23:54:35 2013", "2013-08-09T23:54:35Z"),
        ("2013-08-09T23:54:35+02:00", "2013-08-09T21:54:35Z"),
        *((value, None) for value in ("", "0", "-1", "yesterday", "Wed, 31 Feb 2019 00:00:00 GMT", "9" * 1000)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Tue, 20 Oct 2026 12:00:01 GMT", None),  # later than the crawl
        ("Fri, 09 Aug 99999 23:54:35 GMT", None),
    ],
)
def test_last_modified_is_read_if_it_can_be_true(value, date):
    assert plausible_last_modified(value, "2026-10-20T12:00:00Z") == date
    assert parse_date(None) is None


def test_a_page_that_crashes_or_keeps_the_parser_busy_costs_only_itself():
    good, html = http(page()), "Content-Type: text/html"
    with PageProcess("fast", 2**24, seconds=1) as pages:
        assert pages.read(good)["text"] == ENGLISH.strip()
        for body in (b"<div>" * 100_000, b"<div>" * 100_000 + b"x" + b"</div>" * 100_000):
            assert pages.read(http(body, html))["reason"] == "elements nested too deeply"
        busy = b"<p " + b" ".join(b"a%d=1" % n for n in range(100_000)) + b">"  # takes a minute
        assert pages.read(http(busy, html))["detail"] == f"ended with code {-signal.SIGXCPU}"
        assert pages.read(good)["text"] == ENGLISH.strip()
        pages.process.send_signal(signal.SIGSEGV)
        assert pages.read(good)["reason"] == "too much for the extractor"
        bomb = gzip.compress(b"<p>x" * 2**23)
        assert (
            pages.read(http(bomb, f"{html}\r\nContent-Encoding: gzip"))["reason"] == "larger than --max_record_bytes"
        )
        entities = b'<!DOCTYPE x [<!ENTITY a "aa">' + b"".join(
            b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 30)
        )
        assert len(pages.read(http(entities + b"]><p>&a29;</p>", html))["text"]) < 1000
        for _ in range(3):
            child = pages.process
            assert pages.read(good)["text"] == ENGLISH.strip()
        assert pages.process is child and child.poll() is None
    assert child.poll() is not None


def test_wet_records_take_last_modified_from_the_wat_file(tmp_path):
    def wat(number, headers, kind="response"):
        envelope = {
            "WARC-Header-Metadata": {
                "WARC-Type": kind,
                "WARC-Record-ID": f"<urn:uuid:page-{number}>",
                "WARC-Target-URI": f"https://example.org/{number}",
                "WARC-Date": "2026-10-20T12:00:00Z",
            },
            "Payload-Metadata": {"HTTP-Response-Metadata": {"Headers": headers}},
        }
        return record(json.dumps({"Envelope": envelope}).encode(), kind="metadata")

    modified = {"last-modified": "Fri, 09 Oct 2026 23:54:35 GMT"}
    described = [
        wat(0, modified),
        wat(1, {}),
        wat(2, modified),
        wat(3, modified, "request"),
        wat(4, {"Last-Modified": []}),
    ]
    bad = [record(b'{"last-', kind="metadata"), record(b"[" * 100_000 + b"ast-", kind="metadata")]
    conversions = [
        record(f"{ENGLISH} {n}\n".encode(), f"https://example.org/{n}", "conversion", n, WARC_Refers_To=refers)
        for n, refers in enumerate(["<urn:uuid:page-0>", "<urn:uuid:page-1>", None, "<urn:uuid:page-3>", None])
    ]
    folder = tmp_path / "CC-MAIN-2026-43"
    wet = write(folder / "wet" / "a.warc.wet.gz", members(conversions))
    wat_file = write(folder / "wat" / "a.warc.wat.gz", members(bad + described))
    expected = ["2026-10-09T23:54:35Z", None, "2026-10-09T23:54:35Z", None, None]
    for name, inputs in (("beside", [wet]), ("named", [folder])):
        manifest, kept, _ = run(tmp_path, *inputs, name=name)
        assert [row["last_modified"] for row in kept] == expected
        assert [row["text"] for row in kept] == [f"{ENGLISH} {n}".replace("  ", " ") for n in range(5)]
        assert {entry["file"] for entry in manifest["inputs"]} == {"a.warc.wet.gz", "a.warc.wat.gz"}
    wat_file.write_bytes(members(described))
    with pytest.raises(InputError, match="other settings or input"):
        run(tmp_path, wet, name="beside")


def test_a_file_that_is_there_as_warc_and_wet_is_read_once(tmp_path, capsys):
    write(tmp_path / "in" / "a.warc.gz", members(numbered(2)))
    write(tmp_path / "in" / "a.warc.wet.gz", members([record(b"text", kind="conversion")]))
    write(tmp_path / "in" / "b.warc.wet", record(ENGLISH.encode(), "https://example.org/b", "conversion"))
    _, kept, _ = run(tmp_path, tmp_path / "in")
    assert [row["warc_file"] for row in kept] == ["a.warc.gz", "a.warc.gz", "b.warc.wet"]
    assert "1 WET files are left out" in capsys.readouterr().out


def damaged_files():
    """(content, numbers of the records that are whole, how many places are damaged) by name."""
    records = numbered(6)
    good = [gzip.compress(each, mtime=0) for each in records]
    flipped = bytearray(good[2])
    flipped[len(flipped) // 2] ^= 0x10
    wrong_sum = bytearray(good[2])
    wrong_sum[-6] ^= 0xFF
    garbage = b"<html>503 Service Unavailable</html>\r\n"
    long, short = (
        record(http(page()), "https://example.org/2", number=2, length=len(http(page())) + by) for by in (1000, -60)
    )

    def missing(header):
        return record(http(page()), number=2, **{header: None})

    def with_third(third):
        return b"".join([*good[:2], third, *good[3:]])

    rest = [0, 1, 3, 4, 5]
    cases = {
        "whole": (b"".join(good), [0, 1, 2, 3, 4, 5], 0),
        "last member cut": (b"".join(good)[:-30], [0, 1, 2, 3, 4], 1),
        "member cut": (with_third(good[2][:-40]), rest, 1),
        "bit flipped": (with_third(bytes(flipped)), rest, 1),
        "wrong checksum": (with_third(bytes(wrong_sum)), rest, 1),
        "garbage between": (b"".join(good[:3]) + garbage + b"".join(good[3:]), [0, 1, 2, 3, 4, 5], 1),
        "garbage first": (garbage + b"".join(good), [0, 1, 2, 3, 4, 5], 1),
        "error page": (garbage, [], 1),
        "nothing": (b"", [], 0),
        "zeros at the end": (b"".join(good) + bytes(10_000), [0, 1, 2, 3, 4, 5], 0),
        "gzip of something else": (with_third(gzip.compress(b"hello")), rest, 1),
        "only magic": (with_third(b"\x1f\x8b\x08" * 5000), rest, 1),
        "record in three members": (
            b"".join(
                [
                    *good[:2],
                    *(gzip.compress(records[2][i : i + 300]) for i in range(0, len(records[2]), 300)),
                    *good[3:],
                ]
            ),
            [0, 1, 2, 3, 4, 5],
            0,
        ),
    }
    together = [("member of many", lambda parts: gzip.compress(b"".join(parts), mtime=0)), ("plain", b"".join)]
    for name, join in [("members", members), *together]:

        def with_record(third, join=join):
            return join([*records[:2], third, *records[3:]])

        cases |= {
            f"{name}: whole": (join(records), [0, 1, 2, 3, 4, 5], 0),
            f"{name}: too long": (with_record(long), rest, 1),
            f"{name}: too short": (with_record(short), rest, 1),
            f"{name}: far too long": (with_record(record(http(page()), number=2, length=10**12)), rest, 1),
            f"{name}: no length": (with_record(missing("Content-Length")), rest, 1),
            f"{name}: length not a number": (with_record(record(http(page()), number=2, length="-5")), rest, 1),
            f"{name}: no type": (with_record(missing("WARC-Type")), rest, 1),
            f"{name}: endless header": (with_record(b"WARC/1.0\r\n" + b"a" * 200_000 + b"\r\n\r\n"), rest, 1),
            f"{name}: line of megabytes": (with_record(b"x" * 3_000_000 + b"\r\n"), rest, 1),
            f"{name}: line ends": (join([*records[:3], b"\r\n" * 10_000, *records[3:]]), [0, 1, 2, 3, 4, 5], 0),
            f"{name}: lines end as on Unix": (
                join([each.replace(b"\r\n", b"\n", each.index(b"\r\n\r\n") and 7) for each in records]),
                [0, 1, 2, 3, 4, 5],
                0,
            ),
        }
    cases["plain: cut"] = (b"".join(records)[:-200], [0, 1, 2, 3, 4], 1)
    cases["plain: cut in a request"] = (b"".join([*records, record(b"", kind="request")[:-9]]), [0, 1, 2, 3, 4, 5], 1)
    whole = gzip.compress(b"".join(records), mtime=0)
    kept = zlib.decompressobj(31).decompress(whole[: len(whole) // 2])
    cases["member of many: cut"] = (whole[: len(whole) // 2], list(range(kept.count(b"\r\n\r\nWARC/1.0"))), 1)
    return cases


CASES = damaged_files()


@pytest.mark.parametrize("case", CASES)
def test_damage_costs_the_damaged_record_alone_wherever_reading_starts(case, tmp_path):
    content, whole, problems = CASES[case]
    path = write(tmp_path / ("x.warc" if case.startswith("plain") else "x.warc.gz"), content)
    found = read(path)
    assert numbers(found) == whole
    assert len([r for r in found if r.problem]) == problems
    assert any(r.problem.endswith("the rest is lost") for r in found) == (": cut" in case or case == "last member cut")
    assert all(r.share <= 1 for r in found) and [r.share for r in found] == sorted(r.share for r in found)
    for index, before in enumerate(found):
        again = read(path, before.position)
        facts = [(r.offset, r.inner, r.position, r.problem, r.block) for r in again]
        assert facts == [(r.offset, r.inner, r.position, r.problem, r.block) for r in found[index + 1 :]]


def test_a_record_is_found_at_its_offset_in_its_member(tmp_path):
    records = numbered(3)
    path = write(tmp_path / "x.warc.gz", gzip.compress(b"".join(records)))
    assert [(r.offset, r.inner) for r in read(path)] == [(0, 0), (0, len(records[0])), (0, len(b"".join(records[:2])))]
    plain = write(tmp_path / "x.warc", b"".join(records))
    assert [(r.offset, r.inner) for r in read(plain)][1] == (len(records[0]), 0)
    _, kept, _ = run(tmp_path, path)
    assert [json.loads(row["metadata"] or "{}").get("offset_in_member") for row in kept][1] == len(records[0])


@pytest.mark.parametrize("claimed", [10 * 2**30, 100])
def test_a_gzip_bomb_is_left_in_bounded_time_and_memory(claimed, tmp_path, monkeypatch):
    monkeypatch.setattr(warc, "SKIPPED_BYTES", 2**26)
    head = record(b"", number=1, length=claimed)
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, wbits=-15)
    zeros = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = start + zeros * 10 * 1024 + b"\x03\x00" + bytes(8)  # 10 GiB in 10 MB
    good = numbered(3)
    path = write(tmp_path / "x.warc.gz", members(good[:1]) + bomb + members(good[2:]))
    largest = 0
    fill = warc.Inflater._more

    def watched(stream):
        nonlocal largest
        fill(stream)
        largest = max(largest, len(stream.window))

    monkeypatch.setattr(warc.Inflater, "_more", watched)
    first, middle, last = read(path)
    assert numbers([first, last]) == [0, 2] and (middle.too_large or middle.problem)
    assert largest < 2**20
    assert numbers(read(path, middle.position)) == [2]


def test_records_that_are_no_pages_are_not_counted(tmp_path):
    kinds = ("warcinfo", "request", "response", "revisit", "metadata", "continuation")
    path = write(tmp_path / "x.warc.gz", members([record(http(page()), kind=kind) for kind in kinds]))
    manifest, kept, dropped = run(tmp_path, path)
    assert (manifest["counts"]["in"], len(kept), len(dropped)) == (1, 1, 0)


def test_records_without_address_id_or_date(tmp_path):
    headers = ({"WARC_Target_URI": None}, {"WARC_Record_ID": None, "WARC_Date": None}, {"WARC_Date": "2026-13-45"})
    content = b"".join(record(http(page()), **more) for more in headers)
    _, kept, dropped = run(tmp_path, write(tmp_path / "x.warc", content))
    assert [row["reason"] for row in dropped] == ["no WARC-Target-URI in the WARC header"]
    second = content.index(b"WARC/1.0", 10)
    assert (kept[0]["id"], kept[0]["date"], kept[1]["date"]) == (f"x.warc:{second}", None, None)


def test_too_many_damaged_records_stop_the_stage(tmp_path):
    content = members([*numbered(18), record(page())])
    path = write(tmp_path / "x.warc.gz", content)
    with pytest.raises(BadRecordsError, match="no HTTP header 1"):
        run(tmp_path, path, max_bad_records=0.05)
    assert len(rows(tmp_path / "out")) == 18


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))} | {
        "manifest": (folder / "manifest.json").read_bytes()
    }


@pytest.mark.faults
def test_the_number_of_workers_changes_no_byte(tmp_path):
    inputs = [
        write(tmp_path / "a.warc.gz", members(numbered(20))),
        write(tmp_path / "b.warc", b"".join(numbered(9)) + b"damage"),
    ]
    for workers in (1, 2):
        run(tmp_path, *inputs, name=f"out{workers}", workers=workers, part_records=4)
    assert files_of(tmp_path / "out1") == files_of(tmp_path / "out2") and len(files_of(tmp_path / "out1")) == 5 + 3 + 2


def test_a_step_is_a_function_of_file_and_position(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.crawl.warc.RAW_BYTES", 300)  # what was read ahead must not show
    path = write(tmp_path / "x.warc.gz", members([*numbered(2), record(page()), *numbered(2)]))
    sources, step = files.choose_sources([str(path)])[0], ExtractPages(ExtractArguments(), {})
    outcomes = list(step(sources[0], 0))
    for index, outcome in enumerate(outcomes):
        assert list(step(sources[0], outcome.position)) == outcomes[index + 1 :]


def test_killed_and_started_again_it_writes_the_same(tmp_path):
    records = [record(http(page(f"{ENGLISH * 9} {n}")), f"https://example.org/{n}", number=n) for n in range(400)]
    path = write(tmp_path / "x.warc.gz", members(records))
    run(tmp_path, path, name="whole", part_records=20)
    out = tmp_path / "out"
    command = [sys.executable, "data_prep/extract_common_crawl.py", "--input", str(path), "--output_dir", str(out)]
    command += ["--part_records", "20", "--workers", "1", "--max_bad_records", "1.0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while len(list(out.glob("0*.parquet"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    parts = {part: part.stat().st_mtime_ns for part in out.glob("0*.parquet")}
    assert 5 <= len(parts) < 20
    run(tmp_path, path, part_records=20)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert sum(part.stat().st_mtime_ns == then for part, then in parts.items()) >= len(parts) - 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"languages": ["en", "english"]}, "--languages english: not known"),
        ({"min_language_score": 1.5}, "--min_language_score 1.5"),
        ({"max_record_bytes": 10}, "--max_record_bytes 10"),
    ],
)
def test_wrong_flags_are_refused(flags, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ExtractArguments(**flags)


def test_wrong_input_is_refused(tmp_path):
    wat = write(tmp_path / "a.warc.wat.gz", b"")
    with pytest.raises(InputError, match="WAT files hold no text"):
        run(tmp_path, wat)
    with pytest.raises(InputError, match="unknown kind of file"):
        run(tmp_path, write(tmp_path / "a.txt", b""))
    path = write(tmp_path / "a.warc.gz", b"")
    for content, message in ((b"https://a.example/\n", "line 1"), (b"\xff\xfe", "cannot be read as text")):
        with pytest.raises(InputError, match=message):
            run(tmp_path, path, block_list=str(write(tmp_path / f"{len(content)}.txt", content)))


def test_a_changed_block_list_is_not_mixed_with_old_output(tmp_path):
    path, domains = write(tmp_path / "a.warc.gz", members(numbered(2))), write(tmp_path / "list", b"a.example")
    run(tmp_path, path, block_list=str(domains))
    domains.write_bytes(b"example.org")
    read_block_list.cache_clear()  # as in another run
    with pytest.raises(InputError, match="block_list was"):
        run(tmp_path, path, block_list=str(domains))


def test_the_precise_extractor_needs_trafilatura(tmp_path):
    text = f"<h1>Flood</h1><p>{ENGLISH * 3}</p><p>{ENGLISH * 2}</p>"
    path = write(tmp_path / "a.warc.gz", members([record(http(page(text))) for _ in range(3)]))
    try:
        import trafilatura  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="pip install trafilatura"):
            run(tmp_path, path, extractor="precise")
        return
    texts = [row["text"] for row in run(tmp_path, path, extractor="precise")[1]]
    assert len(texts) == 3 and len(set(texts)) == 1 and ENGLISH.strip() in texts[0]  # no memory of earlier pages


def slow_reader(path):
    """Ids of the responses and conversions that a plain look at the inflated bytes finds, whole or not."""
    data, content = path.read_bytes(), b""
    while data[:2] == b"\x1f\x8b":
        inflate = zlib.decompressobj(31)
        content += inflate.decompress(data) + inflate.flush()
        data = inflate.unused_data
    content = content or data
    heads = re.findall(rb"WARC/1\.0\r?\n(.*?)\r?\n\r?\n", content, re.DOTALL)
    pages = [head for head in heads if re.search(rb"^WARC-Type: (response|conversion)", head, re.MULTILINE)]
    return [re.search(rb"WARC-Record-ID: <(.*)>", head)[1].decode() for head in pages]


# What of each file is lost: the last record is cut in the first; the Content-Length of one record is wrong in three.
LOST = {
    "wet_2016-50/appended_zip_fragment_unexpected_eof.wet.gz": ["truncated gzip member: the rest is lost"],
    "wet_2016-50/corrupt_starts_with_conversion.wet.gz": [],
    "wet_2016-50/corrupt_warcconversion_1.wet.gz": [],  # its record without an address is read, then refused
    "wet_2016-50/corrupt_warcinfo_1.wet.gz": [],
    "wet_2016-50/file_headers_only.wet.gz": [],
    "wet_2016-50/filter_test_1.wet.gz": [],
    "warcio/example.warc.gz": [],
    "warcio/example-wrong-chunks.warc.gz": [],
    "warcio/example-trunc.warc": ["wrong Content-Length in the WARC header"],
    "warc_wat_wet_2019-35/file1.warc.gz": ["wrong Content-Length in the WARC header"],
    "warc_wat_wet_2019-35/file1.warc.wet.gz": ["wrong Content-Length in the WARC header"],
    "warc_wat_wet_2014/CC-MAIN-20140820021334-00006-ip-10-180-136-8.ec2.internal.warc": [],
    "warc_wat_wet_2014/CC-MAIN-20140820021334-00006-ip-10-180-136-8.ec2.internal.warc.wet": [],
    "whirlwind_2024-22/whirlwind.warc.gz": [],
    "dolma_warc/sample-0000.warc.gz": [],
}


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="TINY_OLM_DATA is not set")
@pytest.mark.parametrize("name", LOST)
def test_of_real_files_all_but_what_is_damaged_is_read(name):
    found = read(DATA / name)
    ids = [r.headers["warc-record-id"].strip("<>") for r in found if not r.problem]
    lost = [r.headers["warc-record-id"].strip("<>") for r in found if r.problem]
    assert [r.problem for r in found if r.problem] == LOST[name]
    assert sorted(ids + lost) == sorted(slow_reader(DATA / name))
    for r in found:
        assert numbers_and_blocks(read(DATA / name, r.position)) == numbers_and_blocks(found[found.index(r) + 1 :])


def numbers_and_blocks(records):
    return [(r.offset, r.inner, r.position, r.problem, r.block) for r in records]


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="TINY_OLM_DATA is not set")
def test_real_pages_keep_their_prose_and_lose_their_menus(tmp_path):
    manifest, kept, _ = run(tmp_path, DATA / "dolma_warc", DATA / "whirlwind_2024-22", wikipedia="keep")
    texts = {row["url"]: row["text"] for row in kept}
    assert manifest["counts"]["kept"] == len(texts) == 23
    aragonese = texts["https://an.wikipedia.org/wiki/Escopete"]
    assert "A suya población ye de 84 habitants" in aragonese and "[editar" not in aragonese
    assert {row["language"] for row in kept if "wikipedia" not in row["url"]} == {"en"}
    assert sum(row["last_modified"] is not None for row in kept) >= 15
    _, kept, dropped = run(tmp_path, DATA / "whirlwind_2024-22", name="without")
    assert not kept and [row["reason"] for row in dropped] == ["Wikipedia page"]


def test_sources_are_found_by_their_names(tmp_path):
    for name in (
        "a.warc.gz",
        "b.warc",
        "c.warc.wet.gz",
        "d.wet",
        "e.warc.wat.gz",
        "warc.paths.gz",
        "f.warc.gz.part",
        "g.gz",
    ):
        write(tmp_path / name, b"")
    suffixes = files.WARC + files.WET + files.WAT
    assert len(find_sources([str(tmp_path)], suffixes)) == 5
    assert [Path(source.path).name for source in files.choose_sources([str(tmp_path)])[0]] == [
        "a.warc.gz",
        "b.warc",
        "c.warc.wet.gz",
        "d.wet",
    ]
    assert MEMBER > 2**38  # a file of a crawl is far smaller


def test_pages_refused_by_the_reader_say_why():
    with pytest.raises(Unwanted, match="HTTP status"):
        read_page(http(page(), status="500 Oops"), extract_fast, 2**20)
    with pytest.raises(Unwanted, match="MIME type"):
        read_page(b"HTTP/1.1 200 OK\r\n\r\n\x00\x01binary", extract_fast, 2**20)
