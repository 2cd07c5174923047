"""A masked language model that learns from a teacher: what it computes of a batch of groups, and the loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss, normalize, softmax

from pretraining.attention import FLEX
from pretraining.distillation.made_tasks import MadeTaskArguments
from shared.errors import InputError, one_line
from shared.files import atomic_file, write_json
from shared.loss import IGNORED, Count

HEADS, PREFIX = "distillation_heads.safetensors", "distillation."
TEMPERATURE = 0.05  # of the similarities in a group, as in contrastive learning (Gao et al., 2021, SimCSE)


@dataclass
class LossArguments(MadeTaskArguments):
    embedding_weight: float = field(default=1.0, metadata={"help": "Weight of 1 - cosine of student and teacher."})
    similarity_weight: float = field(default=0.5, metadata={"help": "Weight of the similarities in a group."})
    pair_weight: float = field(default=10.0, metadata={"help": "Weight of the squared error of the scores of pairs."})
    mlm_weight: float = field(default=0.2, metadata={"help": "Weight of masked language modelling, with blocks."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.weights.values()) < 0 or not max(self.weights.values()):
            raise InputError("--embedding_weight and the other weights: 0 or above, and one of them above 0")

    @property
    def weights(self) -> dict[str, float]:
        """Of each loss, in the order in which the student gives them."""
        names = ("embedding", "similarity", "pair", "mlm", *self.made_tasks)
        return {name: getattr(self, f"{name}_weight") for name in names}

    @property
    def measures(self) -> list[str]:
        """What evaluation will report, known before there is data."""
        return ["loss", *(f"{name}_loss" for name in self.weights), "score_spearman", "cosine_spearman"]


class Heads(nn.Module):
    """What the student needs to answer the teacher, and drops when it has learned. `classes`: of made-up tasks."""

    def __init__(self, width: int, teacher_width: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.projection = nn.Linear(width, teacher_width)
        self.score = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.made = nn.ModuleDict({task: nn.Linear(width, count) for task, count in classes.items()})


def add_heads(model: Any, teacher_width: int, scores_pairs: bool = True, classes: Mapping[str, int] = {}) -> None:
    """Give a `...ForMaskedLM` model the heads, and a forward pass for the batches of `PairGroups`.

    Without `scores_pairs` no pair is read in training, which is half of the work. `classes`: what a token can be in
    each made-up task. Raises InputError for attention that is made for packed blocks alone.
    """
    if model.config._attn_implementation == FLEX:
        raise InputError(f"--attn_implementation {FLEX}: is for --isolate_documents of run_mlm.py; use sdpa")
    model.distillation = Heads(model.config.hidden_size, teacher_width, classes)
    model.forward = partial(_learn, model, model.forward, scores_pairs)


def load_heads(model: Any, folder: str | None, say: Callable[[str], None]) -> None:
    """Go on with the heads that the stage before kept beside its model; one of another shape begins anew.

    In the first steps a new head has to learn what it is for. Raises InputError for a damaged file.
    """
    file = Path(folder or "") / HEADS
    if folder is None or not file.is_file():
        return
    own = model.distillation.state_dict()
    try:
        kept = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read ({one_line(error)}); remove it to begin with new heads") from error
    fitting = {name: weight for name, weight in kept.items() if name in own and own[name].shape == weight.shape}
    model.distillation.load_state_dict(fitting, strict=False)
    new = ", ".join(sorted({name.rpartition(".")[0] for name in own.keys() - fitting.keys()}))
    say(f"{file}: the heads go on{new and f', but for {new}, which begin anew'}")


def save_student(trainer: Any) -> None:
    """Make the model what it was before `add_heads`, with what it has learned, and save it, to load as a sentence
    encoder as well, and the heads for the next stage, in a file that no other script reads. Call it in every
    process."""
    model = trainer.model
    weights = trainer.accelerator.get_state_dict(trainer.deepspeed or model)  # whole, under ZeRO-3 too
    del model.distillation, model.forward
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_pooling(Path(trainer.args.output_dir), model.config.hidden_size)
        heads = {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name.startswith(PREFIX)}
        with atomic_file(Path(trainer.args.output_dir) / HEADS) as file:
            save_file(heads, file, metadata={"format": "pt"})


def write_pooling(folder: Path, width: int) -> None:
    """Write what `SentenceTransformer(folder)` reads: take the mean of the last layer over all tokens."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write_json(folder / "modules.json", modules)
    settings = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", settings)


