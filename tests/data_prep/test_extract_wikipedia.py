"""A dump becomes articles: which pages, which columns, and what damage costs."""

import bz2
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow.parquet as pq
import pytest

from data_prep.engine.downloads import server_at
from data_prep.engine.stage import StageArguments
from data_prep.extract_wikipedia import ReadArticles, WikipediaArguments, main
from data_prep.wikipedia.dump import Page, Site
from data_prep.wikipedia.files import fetch_dump, find_dumps
from data_prep.wikipedia.pages import is_disambiguation, is_redirect, language_of, title_url
from shared.errors import BadRecordsError, InputError, RunError
from shared.rows import SCHEMA, Source

DATA = os.environ.get("TINY_OLM_DATA", "")
HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="bg">
<siteinfo><sitename>Уикипедия</sitename><dbname>bgwiki</dbname>
<base>https://bg.wikipedia.org/wiki/%D0%9D</base>
<namespaces><namespace key="0" /><namespace key="1">Беседа</namespace><namespace key="6">Файл</namespace>
<namespace key="14">Категория</namespace></namespaces></siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(number, title="Title", text="Some text.", ns="0", extra="", time="2026-10-01T02:03:04Z", model="wikitext"):
    parts = [f"<title>{escape(title)}</title>" if title is not None else "", f"<ns>{ns}</ns>" if ns else ""]
    parts += [
        f"<id>{number}</id>{extra}<revision><id>{number}00</id>",
        f"<timestamp>{time}</timestamp>" if time else "",
    ]
    parts += ["<contributor><username>A</username><id>5</id></contributor>", f"<model>{model}</model>"]
    parts += [f'<text xml:space="preserve">{escape(text)}</text>' if text is not None else "", "</revision>"]
    return f"<page>{''.join(parts)}</page>\n"


NEWER = "<id>77</id><timestamp>2026-10-09T00:00:00Z</timestamp><text>Newer text.</text>"
SPECIAL = [
    page(1, "София", "'''София''' е [[град]]. [[Файл:A.jpg|мини|Надпис]] [[Категория:Градове]]"),
    page(2, "R", "#REDIRECT [[София]]", extra='<redirect title="София" />'),
    page(3, "R2", "#виж [[София]]"),
    page(4, "Беседа:София", ns="1"),
    page(5, "Беседа:Old export", ns=""),
    page(6, "Сол (пояснение)", "* [[A]]"),
    page(7, "Сол", "'''Сол''' може да е:\n* [[A]]\n{{Пояснение}}"),
    page(8, title=None),
    page(9, text=None),
    page(10, time=None),
    page("", "No id"),
    page(12, "A/B & C?", "Fish &amp; [[chips]]. <ref>x</ref>"),
    page(13, "Data", "{}", model="json"),
    page(14, "Nothing", "{{Infobox}}"),
    page(15, "Broken", "x").replace("</title>", "</titel>"),
    page(16, "Not UTF-8", "x\udcff"),
    page(17, "Not closed", "x").replace("</page>", ""),
    page(18, "Big", "word " * 3000),
    page(19, "History").replace(
        "</page>",
        "<revision><id>77</id><timestamp>2026-10-09T00:00:00Z</timestamp><text>Newer text.</text></revision></page>",
    ),
    page(20, "Last", "The end &#60;."),
]


def write_dump(path, pages, head=HEAD, tail=TAIL, streams=False):
    pieces = [head, *pages, tail]
    data = [piece.encode("utf-8", "surrogateescape") for piece in pieces]
    if path.suffix == ".bz2":
        data = [b"".join(bz2.compress(piece) for piece in data) if streams else bz2.compress(b"".join(data))]
    path.write_bytes(b"".join(data))
    return path


def run(tmp_path, *inputs, output="out", max_bad_records=1.0, part_records=2000, **settings):
    args = StageArguments(
        str(tmp_path / output), [str(path) for path in inputs], 1, max_bad_records=max_bad_records,
        part_records=part_records,
    )  # fmt: skip
    return main(args, WikipediaArguments(**settings))


