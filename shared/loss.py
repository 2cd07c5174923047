"""Losses whose gradient does not depend on how a batch is split, and a prediction head for the masked positions only.

Each `..._loss` is a `compute_loss_func` for Trainer, in nats per target (squared units for regression). It divides the
sum by `num_items_in_batch`, the targets of the whole optimizer step over all processes, where the stock heads take the
mean of the part at hand (huggingface/transformers#47688). Without it, it divides by those at hand.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

IGNORED = -100  # the label that every loss of transformers leaves out
Count = torch.Tensor | int | None


def project_masked_only(model: torch.nn.Module, say: Callable[[str], None] = print) -> bool:
    """Make the head of a `...ForMaskedLM` model work on the masked positions alone, when the batch names them.

    The forward pass then takes `masked_positions`, (batch, targets) int64 columns of the input, and returns logits of
    shape (batch, targets, vocabulary). Without that argument the model does what it always did, and its state dict is
    unchanged. For 2 layers x 128 the head is about 90% of the work at every position and 15% of that here. Returns
    False, and says so in one line, where no such head is found: then every position is projected, and the others are
    thrown away.
    """
    head = _find_head(model)
    positions: list[torch.Tensor | None] = [None]

    def take_positions(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        positions[0] = kwargs.pop("masked_positions", None)
        return args, kwargs

    def keep_masked(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (_take(args[0], positions[0]), *args[1:])

    def drop_others(_: Any, args: Any, outputs: Any) -> Any:
        if "logits" in outputs:
            outputs["logits"] = _take(outputs["logits"], positions[0])
        return outputs

    model.register_forward_pre_hook(take_positions, with_kwargs=True)
    if head is None:
        model.register_forward_hook(drop_others)
        say(
            f"{type(model).__name__}: no head was found that can work on the masked positions alone, so every "
            "position is projected: the same loss, but more time and memory"
        )
    else:
        model.get_submodule(head).register_forward_pre_hook(keep_masked)
    return head is not None


def _find_head(model: torch.nn.Module) -> str | None:
    """The module after which every position is worked on by itself, found by trying on a copy that shares the weights.

    That is the first module which is handed the body's last layer, or else the output embedding, and it is the head if
    the logits of two positions alone are those that they have among all.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    trial = cast(Any, copy.deepcopy(model, shared)).eval()
    device, length = trial.device, 8
    inputs = {"input_ids": torch.arange(length, device=device)[None] % min(trial.config.vocab_size, length)}
    two = torch.tensor([[1, length - 2]], device=device)
    states: list[Any] = []
    found: list[str] = []

    def look(name: str, _: Any, args: Any) -> None:
        if states and args and args[0] is states[-1]:
            found.append(name)

    try:
        if str(trial.config._attn_implementation).startswith(("flash", "flex")):  # made for a GPU
            trial.set_attn_implementation("eager")
        body, names = trial.base_model, {module: name for name, module in trial.named_modules()}
        inside = set(body.modules()) if body is not trial else {trial}
        hooks = [body.register_forward_hook(lambda _, args, outputs: states.append(outputs[0]))]
        hooks += [m.register_forward_pre_hook(partial(look, name)) for m, name in names.items() if m not in inside]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            expected = _take(trial(**inputs).logits, two)
            for hook in hooks:
                hook.remove()
            for name in dict.fromkeys([*found[:1], names.get(trial.get_output_embeddings())]):
                if name is None:
                    continue
                head = trial.get_submodule(name)
                hook = head.register_forward_pre_hook(lambda _, args: (_take(args[0], two), *args[1:]))
                logits = trial(**inputs).logits
                hook.remove()
                if logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-4, atol=1e-4):
                    return name
    except Exception:  # of a forward pass of any kind; the slow way computes the same
        return None
    return None


def _take(states: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    if positions is None:
        return states
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    flat = (positions + rows * states.shape[1]).flatten()
    return states.flatten(0, 1).index_select(0, flat).unflatten(0, positions.shape)


def rule_out_padding(model: torch.nn.Module) -> None:
    """Make a `...ForQuestionAnswering` model give padding no share of the probability.

    Stock heads normalize over padding too, so that the loss depends on the longest text a sample happens to share its
    micro-batch with. The state dict is unchanged; `span_loss` is meant for a model treated so.
    """

    def mask(_: Any, args: Any, kwargs: dict[str, Any], outputs: Any) -> Any:
        padding = kwargs["attention_mask"] == 0
        for name in ("start_logits", "end_logits"):
            outputs[name] = outputs[name].masked_fill(padding, torch.finfo(outputs[name].dtype).min)
        return outputs

    model.register_forward_hook(mask, with_kwargs=True)


def cross_entropy_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Count = None) -> torch.Tensor:
    """For masked-language modelling, and for classifying tokens or sequences with one label each.

    `labels`: int64 of the shape of the logits without their last dimension; IGNORED where there is no target.
    """
    logits = outputs.logits.reshape(-1, outputs.logits.shape[-1]).float()
    total = cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return _share(total, labels, num_items_in_batch)


