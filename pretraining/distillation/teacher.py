"""Encodings of a teacher: any sentence or masked-language encoder, computed once and kept."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from shared.errors import InputError, one_line
from shared.files import CACHE, atomic_file, content_hash

PART = 4096  # texts in a file of the cache


def load_teacher(name: str) -> Any:
    """The teacher as a SentenceTransformer; a plain encoder gets the mean of its last layer over all tokens.

    Raises InputError when sentence-transformers is not installed, there is no model, or it lacks a tokenizer.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError("distillation: run pip install -r requirements-embeddings.txt") from error
    try:
        teacher = SentenceTransformer(name)
        vectors = teacher.encode(["One sentence."], show_progress_bar=False)
    except Exception as error:  # the library lets whatever its parts raise through
        raise InputError(
            f"--teacher_name_or_path {name}: does not load as a sentence encoder ({one_line(error, 300)}); name a "
            "folder or Hub id that holds a model and its tokenizer"
        ) from error
    if not np.isfinite(vectors).all():
        raise InputError(f"--teacher_name_or_path {name}: its vectors hold NaN; its weights are damaged")
    teacher.width = vectors.shape[1]
    return teacher


def check_reads(teacher: Any, name: str, texts: list[str]) -> None:
    """Raise InputError when the teacher's tokenizer does not know the script of the texts."""
    tokenizer = teacher.tokenizer
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or not callable(tokenizer):
        return
    ids = np.concatenate([np.asarray(row) for row in tokenizer(texts, add_special_tokens=False)["input_ids"]])
    share = float((ids == unknown).mean()) if len(ids) else 1.0
    if share > 0.1:
        raise InputError(
            f"--teacher_name_or_path {name}: {share:.0%} of the tokens of this text are unknown to it; "
            "name a teacher for the text's language"
        )


def cached_encodings(teacher: Any, texts: list[str], bf16: bool = False, quiet: bool = False) -> np.ndarray:
    """Unit vectors of the texts, (texts, width) float16, from the cache where they have been computed before.

    With `bf16` the matrix products are in bf16, which many CPUs do in half the time: for all-MiniLM-L6-v2 the vectors
    have a cosine of .99999 with those in fp32.

    A part of 4,096 texts is kept as soon as it is done, so an interrupted computation goes on from there.
    """
    digest = hashlib.sha256()
    for key, weight in teacher.state_dict().items():
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(weight.float().numpy()).data)
    digest.update(b"bf16" * bf16)
    teacher_hash = digest.hexdigest()
    parts = []
    with tqdm(total=len(texts), desc="Encoding with the teacher", unit=" texts", disable=quiet) as bar:
        for start in range(0, len(texts), PART):
            part = texts[start : start + PART]
            file = CACHE / "teacher" / f"{content_hash(teacher_hash, part)}.npy"
            if not file.is_file():
                with torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
                    found = teacher.encode(part, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
                if not np.isfinite(found).all():
                    raise InputError(f"texts {start} to {start + len(part)}: the teacher gives NaN or Inf")
                with atomic_file(file) as temporary, open(temporary, "wb") as out:
                    np.save(out, found.astype(np.float16))
            parts.append(_read(file, (len(part), teacher.width)))
            bar.update(len(part))
    return np.concatenate(parts)


def _read(file: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        found = np.load(file, allow_pickle=False)
        if found.shape == shape and found.dtype == np.float16:
            return found
        reason = f"{found.dtype} of {found.shape} in the place of float16 of {shape}"
    except (OSError, ValueError) as error:
        reason = str(error)
    shutil.move(file, f"{file}.damaged")
    raise InputError(f"{file}: a damaged part of the teacher's encodings ({reason}), set aside; start again")
