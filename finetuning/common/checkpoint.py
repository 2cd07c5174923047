"""A checkpoint with a head for the task: its configuration, with the labels of the data, its tokenizer and model."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import AutoConfig

from finetuning.common.arguments import CheckpointArguments
from shared.errors import InputError
from shared.model_config import check_fits, check_vocabulary, load_weights, shorten
from shared.tokenizer import load_tokenizer


def load_config(args: CheckpointArguments, task_class: Any, names: list[str] | None, **fields: Any) -> Any:
    """The configuration of the checkpoint, with the labels of the data and other fields of the task.

    A checkpoint that was fine-tuned for the same labels keeps their order, whatever that of the data; `names` None
    takes its labels as they are. Raises InputError when there is no checkpoint, or its head is for other labels.
    """
    name = args.model_name_or_path
    if not name:
        raise InputError("--model_name_or_path: name a checkpoint, for example the output_dir of run_mlm.py")
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"--model_name_or_path {name}: {' '.join(str(error).split())}") from error
    try:
        head = task_class._model_mapping[type(config)].__name__
    except KeyError as error:
        raise InputError(f"--model_name_or_path {name}: {config.model_type} has no {task_class.__name__}") from error
    before = [config.id2label[i] for i in sorted(config.id2label)] if head in (config.architectures or []) else None
    if names is None:
        if before is None:
            raise InputError(f"--model_name_or_path {name}: has no head for this task; name a fine-tuned checkpoint")
        names = before
    elif before is not None and not args.random_weights and not args.ignore_mismatched_sizes:
        if sorted(before) != sorted(names):
            raise InputError(
                f"--model_name_or_path {name}: was fine-tuned for {len(before)} labels ({_shown(before)}), and this "
                f"data has {len(names)} ({_shown(names)}); name the pretrained checkpoint, or give it a new head with "
                "--ignore_mismatched_sizes"
            )
        names = before
    config.id2label, config.label2id = dict(enumerate(names)), {label: i for i, label in enumerate(names)}
    for key, value in fields.items():
        setattr(config, key, value)
    return config


def tokenizer_of(args: CheckpointArguments) -> Any:
    """The tokenizer that is named, or else that of the checkpoint. Raises InputError."""
    return load_tokenizer(str(args.tokenizer_name or args.model_name_or_path))


def load_model(
    args: CheckpointArguments,
    task_class: Any,
    config: Any,
    tokenizer: Any,
    max_seq_length: int,
    say: Callable[[str], None] = print,
) -> Any:
    """The model in fp32, with a new head where the checkpoint has none for the task, as `say` is told. Raises
    InputError."""
    from transformers.integrations import unset_hf_deepspeed_config

    check_fits(config, tokenizer, max_seq_length)
    unset_hf_deepspeed_config()  # as in shared/model_config.py
    try:
        if args.random_weights:
            return task_class.from_config(config, attn_implementation=args.attn_implementation)
        check_vocabulary(config, tokenizer, str(args.model_name_or_path))
        return load_weights(
            task_class,
            str(args.model_name_or_path),
            say,
            config=config,
            dtype="float32",
            ignore_mismatched_sizes=args.ignore_mismatched_sizes,
            attn_implementation=args.attn_implementation,
        )
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--model_name_or_path {args.model_name_or_path}: {shorten(error)}") from error


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")
