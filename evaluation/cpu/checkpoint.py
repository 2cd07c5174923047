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
    autos = {task: getattr(transformers, class_name) for task, class_name in TASKS.items()}
    heads = {
        getattr(auto._model_mapping.get(type(config), None), "__name__", ""): task for task, auto in autos.items()
    }
    saved = config.architectures or ["model without a head"]
    task = next((heads[head] for head in saved if head in heads), None)
    if task is None:
        needed = f"there must be a head for {', '.join(TASKS)}: fine-tune it first"
        raise InputError(f"--models {name}: is a {', '.join(saved)}; {needed}")
    tokenizer = load_tokenizer(name)
    check_fits(config, tokenizer, most_tokens)
    try:
        model = autos[task].from_pretrained(name, dtype="float32", use_safetensors=True).eval()
    except Exception as error:  # safetensors has its own
        raise InputError(f"--models {name}: {one_line(error)}") from error
    check_finite(model, f"--models {name}")
    return task, model, tokenizer
