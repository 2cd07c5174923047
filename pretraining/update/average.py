"""Weights averaged with those of an older model, row by row where the vocabularies differ."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shared.errors import InputError, one_line
from shared.files import sha256_of
from shared.model_config import load_weights, plain_outputs

# What makes another function of weights of the same shapes.
MEANING = (
    *("model_type", "num_attention_heads", "hidden_act", "hidden_activation", "position_embedding_type"),
    *("local_attention", "global_attn_every_n_layers"),
)


@dataclass(frozen=True)
class Average:
    """An older model, in memory: what becomes of its folder while a run lasts changes nothing."""

    folder: str
    share: float
    config: Any
    weights: dict[str, torch.Tensor]
    vocabulary: dict[str, int]
    hashes: dict[str, str]  # of its files, for the comparison with a run that is gone on with

    def check(self, model: Any) -> None:
        """Raise InputError unless the models differ in the rows of their vocabularies alone."""
        ours, theirs = model.config.to_dict(), self.config.to_dict()
        tables = _tables_of_tokens(model)  # without the number of tokens
        shapes = {name: tuple(weight.shape)[name in tables :] for name, weight in model.named_parameters()}
        others = {name: tuple(weight.shape)[name in tables :] for name, weight in self.weights.items()}
        wrong = [f"{key} {theirs.get(key)} and {ours.get(key)}" for key in MEANING if ours.get(key) != theirs.get(key)]
        wrong += [
            f"{name} of shape {others.get(name)} and {shapes.get(name)}"
            for name in sorted({*shapes, *others})
            if shapes.get(name) != others.get(name)
        ]
        if wrong:
            raise InputError(
                f"--average_with {self.folder}: another architecture than the model that is trained ({wrong[0]}); "
                "average with a model that this one began as, or leave the flag out"
            )

    def apply(self, model: Any, vocabulary: dict[str, int]) -> str:
        """Average the weights of `model`, whose tokens have the numbers `vocabulary`, in place, and say what was done.

        A row of a token that the older model has not got stays as it was trained.
        """
        shared = sorted((row, self.vocabulary[token]) for token, row in vocabulary.items() if token in self.vocabulary)
        rows, old_rows = torch.tensor(shared, dtype=torch.long).reshape(-1, 2).unbind(1)
        tables = _tables_of_tokens(model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if (old := self.weights.get(name)) is None:
                    continue  # of a head that training alone has: `check` saw the model without it
                if name in tables:
                    here = rows.to(weight.device)
                    weight[here] = self._mix(weight[here], old[old_rows])
                else:
                    weight.copy_(self._mix(weight, old))
        return (
            f"The weights are {1 - self.share:g} of this run's and {self.share:g} of {self.folder}'s; of "
            f"{len(vocabulary):,} tokens {len(shared):,} are in both."
        )

    def _mix(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        """Computed in float64 and rounded once."""
        mixed = (1 - self.share) * new.double() + self.share * old.to(new.device).double()
        return mixed.to(new.dtype)


def read_share(text: str) -> tuple[str, float]:
    """The folder and the share of `OLD:0.3`. Raises InputError."""
    folder, _, share = text.rpartition(":")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not folder or not 0 < value < 1:
        raise InputError(f"--average_with {text}: write FOLDER:SHARE, with the old model's share between 0 and 1")
    return folder, value


def open_average(text: str | None, engine: str) -> Average | None:
    """The older model of `--average_with`, if any. Raises InputError when it cannot be read whole, or under ZeRO-3."""
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    if text is None:
        return None
    folder, share = read_share(text)
    if engine == "zero3":
        raise InputError("--average_with: ZeRO-3 splits the weights; train with ZeRO-2 or without DeepSpeed")
    if not Path(folder, "config.json").is_file():
        raise InputError(f"--average_with {folder}: not the folder of a model (no config.json); name one that is")
    absent: list[str] = []
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = plain_outputs(AutoConfig.from_pretrained(folder))
        model = load_weights(AutoModelForMaskedLM, folder, absent.append, config=config, dtype="float32")
    except InputError as error:
        raise InputError(str(error).replace("--model_name_or_path", "--average_with")) from error
    except Exception as error:  # of any kind: a damaged file, a library that is missing
        raise InputError(
            f"--average_with {folder}: cannot be loaded ({one_line(error, 200)}); name a whole model"
        ) from error
    if absent:
        raise InputError(f"--average_with: {absent[0]}; name a model with all its weights")
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    files = [f for kind in ("*.safetensors", "config.json", "tokenizer.json") for f in Path(folder).glob(kind)]
    hashes = {path.name: sha256_of(path) for path in sorted(files)}
    return Average(folder, share, config, weights, tokenizer.get_vocab(), hashes)


def _tables_of_tokens(model: Any) -> set[str]:
    """The parameters whose first axis counts tokens: embeddings, and matrix and bias of the decoder."""
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight, head.weight, *([] if head.bias is None else [head.bias])]
    places = {table.data_ptr() for table in tables}
    return {name for name, weight in model.named_parameters() if weight.data_ptr() in places}
