"""The loss of masked-language modelling in chunks of targets, so that no step holds the logits of all of them.

For 4,096 targets and 30,522 words the logits are 500 MB in fp32, and a step holds them about three times: as they are,
as logarithms of the probabilities, and as gradients. Here a chunk is projected, and its gradient taken at once, in
place (as in Hsu et al., 2024, arXiv:2410.10989): nothing is computed twice, and what remains is of the size of the
states and of the output embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from shared.command_line import check_ranges
from shared.errors import InputError
from shared.loss import IGNORED, cross_entropy_loss

LEAST = torch.finfo(torch.float32).tiny  # a probability below it counts as it in the loss: 87 nats
COLUMNS = 32  # of bf16 in a tile of a CPU's matrix units; rows of a whole number of them are read faster
TYPES = ("bert", "roberta", "modernbert")  # whose logits are what the output embedding returns, and nothing else


@dataclass
class LossArguments:
    loss_chunk: int | None = field(
        default=None,
        metadata={"help": "Compute logits and loss of N targets at a time, to save memory. Default: of all at once."},
    )

    def __post_init__(self) -> None:
        check_ranges(self, loss_chunk=">= 1")
        super().__post_init__()  # type: ignore[misc]  # of the other arguments of the script


class ChunkedCrossEntropy(torch.autograd.Function):
    """The sum over all targets, in nats, as a function of states (targets, width), weight (vocabulary, width), bias
    (vocabulary,) and labels (targets,).

    Logits and probabilities are of `dtype`, as are the matrix products; sums and gradients are in fp32. What is
    written for a chunk is passed over as seldom as can be: softmax is one pass where its steps are four, and the bias,
    a column of the weight beside a column of ones in the states, comes with the products and needs none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        labels: torch.Tensor,
        chunk: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        width = states.shape[1]
        padded = (width // COLUMNS + 1) * COLUMNS
        low, rows = (x.new_zeros(len(x), padded, dtype=dtype) for x in (weight, states))
        low[:, :width], low[:, width], rows[:, :width], rows[:, width] = weight, bias, states, 1
        right, known = labels.clamp(min=0), (labels != IGNORED).to(dtype)
        total = torch.zeros((), device=states.device)
        of_states = torch.empty_like(states, dtype=torch.float32)
        of_low = torch.zeros(0)  # made by the first chunk
        for start in range(0, max(len(states), 1), chunk):
            part = slice(start, start + chunk)
            shares = rows[part] @ low.T
            torch.softmax(shares, 1, out=shares)  # in place, or there would be two of them
            place = torch.arange(len(shares), device=states.device), right[part]
            of_right = shares[place].float()
            # The gradient of the right word is its probability less 1. Where the model is sure that is a small
            # difference of large numbers, so it is taken from what the other words have.
            shares[place] = 0
            others = shares.sum(1)
            shares[place] = -others
            sure = torch.log1p(-others.float().clamp(max=0.5))
            nats = torch.where(of_right > 0.5, sure, of_right.clamp(min=LEAST).log())
            total -= (nats * known[part]).sum()
            of_states[part] = (shares @ low[:, :width]) * known[part, None]
            product = shares.T @ (rows[part] * known[part, None])
            of_low = of_low.add_(product) if start else product.float()
            del shares, product  # before there are the next ones
        of_weight, of_bias = of_low[:, :width], of_low[:, width]
        ctx.save_for_backward(of_states.to(states.dtype), of_weight.to(weight.dtype), of_bias.to(bias.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return *(gradients[0] * saved for saved in ctx.saved_tensors), None, None, None


def make_loss(model: Any, chunk: int | None, args: Any) -> Callable[..., torch.Tensor]:
    """The `compute_loss_func` of a `...ForMaskedLM` model: that of all targets at once, or in chunks.

    With chunks the model returns, in training, the states that its output embedding would have been given in place
    of logits; in evaluation it is as it was. Raises InputError where that is not possible.
    """
    if chunk is None:
        return cross_entropy_loss
    if model.config.model_type not in TYPES:
        raise InputError(f"--loss_chunk: is for {', '.join(TYPES)}, not {model.config.model_type}; remove the flag")
    if args.deepspeed_plugin is not None:
        raise InputError("--loss_chunk: not with DeepSpeed, which may split the output embedding; remove one of them")
    decoder = model.get_output_embeddings()
    if decoder.bias is None:
        raise InputError("--loss_chunk: this model has an output embedding without a bias; remove the flag")
    # With fp16 too in fp32: the gradient is taken before it is scaled, and would be too small for fp16.
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    project = decoder.forward

    def project_later(states: torch.Tensor) -> torch.Tensor:
        return states if decoder.training else project(states)

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        if not decoder.training:
            return cross_entropy_loss(outputs, labels, num_items_in_batch)
        states = outputs.logits.flatten(0, 1)
        total = ChunkedCrossEntropy.apply(states, decoder.weight, decoder.bias, labels.flatten(), chunk, dtype)
        count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)

    decoder.forward = project_later
    return loss
