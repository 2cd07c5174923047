"""What a Common Crawl server offers: its snapshots, the files of one, and a sample of them.

Layout: BASE/crawl-data/CC-MAIN-2026-43/warc.paths.gz (wet, wat) lists paths relative to BASE, like
crawl-data/CC-MAIN-2026-43/segments/1715971057216.39/warc/CC-MAIN-20240517233122-20240518023122-00000.warc.gz; the WET
file of the same pages is in `wet/` and ends in `.warc.wet.gz`, the WAT file likewise.
"""

import difflib
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import replace

from data_prep.engine.downloads import BadFile, NotFound, Server, Trouble
from shared.errors import InputError
from shared.rows import clean_text

COMMON_CRAWL = "https://data.commoncrawl.org"
LIST_OF_SNAPSHOTS = "https://index.commoncrawl.org/collinfo.json"  # BASE/collinfo.json on any other server
KINDS = ("warc", "wet", "wat")
SNAPSHOT = re.compile(r"CC-MAIN-(\d{4})-(\d\d)", re.ASCII)
PATH = re.compile(
    r"crawl-data/(?P<snapshot>CC-MAIN-\d{4}-\d\d)/segments/(?P<segment>\d{1,20}(\.\d{1,9})?)/(?P<kind>warc|wet|wat)/"
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,199})\.warc(\.(?P<suffix>wet|wat))?\.gz",
    re.ASCII,
)
MAX_LIST_BYTES, MAX_LIST_TEXT, MAX_LIST_LINES = 32 * 2**20, 128 * 2**20, 10**6  # real ones: 1 MB, 13 MB, 100,000


def list_snapshots(server: Server) -> list[dict[str, str]]:
    """Snapshots with `id`, `name`, `from` and `to`, the newest first. Raises BadFile, Trouble."""
    if server.folder is not None and not (server.folder / "collinfo.json").is_file():
        folders = (server.folder / "crawl-data").glob("CC-MAIN-*")
        return [{"id": name} for name in sorted((folder.name for folder in folders), reverse=True)]
    path = "collinfo.json"
    if server.base == COMMON_CRAWL:
        base, _, path = LIST_OF_SNAPSHOTS.rpartition("/")
        server = replace(server, base=base)
    try:
        content = json.loads(server.read(path, MAX_LIST_BYTES))
    except (ValueError, RecursionError) as error:
        raise BadFile("collinfo.json is not JSON") from error
    found = []
    for entry in content if isinstance(content, list) else []:
        if isinstance(entry, dict) and re.fullmatch(r"CC-MAIN-[0-9-]{4,12}", str(entry.get("id")), re.ASCII):
            known = {key: str(entry.get(key, "")) for key in ("id", "name", "from", "to")}
            found.append({key: "".join(c for c in text if c.isprintable())[:80] for key, text in known.items()})
    return sorted(found, key=lambda entry: entry["id"], reverse=True)


def check_snapshots(server: Server, wanted: list[str]) -> None:
    """Raise InputError for a snapshot that cannot be one or that the server does not list, naming others."""
    try:
        known = [entry["id"] for entry in list_snapshots(replace(server, retries=min(1, server.retries)))]
    except (BadFile, Trouble):
        known = []  # the lists of paths will say more
    for name in wanted:
        if SNAPSHOT.fullmatch(name) and (not known or name in known):
            continue
        problem = "the server has no such snapshot" if SNAPSHOT.fullmatch(name) else "must look like CC-MAIN-2026-43"
        close = difflib.get_close_matches(name, known, n=2)
        hint = f"; the closest: {', '.join(close)}" if close else ""
        hint += f"; the newest: {', '.join(known[:3])}" if known else ""
        raise InputError(f"--snapshot {name}: {problem}{hint}")


def list_path(snapshot: str, kind: str) -> str:
    return f"crawl-data/{snapshot}/{kind}.paths.gz"


def read_list(server: Server, snapshot: str, kind: str) -> tuple[dict[str, str], dict[str, str]]:
    """The files of a snapshot: {segment and name, without the kind: path} and {refused line: reason}.

    A line must be a path of this snapshot and kind in the form that Common Crawl uses; anything else is refused, so
    that no line can lead out of the output folder or to another server. Raises InputError, NotFound, Trouble.
    """
    source = list_path(snapshot, kind)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(server.read(source, MAX_LIST_BYTES))) as file:
            text = file.read(MAX_LIST_TEXT + 1)
        lines = sorted({line.strip() for line in text.splitlines()} - {b""})
        if len(text) > MAX_LIST_TEXT or len(lines) > MAX_LIST_LINES:
            raise BadFile("too large", f"over {MAX_LIST_TEXT:,} bytes or {MAX_LIST_LINES:,} lines")
    except NotFound:
        raise
    except (BadFile, EOFError, OSError, zlib.error) as error:
        raise InputError(f"--base_url {server.base}: {source} cannot be used: {error}") from error
    paths: dict[str, str] = {}
    refused: dict[str, str] = {}
    names: set[str] = set()
    for raw in lines:
        line = raw.decode("utf-8", "replace")
        found = PATH.fullmatch(line)
        if (
            not found
            or (found["snapshot"], found["kind"]) != (snapshot, kind)
            or found["suffix"] != {"warc": None}.get(kind, kind)
        ):
            refused[clean_text(line)[:1000]] = why_refused(line)
        elif found["name"] in names:
            refused[line] = "the name of another segment's file"
        else:
            names.add(found["name"])
            paths[f"{found['segment']}/{found['name']}"] = line
    if not paths:
        raise InputError(
            f"--base_url {server.base}: none of the {len(lines):,} lines of {source} is a path of that kind"
        )
    return paths, refused


def why_refused(line: str) -> str:
    """The reason, for the record."""
    if "://" in line or line.startswith("//"):
        return "path to another server"
    if line.startswith("/"):
        return "absolute path"
    if ".." in line.split("/"):
        return "path leads out of the folder"
    return "not a path of this snapshot and kind"


def sample(keys: Iterable[str], ratio: float, seed: int, least: int, most: int | None = None) -> list[str]:
    """round(ratio x keys) of them, at most `most`, those with the lowest hashes: a higher ratio keeps all of a lower
    one."""
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    return sorted(ranked[: max(least, round(ratio * len(ranked)))][:most])
