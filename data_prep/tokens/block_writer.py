"""A stream of tokens, cut into blocks of one length and written as a .npy file."""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from shared.tokenizer import SpecialTokens


class BlockWriter:
    """Cuts one stream of tokens into blocks and writes them as rows of a .npy file.

    A block is `prefix + tokens + suffix`, where the tokens are those of consecutive documents with `separator`
    between them: [CLS] a a a [SEP] b b [SEP] for BERT.
    """

    HEADER_BYTES = 128  # what numpy writes for a 2-D shape; the real header replaces it when the count is known

    def __init__(self, path: Path, max_seq_length: int, special: SpecialTokens, pad_token_id: int, dtype: np.dtype):
        self.path, self.dtype, self.length, self.pad = path, dtype, max_seq_length, pad_token_id
        self.prefix, self.separator, self.suffix = (
            np.array(ids, dtype=dtype) for ids in (special.prefix, special.separator, special.suffix)
        )
        self.payload = max_seq_length - len(self.prefix) - len(self.suffix)
        self.pending: list[np.ndarray] = []
        self.pending_tokens = 0
        self.facts: Counter[str] = Counter(blocks=0, documents=0, tokens=0, bytes=0, padding=0)
        self.hash = sha256()
        self.file = open(path, "wb")  # noqa: SIM115  closed by close()
        self.file.write(bytes(self.HEADER_BYTES))

    def add(self, ids: np.ndarray, text_bytes: int) -> None:
        """Append one document."""
        if self.facts["documents"]:
            self._append(self.separator)
        self._append(ids)
        self.facts.update(documents=1, tokens=len(ids), bytes=text_bytes)
        if self.pending_tokens >= 1024 * self.payload:
            self._write_full_blocks()

    def close(self) -> dict[str, Any]:
        """Write the padded last block and the header; return the facts of the split.

        Raises RuntimeError if the tokens in the file are not as many as went in.
        """
        self._write_full_blocks()
        if self.pending_tokens:
            padding = self.payload - self.pending_tokens
            last = np.concatenate([self.prefix, *self.pending, self.suffix, np.full(padding, self.pad, self.dtype)])
            self._write(last[np.newaxis])
            self.facts["padding"] = padding
        self.file.seek(0)
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self.file, header | {"shape": (self.facts["blocks"], self.length)})
        assert self.file.tell() == self.HEADER_BYTES
        self.file.close()
        separators = max(self.facts["documents"] - 1, 0) * len(self.separator)
        if self.facts["blocks"] * self.payload - separators - self.facts["padding"] != self.facts["tokens"]:
            raise RuntimeError(f"{self.path.name}: tokens were lost in packing; this is a bug, please report it")
        return {**self.facts, "sha256": self.hash.hexdigest()}

    def _append(self, ids: np.ndarray) -> None:
        self.pending.append(ids)
        self.pending_tokens += len(ids)

    def _write_full_blocks(self) -> None:
        stream = np.concatenate([np.empty(0, self.dtype), *self.pending])
        count = len(stream) // self.payload
        rows = np.empty((count, self.length), self.dtype)
        rows[:, : len(self.prefix)] = self.prefix
        rows[:, len(self.prefix) : len(self.prefix) + self.payload] = stream[: count * self.payload].reshape(
            count, self.payload
        )
        rows[:, len(self.prefix) + self.payload :] = self.suffix
        self._write(rows)
        self.pending = [stream[count * self.payload :]]
        self.pending_tokens = len(self.pending[0])

    def _write(self, rows: np.ndarray) -> None:
        self.file.write(rows.data)
        self.hash.update(rows.data)
        self.facts["blocks"] += len(rows)
