"""The prefixes of links that a wiki names in its own language."""

from dataclasses import dataclass

from data_prep.languages import puts_spaces
from data_prep.wikipedia.words import CATEGORY_ALIASES, FILE_ALIASES


@dataclass(frozen=True)
class Names:
    """The prefixes of links that show nothing or a picture, and of templates, in lower case."""

    files: frozenset[str] = FILE_ALIASES
    media: frozenset[str] = frozenset({"media"})
    categories: frozenset[str] = CATEGORY_ALIASES
    templates: frozenset[str] = frozenset({"template"})
    spaced: bool = True  # words of the language stand apart, so that joined lines need a space


DEFAULT = Names()


def names_of(namespaces: dict[int, str], language: str | None = None) -> Names:
    """The prefixes of a wiki, from the namespaces that its dump lists."""

    def own(number: int) -> set[str]:
        return {namespaces[number].replace("_", " ").lower()} if namespaces.get(number) else set()

    return Names(
        FILE_ALIASES | own(6),
        frozenset({"media"} | own(-2)),
        CATEGORY_ALIASES | own(14),
        frozenset({"template"} | own(10)),
        puts_spaces(language, ""),
    )
