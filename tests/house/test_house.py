"""How the house is built: what is long, what imports what, and what stands in the maps. CONTRIBUTING.md has the rules.

What is over a limit today is named below with its number, which is its own limit: make it smaller, and take it out
when it is under the general one.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("shared", "data_prep", "pretraining", "finetuning", "evaluation")  # each imports from those before it
FUNCTION, FILE, TEST_FILE, SCRIPT = 60, 400, 750, 210  # lines
SHARED = 14  # files at the top of shared/

LONG_FUNCTIONS = {
    "tests/data_prep/test_extract_common_crawl.py damaged_files": 74,  # a list of files, each made with a comment
    "tests/data_prep/test_fetch_common_crawl.py answer": 63,  # a server that misbehaves in all ways
}
LONG_FILES: dict[str, int] = {}
LONG_SCRIPTS: dict[str, int] = {}
NO_SCRIPTS = {  # at the top all the same
    "data_prep/languages.py",  # several rooms read this list
    "pretraining/masking.py",  # beside the script, where people look for them
    "pretraining/attention.py",
    "pretraining/chunked_loss.py",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def sources(*folders: str) -> dict[str, tuple[str, ast.Module]]:
    """Path -> text and syntax tree of all Python files of these folders."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found[name_of(path)] = (text, ast.parse(text))
    return found


def lines(text: str) -> int:
    return text.count("\n")


def is_script(text: str) -> bool:
    return '\nif __name__ == "__main__":' in text


def check(found: dict[str, int], limit: int, exceptions: dict[str, int], what: str) -> None:
    """Nothing is over the limit but the exceptions, which are over it, and not over their own numbers."""
    over = {name: size for name, size in found.items() if size > exceptions.get(name, limit)}
    assert not over, f"{what} longer than {limit} lines: divide it along a seam: {over}"
    needless = [name for name in exceptions if found.get(name, 0) <= limit]
    assert not needless, f"{what} no longer over the limit: take it out of the exceptions: {needless}"


def test_functions_are_short():
    found: dict[str, int] = {}
    for path, (_, tree) in sources(*FOLDERS, "tests").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                found[f"{path} {node.name}"] = max(size, found.get(f"{path} {node.name}", 0))
    check(found, FUNCTION, LONG_FUNCTIONS, "function")


def test_files_are_short():
    check({path: lines(text) for path, (text, _) in sources(*FOLDERS).items()}, FILE, LONG_FILES, "file")
    check({path: lines(text) for path, (text, _) in sources("tests").items()}, TEST_FILE, {}, "test file")


def test_scripts_are_read_in_one_sitting():
    scripts = {
        path: lines(text) for path, (text, _) in sources(*FOLDERS).items() if path.count("/") == 1 and is_script(text)
    }
    assert len(scripts) > 20
    check(scripts, SCRIPT, LONG_SCRIPTS, "script")


def imports_of(path: str, tree: ast.Module) -> Iterator[str]:
    """The files of the house that a file imports, wherever in it the import stands."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    for name in names:
        other = name.replace(".", "/") + ".py"
        if other != path and name.split(".")[0] in FOLDERS and (ROOT / other).is_file():
            yield other


@cache
def graph() -> dict[str, set[str]]:
    return {path: set(imports_of(path, tree)) for path, (_, tree) in sources(*FOLDERS).items()}


def test_nothing_imports_from_a_folder_to_its_right():
    place = {folder: number for number, folder in enumerate(FOLDERS)}
    wrong = [
        f"{path} imports {other}"
        for path, others in graph().items()
        for other in others
        if place[other.split("/")[0]] > place[path.split("/")[0]]
    ]
    assert graph()["data_prep/build_corpus.py"] and not wrong


def test_nothing_imports_in_a_circle():
    done: set[str] = set()

    def visit(path: str, way: list[str]) -> None:
        assert path not in way, " -> ".join([*way[way.index(path) :], path])
        if path not in done:
            for other in sorted(graph()[path]):
                visit(other, [*way, path])
            done.add(path)

    for path in graph():
        visit(path, [])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_map_of_a_folder_names_its_rooms_and_files(folder):
    page = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([^`]+(?:\.py|/))` \| \S", page, re.MULTILINE)
    paths = {Path(path).relative_to(folder) for path in sources(folder) if not path.endswith("__init__.py")}
    rooms = {f"{path.parent.as_posix()}/" for path in paths if len(path.parts) > 1}
    assert sorted(named) == sorted({path.as_posix() for path in paths} | rooms)


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_scripts_alone_stand_at_the_top_of_a_folder(folder):
    top = {path: text for path, (text, _) in sources(folder).items() if path.count("/") == 1}
    others = {path for path, text in top.items() if not is_script(text)} - {f"{folder}/__init__.py"}
    assert others == {path for path in NO_SCRIPTS if path.startswith(f"{folder}/")}


def test_shared_is_small():
    files = [path for path in sources("shared") if path.count("/") == 1 and not path.endswith("__init__.py")]
    assert len(files) <= SHARED, "what one folder alone uses belongs to that folder"


def test_each_recipe_stands_on_a_page():
    """But for those of tests, `..._smoke`."""
    paths = [ROOT / folder / page for folder in (".", *FOLDERS) for page in ("README.md", "RESULTS.md")]
    pages = " ".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    named = {name for pair in re.findall(r"`([a-z0-9_]+)`|([a-z0-9_]+)\.yaml", pages) for name in pair}
    recipes = [path.stem for folder in FOLDERS for path in (ROOT / folder / "recipes").glob("*.yaml")]
    assert len(recipes) > 40
    assert [one for one in recipes if one not in named and not one.endswith("_smoke")] == []


def test_recipes_read_what_others_write():
    """Folders under data/ and runs/ are the output of a recipe or of a command on a page, or the header names them."""
    recipes = [path for folder in FOLDERS for path in (ROOT / folder / "recipes").glob("*.yaml")]
    pages = [*recipes, *(ROOT / folder / "README.md" for folder in (".", *FOLDERS)), ROOT / "Makefile"]
    text = " ".join(page.read_text(encoding="utf-8") for page in pages if page.is_file())
    written = set(re.findall(r"(?:--output_dir |\noutput_dir: )(?:\.\./)?([\w./-]+)", text))
    unknown = []
    for path in recipes:
        lines = path.read_text(encoding="utf-8").splitlines()
        header = " ".join(line for line in lines if line.startswith("#"))
        for name in re.findall(
            r"(?<![\w/])(?:data|runs)/[\w/.-]+", " ".join(line for line in lines if line[:1] != "#")
        ):
            if not {name, *map(str, Path(name).parents)} & written and name not in header:
                unknown.append(f"{path.relative_to(ROOT)}: {name}")
    assert unknown == []
