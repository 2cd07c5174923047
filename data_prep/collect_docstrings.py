"""Collect real English that is on every machine already: the documentation strings of the installed libraries.

    python data_prep/collect_docstrings.py --output_dir data/docstrings

Reads the Python sources of a few large libraries, without importing them, and Python's own pydoc_data.topics. Keeps
paragraphs of prose, each once; drops code, tables, signatures and markup. Writes docstrings.parquet (id, title, text,
date, source) and manifest.json. The same versions give the same bytes.
"""

import ast
import importlib.metadata
import importlib.util
import inspect
import multiprocessing
import platform
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from shared.command_line import run_script
from shared.cores import available_cores, start_method
from shared.errors import InputError
from shared.files import CACHE, atomic_folder, check_new_folder, content_hash, write_json

# Import name -> distribution. All of them come with requirements.txt.
LIBRARIES = {
    "networkx": "networkx",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "transformers": "transformers",
}
CLEANING = 1  # raise it when the cleaning changes, so that cached text is made anew
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "title", "text", "date", "source")])
MIN_PARAGRAPH_WORDS = 8
MIN_DOCUMENT_WORDS = 30


@dataclass
class DocstringArguments:
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})


def clean_docstring(docstring: str) -> list[str]:
    """The paragraphs of prose in a documentation string: joined lines without markup, code and tables left out."""
    docstring = re.sub(r"```.*?(```|\Z)", "\n\n", inspect.cleandoc(docstring), flags=re.DOTALL)
    docstring = re.sub(r"^.*\n[-=~^*]{3,}\s*$", "", docstring, flags=re.MULTILINE)  # underlined headings
    paragraphs = []
    for block in re.split(r"\n\s*\n|\n(?=\s*[-*•] )", docstring):
        lines = [line.strip() for line in block.splitlines()]
        if any(line.startswith((">>>", "...", "..", "|", "#", "@", "$")) for line in lines):
            continue
        # Parameters stand on a line of their own ("axis : int, optional").
        lines = [line for line in lines if re.search(r"[a-z]", line) and not re.match(r"^[\w*., ]+ ?: ?[^.]*$", line)]
        text = re.sub(r":[a-z:]+:`~?([^`<]*?)(?: ?<[^>]*>)?`", r"\1", " ".join(lines))  # reST roles
        text = re.sub(r"\[`?([^\]`]+)`?\]\([^)]*\)(?:_+)?", r"\1", text)  # Markdown links
        text = re.sub(r"[`*]+|_{2,}|^[-*•] |</?\w+>|\[\d+\]_?", "", text)
        text = re.sub(r"\s+", " ", text).strip()
        if is_prose(text):
            paragraphs.append(text)
    return paragraphs


def is_prose(text: str) -> bool:
    """Whether a paragraph reads like sentences: long enough, mostly plain lower-case words, with a full stop."""
    words = text.split()
    plain = sum(bool(re.fullmatch(r"[(\"']*[A-Za-z][a-z'-]*[).,;:!?\"']*", word)) for word in words)
    return len(words) >= MIN_PARAGRAPH_WORDS and plain >= 0.7 * len(words) and bool(re.search(r"[a-z)][.!?:]", text))


def read_source(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and prose of every longer string constant of a source file: docstrings, and the strings that
    libraries attach to compiled functions. A file that Python cannot parse has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    found = []
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 100
        if is_text and (paragraphs := clean_docstring(node.value)):
            found.append((node.lineno, paragraphs))
    return sorted(found)


def versions() -> dict[str, str]:
    """The sources and their versions; raises InputError for a library that is not installed."""
    found = {"python": platform.python_version()}
    for name, distribution in LIBRARIES.items():
        if importlib.util.find_spec(name) is None:
            raise InputError(f"{name} is not installed; run pip install -r requirements.txt")
        found[name] = importlib.metadata.version(distribution)
    return found


def read_libraries(quiet: bool) -> Iterator[tuple[str, str, list[str], str]]:
    """Yield (id, title, paragraphs, source) of every string, in a fixed order."""
    from pydoc_data.topics import topics

    for topic, text in sorted(topics.items()):
        yield f"pydoc_data.topics:{topic}", topic, clean_docstring(text), f"python {platform.python_version()}"
    files = []
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        files += [
            (name, path.relative_to(root.parent), path) for path in root.rglob("*.py") if "tests" not in path.parts
        ]
    files.sort(key=lambda entry: entry[1].as_posix())
    found_versions = versions()
    with ProcessPoolExecutor(available_cores(), multiprocessing.get_context(start_method())) as pool:
        results = pool.map(read_source, [path for *_, path in files], chunksize=32)
        for (name, relative, _), strings in zip(
            files, tqdm(results, "Reading docstrings", len(files), unit=" files", disable=quiet), strict=True
        ):
            module = ".".join(relative.with_suffix("").parts)
            for line, paragraphs in strings:
                yield f"{module}:{line}", module, paragraphs, f"{name} {found_versions[name]}"


def collect_docstrings(output_dir: str | Path, quiet: bool = False) -> dict[str, Any]:
    """Write docstrings.parquet and manifest.json into `output_dir` and return the manifest."""
    seen: set[str] = set()
    documents, repeated, short = [], 0, 0
    for identifier, title, paragraphs, source in read_libraries(quiet):
        new = [paragraph for paragraph in dict.fromkeys(paragraphs) if paragraph not in seen]
        seen.update(new)
        repeated += len(paragraphs) - len(new)
        text = "\n\n".join(new)
        if len(text.split()) < MIN_DOCUMENT_WORDS:
            short += 1
            continue
        documents.append({"id": identifier, "title": title, "text": text, "date": None, "source": source})
    manifest = {
        "versions": versions(),
        "documents": len(documents),
        "words": sum(len(document["text"].split()) for document in documents),
        "skipped": {"paragraph seen before": repeated, f"fewer than {MIN_DOCUMENT_WORDS} words of prose": short},
    }
    with atomic_folder(output_dir) as folder:
        pq.write_table(pa.Table.from_pylist(documents, schema=SCHEMA), folder / "docstrings.parquet")
        write_json(folder / "manifest.json", manifest)
    return manifest


def cached_docstrings(quiet: bool = False) -> Path:
    """Collect once for the versions installed and keep the result in the cache. Returns the parquet file."""
    path = CACHE / f"docstrings-{content_hash(versions(), CLEANING)}"
    if not path.is_dir():
        with suppress(FileExistsError):  # another run made the same meanwhile
            collect_docstrings(path, quiet)
    return path / "docstrings.parquet"


def main(args: DocstringArguments) -> dict[str, Any]:
    check_new_folder(args.output_dir)
    manifest = collect_docstrings(args.output_dir)
    print(f"{manifest['documents']:,} documents, {manifest['words']:,} words; skipped: {manifest['skipped']}")
    return manifest


if __name__ == "__main__":
    run_script(main, DocstringArguments)
