"""A checkpoint with a head for the task: its configuration, with the labels of the data, its tokenizer and model."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from finetuning.common.arguments import CheckpointArguments
from shared.errors import InputError, one_line
from shared.model_config import check_fits, check_vocabulary, load_weights, plain_outputs
from shared.tokenizer import load_tokenizer

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
HEADS = (AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForQuestionAnswering)


def has_head(config: Any, task_class: Any) -> bool:
    """Whether the checkpoint of this configuration was saved with a head for the task."""
    found = task_class._model_mapping.get(type(config), None)
    return found is not None and found.__name__ in (config.architectures or [])


def read_head(args: CheckpointArguments, task_class: Any, for_training: bool) -> Any | None:
    """The configuration of a checkpoint that was fine-tuned for the task and is to keep its head; None of any other.

    What is wrong with a checkpoint is said by `load_config`, after the data have been checked.
    """
    if for_training and (args.random_weights or args.ignore_mismatched_sizes):
        return None
    try:
        config = AutoConfig.from_pretrained(str(args.model_name_or_path))
        return config if has_head(config, task_class) else None
    except (OSError, ValueError, KeyError):
        return None


def problem_type_of(config: Any) -> str | None:
    """What the labels of a fine-tuned checkpoint are, None if one or several of each row: older ones do not say."""
    return config.problem_type or (REGRESSION if config.num_labels == 1 else None)


def load_config(
    args: CheckpointArguments,
    task_class: Any,
    names: list[str] | None,
    class_names: Sequence[str] = (),
    problem_type: str | None = None,
) -> Any:
    """The configuration of the checkpoint, with the labels of the data.

    A checkpoint that was fine-tuned for the same labels keeps their order, whatever that of the data; `names` None
    takes its labels as they are. `class_names` say what the data calls them, in the order of the checkpoint. Raises
    InputError when there is no checkpoint, or its head is for other labels and is to be kept.
    """
    name = args.model_name_or_path
    if not name:
        raise InputError("--model_name_or_path: name a checkpoint, for example the output_dir of run_mlm.py")
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"--model_name_or_path {name}: {one_line(error, None)}") from error
    if type(config) not in task_class._model_mapping:
        raise InputError(f"--model_name_or_path {name}: {config.model_type} has no {task_class.__name__}")
    before = [config.id2label[i] for i in sorted(config.id2label)] if has_head(config, task_class) else None
    if names is None:
        if before is None:
            raise InputError(f"--model_name_or_path {name}: has no head for this task; name a fine-tuned checkpoint")
        if class_names and len(class_names) != len(before):
            raise InputError(f"--class_names: {len(class_names)} names, but {name} has {len(before)} classes")
        names = list(class_names) or before
    else:
        if class_names and sorted(class_names) != sorted(names):
            raise InputError(f"--class_names {' '.join(class_names)}: the data has the labels {_shown(names)}")
        names = list(class_names) or names
        if before is not None and not args.random_weights:
            other = problem_type is not None and problem_type_of(config) not in (None, problem_type)
            kept = None if other else _names_of_head(before, names, bool(class_names), args.ignore_mismatched_sizes)
            args.new_head = kept is None
            if kept is None and not args.ignore_mismatched_sizes:
                raise InputError(
                    f"--model_name_or_path {name}: was fine-tuned for {len(before)} labels ({_shown(before)}), and "
                    f"this data has {len(names)} ({_shown(names)}); name the pretrained checkpoint, train a new head "
                    "with --ignore_mismatched_sizes, or if the classes only have other names, say --class_names"
                )
            names = kept or names
        # A head of another task may have the same names and even shapes.
        args.new_head |= any(has_head(config, kind) for kind in HEADS if kind is not task_class)
    config.id2label, config.label2id = dict(enumerate(names)), {label: i for i, label in enumerate(names)}
    if problem_type is not None:
        config.problem_type = problem_type
    if args.dropout is not None:
        set_dropout(config, args.dropout)
    return plain_outputs(config)


def set_dropout(config: Any, probability: float) -> None:
    """Set all dropouts of a configuration but that of attention, which has no fused kernel with it on a CPU. Raises
    InputError for an architecture without any."""
    numbers = [name for name, value in config.to_dict().items() if isinstance(value, int | float)]
    names = [name for name in numbers if "dropout" in name and "attention" not in name]
    if not names:
        raise InputError(f"--dropout {probability}: {config.model_type} has none that could be set; remove the flag")
    for name in names:
        setattr(config, name, probability)


def _names_of_head(before: list[str], names: list[str], are_ordered: bool, may_be_new: bool) -> list[str] | None:
    """The names of the classes of a head that serves the labels of the data, None if it does not."""
    if are_ordered and not may_be_new:
        return names if len(names) == len(before) else None
    if sorted(before) == sorted(names) or len(before) == len(names) == 1:  # one: a number, whatever it is called
        return before
    numbers = [str(i) for i in range(len(before))]
    return numbers if before == [stock_name(i) for i in numbers] and set(names) <= set(numbers) else None


def stock_name(number: str) -> str:
    """What transformers calls the class of this number when nobody has named it."""
    return f"LABEL_{number}"


def tokenizer_of(args: CheckpointArguments) -> Any:
    """The tokenizer that is named, or else that of the checkpoint. Raises InputError."""
    return load_tokenizer(str(args.tokenizer_name or args.model_name_or_path))


def load_model(
    record: Any, args: CheckpointArguments, task_class: Any, config: Any, tokenizer: Any, max_seq_length: int
) -> Any:
    """The model in fp32, with a new head where the checkpoint has none for these labels, which is said and recorded.
    Raises InputError, also for weights of the encoder that the checkpoint does not have."""
    from transformers.integrations import unset_hf_deepspeed_config

    check_fits(config, tokenizer, max_seq_length)
    unset_hf_deepspeed_config()  # as in shared/model_config.py
    name, attention = args.model_name_or_path, args.attn_implementation
    try:
        if args.random_weights:
            return task_class.from_config(config, attn_implementation=attention)
        check_vocabulary(config, tokenizer, str(name))
        settings = {"config": config, "dtype": "float32", "attn_implementation": attention}
        model = load_weights(task_class, str(name), record.note, ignore_mismatched_sizes=args.new_head, **settings)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--model_name_or_path {name}: {one_line(error)}") from error
    if args.new_head:
        renewed = renew_output(model, task_class)
        record.note(f"{name} was fine-tuned for something else: {', '.join(renewed)} are new, and are to be trained")
    return model


def renew_output(model: Any, task_class: Any) -> list[str]:
    """Draw the weights whose shape depends on the number of labels, the last layer's, anew; returns their names."""
    fresh, other = task_class.from_config(model.config), copy.deepcopy(model.config)
    other.num_labels += 1
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in task_class.from_config(other).state_dict().items()}
    weights = model.state_dict()
    names = [name for name, weight in fresh.state_dict().items() if weight.shape != shapes[name]]
    for name in names:
        weights[name].copy_(fresh.state_dict()[name])
    return names


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")