def rows(folder, name="*.parquet"):
    return [row for file in sorted(Path(folder).glob(name)) for row in pq.read_table(file).to_pylist()]


def outcomes(path, position=0, max_page_bytes=8 * 2**20):
    return list(ReadArticles(None, "drop", max_page_bytes)(Source(0, str(path), path.stat().st_size), position))


TEMPLATES = [
    page(30, "Шаблон:Език-ру", "<noinclude>[[Категория:X]]</noinclude>[[Руски език|рус.]] {{{1}}}", ns="10"),
    page(31, "Template:Скок", "#виж [[Шаблон:Език-ру]]", ns="10"),
    page(32, "Шаблон:Lua", "{{#invoke:x|y}}", ns="10"),
]
USES = "Пушкин ({{Език-ру|Пушкин}}, {{Скок|А}}) е {{lua|x}} поет {{няма го}} и {{шаблон:език-ру|Б}}."


@pytest.mark.parametrize("parts", [1, 2])
def test_a_template_shows_what_its_page_in_the_dump_says(tmp_path, parts):
    names = ["bgwiki-20261101-pages-articles1.xml-p1p9.bz2", "bgwiki-20261101-pages-articles2.xml-p10p40.bz2"]
    head = HEAD.replace("</namespaces>", '<namespace key="10">Шаблон</namespace></namespaces>')
    article = page(1, "Пушкин", USES)
    content = [[article, *TEMPLATES]] if parts == 1 else [[article], TEMPLATES]
    dumps = [write_dump(tmp_path / name, some, head) for name, some in zip(names, content, strict=False)]
    manifest = run(tmp_path, *dumps)
    assert [row["text"] for row in rows(tmp_path / "out")] == ["Пушкин (рус. Пушкин, рус. А) е поет и рус. Б."]
    assert manifest["counts"]["removed_templates"] == {"lua": 1, "няма го": 1}
    manifest = run(tmp_path, *dumps, output="once", expand_templates=False)
    assert [row["text"] for row in rows(tmp_path / "once")] == ["Пушкин е поет и."]
    assert manifest["counts"]["removed_templates"] == {"език-ру": 2, "скок": 1, "lua": 1, "няма го": 1}


@pytest.fixture
def special(tmp_path):
    return write_dump(tmp_path / "bgwiki-20261101-pages-articles.xml.bz2", SPECIAL)


def test_a_dump_with_every_special_case(tmp_path, special):
    manifest = run(tmp_path, special, max_page_bytes=10_000)
    assert manifest["counts"]["in"] == len(SPECIAL)
    assert manifest["counts"]["dropped"] == {
        "redirect": 2,
        "other namespace": 2,
        "disambiguation": 2,
        "not wikitext": 1,
        "no prose": 1,
        "page is larger than --max_page_bytes": 1,
    }
    assert manifest["counts"]["bad"] == {
        "page has no title": 1,
        "page has no text": 1,
        "page has no timestamp": 1,
        "page has no id": 1,
        "page is not well-formed XML": 2,
        "page is not closed": 1,
    }
    first, second, history, last = rows(tmp_path / "out")
    assert first == dict.fromkeys(SCHEMA.names) | {
        "id": "1",
        "url": "https://bg.wikipedia.org/wiki/%D0%A1%D0%BE%D1%84%D0%B8%D1%8F",
        "title": "София",
        "text": "София е град.",
        "date": "2026-10-01T02:03:04Z",
        "language": "bg",
        "source": "bgwiki-20261101",
        "warc_file": special.name,
        "offset": 0,
        "metadata": '{"revision": "100"}',
    }
    assert second["text"] == "Fish & chips." and second["url"] == "https://bg.wikipedia.org/wiki/A/B_%26_C%3F"
    assert history["text"] == "Newer text." and history["date"] == "2026-10-09T00:00:00Z"
    assert last["text"] == "The end <." and last["offset"] == 19
    dropped = rows(tmp_path / "out" / "dropped")
    assert {row["reason"] for row in dropped if row["id"] == "7"} == {"disambiguation"}
    assert all(row["source"] == "bgwiki-20261101" and row["offset"] is not None for row in dropped)


