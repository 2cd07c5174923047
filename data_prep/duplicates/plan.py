"""What all phases of deduplicate.py know."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.rows import STATE


@dataclass(frozen=True)
class Plan:
    """What all phases know: where the files are, and what counts as a duplicate."""

    output_dir: str
    sources: int  # new ones; those after are old
    has_old: bool
    part_records: int
    args: Any  # the flags of deduplicate.py

    def folder(self, phase: str) -> Path:
        return Path(self.output_dir, STATE, "work", phase)

    @property
    def within_source(self) -> bool:
        return bool(self.args.scope == "source")

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.output_dir))

    @property
    def rows_at_once(self) -> int:
        """Rows sorted together, at up to 100 bytes each with all copies."""
        return self.args.memory_mb * 2**6

    @property
    def text_at_once(self) -> int:
        """Characters of text held for one part."""
        return self.args.memory_mb * 2**13

    @property
    def pairs_at_once(self) -> int:
        """Pairs joined together. Each may touch some pages of a mapped file, of which the kernel maps 16 at a time."""
        return self.args.memory_mb * 2**2
