"""Tiny masked-language models for the tests of evaluation: with random weights, or knowing word counts alone."""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from shared.tokenizer import raw_text_encoder


def save_model(folder, tokenizer, model_type="bert", counts=None, positions=64):
    """Write a checkpoint of 2 layers x 16. With `counts`, (vocabulary,), its logits are their logarithms, always."""
    fields = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": positions, "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id, "initializer_range": 0.5,
        "bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(model_type, **fields))
    if counts is not None:
        with torch.no_grad():
            model.cls.predictions.transform.LayerNorm.weight.zero_()
            model.cls.predictions.transform.LayerNorm.bias.zero_()
            model.cls.predictions.decoder.bias.copy_(torch.from_numpy(np.log(counts)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def count_tokens(tokenizer, texts):
    """How often each token stands in the texts, and half a time more, (vocabulary,) float64."""
    encodings = raw_text_encoder(tokenizer).encode_batch(list(texts), add_special_tokens=False)
    ids = np.concatenate([np.array(encoding.ids, dtype=np.int64) for encoding in encodings])
    return np.bincount(ids, minlength=len(tokenizer)) + 0.5
