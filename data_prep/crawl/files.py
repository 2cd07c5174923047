"""The files of a crawl: WARC, WET and WAT, which of them belong together, and what WAT files know of the others."""

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from data_prep.crawl.page import parse_date
from data_prep.crawl.warc import read_records
from shared.errors import InputError
from shared.rows import Source, clean_text, find_sources

WARC = (".warc.gz", ".warc")
WET = (".warc.wet.gz", ".warc.wet", ".wet.gz", ".wet")
WAT = (".warc.wat.gz", ".warc.wat", ".wat.gz", ".wat")
WAT_ENTRIES = 500_000  # ten times what a file of the crawl holds; bounds memory
WAT_LINE_BYTES = 8 * 2**20


def snapshot_of(path: str) -> str:
    """The crawl of a file: from its path, or what its first record says, or the file's name without suffix."""
    named = re.findall(r"CC-MAIN-\d{4}-\d{2}(?!\d)", path)
    if named:
        return str(named[-1])
    record = next(read_records(path, 0, ("warcinfo", "response", "conversion"), 2**20), None)
    if record is not None and record.kind == "warcinfo":
        fields = re.search(r"^isPartOf:[ \t]*(\S.*)$", record.block.decode("utf-8", "replace"), re.MULTILINE)
        if fields:
            return clean_text(unquote(fields[1])).strip()[:100]
    return Path(stem_of(path)).name


def stem_of(path: str) -> str:
    """A file without its suffix: the same for the WARC, WET and WAT file of one crawl job, which lie in one folder or,
    as the crawl lays them out, in warc/, wet/ and wat/ side by side."""
    folder, name = Path(path).parent, Path(path).name
    for suffix in (*WET, *WAT, *WARC):
        name = name.removesuffix(suffix)
    return str((folder.parent if folder.name in ("warc", "wet", "wat") else folder) / name)


def key_of(*parts: str | None) -> bytes:
    return hashlib.blake2b("\n".join(part or "" for part in parts).encode(), digest_size=12).digest()


@lru_cache(maxsize=1)
def read_last_modified(path: str) -> dict[bytes, str]:
    """What servers said in Last-Modified, from a WAT file: by record, and by address and date of the crawl.

    What cannot be read in it is passed over: the documents then have no such date.
    """
    found: dict[bytes, str] = {}
    for record in read_records(path, 0, ("metadata",), WAT_LINE_BYTES):
        if len(found) >= 2 * WAT_ENTRIES:
            break
        if b"ast-" not in record.block:  # spares most records the parsing
            continue
        try:
            envelope = json.loads(record.block)["Envelope"]
            header = envelope["WARC-Header-Metadata"]
            headers = envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["Headers"]
            value = next((value for name, value in headers.items() if name.lower() == "last-modified"), None)
            if header["WARC-Type"] == "response" and isinstance(value, str) and (date := parse_date(value)):
                found[key_of(header["WARC-Record-ID"])] = date
                found[key_of(header["WARC-Target-URI"], header["WARC-Date"])] = date
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def choose_sources(inputs: list[str]) -> tuple[list[Source], list[Source], dict[int, str]]:
    """The files to read documents from, the WAT files that go with them, and which goes with which (by index)."""
    found = find_sources(inputs, WARC + WET + WAT)
    wats = {stem_of(source.path): source for source in found if source.path.endswith(WAT)}
    warcs = {stem_of(source.path) for source in found if source.path.endswith(WARC)}
    sources: list[Source] = []
    used: dict[str, Source] = {}
    pairs: dict[int, str] = {}
    passed = 0
    for source in found:
        stem = stem_of(source.path)
        if source.path.endswith(WAT):
            continue
        if source.path.endswith(WET):
            if stem in warcs:
                passed += 1
                continue
            wat = wats.get(stem) or _wat_beside(source.path, len(found) + len(used))
            if wat:
                used[stem] = wat
                pairs[source.index] = wat.path
        sources.append(source)
    if not sources:
        raise InputError("--input: WAT files hold no text; name WARC or WET files too")
    if passed:
        print(f"{passed} WET files are left out: their WARC files are among the input")
    return sources, list(used.values()), pairs


def _wat_beside(path: str, index: int) -> Source | None:
    """The WAT file of a WET file in the same folder, or as the crawl lays them out, in wat/ beside wet/."""
    wet = Path(path)
    name = re.sub(r"\.wet(?=(\.gz)?$)", ".wat", wet.name)
    for folder in (wet.parent, wet.parent.parent / "wat" if wet.parent.name == "wet" else wet.parent):
        if (folder / name).is_file():
            return Source(index, str(folder / name), (folder / name).stat().st_size)
    return None
