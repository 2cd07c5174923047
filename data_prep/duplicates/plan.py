"""What all phases of deduplicate.py know."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """What all phases know: where the files are, and what counts as a duplicate."""

    output_dir: str
    work: str  # a folder below it
    sources: int  # new ones; those after are old
    has_old: bool
    exact: bool
    near: bool
    bands: int
    rows: int
    ngram: int
    within_source: bool
    oldest: bool  # survives, rather than the newest
    part_records: int
    memory_mb: int

    def folder(self, phase: str) -> Path:
        return Path(self.output_dir, self.work, phase)

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.output_dir))

    @property
    def rows_at_once(self) -> int:
        """Rows sorted together, at up to 100 bytes each with all copies."""
        return self.memory_mb * 2**6

    @property
    def text_at_once(self) -> int:
        """Characters of text held for one part."""
        return self.memory_mb * 2**13

    @property
    def pairs_at_once(self) -> int:
        """Pairs joined together. Each may touch some pages of a mapped file, of which the kernel maps 16 at a time."""
        return self.memory_mb * 2**2
