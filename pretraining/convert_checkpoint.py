"""Write a checkpoint anew, as the other scripts read it: in safetensors, without a wrapper's prefix in the names.

    python pretraining/convert_checkpoint.py --input old_checkpoint --output_dir checkpoint

Reads a folder, or an id of the Hub, whose weights are pickles (pytorch_model.bin, of which tensors alone are read) or
safetensors, and whose names may begin with `module.`, `_orig_mod.` or `model.`. Writes weights, configuration and
tokenizer. With `--head_from MODEL` the encoder goes on as a masked language model, with the head of MODEL: after a
task that it has learned.
"""

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

from shared.command_line import run_script
from shared.errors import InputError, one_line
from shared.files import atomic_folder, check_new_folder
from shared.model_config import load_weights

WRAPPERS = ("module.", "model.")  # of DistributedDataParallel, and of the class of somebody's own
COMPILED = "_orig_mod."  # of torch.compile, which may stand anywhere


@dataclass
class ConvertArguments:
    input: str = field(metadata={"help": "The checkpoint: a folder or Hub id."})
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    head_from: str | None = field(
        default=None, metadata={"help": "Take the head for masks of this checkpoint in the place of its own."}
    )


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the folder's weight files, by name. Raises InputError."""
    readers: dict[str, Callable[[Path], Any]] = {
        "*.safetensors": load_file,
        "pytorch_model*.bin": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    }
    for pattern, read in readers.items():
        weights: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob(pattern)):
            try:
                weights |= {k: v for k, v in read(path).items() if isinstance(v, torch.Tensor)}
            except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, AttributeError) as error:
                raise InputError(f"{path}: not readable as tensors ({one_line(error)})") from error
        if weights:
            return weights
    raise InputError(f"--input {folder}: no weights in {' or '.join(readers)}")


def without_wrappers(weights: dict[str, torch.Tensor], known: set[str]) -> dict[str, torch.Tensor]:
    """The weights under the model's own names: prefixes go as long as more of the names are `known` without them."""
    weights = {name.replace(COMPILED, ""): weight for name, weight in weights.items()}
    while True:
        shorter = [{n.removeprefix(wrapper): w for n, w in weights.items()} for wrapper in WRAPPERS]
        shorter += [{n.removeprefix(wrapper): w for n, w in one.items()} for one in shorter for wrapper in WRAPPERS]
        best = max(shorter, key=lambda one: len(known & one.keys()))
        if len(known & best.keys()) <= len(known & weights.keys()):
            return weights
        weights = best


def take_head(encoder: Any, name: str, dtype: torch.dtype) -> Any:
    """The masked language model `name` with the weights of another encoder of the same shapes. Raises InputError."""
    new: list[str] = []
    try:
        model = load_weights(AutoModelForMaskedLM, name, new.append, dtype=dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"--head_from {name}: {one_line(error)}") from error
    if new:
        raise InputError(f"--head_from {name}: has no head for masks; name a masked language model")
    own, other = model.base_model.state_dict(), encoder.base_model.state_dict()
    wrong = sorted(key for key in own if key not in other or own[key].shape != other[key].shape)
    if wrong or type(model.config) is not type(encoder.config):
        raise InputError(
            f"--head_from {name}: a {model.config.model_type} whose {wrong[0] if wrong else 'layers'} is not that of "
            f"the {encoder.config.model_type} of --input; name the model that it was before its task"
        )
    model.base_model.load_state_dict({key: other[key] for key in own})
    return model


def main(args: ConvertArguments) -> dict[str, Any]:
    check_new_folder(args.output_dir)
    folder = Path(args.input)
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(args.input))
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"--input {args.input}: {one_line(error)}") from error
    named = (config.architectures or [""])[0]
    task_class = getattr(transformers, named, None) or AutoModelForMaskedLM._model_mapping[type(config)]
    with torch.device("meta"):
        known = set(task_class(config).state_dict())
    weights = without_wrappers(read_weights(folder), known)
    dtype = next((weight.dtype for weight in weights.values() if weight.is_floating_point()), torch.float32)
    with atomic_folder(args.output_dir) as target:
        config.save_pretrained(target)
        save_file(
            {n: w.clone().contiguous() for n, w in weights.items()}, target / "model.safetensors", {"format": "pt"}
        )
        try:
            model = load_weights(task_class, str(target), print, dtype=dtype)
        except InputError as error:
            shown = str(error).replace(f"--model_name_or_path {target}", f"--input {args.input}")
            raise InputError(shown.partition("; if")[0]) from error
        if args.head_from:
            model = take_head(model, args.head_from, dtype)
        model.save_pretrained(target)
        with suppress(OSError, ValueError):  # a checkpoint need not have one
            AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    print(f"{type(model).__name__} with {len(weights)} tensors in {args.output_dir}")
    return {"tensors": len(weights)}


if __name__ == "__main__":
    run_script(main, ConvertArguments)
