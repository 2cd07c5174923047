"""The templates that a dump holds, collected before its articles are read: the first phase of extract_wikipedia.py."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data_prep.engine.stage import Part, Phase, Task, file_facts, new_counts
from data_prep.wikipedia.dump import read_pages
from data_prep.wikipedia.expansion import prepare_template, template_key
from data_prep.wikipedia.names import DEFAULT
from data_prep.wikipedia.pages import is_redirect
from shared.files import read_json, write_json
from shared.rows import STATE, Source

_TARGET = re.compile(r"\[\[:?[^\[\]|:]*:([^\[\]|#]+)")
_ALIAS = "\n"  # before the name that a redirect leads to; no template's text begins with it


@dataclass(frozen=True)
class CollectTemplates:
    """Reads a source and writes the templates that may stand inside a sentence, by name."""

    output_dir: str
    max_page_bytes: int

    def __call__(self, task: Task, start: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        found: dict[str, str] = {}
        for _, _, page, _, _ in read_pages(task.source, 0, self.max_page_bytes, b"<ns>10</ns>"):
            if page is None or not page.text:
                continue
            text = prepare_template(page.text)
            if is_redirect(page) and (target := _TARGET.search(page.text)):
                text = _ALIAS + template_key(target[1], DEFAULT)
            if text:
                found.setdefault(template_key(page.title.partition(":")[2], DEFAULT), text)
        path = Path(self.output_dir, STATE, "work", "templates", f"{task.name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
        name = str(path.relative_to(self.output_dir))
        yield Part(0, 1.0, new_counts(), {name: file_facts(path, len(found))}, last=True)


def template_phase(output_dir: str, sources: Sequence[Source], max_page_bytes: int) -> tuple[Phase, str]:
    """The phase, and the folder that it fills."""
    tasks = tuple(Task(f"{source.index:05d}", source.bytes, source) for source in sources)
    folder = str(Path(output_dir, STATE, "work", "templates"))
    return Phase("templates", tasks, CollectTemplates(output_dir, max_page_bytes)), folder


@cache
def load_templates(folder: str) -> Mapping[str, str]:
    """The texts of all templates by name; those of redirects too."""
    found: dict[str, str] = {}
    for path in sorted(Path(folder).glob("*.json")):
        found = read_json(path) | found
    aliases = {name: text[1:] for name, text in found.items() if text.startswith(_ALIAS)}
    texts = {name: text for name, text in found.items() if name not in aliases}
    return texts | {name: texts[target] for name, target in aliases.items() if target in texts}
