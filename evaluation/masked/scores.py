"""Scores that a masked-language model gives to text: what the run_* scripts here share.

Two kinds of scores: the loss at fixed masks (`score_blocks`), and the pseudo-log-likelihood, in which every token is
masked once (`score_sentences`). Losses and log-probabilities are in nats.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForMaskedLM

from data_prep.pack_dataset import encode_documents
from pretraining.masking import EVALUATION, Masker, make_masker
from shared.errors import InputError, one_line
from shared.files import write_report
from shared.loss import IGNORED, project_masked_only
from shared.model_config import check_finite, check_fits, plain_outputs
from shared.tokenizer import load_tokenizer, raw_text_encoder, special_tokens
from shared.training.environment import hardware, versions

HEADS = ("ForMaskedLM", "ForPreTraining", "LMHeadModel")  # architectures that were saved with a head for masked words
TOKENS_AT_ONCE = {"cpu": 16_384, "cuda": 262_144}  # in one forward pass of `score_sentences`


@dataclass
class Checkpoint:
    """A checkpoint that is known to be fit for masked scores; its weights are not loaded yet."""

    name: str  # a folder, or an id of the Hub
    label: str  # for tables and pictures: of NAME=FOLDER, or the last part where one alone has it
    config: Any
    tokenizer: Any
    most_tokens: int  # that the model takes at once
    encoder: Any = field(init=False, repr=False)
    masker: Masker = field(init=False, repr=False)  # the masks of an evaluation

    def __post_init__(self) -> None:
        self.encoder = raw_text_encoder(self.tokenizer)
        self.masker = make_masker(self.tokenizer, EVALUATION, seed=0)


class Sentence(NamedTuple):
    """A text as ids with its special tokens; arrays are (tokens,)."""

    ids: np.ndarray  # int64
    words: np.ndarray  # int64: the number of the word that a token belongs to, -1 for special tokens
    scored: np.ndarray  # bool: tokens that are masked in turn


def open_checkpoints(names: Sequence[str], max_seq_length: int = 1) -> list[Checkpoint]:
    """Check all checkpoints before the weights of any are read.

    Raises InputError that names the one which does not exist, has no mask token, was made for another task, or takes
    fewer than `max_seq_length` tokens.
    """
    if not names or len(set(names)) < len(names):
        raise InputError("--models: name one checkpoint or more, each once")
    given = [entry.partition("=")[::2] if "=" in entry.partition("/")[0] else ("", entry) for entry in names]
    lasts = [chosen or Path(name).name for chosen, name in given]
    found = []
    for (chosen, name), last in zip(given, lasts, strict=True):
        if chosen and lasts.count(last) > 1:
            raise InputError(f"--models {chosen}={name}: another model has this name; give it one of its own")
        try:
            tokenizer = load_tokenizer(name)
            special_tokens(tokenizer)
            config = AutoConfig.from_pretrained(name)
            check_fits(config, tokenizer, max_seq_length)
        except InputError as error:
            raise InputError(
                f"--models {name}: {str(error).replace('--tokenizer_name ' + name + ': ', '')}"
            ) from error
        except (OSError, ValueError) as error:
            raise InputError(f"--models {name}: {one_line(error)}") from error
        saved = (config.architectures or [HEADS[0]])[0]
        if type(config) not in AutoModelForMaskedLM._model_mapping or not saved.endswith(HEADS):
            raise InputError(f"--models {name}: {saved} cannot fill in masks; name the pretrained checkpoint")
        positions = getattr(config, "max_position_embeddings", None) or 512
        if config.model_type in ("roberta", "camembert", "xlm-roberta"):
            positions -= config.pad_token_id + 1
        found.append(Checkpoint(name, last if lasts.count(last) == 1 else name, config, tokenizer, positions))
    return found


def load_model(checkpoint: Checkpoint) -> Any:
    """The model in fp32 and evaluation mode, on the GPU if there is one; its head works on masked positions alone.

    Raises InputError for a checkpoint whose weights do not load, are no numbers, or lack the head for masked-language
    modelling.
    """
    try:
        model, info = AutoModelForMaskedLM.from_pretrained(
            checkpoint.name, dtype="float32", use_safetensors=True, output_loading_info=True
        )
    except (ImportError, OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"--models {checkpoint.name}: {one_line(error)}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise InputError(f"--models {checkpoint.name}: has no weights for {missing}; name the pretrained checkpoint")
    check_finite(model, f"--models {checkpoint.name}")
    plain_outputs(model.config)
    project_masked_only(model)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def score_blocks(
    model: Any, checkpoint: Checkpoint, blocks: np.ndarray, keys: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """The summed loss, the hits and the number of targets of each block, (blocks, 3) float64.

    `blocks`: (blocks, length) token ids; `keys`: (blocks,) integers that decide the masks: a packed block's row, as in
    pretraining/masking.py. Padding at the end of all rows of a batch is cut off, so blocks of like length belong
    together.
    """
    sums = np.zeros((len(blocks), 3))
    for start in tqdm(range(0, len(blocks), batch_size), desc="Masked loss", unit=" batches", leave=False):
        part = slice(start, start + batch_size)
        batch, labels = masked_batch(checkpoint, blocks[part], keys[part], model.device)
        losses, hits = losses_and_hits(model(**batch).logits, labels)
        sums[part] = torch.stack([losses, hits, (labels != IGNORED).sum(1)], dim=1).cpu().numpy()
    return sums


def masked_batch(
    checkpoint: Checkpoint, blocks: np.ndarray, keys: np.ndarray, device: Any
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The inputs of a model whose head works on the masked positions, and the labels, (batch, targets) int64."""
    ids = np.asarray(blocks)
    is_text = ids != checkpoint.tokenizer.pad_token_id
    width = int(np.flatnonzero(is_text.any(axis=0))[-1]) + 1
    masked, positions, labels = checkpoint.masker(ids[:, :width], keys, 0)
    batch = {"input_ids": torch.from_numpy(masked), "masked_positions": torch.from_numpy(positions)}
    if not is_text[:, :width].all():
        batch["attention_mask"] = torch.from_numpy(is_text[:, :width].astype(np.int64))
    return {name: values.to(device) for name, values in batch.items()}, torch.from_numpy(labels).to(device)


