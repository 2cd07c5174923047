"""The model to train: a named size of an architecture from scratch, or a checkpoint to go on from."""

import difflib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from shared.command_line import check_ranges
from shared.errors import InputError, one_line
from shared.tokenizer import FILES, UNUSED, tokenizer_hash

# Layers, width and heads of Google's BERT miniatures (Turc et al., 2019, arXiv:1908.08962); BERT's own base.
SIZES = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8), "medium": (8, 512, 8), "base": (12, 768, 12)}

BUFFERS = ("position_ids", "token_type_ids", "inv_freq")  # which older versions of the library saved with the weights
OWN_TOKENIZER = "use the checkpoint's own tokenizer (leave out --tokenizer_name)"
SHORTER = "use shorter texts or blocks"
LEAVE_OUT = "leave the flag out, or take back that of a recipe with"
CONVERT = "run python pretraining/convert_checkpoint.py --output_dir NEW_FOLDER --input "


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A checkpoint (folder or Hub id) whose pretraining to continue; OLD/trunk if --keep_trunk left it."
        },
    )
    model_type: Literal["bert", "roberta", "modernbert"] = field(
        default="bert", metadata={"help": "The architecture of a model trained from scratch."}
    )
    model_size: Literal["tiny", "mini", "small", "medium", "base"] = field(
        default="tiny", metadata={"help": "The size of a model from scratch: 2x128, 4x256, 4x512, 8x512, 12x768."}
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
    least_shared_vocabulary: float = field(
        default=0.8,
        metadata={
            "help": "Share of the entries of --tokenizer_name that the checkpoint's own must have; lower case will do."
        },
    )
    vocab_size: int = field(default=8192, metadata={"help": "Entries of the tokenizer trained when none is named."})
    attn_implementation: (
        Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"] | None
    ) = field(default=None, metadata={"help": "The code that computes attention. Default: the library's choice."})

    def __post_init__(self) -> None:
        if self.model_name_or_path and self.config_overrides:
            raise InputError("--config_overrides: a checkpoint brings its own configuration; remove the flag")
        if self.model_name_or_path and self.word_vectors:
            raise InputError("--word_vectors: a checkpoint brings its own embeddings; remove one of the two flags")
        check_ranges(self, least_shared_vocabulary=">= 0, <= 1")
        if not self.model_name_or_path and self.least_shared_vocabulary != type(self).least_shared_vocabulary:
            raise InputError("--least_shared_vocabulary: is for a checkpoint, --model_name_or_path; remove the flag")
        file = Path(self.model_name_or_path or "", "config.json")
        if self.model_name_or_path and file.is_file():
            try:
                config = dict(json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                reason = f"damaged config.json ({error})"
                raise InputError(f"--model_name_or_path {self.model_name_or_path}: {reason}; get it anew") from error
            refuse_contradictions(self, config)
        read_overrides(self)


def refuse_contradictions(args: ModelArguments, config: dict[str, Any]) -> None:
    """Raise InputError where a flag for a model from scratch says something else than the checkpoint's configuration.

    A recipe that made a checkpoint can so be used again to go on from it.
    """
    sizes = {(layers, width): name for name, (layers, width, _) in SIZES.items()}
    found = {
        "model_type": config.get("model_type"),
        "model_size": sizes.get((config.get("num_hidden_layers", 0), config.get("hidden_size", 0)), "of another size"),
        "vocab_size": config.get("vocab_size"),
    }
    for name, there in found.items():
        value = getattr(args, name)
        if value not in (there, getattr(ModelArguments, name)):
            raise InputError(
                f"--{name} {value}: the checkpoint {args.model_name_or_path} is {there}, and stays so; {LEAVE_OUT} "
                f"--{name} {getattr(ModelArguments, name)}"
            )


def check_vocab_size(args: ModelArguments, tokenizer: Any) -> None:
    """Raise InputError where --vocab_size wants another size than that of a tokenizer which is there already."""
    if args.vocab_size not in (len(tokenizer), ModelArguments.vocab_size):
        raise InputError(
            f"--vocab_size {args.vocab_size}: is for a tokenizer that is trained, and {tokenizer.name_or_path} "
            f"has {len(tokenizer)} entries already; {LEAVE_OUT} --vocab_size {ModelArguments.vocab_size}"
        )


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


def build_model(args: ModelArguments, tokenizer: Any, max_seq_length: int, say: Callable[[str], None] = print) -> Any:
    """The `...ForMaskedLM` model in fp32, after all checks that need no weights; `say` is told of new weights.

    Raises InputError when the vocabulary is larger than the embedding or another one, blocks are longer than the
    positions, the checkpoint does not load, or the implementation of attention is not installed or not made for the
    architecture.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM
    from transformers.integrations import unset_hf_deepspeed_config

    if args.model_name_or_path is None:
        config = build_config(args, tokenizer, max_seq_length)
        ways = ("take vocab_size out of --config_overrides", "raise max_position_embeddings in --config_overrides")
    else:
        try:
            config = AutoConfig.from_pretrained(args.model_name_or_path)
        except (OSError, ValueError) as error:
            raise InputError(f"--model_name_or_path {args.model_name_or_path}: {error}") from error
        if type(config) not in AutoModelForMaskedLM._model_mapping:
            raise InputError(
                f"--model_name_or_path {args.model_name_or_path}: {config.model_type} has no head that fills masks; "
                "take an encoder, for example of type bert, roberta or modernbert"
            )
        refuse_contradictions(args, config.to_dict())  # of a Hub id, of which no file was there before
        check_vocabulary(config, tokenizer, args.model_name_or_path)
        ways = (OWN_TOKENIZER, SHORTER)
    check_fits(config, tokenizer, max_seq_length, *ways)
    unset_hf_deepspeed_config()  # under ZeRO-3 weights would be split at birth, and drawn otherwise; Trainer sets it
    try:
        if args.model_name_or_path is None:
            model = AutoModelForMaskedLM.from_config(config, attn_implementation=args.attn_implementation)
            if args.word_vectors:
                start_from_vectors(model, args.word_vectors, tokenizer)
        else:
            settings = {"dtype": "float32", "attn_implementation": args.attn_implementation}
            name = args.model_name_or_path
            model = load_weights(AutoModelForMaskedLM, name, say, config=plain_outputs(config), **settings)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        source = "model_name_or_path" if args.model_name_or_path else "model_type"
        names = (source, "config_overrides", "attn_implementation")
        flags = " ".join(f"--{name} {getattr(args, name)}" for name in names if getattr(args, name))
        raise InputError(f"{flags}: {one_line(error)}") from error
    model.config.vocabulary_sha256 = vocabulary_hash(tokenizer)  # see check_vocabulary
    return model


def load_weights(task_class: Any, name: str, say: Callable[[str], None], **settings: Any) -> Any:
    """`task_class.from_pretrained(name, **settings)`, whose weights are those of the checkpoint.

    A head or pooler that the checkpoint has no weights for is new, and `say` is told. Raises InputError as
    `check_weights` does, where the library begins with random ones and a warning; when there is nothing but a pickle
    to read; and for a file that is damaged or holds NaN.
    """
    try:
        model, info = task_class.from_pretrained(name, use_safetensors=True, output_loading_info=True, **settings)
    except OSError as error:
        if ".safetensors" not in str(error):
            raise
        reason = "has no weights in safetensors, and pickles (.bin) are not read"
        raise InputError(f"--model_name_or_path {name}: {reason}; {CONVERT}{name}") from error
    except SafetensorError as error:
        raise InputError(f"--model_name_or_path {name}: damaged weights, get them anew: {one_line(error)}") from error
    absent = check_weights(model, info, name)
    check_finite(model, f"--model_name_or_path {name}")
    if absent:
        say(f"{name} has no fitting weights for {_first(absent)}: they are new, and are to be trained")
    return model


def check_weights(model: Any, info: dict[str, Any], name: str) -> list[str]:
    """The weights of a model, loaded with `output_loading_info`, that its checkpoint does not bring: those of a head.

    Raises InputError if weights of the encoder are among them, or left over: it would be random.
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."

    def in_encoder(key: str) -> bool:
        return key.startswith(prefix) and "pooler" not in key.split(".")

    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    lost, unused = [key for key in absent if in_encoder(key)], sorted(info["unexpected_keys"])
    # The weights of a head are left over where an encoder alone is loaded, and have no prefix.
    wrong = bool(prefix) and any(in_encoder(key) and not key.endswith(BUFFERS) for key in unused)
    if lost or wrong:
        raise InputError(
            f"--model_name_or_path {name}: its weights do not fit the model: {len(lost)} of the encoder's are "
            f"missing ({_first(lost)}), {len(unused)} are left over ({_first(unused)}); "
            f"if the names only begin with a wrapper's (module., _orig_mod., model.), {CONVERT}{name}"
        )
    return absent


def check_finite(model: Any, flag: str) -> None:
    """Raise InputError for weights that are no numbers: all that such a model gives is NaN."""
    bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise InputError(f"{flag}: NaN or infinity in {_first(bad)}; name a checkpoint from before training diverged")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"


def vocabulary_hash(tokenizer: Any) -> str:
    """SHA-256 of which token has which number; what an embedding is tied to."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def check_vocabulary(config: Any, tokenizer: Any, name: str) -> None:
    """Raise InputError where rows of the checkpoint's embedding would mean other words than they were trained for.

    The tokenizer is compared with the hash that our runs keep in the configuration, or else with the checkpoint's own
    tokenizer: entries may be added behind its own, or take the place of `[unused0]` and the like. A checkpoint with
    neither can't be checked.
    """
    known = getattr(config, "vocabulary_sha256", None)
    if known == vocabulary_hash(tokenizer):
        return
    own = own_tokenizer(name)
    if known and own is not None and vocabulary_hash(own) != known:
        own = None  # somebody has put another one there
    if own is None and not known:
        return
    here = {number: word for word, number in tokenizer.get_vocab().items()}
    others = [
        f"{number} is {word!r} there and {here.get(number)!r} here"
        for word, number in sorted(own.get_vocab().items() if own is not None else [], key=lambda entry: entry[1])
        if here.get(number) != word and not UNUSED.fullmatch(word)
    ]
    if others or own is None:
        raise InputError(
            f"--model_name_or_path {name}: was trained with another tokenizer than {tokenizer.name_or_path}, and its "
            f"embeddings would stand for other words ({others[0] if others else 'by the hash in its config.json'}); "
            f"{OWN_TOKENIZER}, pack with it (data_prep/pack_dataset.py --tokenizer_name {name}), or train from scratch"
        )


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
        known = report["inputs"][0]["tokenizer"]["sha256"]  # of several sets all have the same
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"--word_vectors {folder}: not a folder of data_prep/train_word_vectors.py: {error}"
        ) from error
    if known != tokenizer_hash(tokenizer):
        raise InputError(f"--word_vectors {folder}: counted with another tokenizer; count again on blocks of this one")
    rows = model.get_input_embeddings().weight
    width = min(rows.shape[1], counted)
    vectors = vectors[:, :width]
    lengths = vectors.norm(dim=1)
    with torch.no_grad():
        wanted = rows[:, :width].norm(dim=1).mean()
        rows[lengths > 0, :width] = (vectors / lengths.clamp(min=1e-9)[:, None] * wanted)[lengths > 0]


def own_tokenizer(name: str) -> Any:
    """The tokenizer of a checkpoint, or None; of a folder without one the library makes one up."""
    from transformers import AutoTokenizer
    from transformers.utils import cached_file

    try:
        if any(cached_file(name, file, _raise_exceptions_for_missing_entries=False) for file in FILES):
            return AutoTokenizer.from_pretrained(name)
    except Exception:  # of any kind; it can't be compared
        return None
    return None


def check_fits(
    config: Any, tokenizer: Any, max_seq_length: int, fewer_words: str = OWN_TOKENIZER, fewer_positions: str = SHORTER
) -> None:
    """Raise InputError, with a way out, unless every token id has an embedding and every position of a block a row."""
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} entries, but the model embeds only {config.vocab_size}; {fewer_words}"
        )
    positions = count_positions(config)
    if positions and max_seq_length > positions:
        raise InputError(
            f"--max_seq_length {max_seq_length}: the model has only {positions} positions; {fewer_positions}"
        )


def count_positions(config: Any) -> int | None:
    """How many tokens long an input may be; None without a limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in ("roberta", "camembert", "xlm-roberta"):
        positions -= config.pad_token_id + 1
    return positions or None


def plain_outputs(config: Any) -> Any:
    """The configuration, made to ask for logits alone: what a checkpoint may ask for beside them (hidden states,
    attentions, a tuple) would be gathered in evaluation, and taken for logits."""
    config.output_hidden_states = config.output_attentions = False
    config.return_dict = True
    return config


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