def test_disambiguation_pages_are_kept_by_flag_and_known_by_template_or_title(tmp_path, special):
    assert run(tmp_path, special, disambiguation="keep")["counts"]["dropped"].get("disambiguation") is None
    for text in ("{{disambig}}", "{{ Hndis | a}}", "{{disambiguation|geo}}", "__DISAMBIG__", "{{Begriffsklärung}}"):
        assert is_disambiguation("A", text)
    assert is_disambiguation("A (Disambiguation)", "") and is_disambiguation("A (значения)", "")
    for piece in (" ", "(", "{{", "a", "\n"):  # in linear time
        assert not is_disambiguation("(" + piece * 200_000, "{{" + piece * 200_000)
        assert not is_redirect(Page(text="#ab" + piece * 200_000)) and not is_redirect(Page(text=piece * 200_000))
    assert not is_disambiguation("A (band)", "a {{disambiguation needed}} {{other uses}}")


@pytest.mark.parametrize("form", ["one stream", "many streams", "plain", "utf-16"])
def test_all_forms_of_a_dump_give_the_same_rows(tmp_path, form):
    pages = [page(number, f"P{number}", f"Text é {number}.") for number in range(5)]
    path = tmp_path / ("d.xml" if form in ("plain", "utf-16") else "d.xml.bz2")
    write_dump(path, pages, streams=form == "many streams")
    if form == "utf-16":
        path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    assert [outcome.document["text"] for outcome in outcomes(path)] == [f"Text é {number}." for number in range(5)]


def test_resume_from_any_position_gives_the_same(special):
    whole = outcomes(special)
    assert [outcome.position for outcome in whole] == list(range(1, len(SPECIAL) + 1))
    for position in range(len(SPECIAL) + 1):
        assert outcomes(special, position) == whole[position:]


