"""From a row of a corpus back to the record or revision that it was made from."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.errors import InputError, one_line
from shared.files import sha256_of
from shared.rows import AGAIN, known_metadata

MOST = 20  # rows shown for one id: ids are unique in their source alone
COLUMNS = ("id", "url", "title", "date", "source", "warc_file", "offset", "metadata", "reason", "detail")
ARCHIVE = "https://data.commoncrawl.org/"


def trace(folder: str, wanted: str) -> dict[str, Any]:
    """Print where the rows with this id or URL came from, and return the same as a dict.

    Raises InputError when the folder holds no corpus, or no row has this id or URL.
    """
    path = Path(folder)
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        shards = json.loads((path / "reports" / "shards.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--output_dir {folder}: no corpus that build_corpus.py has finished") from error
    found = []
    for name, number, row in _matches(path, manifest, wanted):
        shard = shards[int(Path(name).stem)]
        stages = [step["stage"] for step in manifest["history"]] + [manifest["stage"]]
        read_from = manifest["inputs"][_source_of(shard, str(Path(name).parent).strip("."), number)]
        entry = {"file": name, "row": number, **row, "input": shard["input"], "read_from": read_from, "stages": stages}
        entry |= {"intact": sha256_of(path / name) == manifest["files"][name]["sha256"], "origin": origin(row)}
        found.append(entry)
        print(_shown(entry))
        if len(found) == MOST:
            print(f"... and perhaps more: the first {MOST} are shown")
            break
    if not found:
        raise InputError(f"--trace {wanted}: no row of {folder}, kept or dropped, has this id or URL")
    return {"found": found}


def _source_of(shard: dict[str, Any], folder: str, row: int) -> int:
    """The number of the input file whose rows, in a file of this shard, include `row`."""
    for file in shard["files"]:
        row -= file["rows"].get(folder, 0)
        if row < 0:
            return int(file["source"])
    raise InputError(f"reports/shards.json: does not fit the shard in {folder or 'the top folder'}")


def _matches(path: Path, manifest: dict[str, Any], wanted: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for name in manifest["files"]:
        if name.split("/")[0] in ("contamination", "reports"):
            continue
        try:
            shard = pq.ParquetFile(path / name)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path / name}: cannot be read ({one_line(error)}); {AGAIN}") from error
        with shard as file:
            columns = [column for column in COLUMNS if column in file.schema_arrow.names]
            before = 0
            for batch in file.iter_batches(batch_size=10_000, columns=columns):
                # A row without URL or id is not equal: null would make the whole comparison null.
                equal = [pc.fill_null(pc.equal(batch[column], wanted), False) for column in ("id", "url")]
                for index in pc.indices_nonzero(pc.or_(*equal)).to_pylist():
                    row = batch.slice(index, 1).to_pylist()[0]
                    yield name, before + index, {key: value for key, value in row.items() if value is not None}
                before += len(batch)


def origin(row: dict[str, Any]) -> str:
    """Where the record of a row can be seen: a command for a crawl, an address for a revision, or what is known."""
    revision = known_metadata(row.get("metadata")).get("revision")
    if revision is not None and str(revision).isdigit():
        host = urlsplit(row.get("url") or "").netloc
        return f"https://{host}/w/index.php?oldid={revision}" if host else f"revision {revision}"
    name, offset = row.get("warc_file"), row.get("offset")
    if name and offset is not None:
        if name.startswith("crawl-data/"):
            return f"curl -r {offset}- {shlex.quote(ARCHIVE + name)} | zcat | head -c 100000"
        return f"byte {offset:,} of {name} (its address is in the paths file of {row.get('source') or 'the crawl'})"
    return f"no record: {row.get('source') or 'the source'} names neither WARC file and offset nor a revision"


def _shown(entry: dict[str, Any]) -> str:
    lines = [("row", f"{entry['row']} of {entry['file']}" + ("" if entry["intact"] else " (this file was CHANGED)"))]
    lines += [(name, str(entry[name])) for name in COLUMNS if name in entry]
    source = entry["read_from"]
    lines.append(("read from", f"{source['file']} of {entry['input']} (sha256 {source['sha256']})"))
    lines += [("stages", " > ".join(entry["stages"])), ("origin", entry["origin"])]
    # Without characters that would move a terminal's cursor: rows come from the web.
    shown = [(name, "".join(c if c.isprintable() else " " for c in value)) for name, value in lines]
    return "\n".join(f"{name:<10} {value}" for name, value in shown) + "\n"
