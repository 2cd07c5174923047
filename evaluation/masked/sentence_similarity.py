"""Zero-shot similarity of sentences: the cosine of mean-pooled encodings against human scores, layer by layer."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from evaluation.masked.scores import Checkpoint, batches_of_one_length
from evaluation.tasks.bootstrap import SCORES, interval, parts_of, resample_sums

WORD = re.compile(r"\w+")


def random_twin(model: Any, seed: int) -> Any:
    """The same architecture with random weights, on the same device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        twin = AutoModelForMaskedLM.from_config(model.config, dtype=torch.float32)
    return twin.eval().to(model.device)


@torch.inference_mode()
def encode_layers(model: Any, checkpoint: Checkpoint, texts: Sequence[str]) -> np.ndarray:
    """The mean over all tokens of each text, [CLS] and [SEP] included as in sentence-transformers: of the output of
    the embeddings and of each layer, (1 + layers, texts, width) float32. Texts are cut to what the model takes."""
    most = checkpoint.most_tokens
    rows = [np.array(encoding.ids[:most], dtype=np.int64) for encoding in checkpoint.encoder.encode_batch(list(texts))]
    found: np.ndarray = np.empty(0)
    for places, ids in batches_of_one_length(rows, model.device):
        states = model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
        means = torch.stack([state.float().mean(1) for state in states]).cpu().numpy()
        if not found.size:
            found = np.empty((len(means), len(rows), means.shape[2]), dtype=np.float32)
        found[:, places] = means
    return found


@torch.inference_mode()
def encode_words(model: Any, checkpoint: Checkpoint, texts: Sequence[str]) -> np.ndarray:
    """The mean of the rows of the embedding matrix of each text's own tokens: (texts, width) float32."""
    matrix = model.get_input_embeddings().weight.detach().float().cpu().numpy()
    encodings = checkpoint.encoder.encode_batch(list(texts), add_special_tokens=False)
    return np.stack([matrix[encoding.ids].sum(0) / max(1, len(encoding.ids)) for encoding in encodings])


def cosines(encodings: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The cosine of each pair, (pairs,), of `encodings` (texts, width) and `pairs` (pairs, 2) numbers of texts.

    Rounded to six digits, so that equal pairs of texts are equal whatever batches they were in.
    """
    unit = encodings / np.maximum(np.linalg.norm(encodings, axis=1, keepdims=True), 1e-12)
    return np.einsum("pw,pw->p", unit[pairs[:, 0]], unit[pairs[:, 1]]).round(6)


def overlaps(texts: Sequence[str], pairs: np.ndarray) -> dict[str, np.ndarray]:
    """What counting words says of each pair, (pairs,) each: the share of words that both have (Jaccard), and the
    cosine of the sets of words with each word weighted by its inverse document frequency in `texts`."""
    words = [set(WORD.findall(text.lower())) for text in texts]
    counts = Counter(word for found in words for word in found)
    squares = {word: math.log(len(texts) / count) ** 2 for word, count in counts.items()}
    lengths = [math.sqrt(sum(squares[word] for word in found)) for found in words]
    jaccard, weighted = [], []
    for a, b in pairs.tolist():
        jaccard.append(len(words[a] & words[b]) / max(1, len(words[a] | words[b])))
        both = sum(squares[word] for word in words[a] & words[b])
        weighted.append(both / max(lengths[a] * lengths[b], 1e-12))
    return {"jaccard": np.array(jaccard).round(6), "idf": np.array(weighted).round(6)}


def rate_layers(
    model: Any, checkpoint: Checkpoint, texts: Sequence[str], pairs: np.ndarray, labels: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """The correlation of each layer, from the output of the embeddings (layer 0) on."""
    encodings = encode_layers(model, checkpoint, texts)
    rated = (rate(cosines(layer, pairs), labels, seed) for layer in encodings)
    return [{"layer": number} | found for number, found in enumerate(rated)]


def rate(similarities: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Spearman's correlation with the labels, and its 95% interval over pairs (of the ranks in all pairs)."""
    from scipy.stats import rankdata  # here, so that --help need not wait for it

    ranks = ({"gold": a, "prediction": b} for a, b in zip(rankdata(labels), rankdata(similarities), strict=True))
    parts, score = parts_of([*ranks], "pearson")
    values = SCORES[score](resample_sums(parts, seed), len(parts))
    return {"spearman": float(SCORES[score](parts.sum(0), len(parts))), "spearman_interval": interval(values)}
