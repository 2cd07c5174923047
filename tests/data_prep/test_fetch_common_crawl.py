import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep import fetch_common_crawl as script
from data_prep.crawl.files import choose_sources
from data_prep.crawl.lists import sample
from data_prep.engine import downloads
from data_prep.fetch_common_crawl import FetchArguments, FetchStageArguments
from shared.errors import BadRecordsError, InputError, RunError
from shared.rows import find_sources

SNAPSHOT = "CC-MAIN-2026-43"
OTHER = "CC-MAIN-2026-38"
KINDS = ("warc", "wet", "wat")
DATA = os.environ.get("TINY_OLM_DATA", "")


def test_files_of_one_name_in_two_folders_are_two_crawls(tmp_path):
    names = ["a/x.warc.gz", "b/x.warc.wet.gz", "c/warc/y.warc.gz", "c/wet/y.warc.wet.gz", "c/wat/y.warc.wat.gz"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    sources, _, _ = choose_sources([str(tmp_path)])
    assert [str(Path(source.path).relative_to(tmp_path)) for source in sources] == names[:3]  # c's WET is of its WARC


def warc_bytes(seed, records=3, size=300):
    """Gzip members that start as WARC records do; the content does not compress."""
    payload = random.Random(seed).randbytes
    return b"".join(
        gzip.compress(b"WARC/1.0\r\nWARC-Type: response\r\n\r\n" + payload(size), 0, mtime=0) for _ in range(records)
    )


def names_of(snapshot, kind, files):
    suffix = "" if kind == "warc" else f".{kind}"
    folder = f"crawl-data/{snapshot}/segments"
    return [
        f"{folder}/17611{n % 3}.{n % 3 + 1}/{kind}/CC-MAIN-20261017{n % 3:06d}-{n:05d}.warc{suffix}.gz"
        for n in range(files)
    ]


def write_list(root, snapshot, kind, lines):
    (root / f"crawl-data/{snapshot}/{kind}.paths.gz").write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))


def write_mirror(root, files=20, kinds=KINDS):
    for snapshot in (SNAPSHOT, OTHER):
        for kind in kinds if snapshot == SNAPSHOT else kinds[:1]:
            names = names_of(snapshot, kind, files if snapshot == SNAPSHOT else 10)
            for number, name in enumerate(names):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(warc_bytes(f"{kind} {number}"))
            write_list(root, snapshot, kind, names)
    listing = [
        {"id": name, "name": f"{name} Index", "from": "2026-10-01T00:00:00", "to": "2026-10-15T00:00:00"}
        for name in (SNAPSHOT, OTHER, "CC-MAIN-2025-51", "CC-MAIN-2012", "CC-MAIN-2009-2010")
    ]
    (root / "collinfo.json").write_text(json.dumps(listing))
    return root


