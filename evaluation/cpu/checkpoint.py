"""A checkpoint of run_cpu_benchmark.py: what it was made for, its model and its tokenizer."""

from typing import Any

from shared.errors import InputError, one_line
from shared.model_config import check_finite, check_fits
from shared.tokenizer import load_tokenizer

TASKS = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "masked_lm": "AutoModelForMaskedLM",
}


def load_checkpoint(name: str, most_tokens: int) -> tuple[str, Any, Any]:
    """The task of a checkpoint, its model and its tokenizer.

    Raises InputError for one that has no such head, does not load, or takes fewer than `most_tokens` tokens.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except Exception as error:  # damaged JSON and more
        raise InputError(f"--models {name}: {one_line(error)}") from error
    heads = {
        getattr(auto._model_mapping.get(type(config), None), "__name__", ""): (task, auto)
        for task, auto in ((task, getattr(transformers, class_name)) for task, class_name in TASKS.items())
    }
    found = [heads[head] for head in config.architectures or [] if head in heads]
    if not found:
        raise InputError(
            f"--models {name}: is a {', '.join(config.architectures or ['model without a head'])}; there must be a "
            f"head for {', '.join(TASKS)}: fine-tune it first"
        )
    task, auto = found[0]
    tokenizer = load_tokenizer(name)
    check_fits(config, tokenizer, most_tokens)
    try:
        model = auto.from_pretrained(name, dtype="float32", use_safetensors=True).eval()
    except Exception as error:  # safetensors has its own
        raise InputError(f"--models {name}: {one_line(error)}") from error
    check_finite(model, f"--models {name}")
    return task, model, tokenizer