def test_a_truncated_file_costs_what_was_cut_off_and_one_bad_record(tmp_path):
    pages = [page(number, f"P{number}", f"{number} {os.urandom(300).hex()}") for number in range(3000)]
    path = write_dump(tmp_path / "d.xml.bz2", pages)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    found = outcomes(path)
    assert 1000 < len(found) < 3000
    assert [outcome.reason for outcome in found if outcome.bad] == ["damaged bz2: the rest is lost"]
    assert not any(outcome.reason for outcome in found[:-1])
    assert outcomes(path, len(found) - 1) == found[-1:] and outcomes(path, len(found)) == []
    flipped = bytearray(data)
    flipped[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(flipped)
    assert outcomes(path)[-1].reason == "damaged bz2: the rest is lost"
    plain = write_dump(tmp_path / "d.xml", pages[:3], tail=pages[3][:50])
    assert [outcome.reason for outcome in outcomes(plain)] == ["", "", "", "file ends inside a page: the rest is lost"]
    between = write_dump(tmp_path / "b.xml", pages[:3], tail="\n")
    assert [outcome.reason for outcome in outcomes(between)][3:] == ["file ends before </mediawiki>: the rest is lost"]
    bare = tmp_path / "stream.xml"  # one of the streams of a dump, by its index
    bare.write_text("\n".join(pages[:3]))
    assert [outcome.reason for outcome in outcomes(bare)] == ["", "", ""]


@pytest.mark.parametrize("content", [b"", b"BZh9 no", b"<html><body>Not found</body></html>", b"\x00" * 9_000_000])
@pytest.mark.parametrize("name", ["d.xml", "d.xml.bz2"])
def test_what_is_no_dump_is_one_bad_record(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    (found,) = outcomes(tmp_path / name)
    assert found.bad and found.reason
    with pytest.raises(BadRecordsError):
        run(tmp_path, tmp_path / name, max_bad_records=0.05)


def test_an_entity_bomb_is_refused_and_the_other_pages_kept(tmp_path):
    bomb = '<!DOCTYPE m [<!ENTITY a "lol">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">'.replace("&a0;", "&a;") for n in range(1, 12)
    )
    bad = page(1, "Bomb", "MARK").replace("MARK", "&a11;")
    inner = page(3, "Inner", "x").replace("<page>", "<page><!DOCTYPE a [<!ENTITY b 'c'>]>")
    path = write_dump(tmp_path / "d.xml", [bad, page(2, "Good", "Kept."), inner], head=bomb + "]>" + HEAD)
    start = time.process_time()
    assert [outcome.reason for outcome in outcomes(path)] == [
        "document type declaration, not read",
        "page is not well-formed XML",
        "",
        "page is not well-formed XML",
    ]
    assert time.process_time() - start < 1


def test_a_huge_element_is_dropped_in_bounded_memory(tmp_path):
    before, after = page(2, "Huge", "SPLIT").split("SPLIT")
    pieces = [HEAD + page(1) + before, *["a" * 2**20] * 200, after + page(3) + TAIL]
    streams = {piece: bz2.compress(piece.encode()) for piece in set(pieces)}
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(b"".join(streams[piece] for piece in pieces))
    tracemalloc.start()
    found = outcomes(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [outcome.reason for outcome in found] == ["", "page is larger than --max_page_bytes", ""]
    assert not found[1].bad and peak < 64 * 2**20


def test_language_and_address_come_from_the_site_else_from_the_file_name():
    assert language_of(Site("bgwiki", "https://bg.wikipedia.org/wiki/X"), "x.xml") == ("bg", "bg")
    assert language_of(Site("simplewiki", "https://simple.wikipedia.org/wiki/X"), "") == ("en", "simple")
    assert language_of(Site(), "zh_min_nanwiki-20261101-pages-articles.xml.bz2") == ("nan", "zh-min-nan")
    assert language_of(Site(language="fr"), "export.xml") == ("fr", "fr")
    assert language_of(Site(), "export.xml") == ("", "")
    assert title_url(Site(), "zh-min-nan", "A b") == "https://zh-min-nan.wikipedia.org/wiki/A_b"
    assert title_url(Site(base="javascript:alert(1)"), "", "A") is None


def test_a_folder_gives_the_articles_of_each_dump_once(tmp_path):
    for name in (
        "enwiki-20261101-pages-articles1.xml-p1p9.bz2",
        "enwiki-20261101-pages-articles2.xml-p10p19.bz2",
        "enwiki-20261101-pages-articles.xml.bz2",
        "enwiki-20261101-pages-articles-multistream.xml.bz2",
        "enwiki-20261101-pages-articles-multistream-index.txt.bz2",
        "enwiki-20261101-pages-meta-current.xml.bz2",
        "bgwiki-20261101-pages-articles-multistream.xml.bz2",
        "export.xml",
        "README.txt",
    ):
        (tmp_path / name).touch()
    assert [Path(source.path).name for source in find_dumps([str(tmp_path)])] == [
        "bgwiki-20261101-pages-articles-multistream.xml.bz2",
        "enwiki-20261101-pages-articles1.xml-p1p9.bz2",
        "enwiki-20261101-pages-articles2.xml-p10p19.bz2",
        "export.xml",
    ]


@pytest.mark.parametrize(
    "flags",
    [
        {"wiki": "enwiki"},
        {"date": "20261101"},
        {"wiki": "../x", "date": "20261101"},
        {"wiki": "enwiki", "date": "latest"},
        {"max_page_bytes": 1},
    ],
)
def test_wrong_flags_are_refused(flags):
    with pytest.raises(InputError, match="--"):
        WikipediaArguments(**flags)


def test_without_dump_or_input_the_script_says_what_to_name(tmp_path):
    with pytest.raises(InputError, match="--input"):
        run(tmp_path)


# --- downloads ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path):
    """A folder laid out like the dumps' server: two parts, the whole once more, and their dumpstatus.json."""
    folder = tmp_path / "mirror" / "bgwiki" / "20261101"
    folder.mkdir(parents=True)
    files = {}
    for part in (1, 2):
        name = f"bgwiki-20261101-pages-articles{part}.xml-p{part}p{part}.bz2"
        text = os.urandom(40_000).hex()
        data = write_dump(folder / name, [page(part, f"P{part}", text)]).read_bytes()
        files[name] = {"size": len(data), "url": f"/x/{name}", "sha1": hashlib.sha1(data).hexdigest()}
    write_status(folder, files)
    return folder


def write_status(folder, files, status="done"):
    jobs = {"articlesdump": {"status": status, "files": files}, "metacurrentdump": {"status": "waiting"}}
    (folder / "dumpstatus.json").write_text(json.dumps({"version": "0.8", "jobs": jobs}))


@pytest.fixture
def server(mirror):
    """The mirror over HTTP; cuts the first answer short, knows ranges, and records what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = mirror.parent.parent / self.path.lstrip("/")
            asked.append((path.name, self.headers.get("Range")))
            if path.is_dir():
                data = "".join(f'<a href="{entry.name}/">{entry.name}/</a>' for entry in path.iterdir()).encode()
            elif path.is_file():
                data = path.read_bytes()
            else:
                return self.send_error(404)
            start = int(re.search(r"\d+", self.headers["Range"])[0]) if self.headers.get("Range") else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            first = path.suffix == ".bz2" and [name for name, _ in asked].count(path.name) == 1
            self.wfile.write(data[start : len(data) // 2 if first else len(data)])
            self.close_connection = True

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_dump_is_fetched_with_resume_and_extracted(tmp_path, mirror, server):
    url, asked = server
    files = fetch_dump(server_at(url, 3, 0.01), "bgwiki", "20261101", str(tmp_path / "dumps"))
    for file in files:
        assert Path(file).read_bytes() == (mirror / Path(file).name).read_bytes()
        tries = [span for name, span in asked if name == Path(file).name]
        assert tries[0] is None and tries[1].startswith("bytes=") and len(tries) == 2
    before = len(asked)
    flags = {"wiki": "bgwiki", "date": "20261101", "base_url": url, "dump_dir": str(tmp_path / "dumps")}
    manifest = run(tmp_path, **flags)
    assert len(asked) == before + 1  # dumpstatus.json alone: the files are there
    assert manifest["counts"]["kept"] == 2
    assert {row["source"] for row in rows(tmp_path / "out")} == {"bgwiki-20261101"}


def test_a_folder_serves_as_mirror_and_a_wrong_hash_is_refused(tmp_path, mirror):
    files = json.loads((mirror / "dumpstatus.json").read_text())["jobs"]["articlesdump"]["files"]
    source = server_at(str(mirror.parent.parent), 1, 0.01)
    assert len(fetch_dump(source, "bgwiki", "20261101", str(tmp_path / "a"))) == 2
    name = min(files)
    write_status(mirror, files | {name: files[name] | {"sha1": "0" * 40}})
    with pytest.raises(RunError, match="SHA-1"):
        fetch_dump(source, "bgwiki", "20261101", str(tmp_path / "b"))
    assert not list((tmp_path / "b").rglob(name))


def test_a_dump_that_is_missing_unfinished_or_hostile_is_refused_with_what_to_do(tmp_path, mirror):
    source, dumps = server_at(str(mirror.parent.parent), 0, 0.01), str(tmp_path / "dumps")
    with pytest.raises(InputError, match="there are 20261101"):
        fetch_dump(source, "bgwiki", "20261001", dumps)
    write_status(mirror, {}, status="waiting")
    with pytest.raises(InputError, match="not finished"):
        fetch_dump(source, "bgwiki", "20261101", dumps)
    write_status(mirror, {"../../evil-pages-articles.xml.bz2": {"size": 1}})
    with pytest.raises(RunError, match="unexpected file name"):
        fetch_dump(source, "bgwiki", "20261101", dumps)
    (mirror / "dumpstatus.json").write_text("[]")
    with pytest.raises(RunError, match="cannot be understood"):
        fetch_dump(source, "bgwiki", "20261101", dumps)
    assert not list(tmp_path.rglob("evil*"))


# --- kills and real data -----------------------------------------------------------------------------------------


def test_killed_and_started_again_it_writes_the_same_bytes(tmp_path):
    pages = [page(number, f"P{number}", f"[[Word]] {{{{t}}}} {number}. " * 60) for number in range(800)]
    dump = write_dump(tmp_path / "enwiki-20261101-pages-articles.xml.bz2", pages)
    run(tmp_path, dump, output="whole", part_records=40)
    words = ["--input", dump, "--output_dir", tmp_path / "killed", "--workers", "1", "--part_records", "40"]
    command = [sys.executable, "data_prep/extract_wikipedia.py", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "killed" / ".state" / "documents"
    end = time.time() + 600
    while len(list(state.glob("0*.json"))) < 3 and process.poll() is None and time.time() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("0*.parquet")}
    assert 2 < len(done) < 20
    run(tmp_path, dump, output="killed", max_bad_records=0.05, part_records=40)
    for path in (tmp_path / "whole").rglob("*.parquet"):
        assert (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
    noted = list(done)[: len(done) - 1]  # the newest may have been written without its record
    assert sum(path.stat().st_mtime_ns == done[path] for path in done) >= len(noted)


MARKUP = {
    "templates": r"\{\{|\}\}",
    "links": r"\[\[|\]\]",
    "tables": r"\{\||\|\}|^\s*\|-",
    "tags": r"</?(?:ref|math|br|span|div|sup|sub|small|gallery|table|td|nowiki|center|font|code|references)\b",
    "bold and italic": r"''",
    "headings": r"^=+[^=\n]+=+\s*$",
    "names of files": r"\b(?:File|Image|Category|Файл|Категория):\S",
    "entities": r"&(?:#\d+|#x[0-9a-f]+|nbsp|ndash|amp|lt|gt|quot);",
    "magic words": r"__[A-Z]+__",
    "attributes": r"\b(?:style|align|bgcolor|colspan|rowspan|cellpadding)\s*=\s*[\"\w]",
    "external links": r"\[\s*https?:",
    "citations": r"\b(?:cite (?:web|book|news|journal)|access-?date)\b",
    "gaps": r"\(\s*[,;]| {2,}\S.*\S {2,}|^[*#;]",
    "marks": "[\ufdd0-\ufdef]",
}


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="TINY_OLM_DATA is not set")
def test_real_dumps_leave_no_markup(tmp_path):
    manifest = run(tmp_path, Path(DATA) / "mediawiki", max_bad_records=0.0)
    counts = manifest["counts"]
    assert (counts["in"], counts["kept"]) == (322, 201)
    assert counts["dropped"] == {"disambiguation": 8, "other namespace": 14, "redirect": 99}
    found = [
        f"{kind} in {row['title']}: {row['text'][max(0, match.start() - 40) : match.end() + 40]!r}"
        for row in rows(tmp_path / "out")
        for kind, pattern in MARKUP.items()
        for match in re.finditer(pattern, row["text"], re.MULTILINE | re.IGNORECASE)
    ]
    assert not found, "\n".join(found)
    by_title = {row["title"]: row for row in rows(tmp_path / "out")}
    assert by_title["Григориански календар"]["language"] == "bg"
    assert by_title["Anarchism"]["text"].startswith("Anarchism is a political philosophy")
