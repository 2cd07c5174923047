"""Attention that stays within one document, for blocks that hold several."""

from typing import Any, cast

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from shared.errors import InputError

# What tests/pretraining/test_attention.py shows to take a ready mask and to hand unknown arguments to its attention.
ARCHITECTURES = ("bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta")

FLEX = "flex_attention"  # of PyTorch: keeps documents apart on a GPU without flash-attn, and leaves out what is masked


def keep_documents_apart(model: torch.nn.Module, most_documents: int | None = None) -> None:
    """Make the tokens of a `...ForMaskedLM` model attend to their own document alone, when the batch numbers these.

    The forward pass then takes `document_ids`, (batch, length) int64, which never fall along a row: tokens of a row
    with the same number are one document. They replace any `attention_mask`, so padding needs a number of its own.
    Without them the model does what it always did, and its state dict is unchanged.

    Positions go on counting through the block: so all learned ones are trained, and rotary ones only matter by their
    difference, which is the same wherever a document starts.

    `most_documents` is the most that a block of the data holds, by default one a token. Only flash attention asks for
    it: its backward pass sets aside 128 rows for each of batch * most_documents (flash_api.cpp of flash-attention 2),
    and CUDA has no more than 65,535 blocks for them. A batch that holds more documents fails on the device.

    Raises InputError for an architecture or an attention implementation that has not been shown to work, and for flex
    attention with dropout in attention, which it has none of.
    """
    config = cast(Any, model.config)
    if config.model_type not in ARCHITECTURES:
        raise InputError(f"documents cannot be kept apart in {config.model_type}, only in {', '.join(ARCHITECTURES)}")
    if _check_implementation(config) == FLEX:
        for name in ("attention_probs_dropout_prob", "attention_dropout"):
            if getattr(config, name, 0):
                raise InputError(
                    f"--attn_implementation {FLEX}: has no dropout, and {name} is {getattr(config, name)}; set "
                    f"--config_overrides {name}=0, or use sdpa"
                )

    def separate(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        document_ids = kwargs.pop("document_ids", None)
        if document_ids is not None:
            if _check_implementation(module.config) == "flash":
                kwargs |= _flash_arguments(document_ids, most_documents)
            elif module.config._attn_implementation == FLEX:
                kwargs["attention_mask"] = _block_masks(document_ids, module)
            else:
                kwargs["attention_mask"] = _mask(document_ids, module)
        return args, kwargs

    model.register_forward_pre_hook(separate, with_kwargs=True)


def _check_implementation(config: Any) -> str:
    """The name, or "flash" for all kinds of flash attention; asked for in every pass, as a model's can be changed."""
    from transformers.utils.generic import is_flash_attention_requested

    if is_flash_attention_requested(config):
        return "flash"
    if config._attn_implementation not in ("eager", "sdpa", FLEX):
        raise InputError(
            f"--attn_implementation {config._attn_implementation}: documents cannot be kept apart with it; "
            f"use sdpa, eager, {FLEX}, flash_attention_2 or flash_attention_3"
        )
    return config._attn_implementation


def _mask(document_ids: torch.Tensor, model: Any) -> torch.Tensor | dict[str, torch.Tensor]:
    """(batch, 1, length, length): bool, True where a query (row) sees a key, or for eager attention what to add to a
    score. ModernBERT takes one mask for its global layers and one for its local ones, as it builds them itself."""
    masks = {"full_attention": (document_ids[:, :, None] == document_ids[:, None, :])[:, None]}
    if model.config.model_type == "modernbert":
        columns = torch.arange(document_ids.shape[1], device=document_ids.device)
        is_near = (columns[:, None] - columns).abs() <= model.config.sliding_window
        masks["sliding_attention"] = masks["full_attention"] & is_near
    if model.config._attn_implementation == "eager":
        zeros, lowest = torch.zeros((), dtype=model.dtype, device=document_ids.device), torch.finfo(model.dtype).min
        masks = {name: zeros.masked_fill(~mask, lowest) for name, mask in masks.items()}
    return masks if len(masks) > 1 else masks["full_attention"]


def _block_masks(document_ids: torch.Tensor, model: Any) -> BlockMask | dict[str, BlockMask]:
    """What `_mask` says, for flex attention, which leaves out the blocks of scores that no token sees."""
    batch, length = document_ids.shape

    def is_same(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return document_ids[row, query] == document_ids[row, key]

    def is_near(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return is_same(row, head, query, key) & ((query - key).abs() <= window)

    full = create_block_mask(is_same, batch, None, length, length, device=document_ids.device)
    if model.config.model_type != "modernbert":
        return full
    window = model.config.sliding_window
    near = create_block_mask(is_near, batch, None, length, length, device=document_ids.device)
    return {"full_attention": full, "sliding_attention": near}


def _flash_arguments(document_ids: torch.Tensor, most_documents: int | None) -> dict[str, Any]:
    """Where each document begins in the flattened batch, and the batch's end: (batch * most_documents + 1,) int32.

    Fewer documents leave empty ones at the end, so that shapes never change and nothing waits for the device.
    """
    batch, length = document_ids.shape
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    end = torch.full((1,), batch * length, device=document_ids.device)
    columns = torch.arange(batch * length, device=document_ids.device)
    bounds = torch.cat([torch.where(begins.flatten(), columns, end).sort().values, end])
    bounds = bounds[: batch * min(most_documents or length, length) + 1].to(torch.int32)
    torch._assert_async(bounds[-1] == end[0], "a batch holds more documents than `most_documents`")
    lengths = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": length, "max_length_k": length}
    return {"attention_mask": None, **lengths}


def count_documents(model_args: Any, data_args: Any, training_args: Any, *datasets: Any) -> int | None:
    """The most documents that a block holds, which flash attention alone has to know, to keep them apart. Raises
    InputError for an --attn_implementation that cannot train this way."""
    if model_args.attn_implementation == FLEX:
        if not data_args.isolate_documents:
            raise InputError(f"--attn_implementation {FLEX}: is for --isolate_documents; use sdpa without that flag")
        if training_args.device.type == "cpu":
            raise InputError(f"--attn_implementation {FLEX}: its backward pass needs a GPU; use sdpa on a CPU")
        return None
    if not (model_args.attn_implementation or "").startswith("flash"):
        return None
    if not (training_args.bf16 or training_args.fp16):
        raise InputError(f"--attn_implementation {model_args.attn_implementation}: needs --bf16 or --fp16")
    return max(dataset.most_documents() for dataset in datasets) if data_args.isolate_documents else None