def mean_pool(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of the last layer over all tokens, special ones included, (rows, width): as sentence-transformers."""
    states = model.base_model(input_ids=ids, attention_mask=mask)[0]
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _learn(model: Any, fill_masks: Any, scores_pairs: bool, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """The losses of each group, (groups, losses) in the order of `LossArguments.weights`; and what is compared over
    all groups: the scores of pairs, (groups, pairs), and the cosines of single encodings, (groups, texts, texts),
    `wanted_...` the teacher's.

    The projection lets a narrow student point where a wide teacher points; the similarities are those of the student's
    own encodings, since these are what a user compares. A batch without vectors has masks to fill and nothing else.
    """
    if "vectors" not in batch:
        return fill_masks(**batch)
    vectors, scores = batch["vectors"], batch["scores"]
    pooled = mean_pool(model, batch["sentence_ids"], batch["sentence_mask"]).view(*vectors.shape[:2], -1)
    projected = normalize(model.distillation.projection(pooled).float(), dim=-1)
    embedding = 1 - (projected * vectors).sum(-1).mean(-1)
    own = normalize(pooled.float(), dim=-1)
    similarity = kl_div(_similarities(own, log_softmax), _similarities(vectors, softmax), reduction="none").sum(-1)
    if scores_pairs or not model.training:
        found = model.distillation.score(mean_pool(model, batch["pair_ids"], batch["pair_mask"]))
        found = found.float().view(scores.shape)
    else:  # DDP waits for a gradient of every weight
        found = scores + 0 * sum(weight.sum() for weight in model.distillation.score.parameters())
    losses = [embedding, similarity.mean(-1), mse_loss(found, scores, reduction="none").mean(-1)]
    losses.append(_masked_loss(model, batch, len(scores)) if "block_labels" in batch else losses[0] * 0)
    losses += [_made_loss(model, batch, task, len(scores)) for task in model.distillation.made]
    return {
        "losses": torch.stack(losses, dim=-1),
        "scores": found,
        "wanted_scores": scores,
        "cosines": own @ own.transpose(1, 2),
        "wanted_cosines": vectors @ vectors.transpose(1, 2),
    }


def _similarities(vectors: torch.Tensor, share: Any) -> torch.Tensor:
    """How the similarity of each sentence of a group to the others is shared out among them."""
    cosines = vectors @ vectors.transpose(1, 2) / TEMPERATURE
    own = torch.eye(cosines.shape[-1], dtype=torch.bool, device=cosines.device)
    return share(cosines.masked_fill(own, torch.finfo(cosines.dtype).min / 2), dim=-1)


def _masked_loss(model: Any, batch: dict[str, torch.Tensor], groups: int) -> torch.Tensor:
    """The mean over the targets of each group, in blocks and in sentences alike, (groups,)."""
    total: Any = 0
    targets: Any = 0
    for ids, mask, name in (
        ("input_ids", "attention_mask", "block"),
        ("masked_sentence_ids", "sentence_mask", "sentence"),
    ):
        if ids not in batch:
            continue
        # Through the model, not its forward method: its head then works on these positions alone.
        labels, positions = batch[f"{name}_labels"], batch[f"{name}_positions"]
        logits = model(input_ids=batch[ids], attention_mask=batch.get(mask), masked_positions=positions).logits
        losses = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        total = total + losses.view(groups, -1).sum(-1)
        targets = targets + (labels != IGNORED).view(groups, -1).sum(-1)
    return total / targets.clamp(min=1)


def _made_loss(model: Any, batch: dict[str, torch.Tensor], task: str, groups: int) -> torch.Tensor:
    """The mean over the targets of each group, (groups,): the ends of the answers, the marks, or the opinions."""
    ids, mask, labels = batch[f"{task}_ids"], batch[f"{task}_mask"], batch[f"{task}_labels"]
    if task == "opinion":
        states = mean_pool(model, ids, mask)[:, None]
    else:
        states = model.base_model(input_ids=ids, attention_mask=mask)[0]
    logits = model.distillation.made[task](states).float()
    if task == "question":  # which token, of all that are no padding
        logits = logits.masked_fill(mask[..., None] == 0, torch.finfo(logits.dtype).min)
    else:  # which class, at each token or of the whole
        logits = logits.transpose(1, 2)
    losses = cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    return losses.view(groups, -1).sum(-1) / (labels != IGNORED).view(groups, -1).sum(-1).clamp(min=1)


def weighted_loss(
    outputs: dict[str, torch.Tensor], labels: torch.Tensor, num_items_in_batch: Count = None, *, weights: list[float]
) -> torch.Tensor:
    """The mean over groups of the weighted sum of their losses; `labels`, (groups,): IGNORED for a filler."""
    counted = labels != IGNORED
    total = (outputs["losses"] @ outputs["losses"].new_tensor(weights) * counted).sum()
    return total / (counted.sum() if num_items_in_batch is None else num_items_in_batch)