def multi_label_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Count = None) -> torch.Tensor:
    """Binary cross-entropy for sequences with any number of labels. `labels`: (batch, labels) float32, 0 or 1."""
    known = labels != IGNORED
    losses = binary_cross_entropy_with_logits(outputs.logits.float(), labels.float(), reduction="none")
    return _share((losses * known).sum(), labels, num_items_in_batch)


class WeightedLoss(torch.nn.Module):
    """Cross-entropy of one label, or binary cross-entropy of several, for labels that are rare, hard or unsure.

    - `weights`: one for each class, as torch's `cross_entropy(weight=...)` takes them, or for the ones of each of
      several labels, as `pos_weight` of torch's `binary_cross_entropy_with_logits`.
    - `smoothing`: torch's `label_smoothing` (Szegedy et al., 2015), of one label only.
    - `gamma`: the exponent of the focal loss (Lin et al., 2017, equation 4), which counts a target the less the surer
      the model is of it. With smoothing, sure is said of the smoothed label.

    The mean over a batch is torch's: that of cross-entropy is divided by the weights of the targets. `count` is what
    it is divided by, for `ExactTrainer`, so that the gradient does not depend on how a batch is split.
    """

    def __init__(
        self, weights: Sequence[float] | None = None, smoothing: float = 0.0, gamma: float = 0.0, multi: bool = False
    ) -> None:
        super().__init__()
        self.weights = None if weights is None else torch.tensor(weights)
        self.smoothing, self.gamma, self.multi = smoothing, gamma, multi

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """The targets, or the sum of their weights."""
        known = labels != IGNORED
        if self.weights is None or self.multi:
            return known.sum()
        return self.weights.to(labels.device)[labels[known]].sum()

    def forward(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Count = None) -> torch.Tensor:
        logits = outputs.logits.reshape(-1, outputs.logits.shape[-1]).float()
        known = labels.reshape(logits.shape if self.multi else -1)
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.multi:
            target = known.clamp(min=0).float()  # of IGNORED the loss would be so large that its focal weight is none
            plain = binary_cross_entropy_with_logits(logits, target, reduction="none")
            losses = plain if weights is None else plain * torch.where(known > 0, weights, 1.0)
        else:
            settings: dict[str, Any] = {"ignore_index": IGNORED, "reduction": "none"}
            plain = cross_entropy(logits, known, label_smoothing=self.smoothing, **settings)
            losses = cross_entropy(logits, known, weights, label_smoothing=self.smoothing, **settings)
        if self.gamma:
            losses = losses * (1 - torch.exp(-plain)).clamp_min(1e-8) ** self.gamma
        total = (losses * (known != IGNORED)).sum()
        count = torch.as_tensor(self.count(labels) if num_items_in_batch is None else num_items_in_batch)
        return total / count.where(count > 0, 1)  # where weights are small the count is a fraction of 1


def regression_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Count = None) -> torch.Tensor:
    """Squared error. `labels`: (batch,) float32; no target may be exactly IGNORED (-100)."""
    known = labels != IGNORED
    errors = (outputs.logits.float().reshape(labels.shape) - labels.float()) ** 2
    return _share((errors * known).sum(), labels, num_items_in_batch)


def span_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Count = None) -> torch.Tensor:
    """The mean of start and end cross-entropy for question answering.

    `labels`: (batch, 2) int64, the first and the last token of the answer. They are one tensor under the name
    `labels`, unlike the stock model's two, so that Trainer counts and passes them like any others.
    """
    logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=1).float()
    total = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return _share(total, labels, num_items_in_batch)


def _share(total: torch.Tensor, labels: torch.Tensor, num_items_in_batch: Count) -> torch.Tensor:
    """Divided by the targets, or by 1 where there are none: their loss is 0, and not a NaN that ends a run."""
    count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return total / (count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1))


def sum_over_targets(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Reduce logits to what evaluation keeps; Trainer's `preprocess_logits_for_metrics`.

    `logits`: (batch, positions, vocabulary); `labels`: (batch, positions), IGNORED where there is no target. Returns
    the summed loss in nats and the number of hits of each row, (batch, 2) float32, so that memory does not grow with
    the vocabulary.
    """
    losses = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none")
    hits = logits.argmax(-1) == labels
    return torch.stack([losses.view_as(labels).sum(1), hits.sum(1).to(losses)], dim=1)
