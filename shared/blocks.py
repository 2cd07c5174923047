"""Packed blocks on disk: what pack_dataset.py writes and run_mlm.py reads."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import InputError
from shared.files import content_hash

NEEDED = {"format", "max_seq_length", "dtype", "tokenizer", "splits"}
FORMAT = 1  # of the folder; raise it when old readers would misread new blocks


@dataclass(frozen=True)
class PackedBlocks:
    """A folder of packed blocks: `manifest` as written, and one read-only memory map a split.

    `splits[name]` is an array of shape (blocks, max_seq_length), uint16 or uint32.
    """

    path: Path
    manifest: dict[str, Any]
    splits: dict[str, np.ndarray]


def open_blocks(path: str | Path) -> PackedBlocks:
    """Open a packed folder, after all of it was read and compared with its hashes (about a second a gigabyte).

    Raises InputError when it is no such folder, comes from another version, or differs in a bit from what was packed.
    """
    path = Path(path)
    manifest = read_manifest(path)
    splits = {}
    for name, facts in manifest["splits"].items():
        file = path / f"{name}.npy"
        again = f"remove the folder {path} and pack the text again"
        try:
            blocks = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header is evaluated as Python, and raises anything
            raise InputError(f"{file}: not readable ({error}); {again}") from error
        shape = (facts["blocks"], manifest["max_seq_length"])
        if blocks.shape != shape or blocks.dtype.name != manifest["dtype"] or not blocks.dtype.isnative:
            raise InputError(
                f"{file}: {blocks.dtype} of shape {blocks.shape}, but the manifest says "
                f"{manifest['dtype']} of {shape}; {again}"
            )
        digest = sha256()
        for start in range(0, len(blocks), 1 << 14):
            digest.update(np.ascontiguousarray(blocks[start : start + (1 << 14)]).data)
        if digest.hexdigest() != facts["sha256"]:
            raise InputError(f"{file}: altered since it was packed; {again}")
        splits[name] = blocks
    return PackedBlocks(path, manifest, splits)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """What pack_dataset.py wrote down of a packed folder. Raises InputError as `open_blocks` does."""
    path = Path(path)
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        known = {name: value for name, value in manifest.items() if name != "hash"}
    except OSError as error:
        raise InputError(
            f"{path}: not a folder of packed blocks (no manifest.json); write one with data_prep/pack_dataset.py"
        ) from error
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}/manifest.json: damaged ({error}); pack the text again") from error
    # Folders of before have no hash.
    if manifest.get("hash", content_hash(known)) != content_hash(known) or not manifest.keys() >= NEEDED:
        raise InputError(f"{path}/manifest.json: altered since it was written; pack the text again")
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {manifest.get('format')} of packed blocks; this version reads {FORMAT}, so pack again"
        )
    return manifest
