"""The model to train: a named size of an architecture from scratch, or a checkpoint to go on from."""

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from shared.errors import InputError
from shared.tokenizer import tokenizer_hash

# Layers, width and heads of Google's BERT miniatures (Turc et al., 2019, arXiv:1908.08962); BERT's own base.
SIZES = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8), "medium": (8, 512, 8), "base": (12, 768, 12)}


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A checkpoint (folder or Hub id) whose pretraining to continue."}
    )
    model_type: Literal["bert", "roberta", "modernbert"] = field(
        default="bert", metadata={"help": "The architecture of a model trained from scratch."}
    )
    model_size: Literal["tiny", "mini", "small", "medium", "base"] = field(
        default="tiny",
        metadata={"help": "The size of a model trained from scratch: 2x128, 4x256, 4x512, 8x512, 12x768."},
    )
    config_overrides: str | None = field(
        default=None, metadata={"help": "Fields of the model's configuration: 'hidden_size=192,num_hidden_layers=3'."}
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={"help": "A tokenizer (folder or Hub id). Default: the checkpoint's, or one is trained."},
    )
    word_vectors: str | None = field(
        default=None,
        metadata={"help": "Vectors of data_prep/train_word_vectors.py that the embeddings of a new model start from."},
    )
    vocab_size: int = field(
        default=8192, metadata={"help": "Entries of the tokenizer that is trained when none is named."}
    )
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] | None = field(
        default=None, metadata={"help": "The code that computes attention. Default: the library's choice."}
    )

    def __post_init__(self) -> None:
        if self.model_name_or_path and self.config_overrides:
            raise InputError("--config_overrides: a checkpoint brings its own configuration; remove the flag")
        if self.model_name_or_path and self.word_vectors:
            raise InputError("--word_vectors: a checkpoint brings its own embeddings; remove one of the two flags")
        read_overrides(self)


def build_config(args: ModelArguments, tokenizer: Any, max_seq_length: int) -> Any:
    """The configuration of a new model that fits the tokenizer.

    Positions are max(512, max_seq_length), so that a model trained on short blocks can still read longer inputs.
    Raises InputError for an override that names no field of the configuration or has a value of the wrong type.
    """
    from transformers import AutoConfig

    layers, width, heads = SIZES[args.model_size]
    positions = max(512, max_seq_length)
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": positions,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if args.model_type == "roberta":
        # RoBERTa numbers its positions from pad_token_id + 1 on, so its table needs that many rows more.
        positions += tokenizer.pad_token_id + 1
        fields |= {"max_position_embeddings": positions, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    if args.model_type == "modernbert":  # gated: three matrices of 2 x width in place of two of 4 x width
        fields |= {"intermediate_size": 2 * width}
        fields |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    return AutoConfig.for_model(args.model_type, **(fields | read_overrides(args)))


def build_model(args: ModelArguments, tokenizer: Any, max_seq_length: int) -> Any:
    """The `...ForMaskedLM` model in fp32, after all checks that need no weights.

    Raises InputError when the vocabulary is larger than the embedding, blocks are longer than the positions, the
    checkpoint does not load, or the implementation of attention is not installed or not made for the architecture.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM
    from transformers.integrations import unset_hf_deepspeed_config

    if args.model_name_or_path is None:
        config = build_config(args, tokenizer, max_seq_length)
    else:
        try:
            config = AutoConfig.from_pretrained(args.model_name_or_path)
        except (OSError, ValueError) as error:
            raise InputError(f"--model_name_or_path {args.model_name_or_path}: {error}") from error
    check_fits(config, tokenizer, max_seq_length)
    unset_hf_deepspeed_config()  # under ZeRO-3 weights would be split at birth, and drawn otherwise; Trainer sets it
    try:
        if args.model_name_or_path is None:
            model = AutoModelForMaskedLM.from_config(config, attn_implementation=args.attn_implementation)
            if args.word_vectors:
                start_from_vectors(model, args.word_vectors, tokenizer)
            return model
        return AutoModelForMaskedLM.from_pretrained(
            args.model_name_or_path,
            dtype="float32",
            use_safetensors=True,
            attn_implementation=args.attn_implementation,
        )
    except (ImportError, OSError, ValueError) as error:
        source = "model_name_or_path" if args.model_name_or_path else "model_type"
        names = (source, "config_overrides", "attn_implementation")
        flags = " ".join(f"--{name} {getattr(args, name)}" for name in names if getattr(args, name))
        raise InputError(f"{flags}: {error}") from error


def start_from_vectors(model: Any, folder: str, tokenizer: Any) -> None:
    """Give the input embeddings of a new model the directions of word vectors, and the length that they have.

    A token's row takes the first numbers of its vector, as many as the model is wide; a row without a vector, and the
    columns beyond a short one, keep their random numbers. Raises InputError when the folder holds no such vectors, or
    those of another tokenizer.
    """
    path = Path(folder)
    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        vectors = load_file(path / "model.safetensors")["embedding.weight"]
        counted = report["settings"]["dimensions"]
        known = report["inputs"]["tokenizer"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"--word_vectors {folder}: not a folder of data_prep/train_word_vectors.py: {error}"
        ) from error
    if known != tokenizer_hash(tokenizer):
        raise InputError(
            f"--word_vectors {folder}: counted with another tokenizer; count again on blocks packed with this one"
        )
    rows = model.get_input_embeddings().weight
    width = min(rows.shape[1], counted)
    vectors = vectors[:, :width]
    lengths = vectors.norm(dim=1)
    with torch.no_grad():
        wanted = rows[:, :width].norm(dim=1).mean()
        rows[lengths > 0, :width] = (vectors / lengths.clamp(min=1e-9)[:, None] * wanted)[lengths > 0]


def check_fits(config: Any, tokenizer: Any, max_seq_length: int) -> None:
    """Raise InputError unless every token id has an embedding and every position of a block a row."""
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} entries, but the model embeds only {config.vocab_size}; "
            "use the checkpoint's own tokenizer, or set vocab_size in --config_overrides"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in ("roberta", "camembert", "xlm-roberta"):
        positions -= config.pad_token_id + 1
    if positions and max_seq_length > positions:
        raise InputError(
            f"--max_seq_length {max_seq_length}: the model has only {positions} positions; pack shorter blocks, "
            "or raise max_position_embeddings in --config_overrides"
        )


def read_overrides(args: ModelArguments) -> dict[str, Any]:
    """The fields of `config_overrides` with their types. Raises InputError as `build_config` does."""
    from transformers import AutoConfig

    overrides: dict[str, Any] = {}
    reference = AutoConfig.for_model(args.model_type)
    for pair in filter(None, (args.config_overrides or "").split(",")):
        name, _, text = (part.strip() for part in pair.partition("="))
        if not hasattr(reference, name):
            close = difflib.get_close_matches(name, reference.to_dict(), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"--config_overrides: {args.model_type} has no field {name!r}{hint}")
        kind = type(getattr(reference, name))
        try:
            overrides[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"--config_overrides: {name}={text} is not of type {kind.__name__}") from error
    return overrides
