"""The files of a dump: which there are, brought here, and those among the input."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tqdm.auto import tqdm

from data_prep.engine.downloads import MAX_FILE_BYTES, BadFile, NotFound, Server, Trouble, download
from shared.errors import InputError, RunError
from shared.rows import Source, find_sources, walk

SUFFIXES = (".xml", ".bz2")
JOB = "articlesdump"  # in dumpstatus.json: the articles in parts; the "recombine" jobs hold them once more
DAY = re.compile(r"\d{8}")
_DUMP = re.compile(r"[a-z][a-z0-9_]*-(?:\d{8}|latest)-")
_ARTICLES = re.compile(r"pages-articles(?P<multi>-multistream)?(?P<part>\d*)\.xml")


def fetch_dump(server: Server, wiki: str, date: str, dump_dir: str) -> list[str]:
    """Download the articles of a dump, as its dumpstatus.json lists them; returns the files. What is there is kept."""
    folder = Path(dump_dir, f"{wiki}-{date}")
    try:
        jobs = json.loads(server.read(f"{wiki}/{date}/dumpstatus.json", 64 * 2**20))["jobs"]
        job = jobs.get(JOB, {})
        if job.get("status") != "done":
            raise InputError(
                f"--date {date}: the articles of this dump are not finished (status {job.get('status', 'missing')}); "
                "try again later, or take an earlier one"
            )
        listed = sorted(job["files"].items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])])
        for name, facts in listed:
            if not re.fullmatch(rf"{wiki}-{date}-pages-articles\d*\.xml(-p\d+p\d+)?\.bz2", name):
                raise ValueError(f"unexpected file name {name!r}")
            facts["size"] = int(facts["size"])
        missing = sum(facts["size"] for name, facts in listed if not (folder / name).is_file())
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if missing:
            print(f"{wiki}-{date}: {missing:,} bytes are to come; {free:,} bytes of disk are free", flush=True)
        if missing > free:
            raise InputError(f"--dump_dir {dump_dir}: {missing:,} bytes are to come and {free:,} are free")
        with tqdm(total=missing, desc=f"Fetching {wiki}-{date}", unit="B", unit_scale=True, delay=1) as bar:
            for name, facts in listed:
                fetch_file(server, f"{wiki}/{date}/{name}", folder / name, facts["size"], facts.get("sha1", ""), bar)
    except NotFound as error:
        raise InputError(f"--wiki {wiki} --date {date}: no such dump at {server.base}{_days(server, wiki)}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{server.base}/{wiki}/{date}/dumpstatus.json: cannot be understood: {error}") from error
    except (BadFile, Trouble) as error:
        raise RunError(f"--base_url {server.base}: {error}; what has come is kept, run it again later") from error
    return [str(folder / name) for name, _ in listed]


def fetch_file(server: Server, path: str, target: Path, size: int, sha1: str, bar: tqdm) -> None:
    """Bring one file of known size and hash to `target`, from where `target.part` ends. Raises BadFile, Trouble."""

    def check(file: Path) -> tuple[int, str]:
        with file.open("rb") as content:
            right = not sha1 or hashlib.file_digest(content, "sha1").hexdigest() == sha1
        same = right and file.stat().st_size == size
        return 1, "" if same else "size or SHA-1 differs from dumpstatus.json"

    if not target.is_file() or target.stat().st_size != size:
        before = bar.n
        for have, _, _ in download(server, path, target, MAX_FILE_BYTES, check):
            bar.update(before + have - bar.n)


def _days(server: Server, wiki: str) -> str:
    with suppress(BadFile, Trouble, OSError):
        if server.folder is not None:
            found = [path.name for path in (server.folder / wiki).iterdir()]
        else:
            found = re.findall(r'href="(\d{8})/"', server.read(f"{wiki}/", 2**20).decode("utf-8", "replace"))
        if days := sorted(day for day in found if DAY.fullmatch(day)):
            return "; there are " + ", ".join(days[-12:])
    return ""


def find_dumps(inputs: Sequence[str]) -> list[Source]:
    """The dump files of `--input`; of a folder, where it holds the articles of a dump, these alone, and once."""
    files: list[str] = []
    for name in inputs:
        if not Path(name).is_dir():
            files.append(name)
            continue
        found = sorted(path for path in walk(Path(name)) if path.is_file() and path.name.endswith(SUFFIXES))
        if not found:
            raise InputError(f"--input {name}: no file in this folder ends in {' or '.join(SUFFIXES)}")
        dumps: dict[tuple[Path, str], dict[int, list[Path]]] = {}
        for path in found:
            match = _DUMP.match(path.name)
            articles = _ARTICLES.match(path.name, match.end()) if match else None
            # They may be there in parts (best: several workers), in one piece and as multistream.
            kind = 2 * bool(articles["multi"]) + (not articles["part"]) if articles else 4
            dumps.setdefault((path.parent, match[0] if match else path.name), {}).setdefault(kind, []).append(path)
        files += [str(path) for kinds in dumps.values() for path in kinds[min(kinds)]]
    return find_sources(files, SUFFIXES)