def losses_and_hits(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss and the hits of each row, (batch,) float64 each.

    `logits`: (batch, targets, vocabulary); `labels`: (batch, targets), IGNORED where there is no target. A target
    whose logit is the highest is a hit: comparing takes a fifth of the time of `argmax`.
    """
    known = labels != IGNORED
    losses = -logits.float().log_softmax(2).gather(2, labels.clamp(min=0)[..., None])[..., 0].double()
    return (losses * known).sum(1), find_hits(logits, labels).sum(1).double()


def find_hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether each target has the highest logit, (batch, targets) bool; False where there is no target. Shapes as in
    `losses_and_hits`."""
    logits = logits.float()
    return (logits.gather(2, labels.clamp(min=0)[..., None])[..., 0] >= logits.amax(2)) & (labels != IGNORED)


def cut_documents(
    checkpoint: Checkpoint, texts: Sequence[str], keys: np.ndarray, max_seq_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut each document into blocks of its own, so that it can be scored apart from its neighbours.

    `keys`: (documents,) int64. Returns the blocks, (blocks, max_seq_length), the longest ones first and padded; of
    each block its key and the number of its document; and the tokens of each document.
    """
    special, pad = special_tokens(checkpoint.tokenizer), checkpoint.tokenizer.pad_token_id
    payload = max_seq_length - len(special.prefix) - len(special.suffix)
    rows, owners, numbers = [], [], []
    tokens = np.zeros(len(texts), dtype=np.int64)
    for document, (_, ids) in enumerate(encode_documents(checkpoint.tokenizer, iter(texts), np.dtype(np.int64))):
        tokens[document] = len(ids)
        for number, start in enumerate(range(0, len(ids), payload)):
            rows.append(np.concatenate([special.prefix, ids[start : start + payload], special.suffix]))
            owners.append(document)
            numbers.append(number)
    order = np.array(sorted(range(len(rows)), key=lambda row: -len(rows[row])), dtype=np.int64)
    blocks = np.full((len(rows), max_seq_length), pad, dtype=np.int64)
    for block, row in zip(blocks, order, strict=True):
        block[: len(rows[row])] = rows[row]
    owner, number = np.array(owners, dtype=np.int64)[order], np.array(numbers, dtype=np.int64)[order]
    return blocks, keys[owner] + number, owner, tokens


def encode_sentences(
    checkpoint: Checkpoint, texts: Sequence[str], spans: Sequence[tuple[int, int]] | None = None
) -> list[Sentence | None]:
    """The texts as sentences; None for one that is too long for the model or has no token to score.

    `spans`: the characters of each text whose tokens are to be scored, first and behind the last; by default all.
    """
    sentences: list[Sentence | None] = []
    for number, encoding in enumerate(checkpoint.encoder.encode_batch(list(texts))):
        words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64)
        words[np.array(encoding.special_tokens_mask, dtype=bool)] = -1
        scored = words >= 0
        if spans is not None:
            starts, ends = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
            scored &= (starts < spans[number][1]) & (ends > spans[number][0])
        sentence = Sentence(np.array(encoding.ids, dtype=np.int64), words, scored)
        sentences.append(sentence if len(words) <= checkpoint.most_tokens and scored.any() else None)
    return sentences


@torch.inference_mode()
def score_sentences(
    model: Any, sentences: Sequence[Sentence], mask_token_id: int, within_word: bool = True
) -> list[np.ndarray]:
    """The log-probability of every scored token with that token masked, a float64 array for each sentence.

    Their sum is the pseudo-log-likelihood of the sentence (Salazar et al., 2020). With `within_word`, the tokens that
    follow in the same word are masked too, or the rest of a rare word would give its beginning away (Kauf and Ivanova,
    2023, PLL-word-l2r). Equal sentences are scored once and get equal scores; all masked copies of many sentences of
    one length go through the model together, without padding.
    """
    keys = [tuple(part.tobytes() for part in sentence) for sentence in sentences]
    unique = dict(zip(keys, sentences, strict=True))
    found: dict[tuple[bytes, ...], np.ndarray] = {}
    with tqdm(total=len(unique), desc="Hiding every token", unit=" sentences", leave=False) as bar:
        for length, alike in _by_length({key: len(sentence.ids) for key, sentence in unique.items()}):
            at_once = max(1, TOKENS_AT_ONCE[model.device.type] // length)
            for part in _parts(alike, max(1, at_once // length)):
                ids, words, scored = map(np.stack, zip(*(unique[key] for key in part), strict=True))
                scores = _hidden_scores(model, ids, words, scored, mask_token_id, within_word, at_once)
                found |= zip(part, np.split(scores, scored.sum(1).cumsum()[:-1]), strict=True)
                bar.update(len(part))
    return [found[key] for key in keys]


def _hidden_scores(
    model: Any, ids: np.ndarray, words: np.ndarray, scored: np.ndarray, mask: int, within_word: bool, at_once: int
) -> np.ndarray:
    """Log-probabilities of the scored tokens of sentences of one length, row by row: (tokens,) float64."""
    rows, columns = np.nonzero(scored)
    places, at = np.arange(ids.shape[1])[None, :], columns[:, None]
    hidden = places == at
    if within_word:
        hidden |= (words[rows] == words[rows, columns][:, None]) & (places > at)
    copies = torch.from_numpy(np.where(hidden, mask, ids[rows]))
    positions, targets = torch.from_numpy(at), torch.from_numpy(ids[rows, columns])[:, None]
    scores = []
    for start in range(0, len(copies), at_once):
        part = slice(start, start + at_once)
        batch = {"input_ids": copies[part].to(model.device), "masked_positions": positions[part].to(model.device)}
        losses, _ = losses_and_hits(model(**batch).logits, targets[part].to(model.device))
        scores.append(-losses.cpu().numpy())
    return np.concatenate(scores)


def batches_of_one_length(
    rows: Sequence[np.ndarray], device: Any, most: int | None = None
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Rows of ids in batches without padding: the places of the rows of a batch, and their ids, (batch, tokens) int64.

    The longest rows come first. A batch has as many tokens as TOKENS_AT_ONCE allows, and at most `most` rows.
    """
    for length, places in _by_length(dict(enumerate(map(len, rows)))):
        at_once = max(1, TOKENS_AT_ONCE[torch.device(device).type] // length)
        for part in _parts(places, min(at_once, most or at_once)):
            yield [*part], torch.from_numpy(np.stack([rows[place] for place in part])).to(device)


def publish(output_dir: str, name: str, report: dict[str, Any], show: Callable[[Any], str]) -> dict[str, Any]:
    """Add to a report where it was made, write it, and print the table that `show` makes of it."""
    report |= {"versions": versions(), "hardware": hardware()}
    table = show(report)
    write_report(output_dir, name, report, table)
    print(table)
    return report


def _by_length(lengths: dict[Any, int]) -> list[tuple[int, list[Any]]]:
    """What has the same length together, the longest first."""
    found: dict[int, list[Any]] = {}
    for item, length in lengths.items():
        found.setdefault(length, []).append(item)
    return sorted(found.items(), reverse=True)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
