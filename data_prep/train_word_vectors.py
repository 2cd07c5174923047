"""Count which tokens stand near each other in packed blocks, and make vectors of these counts.

    python data_prep/train_word_vectors.py --packed_dataset data/packed --output_dir data/word-vectors

A teacher that needs no other model than the text itself: the vector of a text is the mean of those of its tokens, the
rarer the heavier, and texts about the same have a high cosine. Positive pointwise mutual information with smoothed
contexts (Levy et al., 2015), a truncated singular value decomposition, rows of length one, and the weights of smooth
inverse frequency (Arora et al., 2017). Writes a folder that `SentenceTransformer` loads, for --teacher_name_or_path of
pretraining/run_distillation.py, and report.json. The same input and settings give the same vectors.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sparse
from tqdm.auto import tqdm

from shared.blocks import open_blocks
from shared.command_line import check_ranges, run_script
from shared.errors import InputError
from shared.files import atomic_folder, check_new_folder, write_json
from shared.tokenizer import load_tokenizer

PART = 1 << 22  # tokens counted at once, about 1 GB
LEAST_COUNT = 1.0  # weighted by distance; rarer neighbours are chance


@dataclass
class VectorArguments:
    packed_dataset: list[str] = field(metadata={"help": "A folder written by data_prep/pack_dataset.py, or several."})
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    dimensions: int = field(default=128, metadata={"help": "Numbers that say what stands near a token."})
    identity_dimensions: int = field(
        default=128, metadata={"help": "Random numbers beside them that are a token's own, so that equal words count."}
    )
    window: int = field(default=5, metadata={"help": "Tokens to each side that count as neighbours, by 1 / distance."})
    context_smoothing: float = field(default=0.75, metadata={"help": "Exponent of the frequency of contexts."})
    frequency_weight: float = field(
        default=3e-4,
        metadata={"help": "a of the weight a / (a + frequency) of a token; smaller: rare ones count more."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Count the first N blocks of each only."})
    seed: int = field(default=42, metadata={"help": "Of the decomposition's start and of the random numbers."})

    def __post_init__(self) -> None:
        check_ranges(self, dimensions=">= 1, <= 4096", identity_dimensions=">= 0, <= 4096", window=">= 1, <= 100")
        check_ranges(self, context_smoothing="> 0, <= 1", frequency_weight="> 0, < 1")


def count_neighbours(blocks: np.ndarray, special: np.ndarray, words: int, window: int) -> tuple[Any, np.ndarray]:
    """How often two tokens stand within the window, by 1 / distance, a symmetric (words, words) sparse float32 matrix,
    and how often each token occurs, (words,) int64. Special tokens are no neighbours, and nothing reaches past one."""
    counts, total = np.zeros(words, dtype=np.int64), sparse.csr_matrix((words, words), dtype=np.float32)
    size = max(PART // blocks.shape[1], 1)
    for start in tqdm(range(0, len(blocks), size), desc="Counting neighbours", unit=" parts"):
        ids = np.asarray(blocks[start : start + size]).astype(np.int32)
        counts += np.bincount(ids.ravel(), minlength=words)
        document = special[ids].cumsum(axis=1)
        rows, columns, weights = [], [], []
        for distance in range(1, window + 1):
            near = (document[:, distance:] == document[:, :-distance]) & ~special[ids[:, :-distance]]
            rows.append(ids[:, :-distance][near])
            columns.append(ids[:, distance:][near])
            weights.append(np.full(len(rows[-1]), 1 / distance, dtype=np.float32))
        found = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
        total = total + sparse.coo_matrix(found, shape=(words, words)).tocsr()
    counts[special] = 0
    return total + total.T, counts


def make_vectors(neighbours: Any, counts: np.ndarray, args: VectorArguments) -> np.ndarray:
    """The vectors of the tokens, (words, dimensions + identity_dimensions) float32: each half of length one, times the
    token's weight. A token that never occurs has zeros in the first half."""
    from sklearn.utils.extmath import randomized_svd

    pairs = neighbours.tocoo()
    sums = np.asarray(neighbours.sum(axis=1)).ravel()
    contexts = sums**args.context_smoothing
    contexts *= sums.sum() / contexts.sum()
    information = np.log(pairs.data * sums.sum() / (sums[pairs.row] * contexts[pairs.col]))
    kept = (information > 0) & (pairs.data >= LEAST_COUNT)
    if kept.sum() < args.dimensions:
        raise InputError(
            f"--packed_dataset {' '.join(args.packed_dataset)}: too little text for {args.dimensions} dimensions"
        )
    positive = sparse.csr_matrix((information[kept], (pairs.row[kept], pairs.col[kept])), shape=neighbours.shape)
    vectors, _, _ = randomized_svd(positive, args.dimensions, n_iter=4, random_state=args.seed)
    vectors[np.diff(positive.indptr) == 0] = 0  # what it leaves there is rounding, which would be made of length one
    own = np.random.default_rng(args.seed).standard_normal((len(counts), args.identity_dimensions))
    weights = args.frequency_weight / (args.frequency_weight + counts / counts.sum())
    halves = [half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-9) for half in (vectors, own)]
    return (np.concatenate(halves, axis=1) * weights[:, None]).astype(np.float32)


def main(args: VectorArguments) -> dict[str, Any]:
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    except ImportError as error:
        raise InputError("word vectors: run pip install -r requirements-embeddings.txt") from error
    sets = [open_blocks(folder) for folder in args.packed_dataset]
    for packed in sets:
        if packed.manifest["tokenizer"]["sha256"] != sets[0].manifest["tokenizer"]["sha256"]:
            raise InputError(
                f"--packed_dataset {packed.path}: packed by another tokenizer than {sets[0].path}; pack the text "
                f"again with data_prep/pack_dataset.py --tokenizer_name {sets[0].path}/tokenizer"
            )
    tokenizer = load_tokenizer(sets[0].path / "tokenizer")
    if args.dimensions > len(tokenizer):
        raise InputError(f"--dimensions {args.dimensions}: the vocabulary has {len(tokenizer)} entries; name fewer")
    check_new_folder(args.output_dir)
    special = np.zeros(len(tokenizer), dtype=bool)
    special[tokenizer.all_special_ids] = True
    blocks = [packed.splits["train"][: args.max_train_samples] for packed in sets]
    counted = [count_neighbours(rows, special, len(tokenizer), args.window) for rows in blocks]
    neighbours, counts = (sum(parts[1:], parts[0]) for parts in zip(*counted, strict=True))
    vectors = make_vectors(neighbours, counts, args)
    report = {
        "settings": vars(args) | {"output_dir": None},
        "inputs": [{name: packed.manifest[name] for name in ("tokenizer", "splits")} for packed in sets],
        "tokens": int(counts.sum()),
        "pairs": int(neighbours.nnz),
        "tokens_without_vector": int((~vectors[:, : args.dimensions].any(axis=1)).sum()),
    }
    with atomic_folder(args.output_dir) as folder:
        SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)]).save(str(folder))
        write_json(folder / "report.json", report)
    print(
        f"{len(vectors):,} vectors of {vectors.shape[1]} numbers from {report['tokens']:,} tokens in {args.output_dir}"
    )
    return report


if __name__ == "__main__":
    run_script(main, VectorArguments)