class Handler(BaseHTTPRequestHandler):
    """Serves a folder with ETag, Range and If-Range; `server.faults` maps a part of a path to the faults of its next
    answers to GET (the last one stays when it is followed by "always")."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server, path = self.server, self.path.lstrip("/")
        fault = ""
        with server.lock:
            for key, faults in server.faults.items():
                if key in path and faults and (body or faults[0].startswith("HEAD ")):
                    fault = faults[0]
                    if faults[1:] != ["always"]:
                        faults.pop(0)
                    break
            server.log.append([self.command, path, self.headers.get("Range"), fault, 0])
            entry = server.log[-1]
        fault, _, value = fault.removeprefix("HEAD ").partition(" ")
        if fault.isdigit():
            headers = {}
            if fault in ("301", "302"):
                headers["Location"] = value
            elif value:
                headers["Retry-After"] = value
            return self.send(int(fault), b"no", headers, body)
        file = server.root / path
        if not file.is_file():
            return self.send(404, b"no such file", {}, body)
        content = file.read_bytes()
        if fault == "html":
            return self.send(200, b"<html>Please slow down</html>", {}, body)
        if fault == "truncated":
            content = content[:-20]
        tag = f'"{hash(content)}"'
        start, status, headers = 0, 200, {"ETag": tag}
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if span and fault != "ignore" and self.headers.get("If-Range", tag) == tag:
            start, status = int(span[1]), 206
            if start >= len(content):
                return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"}, body)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        length = len(content) - start
        if fault == "length":
            length += int(value)
        self.send_response(status)
        for name, text in (headers | {"Content-Length": str(length)}).items():
            self.send_header(name, text)
        self.end_headers()
        if not body:
            return None
        stop = len(content)
        if fault in ("cut", "hold"):
            stop = min(stop, start + int(value))
        if fault == "length":
            self.close_connection = True
        try:
            for here in range(start, stop, 2**16):
                sent = content[here : min(here + 2**16, stop)]
                self.wfile.write(sent)
                entry[-1] += len(sent)
        except OSError:
            self.close_connection = True
        if fault == "hold":
            self.wfile.flush()
            server.released.wait(30)
        if fault in ("cut", "hold"):
            self.close_connection = True
        return None

    def send(self, status, content, headers, body):
        self.send_response(status)
        for name, text in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, text)
        self.end_headers()
        if body:
            self.wfile.write(content)


class Crawl(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.faults, self.log = root, {}, []
        self.lock, self.released = threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass

    def bytes_of(self, part):
        return sum(entry[-1] for entry in self.log if part in entry[1])

    def gets(self, part):
        return [entry for entry in self.log if entry[0] == "GET" and part in entry[1]]


@pytest.fixture
def crawl(tmp_path):
    with Crawl(write_mirror(tmp_path / "mirror")) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


def fetch(base, output_dir, workers=1, max_bad_records=1.0, **flags):
    flags = {"snapshot": [SNAPSHOT], "sampling_ratio": [0.25], "retry_wait": 0.01, "retries": 3} | flags
    stage = {name: flags.pop(name) for name in ("input", "part_records") if name in flags}
    stage_args = FetchStageArguments(
        output_dir=str(output_dir), workers=workers, max_bad_records=max_bad_records, **stage
    )
    return script.main(stage_args, FetchArguments(base_url=getattr(base, "url", str(base)), **flags))


def fetched(manifest):
    return sorted(name for name in manifest["files"] if name.startswith("files/"))


def pick(manifest, number=0):
    return Path(fetched(manifest)[number]).name


def test_files_are_those_of_the_server(crawl, tmp_path, capsys):
    manifest = fetch(crawl, tmp_path / "out", kind=["warc", "wet"])
    names = fetched(manifest)
    assert len(names) == 10 and manifest["counts"]["in"] == manifest["counts"]["kept"] == 10
    for name in names:
        facts = manifest["files"][name]
        assert (tmp_path / "out" / name).read_bytes() == (crawl.root / facts["path"]).read_bytes()
        assert re.fullmatch(rf"files/{SNAPSHOT}/(warc|wet)/[^/]+\.gz", name) and facts["rows"] == 3
    assert len(find_sources([str(tmp_path / "out")], (".warc.gz",))) == 5
    assert manifest["counts"]["file_bytes"] == sum((tmp_path / "out" / name).stat().st_size for name in names)
    assert not list((tmp_path / "out").rglob("*.part*"))
    printed = capsys.readouterr().out
    assert f"10 files, {manifest['counts']['file_bytes']:,} bytes" in printed and "of disk are free" in printed
    crawl.log.clear()
    assert fetch(crawl, tmp_path / "out", kind=["wet", "warc"]) == manifest
    assert not crawl.log and "already complete" in capsys.readouterr().out


def test_sample_is_the_same_for_all_kinds_and_grows_with_the_ratio(crawl, tmp_path):
    # The order of a list does not matter, nor that a kind lacks a file.
    write_list(crawl.root, SNAPSHOT, "wat", names_of(SNAPSHOT, "wat", 20)[::-1])
    chosen = {}
    for kind in KINDS:
        manifest = fetch(crawl, tmp_path / kind, kind=[kind])
        chosen[kind] = {Path(name).name.split(".")[0] for name in fetched(manifest)}
    assert chosen["warc"] == chosen["wet"] == chosen["wat"] and len(chosen["warc"]) == 5
    more = {Path(name).name.split(".")[0] for name in fetched(fetch(crawl, tmp_path / "more", sampling_ratio=[0.5]))}
    assert more > chosen["warc"] and len(more) == 10
    other = {Path(name).name.split(".")[0] for name in fetched(fetch(crawl, tmp_path / "seed", seed=1))}
    assert len(other) == 5 and other != chosen["warc"]
    lost = sorted(chosen["warc"])[0]
    write_list(
        crawl.root, SNAPSHOT, "wet", [name for name in names_of(SNAPSHOT, "wet", 20) if f"{lost}.warc" not in name]
    )
    manifest = fetch(crawl, tmp_path / "lost", kind=["wet"])
    assert {Path(name).name.split(".")[0] for name in fetched(manifest)} == chosen["warc"] - {lost}
    assert manifest["counts"]["bad"] == {"only in the list of WARC files": 1}


def test_a_higher_ratio_in_the_same_folder_fetches_only_what_is_new(crawl, tmp_path):
    folder = tmp_path / "out"
    less = fetched(fetch(crawl, folder, kind=["wet"]))
    crawl.log.clear()
    more = fetch(crawl, folder, kind=["wet"], sampling_ratio=[0.5])
    assert (len(less), len(fetched(more))) == (5, 10) and set(less) < set(fetched(more))
    got = {Path(entry[1]).name for entry in crawl.gets(".warc.wet.gz")}
    assert len(got) == 5 and not got & {Path(name).name for name in less}
    whole = fetch(crawl, tmp_path / "whole", kind=["wet"], sampling_ratio=[0.5])
    for part in ("files", "counts", "settings"):
        assert more[part] == whole[part], part
    assert fetch(crawl, folder, kind=["wet"], sampling_ratio=[0.5]) == more
    for flags in (
        {"sampling_ratio": [0.25]},
        {"sampling_ratio": [0.5], "seed": 1},
        {"sampling_ratio": [1.0], "seed": 1},
    ):
        with pytest.raises(InputError, match="made with other settings"):
            fetch(crawl, folder, kind=["wet"], **flags)


def test_sample_looks_at_names_and_not_at_places():
    keys = [f"1.2/{number}" for number in range(1000)]
    chosen = sample(keys, 0.1, 42, 1)
    assert len(chosen) == 100 and chosen == sample(keys[::-1], 0.1, 42, 1)
    assert len(set(chosen) & set(sample(["0.1/new", *keys], 0.1, 42, 1))) >= 99
    assert len(sample(keys, 1e-9, 42, 1)) == 1 and sample(keys, 1e-9, 42, 0) == []


def test_ratio_of_each_snapshot_and_at_least_one_file(crawl, tmp_path):
    manifest = fetch(crawl, tmp_path / "out", snapshot=[SNAPSHOT, OTHER], sampling_ratio=[0.0001, 0.2])
    assert [name.split("/")[1] for name in fetched(manifest)] == [OTHER, OTHER, SNAPSHOT]
    part = fetched(fetch(crawl, tmp_path / "most", sampling_ratio=[0.25], max_files=3))
    assert part == fetched(fetch(crawl, tmp_path / "most", sampling_ratio=[1.0], max_files=3)) and len(part) == 3


def test_same_bytes_for_any_number_of_workers_and_for_a_mirror(crawl, tmp_path):
    crawl.faults = {"-00001.": ["html", "always"], "-00002.": ["404", "always"]}
    for workers in (1, 3):
        fetch(crawl, tmp_path / f"{workers}", workers=workers, sampling_ratio=[1.0], retries=1)
    trees = [
        {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and path.relative_to(root).parts[:1] != (".state",)
        }
        for root in (tmp_path / "1", tmp_path / "3")
    ]
    assert trees[0] == trees[1] and len(trees[0]) == 18 + 2 + 1
    records = [
        {path.name: path.read_bytes() for path in (root / ".state" / "files").iterdir()}
        for root in (tmp_path / "1", tmp_path / "3")
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_mirror_folder(tmp_path, form):
    root = write_mirror(tmp_path / "a mirror", files=4, kinds=("wet",))  # without WARC files and lists
    base = form.format(str(root).replace(" ", "%20") if form != "{}" else root)
    manifest = fetch(base, tmp_path / "out", kind=["wet"], sampling_ratio=[1.0])
    assert len(fetched(manifest)) == 4
    for name in fetched(manifest):
        assert (tmp_path / "out" / name).read_bytes() == (root / manifest["files"][name]["path"]).read_bytes()
    (root / "collinfo.json").unlink()
    assert fetch(base, tmp_path / "list", list_snapshots=1)["snapshots"] == [{"id": SNAPSHOT}]


@pytest.mark.parametrize(
    ("faults", "tries"),
    [
        (["403", "403"], 3),
        (["429 0"], 2),
        (["500", "502", "503"], 4),
        (["html"], 2),
        (["cut 300"], 2),
        (["cut 0", "cut 10"], 3),
        (["cut 500", "ignore"], 2),
        (["length 50"], 2),
        (["length -30"], 2),
        (["truncated"], 2),
        (["301 /elsewhere.gz"], 2),
    ],
)
def test_what_passes_is_tried_again(crawl, tmp_path, faults, tries):
    name = pick(fetch(crawl, tmp_path / "first"))
    (crawl.root / "elsewhere.gz").write_bytes(next(crawl.root.rglob(f"*/warc/{name}")).read_bytes())
    crawl.log.clear()
    crawl.faults = {name: list(faults)}
    manifest = fetch(crawl, tmp_path / "out")
    assert not crawl.faults[name] and manifest["counts"]["kept"] == 5 and not manifest["counts"]["bad"]
    assert (tmp_path / "out/manifest.json").read_bytes() == (tmp_path / "first/manifest.json").read_bytes()
    assert len(crawl.gets(name) + crawl.gets("elsewhere")) == tries
    assert not list((tmp_path / "out").rglob("*.part*"))


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (["html", "always"], "not gzip"),
        (["404", "always"], "not found"),
        (["500", "always"], "HTTP 500"),
        (["403", "always"], "HTTP 403"),
        (["400", "always"], "refused by the server"),
        (["truncated", "always"], "truncated gzip"),
        (["cut 0", "always"], "connection cut"),
        (["301 ftp://example.org/x.gz", "always"], "redirects to an address that is not http(s)"),
        (["302 file:///etc/passwd", "always"], "redirects to an address that is not http(s)"),
    ],
)
def test_what_stays_bad_is_counted_and_the_others_kept(crawl, tmp_path, faults, reason):
    name = pick(fetch(crawl, tmp_path / "first"))
    crawl.faults = {name: list(faults)}
    manifest = fetch(crawl, tmp_path / "out")
    assert manifest["counts"] | {"file_bytes": 0, "list_lines": 0} == {
        **{"in": 5, "kept": 4, "text_bytes": 0, "dropped": {}, "bad": {reason: 1}, "file_bytes": 0, "list_lines": 0}
    }
    (row,) = pq.read_table(tmp_path / "out/dropped").to_pylist()
    assert (row["warc_file"], row["source"], row["reason"]) == (name, SNAPSHOT, reason)
    assert not list((tmp_path / "out").rglob(f"{name}*"))
    with pytest.raises(BadRecordsError):
        fetch(crawl, tmp_path / "out", max_bad_records=0.05)
    crawl.faults = {}
    assert fetch(crawl, tmp_path / "out")["counts"]["kept"] == 4  # what was decided stays, until asked
    again = fetch(crawl, tmp_path / "out", retry_bad=True)
    assert again == fetch(crawl, tmp_path / "first") and (tmp_path / "out/files" / SNAPSHOT / "warc" / name).is_file()


def test_redirects_are_bounded(crawl, tmp_path):
    name = pick(fetch(crawl, tmp_path / "first"))
    (path,) = [
        str(path.relative_to(crawl.root)) for path in crawl.root.rglob(f"*/warc/{name}") if SNAPSHOT in str(path)
    ]
    crawl.faults = {name: [f"302 /{path}", "always"]}
    crawl.log.clear()
    assert fetch(crawl, tmp_path / "out")["counts"]["bad"] == {"too many redirects": 1}
    assert len(crawl.gets(name)) == downloads.MAX_REDIRECTS + 1


def test_damaged_content_is_refused(crawl, tmp_path):
    first = fetch(crawl, tmp_path / "first")
    paths = [crawl.root / first["files"][name]["path"] for name in fetched(first)]
    content = bytearray(paths[0].read_bytes())
    content[len(content) // 2] ^= 1  # in the middle of the second member
    paths[0].write_bytes(content)
    paths[1].write_bytes(gzip.compress(b"WARC/1.0\r\n" + bytes(80 * 2**20), 6))  # 80 KB
    paths[2].write_bytes(gzip.compress(b"<html>not here</html>"))
    paths[3].write_bytes(b"")
    paths[4].write_bytes(warc_bytes(1) + b"garbage after the last member")
    counts = fetch(crawl, tmp_path / "out", retries=1)["counts"]
    assert counts["kept"] == 0 and counts["bad"] == {
        "damaged gzip": 2,
        "decompresses to over 100 times its size": 1,
        "empty": 1,
        "not a WARC file": 1,
    }


def test_hostile_lists(crawl, tmp_path):
    good = names_of(SNAPSHOT, "warc", 20)
    name = good[0].rsplit("/", 1)[1]
    evil = {
        "crawl-data/../../../etc/passwd.warc.gz": "path leads out of the folder",
        f"crawl-data/{SNAPSHOT}/segments/1.2/warc/../../../../../{name}": "path leads out of the folder",
        f"/{good[0]}": "absolute path",
        f"http://example.org/{good[0]}": "path to another server",
        f"//example.org/{good[0]}": "path to another server",
        f"crawl-data/{SNAPSHOT}/segments/1.2/warc/$(touch pwned);{name}": "not a path of this snapshot and kind",
        f"crawl-data/{SNAPSHOT}/segments/1.2/warc/-rf {name}": "not a path of this snapshot and kind",
        f"crawl-data/{SNAPSHOT}/segments/1.2/warc/a\0b.warc.gz": "not a path of this snapshot and kind",
        f"crawl-data/{SNAPSHOT}/segments/1.2/warc/{'x' * 5000}.warc.gz": "not a path of this snapshot and kind",
        names_of(SNAPSHOT, "wet", 1)[0]: "not a path of this snapshot and kind",
        names_of(OTHER, "warc", 1)[0]: "not a path of this snapshot and kind",
        f"crawl-data/{SNAPSHOT}/segments/9.9/warc/{name}": "the name of another segment's file",
        "\udcff\udcfe": "not a path of this snapshot and kind",
    }
    lines = "\r\n".join([*evil, *good, *good, ""]).encode("utf-8", "surrogateescape")
    (crawl.root / f"crawl-data/{SNAPSHOT}/warc.paths.gz").write_bytes(gzip.compress(lines))
    manifest = fetch(crawl, tmp_path / "out", sampling_ratio=[1.0])
    assert manifest["counts"]["kept"] == 20 and manifest["counts"]["in"] == 20 + len(evil)
    rows = pq.read_table(tmp_path / "out/dropped").to_pylist()
    assert sorted(row["reason"] for row in rows) == sorted(evil.values())
    assert {path.parent.name for path in (tmp_path / "out/files").rglob("*.gz")} == {"warc"}
    assert not [path for _, path, *_ in crawl.log if ".." in path or "passwd" in path]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror", "out"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "not gzip"),
        (gzip.compress(b"x\n" * 1000, mtime=0), "none of the 1 lines"),  # two test processes name a case alike
        (gzip.compress(b"crawl-data/x\n" * 1000, mtime=0)[:-9], "warc.paths.gz cannot be used"),
        (gzip.compress(bytes(130 * 2**20), mtime=0), "too large"),
    ],
)
def test_a_list_that_is_none(crawl, tmp_path, content, message):
    (crawl.root / f"crawl-data/{SNAPSHOT}/warc.paths.gz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        fetch(crawl, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unreachable_server_is_an_input_error_and_a_silent_one_stops_the_run(crawl, tmp_path):
    with pytest.raises(InputError, match=r"127.0.0.1:9: no connection; look whether"):
        fetch("http://127.0.0.1:9", tmp_path / "out", retries=1)
    crawl.faults = {"crawl-data": ["403", "always"]}
    with pytest.raises(InputError, match="HTTP 403; look whether"):
        fetch(crawl, tmp_path / "out", retries=1)
    # Refused in the middle: what is done is kept, and nothing is called bad.
    name = pick(fetch(crawl.root, tmp_path / "mirrored"))
    crawl.faults = {"warc.paths": [], "/warc/": ["", "", "503", "always"]}
    real = Handler.answer

    def answer(handler, body):
        if handler.server.faults["/warc/"][:1] == ["503"]:
            handler.server.faults["warc.paths"] = ["503", "always"]
        real(handler, body)

    Handler.answer = answer
    try:
        with pytest.raises(RunError, match=r"HTTP 503.*run the same command again"):
            fetch(crawl, tmp_path / "out", retries=1)
    finally:
        Handler.answer = real
    done = {path.name for path in (tmp_path / "out").rglob("*.warc.gz")}
    assert len(done) == 2
    crawl.faults, crawl.log = {}, []
    manifest = fetch(crawl, tmp_path / "out")
    assert manifest["counts"]["kept"] == 5 and name in {Path(path).name for path in fetched(manifest)}
    assert len(crawl.log) == 3 and not [entry for entry in crawl.log if Path(entry[1]).name in done]


def test_a_cut_download_goes_on_where_it_was(crawl, tmp_path):
    first = fetch(crawl, tmp_path / "first")
    name = pick(first)
    (crawl.root / first["files"][fetched(first)[0]]["path"]).write_bytes(warc_bytes(7, records=10, size=40_000))
    crawl.log.clear()
    crawl.faults = {name: ["cut 150000", "500", "cut 100000"]}
    assert fetch(crawl, tmp_path / "out")["counts"]["kept"] == 5
    assert [entry[2] for entry in crawl.gets(name)] == [None, "bytes=150000-", "bytes=150000-", "bytes=250000-"]
    assert crawl.bytes_of(name) == (tmp_path / "out" / fetched(first)[0]).stat().st_size


def test_a_file_that_changes_on_the_server_is_not_mixed(crawl, tmp_path):
    first = fetch(crawl, tmp_path / "first")
    path = crawl.root / first["files"][fetched(first)[0]]["path"]
    path.write_bytes(warc_bytes(7, records=10, size=40_000))
    crawl.faults = {path.name: ["cut 150000", "500", "always"]}
    with pytest.raises(BadRecordsError):  # kept as bad: the part is gone
        fetch(crawl, tmp_path / "out", max_bad_records=0, retries=1)
    server = downloads.server_at(crawl.url, 0, 0)
    target = tmp_path / "x.gz"
    relative = str(path.relative_to(crawl.root))
    crawl.faults = {path.name: ["cut 150000"]}
    with pytest.raises(downloads.Trouble):
        list(downloads.download(server, relative, target, 0))
    path.write_bytes(warc_bytes(8, records=10, size=40_000))
    crawl.log.clear()
    list(downloads.download(server, relative, target, 150_000))
    assert target.read_bytes() == path.read_bytes() and crawl.gets(path.name)[0][2] == "bytes=150000-"


def test_only_what_was_noted_of_a_part_is_trusted(crawl, tmp_path):
    path = names_of(SNAPSHOT, "warc", 1)[0]
    content = warc_bytes(7, records=10, size=40_000)
    (crawl.root / path).write_bytes(content)
    server, target = downloads.server_at(crawl.url, 0, 0), tmp_path / "x.warc.gz"
    crawl.faults = {path: ["cut 200000"]}
    with pytest.raises(downloads.Trouble):
        list(downloads.download(server, path, target, 0))
    part = target.with_name("x.warc.gz.part")
    part.write_bytes(content[:100_000] + bytes(100_000))  # as after a power cut
    list(downloads.download(server, path, target, 100_000))
    assert target.read_bytes() == content and crawl.log[-1][2] == "bytes=100000-"


def run(base, output_dir, **more):
    words = [sys.executable, "data_prep/fetch_common_crawl.py", "--snapshot", SNAPSHOT, "--base_url", base]
    words += ["--sampling_ratio", "1", "--output_dir", str(output_dir), "--workers", "1", "--retry_wait", "0.01"]
    return subprocess.Popen(
        words, env=os.environ | {"PYTHONPATH": "."}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_killed_in_the_middle_and_gone_on(crawl, tmp_path):
    path = names_of(SNAPSHOT, "warc", 1)[0]
    write_list(crawl.root, SNAPSHOT, "warc", [path])
    content = warc_bytes(7, records=18, size=10**6)
    (crawl.root / path).write_bytes(content)
    whole = fetch(crawl.root, tmp_path / "whole", sampling_ratio=[1.0])
    held = 165 * 2**20 // 10
    crawl.faults = {path: [f"hold {held}"]}
    process = run(crawl.url, tmp_path / "out")
    deadline = time.time() + 300
    while len(list((tmp_path / "out/.state/files").glob("[0-9]*.json"))) < 2 and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    crawl.released.set()
    assert not list((tmp_path / "out").rglob("*.warc.gz")) and len(list((tmp_path / "out").rglob("*.part"))) == 1
    crawl.log.clear()
    process = run(crawl.url, tmp_path / "out")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    assert b"1 in, 1 kept" in output
    again = crawl.bytes_of(path) - (len(content) - held)
    assert again <= downloads.STEP + 0.05 * len(content)
    assert crawl.bytes_of(path) < len(content) / 2
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["files"] == whole["files"] and manifest["counts"] == whole["counts"]
    assert (tmp_path / "out" / fetched(whole)[0]).read_bytes() == content


def test_killed_between_the_rename_and_its_record(crawl, tmp_path):
    manifest = fetch(crawl, tmp_path / "out")
    (tmp_path / "out/.state/files/00002-00000.json").unlink()
    (tmp_path / "out/manifest.json").unlink()
    crawl.log.clear()
    assert fetch(crawl, tmp_path / "out") == manifest and not crawl.log
    # A file that is gone is fetched again, the others are not.
    (tmp_path / "out" / fetched(manifest)[1]).unlink()
    assert fetch(crawl, tmp_path / "out") == manifest and len(crawl.log) == 1


def test_disk_too_small(crawl, tmp_path):
    name = names_of(SNAPSHOT, "warc", 20)[3]
    real = Handler.answer

    def answer(handler, body):
        if handler.path.endswith(name):  # HEAD alone
            handler.send(200, b"", {"Content-Length": str(2**49)}, False)
        else:
            real(handler, body)

    Handler.answer = answer
    try:
        with pytest.raises(InputError, match=r"562,949,953,4.* bytes are to come and .* are free"):
            fetch(crawl, tmp_path / "out", sampling_ratio=[1.0])
    finally:
        Handler.answer = real
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_in_a_folder_with_work(crawl, tmp_path):
    fetch(crawl, tmp_path / "out")
    for more, name in (
        ({"seed": 1}, "seed was 42, is 1"),
        ({"kind": ["wet"]}, "kinds"),
        ({"snapshot": [OTHER]}, "43"),
    ):
        with pytest.raises(InputError, match=name):
            fetch(crawl, tmp_path / "out", **more)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds files that no fetch has written"):
        fetch(crawl, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"snapshot": ["CC-MAIN-2026-42"]}, f"no such snapshot; the closest: .*{SNAPSHOT}.*; the newest: {SNAPSHOT}"),
        ({"snapshot": ["2026-43"]}, f"must look like CC-MAIN-2026-43; the closest: {SNAPSHOT}"),
        ({"snapshot": ["CC-MAIN-2026-43/../.."]}, "must look like"),
        ({"snapshot": ["CC-MAIN-2025-51"]}, "has no crawl-data/CC-MAIN-2025-51/warc.paths.gz"),
        ({"snapshot": []}, "--snapshot: name one"),
        ({"snapshot": [SNAPSHOT, SNAPSHOT]}, "named twice"),
        ({"sampling_ratio": [0.1, 0.2]}, "2 values for 1 snapshots"),
        ({"sampling_ratio": [0.0]}, "above 0"),
        ({"sampling_ratio": [float("nan")]}, "above 0"),
        ({"kind": ["arc"]}, "--kind arc: must be one of warc, wet, wat"),
        ({"max_files": 0}, "at least 1"),
        ({"retries": -1}, "at least 0"),
        ({"retry_wait": float("nan")}, "at least 0"),
        ({"base_url": "s3://commoncrawl"}, "must be an http"),
        ({"base_url": "no/such/folder"}, "no such folder"),
        ({"base_url": "https://"}, "must look like"),
        ({"input": ["x"]}, "--input: files are read from --base_url alone"),
        ({"part_records": 5}, "--part_records: a file has no parts"),
    ],
)
def test_wrong_flags(crawl, tmp_path, flags, message):
    base = flags.pop("base_url", crawl)
    with pytest.raises(InputError, match=message):
        fetch(base, tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


def test_a_damaged_plan_is_named(crawl, tmp_path):
    fetch(crawl, tmp_path / "out")
    plan = tmp_path / "out" / ".state" / "plan.json"
    plan.write_text(plan.read_text()[:-9])
    with pytest.raises(InputError, match=r"/plan\.json: damaged \(.*; remove it, or name a new folder"):
        fetch(crawl, tmp_path / "out")


def test_missing_kind_names_what_there_is(crawl, tmp_path):
    (crawl.root / f"crawl-data/{SNAPSHOT}/wat.paths.gz").unlink()
    with pytest.raises(InputError, match=r"--kind wat: .* has no .*wat.paths.gz; there is warc, wet"):
        fetch(crawl, tmp_path / "out", kind=["wat"])


def test_list_of_snapshots(crawl, tmp_path, capsys):
    found = fetch(crawl, tmp_path / "out", list_snapshots=2, snapshot=[])["snapshots"]
    assert [entry["id"] for entry in found] == [SNAPSHOT, OTHER]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"{SNAPSHOT}  2026-10-01")
    assert not (tmp_path / "out").exists()


def test_retry_after_is_respected_up_to_a_bound(crawl):
    assert downloads._retry_after("7") == 7 and downloads._retry_after("99999999999") == downloads.MAX_RETRY_AFTER
    assert downloads._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0 == downloads._retry_after("soon")
    crawl.faults = {"collinfo": ["429 1"]}
    start = time.time()
    assert downloads.server_at(crawl.url, 1, 0.01).read("collinfo.json", 10**6)
    assert 1 <= time.time() - start < 60  # not for 99999999999 seconds: that is what is bounded


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="TINY_OLM_DATA is not set")
def test_real_files_pass_and_truncated_ones_do_not(crawl, tmp_path):
    real = sorted(Path(DATA, "commoncrawl").rglob("*.w*t.gz")) + sorted(Path(DATA, "commoncrawl").rglob("*.warc.gz"))
    for kind in KINDS:
        files = [path for path in real if path.name.endswith(f".{kind}.gz")]
        for name, path in zip(names_of(SNAPSHOT, kind, len(files)), files, strict=True):
            shutil.copyfile(path, crawl.root / name)
        write_list(crawl.root, SNAPSHOT, kind, names_of(SNAPSHOT, kind, len(files)))
        manifest = fetch(crawl, tmp_path / kind, kind=[kind], sampling_ratio=[1.0])
        bad = ["truncated gzip"] if kind == "wet" else []
        bad += ["only in the list of WARC files"] * (sum(path.name.endswith(".warc.gz") for path in real) - len(files))
        assert sum(manifest["counts"]["bad"].values()) == len(bad) and set(manifest["counts"]["bad"]) == set(bad)
        assert manifest["counts"]["kept"] + len(bad) == manifest["counts"]["in"]
