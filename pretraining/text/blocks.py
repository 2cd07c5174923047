"""Tokenizer and blocks of a run: opened as they were packed, or made of text once and kept in the cache."""

from typing import Any, Protocol

from data_prep.collect_docstrings import cached_docstrings
from data_prep.pack_dataset import cached_blocks
from data_prep.train_tokenizer import TokenizerArguments, cached_tokenizer
from pretraining.text.mixture import PackedSets
from pretraining.vocabulary.kinship import find_kinship
from shared.blocks import PackedBlocks, open_blocks
from shared.command_line import refuse_flags
from shared.documents import Documents
from shared.errors import InputError
from shared.model_config import LEAVE_OUT, ModelArguments, check_vocab_size
from shared.tokenizer import load_tokenizer, tokenizer_hash


class TextArguments(Protocol):
    """The flags that say which text is read and how it is packed; run_mlm.py explains them."""

    packed_dataset: list[str]
    mixture_weights: list[float]
    train_file: list[str]
    dataset_name: str | None
    dataset_config_name: str | None
    max_seq_length: int | None
    validation_fraction: float


def open_or_pack(model_args: ModelArguments, data_args: TextArguments, quiet: bool) -> tuple[Any, PackedSets]:
    """The tokenizer and the blocks, which fit each other and have a validation split.

    Text is packed here, with a tokenizer trained on it where none is named; `quiet` shows no progress. Raises
    InputError, also for blocks of another tokenizer or length.
    """
    if sum(map(bool, (data_args.packed_dataset, data_args.train_file, data_args.dataset_name))) != 1:
        raise InputError("give one source of text: --packed_dataset, --train_file or --dataset_name")
    length = data_args.max_seq_length or 128
    name = model_args.tokenizer_name or model_args.model_name_or_path
    if data_args.packed_dataset:
        sets = [open_blocks(folder) for folder in data_args.packed_dataset]
        tokenizer = load_tokenizer(name or sets[0].path / "tokenizer")
    else:
        if data_args.dataset_name == "docstrings":
            documents = Documents([str(cached_docstrings(quiet))])
        else:
            documents = Documents(data_args.train_file, data_args.dataset_name, data_args.dataset_config_name)
        name = name or _trained_tokenizer(documents, model_args, data_args, length, quiet)
        tokenizer = load_tokenizer(name)
        check_vocab_size(model_args, tokenizer)
        find_kinship(model_args, tokenizer)  # refuses one that the checkpoint can't go on with, before packing
        sets = [open_blocks(cached_blocks(documents, tokenizer, length, data_args.validation_fraction, quiet))]
    packed = join_sets(sets, data_args.mixture_weights, tokenizer, data_args.max_seq_length)
    if data_args.packed_dataset:
        for blocks in sets:
            _check_packed(model_args, data_args, tokenizer, blocks)
    return tokenizer, packed


def join_sets(sets: list[PackedBlocks], weights: list[float], tokenizer: Any, wanted: int | None = None) -> PackedSets:
    """The sets, which fit each other, the tokenizer and the `wanted` length. Raises InputError."""
    places: set[str] = set()
    for blocks in sets:
        _check_fit(blocks, tokenizer, wanted, sets[0])
        if str(blocks.path.resolve()) in places:
            raise InputError(f"--packed_dataset {blocks.path}: named twice; name it once, with the sum of its weights")
        places.add(str(blocks.path.resolve()))
    return PackedSets(sets, list(weights))


def _check_fit(blocks: PackedBlocks, tokenizer: Any, wanted: int | None, first: PackedBlocks) -> None:
    """Raise InputError unless the blocks have this tokenizer, the `wanted` length, as `first`, and held-out ones."""
    length = blocks.manifest["max_seq_length"]
    if blocks.manifest["tokenizer"]["sha256"] != tokenizer_hash(tokenizer):
        if tokenizer.name_or_path == str(blocks.path / "tokenizer"):
            raise InputError(
                f"{blocks.path / 'tokenizer'}: altered since the text was packed; remove the folder {blocks.path} and "
                "pack the text again"
            )
        raise InputError(
            f"--packed_dataset {blocks.path}: packed by another tokenizer than {tokenizer.name_or_path}; pack the "
            f"text again with data_prep/pack_dataset.py --tokenizer_name {tokenizer.name_or_path}"
        )
    if wanted not in (None, length):
        raise InputError(f"--max_seq_length {wanted}: these blocks are of {length} tokens")
    if length != first.manifest["max_seq_length"]:
        raise InputError(
            f"--packed_dataset {blocks.path}: blocks of {length} tokens, and those of {first.path} have "
            f"{first.manifest['max_seq_length']}; pack the text of one of them again with the other's --max_seq_length"
        )
    if "validation" not in blocks.splits:
        raise InputError(f"{blocks.path}: no held-out documents; pack again with --validation_fraction above 0")


def _check_packed(model_args: ModelArguments, data_args: TextArguments, tokenizer: Any, blocks: PackedBlocks) -> None:
    """Raise InputError for flags of a tokenizer or text that is made here, where blocks say something else."""
    check_vocab_size(model_args, tokenizer)
    refuse_flags(data_args, {"dataset_config_name": "is for --dataset_name"})
    packed, default = blocks.manifest["validation_fraction"], type(data_args).validation_fraction
    if data_args.validation_fraction not in (packed, default):
        raise InputError(
            f"--validation_fraction {data_args.validation_fraction}: {blocks.path} was packed with {packed}; "
            f"{LEAVE_OUT} --validation_fraction {default}"
        )


def _trained_tokenizer(
    documents: Documents, model_args: ModelArguments, data_args: TextArguments, length: int, quiet: bool
) -> str:
    """The folder of a tokenizer of the kind that the model type has and the text can be written in."""
    wanted = TokenizerArguments(
        output_dir="",
        tokenizer_type="bpe" if model_args.model_type == "roberta" else "auto",
        vocab_size=model_args.vocab_size,
        reserved_entries=0,  # of use to a tokenizer that is kept and extended
        model_max_length=max(512, length),
        validation_fraction=data_args.validation_fraction,
    )
    return str(cached_tokenizer(documents, wanted, quiet))
