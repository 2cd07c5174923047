"""Packed blocks on disk: what pack_dataset.py writes and run_mlm.py reads."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import InputError

FORMAT = 1  # of the folder; raise it when old readers would misread new blocks


@dataclass(frozen=True)
class PackedBlocks:
    """A folder of packed blocks: `manifest` as written, and one read-only memory map a split.

    `splits[name]` is an array of shape (blocks, max_seq_length), uint16 or uint32. Opening reads no block.
    """

    path: Path
    manifest: dict[str, Any]
    splits: dict[str, np.ndarray]


def verify_blocks(blocks: PackedBlocks) -> None:
    """Read all blocks and compare them with the hashes in the manifest (about a second a gigabyte).

    Raises InputError that names the file of a split which has changed since it was packed.
    """
    for name, rows in blocks.splits.items():
        digest = sha256()
        for start in range(0, len(rows), 1 << 14):
            digest.update(np.ascontiguousarray(rows[start : start + (1 << 14)]).data)
        if digest.hexdigest() != blocks.manifest["splits"][name]["sha256"]:
            raise InputError(f"{blocks.path / name}.npy: altered since it was packed; pack again")


def open_blocks(path: str | Path) -> PackedBlocks:
    """Open a packed folder. Raises InputError when it is not one, is damaged, or comes from another version."""
    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: not a folder of packed blocks (no manifest.json); write one with data_prep/pack_dataset.py"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}/manifest.json: not JSON: {error}") from error
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {manifest.get('format')} of packed blocks; this version reads {FORMAT}, so pack again"
        )
    splits = {}
    for name, facts in manifest["splits"].items():
        file = path / f"{name}.npy"
        try:
            blocks = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not readable ({error}); pack again") from error
        if blocks.shape != (facts["blocks"], manifest["max_seq_length"]):
            raise InputError(
                f"{file}: {blocks.shape[0]} blocks of {blocks.shape[1]}, but the manifest says "
                f"{facts['blocks']} of {manifest['max_seq_length']}; pack again"
            )
        splits[name] = blocks
    return PackedBlocks(path, manifest, splits)
