"""Tokenize documents and pack them into full blocks of one length; no token is lost, only the last block is padded.

    python data_prep/pack_dataset.py --input corpus.parquet --tokenizer_name data/tokenizer --output_dir data/packed

Reads parquet, JSON lines or text files (blank lines separate documents), folders of them, or a dataset of the Hub, as
a stream. Writes train.npy and validation.npy (one row a block, 2 bytes a token where the vocabulary allows), the
tokenizer, and manifest.json: hashes of tokenizer and sources, counts of documents, tokens and bytes. What is written
depends on input and settings alone.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokens.block_writer import BlockWriter
from data_prep.tokens.pieces import cut_for
from shared.blocks import FORMAT, open_blocks
from shared.command_line import run_script
from shared.documents import HELP, Documents, is_held_out, utf8_bytes
from shared.errors import InputError
from shared.files import CACHE, atomic_folder, content_hash, write_json
from shared.tokenizer import load_tokenizer, raw_text_encoder, special_tokens, tokenizer_hash

BATCH_CHARACTERS = 1_000_000  # text handed to the tokenizer at once; bounds memory, does not change the output


@dataclass
class PackingArguments:
    tokenizer_name: str = field(metadata={"help": "A folder with a tokenizer, or its id on the Hub."})
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    input: list[str] = field(default_factory=list, metadata={"help": HELP})
    dataset_name: str | None = field(default=None, metadata={"help": "A dataset id on the Hub, instead of files."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    max_seq_length: int = field(default=128, metadata={"help": "Tokens in a block, special tokens included."})
    validation_fraction: float = field(
        default=0.01, metadata={"help": "Share of documents held out for evaluation, chosen by a hash of their text."}
    )
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Threads of the tokenizer. Default: one for each core."}
    )


def encode_documents(tokenizer: Any, texts: Iterator[str], dtype: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (text, ids) in order, long texts tokenized in pieces. Two batches are tokenized, on all cores, while the
    one before is consumed."""
    encoder = raw_text_encoder(tokenizer)

    def batches() -> Iterator[list[tuple[str | None, str]]]:
        batch, characters = [], 0
        for text in texts:
            left = len(text)
            for piece, size in cut_for(encoder, text):
                left -= size
                batch.append((None if left else text, piece))
                characters += size
                if characters >= BATCH_CHARACTERS:
                    yield batch
                    batch, characters = [], 0
        yield batch

    def encode(batch: list[tuple[str | None, str]]) -> Any:
        return encoder.encode_batch_fast([piece for _, piece in batch], add_special_tokens=False)

    parts: list[np.ndarray] = []
    with ThreadPoolExecutor(max_workers=2) as pool:  # two batches at a time, or cores idle while a batch ends
        waiting: deque[tuple[list[tuple[str | None, str]], Any]] = deque()
        for batch in chain(batches(), [[], []]):
            waiting.append((batch, pool.submit(encode, batch)))
            if len(waiting) > 2:
                done, encodings = waiting.popleft()
                for (text, _), encoding in zip(done, encodings.result(), strict=True):
                    ids = encoding.ids
                    parts.append(np.fromiter(ids, dtype=dtype, count=len(ids)))
                    if text is not None:  # the last piece of a document
                        yield text, np.concatenate(parts) if len(parts) > 1 else parts[0]
                        parts = []


def pack_dataset(
    documents: Documents,
    tokenizer: Any,
    output_dir: str | Path,
    max_seq_length: int,
    validation_fraction: float,
    quiet: bool = False,
) -> dict[str, Any]:
    """Pack all documents into `output_dir` and return the manifest.

    Raises InputError when the corpus is empty, no document is held out though some should be, or blocks are too short
    for the special tokens.
    """
    special = special_tokens(tokenizer)
    if max_seq_length <= len(special.prefix) + len(special.suffix):
        raise InputError(f"--max_seq_length {max_seq_length}: there is no room between the special tokens")
    if not 0 <= validation_fraction < 1:
        raise InputError(f"--validation_fraction {validation_fraction}: must be at least 0 and below 1")
    sources = documents.describe()
    dtype = np.dtype("<u2" if len(tokenizer) <= 2**16 else "<u4")
    names = ["train", "validation"] if validation_fraction else ["train"]
    with atomic_folder(output_dir) as folder:
        writers = {
            name: BlockWriter(folder / f"{name}.npy", max_seq_length, special, tokenizer.pad_token_id, dtype)
            for name in names
        }
        for text, ids in encode_documents(tokenizer, documents.progress("Packing", disable=quiet), dtype):
            if len(ids):
                split = "validation" if is_held_out(text, validation_fraction) else "train"
                writers[split].add(ids, utf8_bytes(text))
            else:
                documents.skipped["no token in text"] += 1
        splits = {name: writer.close() for name, writer in writers.items()}
        for name, facts in splits.items():
            if not facts["blocks"]:
                raise InputError(
                    f"no document for the {name} split: there are {sum(s['documents'] for s in splits.values())} in "
                    f"all at --validation_fraction {validation_fraction}: change it or add text (in a text file blank "
                    f"lines separate documents); skipped: {dict(documents.skipped)}"
                )
        manifest = {
            "format": FORMAT,
            "max_seq_length": max_seq_length,
            "dtype": dtype.name,
            "tokenizer": {"sha256": tokenizer_hash(tokenizer), "vocab_size": len(tokenizer)},
            "validation_fraction": validation_fraction,
            "splits": splits,
            "skipped": dict(sorted(documents.skipped.items())),
            "sources": sources,
        }
        write_json(folder / "manifest.json", manifest | {"hash": content_hash(manifest)})
        tokenizer.save_pretrained(folder / "tokenizer")
    return manifest


def cached_blocks(
    documents: Documents, tokenizer: Any, max_seq_length: int, validation_fraction: float, quiet: bool = False
) -> Path:
    """Pack once and keep the result in the cache, by the hash of text, tokenizer and settings. Returns its folder."""
    settings = (FORMAT, tokenizer_hash(tokenizer), max_seq_length, validation_fraction)
    path = CACHE / f"packed-{content_hash(documents.describe(), *settings)}"
    if not path.is_dir():
        with suppress(FileExistsError):  # another run made the same meanwhile
            pack_dataset(documents, tokenizer, path, max_seq_length, validation_fraction, quiet)
    return path


def main(args: PackingArguments) -> dict[str, Any]:
    if args.preprocessing_num_workers:  # read by the tokenizer library when it first starts its threads
        os.environ["RAYON_NUM_THREADS"] = str(args.preprocessing_num_workers)
    documents = Documents(args.input, args.dataset_name, args.dataset_config_name)
    tokenizer = load_tokenizer(args.tokenizer_name)
    documents.check_output(args.output_dir)

    start = time.perf_counter()
    manifest = pack_dataset(documents, tokenizer, args.output_dir, args.max_seq_length, args.validation_fraction)
    seconds = time.perf_counter() - start
    open_blocks(args.output_dir)
    tokens = sum(facts["tokens"] for facts in manifest["splits"].values())
    for name, facts in manifest["splits"].items():
        print(
            f"{name}: {facts['documents']:,} documents, {facts['tokens']:,} tokens in {facts['blocks']:,} blocks "
            f"of {args.max_seq_length} ({facts['padding']} padding)"
        )
    print(f"skipped: {manifest['skipped'] or 'nothing'}; {tokens / seconds:,.0f} tokens/s, {seconds:.1f} s in all")
    return manifest


if __name__ == "__main__":
    run_script(main, PackingArguments)
