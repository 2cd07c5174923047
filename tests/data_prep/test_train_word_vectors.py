"""Word vectors: the counts and the information against loops that follow the definition, and their use."""

import math

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from conftest import SENTENCES
from safetensors.torch import load_file

from data_prep.pack_dataset import PackingArguments
from data_prep.pack_dataset import main as pack
from data_prep.train_word_vectors import VectorArguments, count_neighbours, main, make_vectors
from pretraining.vocabulary.rows import build_model
from shared.blocks import open_blocks
from shared.errors import InputError
from shared.model_config import ModelArguments
from shared.tokenizer import load_tokenizer

sentence_transformers = pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def packed(tmp_path_factory, wordpiece):
    folder = tmp_path_factory.mktemp("vectors")
    wordpiece.save_pretrained(folder / "tokenizer")
    arguments = {"input": [str(SENTENCES)], "max_seq_length": 32, "validation_fraction": 0.1}
    pack(PackingArguments(str(folder / "tokenizer"), str(folder / "packed"), **arguments))
    return str(folder / "packed")


def test_neighbours_are_counted_by_distance_and_not_across_documents():
    blocks = np.random.default_rng(0).integers(0, 12, (40, 20)).astype(np.uint16)
    special = np.arange(12) < 3
    found, counts = count_neighbours(blocks, special, 12, window=3)
    wanted = np.zeros((12, 12))
    for row in blocks:
        for i in range(20):
            for j in range(max(0, i - 3), min(20, i + 4)):
                if i != j and not special[row[min(i, j) : max(i, j) + 1]].any():
                    wanted[row[i], row[j]] += 1 / abs(i - j)
    np.testing.assert_allclose(found.toarray(), wanted, rtol=1e-5)
    assert counts.tolist() == [0, 0, 0, *np.bincount(blocks.ravel(), minlength=12)[3:]]


def test_vectors_reproduce_the_information_and_its_weights():
    """With as many dimensions as words the vectors span the matrix of positive pointwise mutual information."""
    rng = np.random.default_rng(1)
    dense = rng.integers(0, 6, (8, 8)) * rng.integers(1, 9, (8, 8))
    dense = (dense + dense.T).astype(np.float32)
    counts = rng.integers(5, 500, 8)
    args = VectorArguments(
        ["x"], "y", dimensions=8, identity_dimensions=0, context_smoothing=1.0, frequency_weight=0.01
    )
    vectors = make_vectors(sparse.csr_matrix(dense), counts, args)
    for word in range(8):
        share = counts[word] / counts.sum()
        assert np.linalg.norm(vectors[word]) == pytest.approx(0.01 / (0.01 + share), rel=1e-4)
    information = np.zeros((8, 8))
    for a in range(8):
        for b in range(8):
            if dense[a, b] >= 1:
                expected = dense[a].sum() * dense[:, b].sum() / dense.sum()
                information[a, b] = max(0.0, math.log(dense[a, b] / expected))
    # Unit rows of the left singular vectors: what remains of them must be orthogonal to the null space of the matrix.
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, sizes, _ = np.linalg.svd(information)
    lengths = np.linalg.norm(left, axis=1, keepdims=True)
    np.testing.assert_allclose(directions @ directions.T, (left / lengths) @ (left / lengths).T, atol=1e-4)
    assert sizes[-1] > 1e-3, "the matrix has full rank, so that all eight directions are determined"


def test_what_is_written_is_a_teacher_a_start_and_the_same_every_time(packed, tmp_path):
    for name in ("a", "b"):
        main(VectorArguments([packed], str(tmp_path / name), dimensions=16))
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "a"))
    one, same, other = model.encode(
        ["The red fox was afraid.", "The red fox was cold.", "Nobody found my neighbour at the market."],
        normalize_embeddings=True,
    )
    assert one @ same > one @ other + 0.2
    tokenizer = load_tokenizer(open_blocks(packed).path / "tokenizer")
    flags = {"model_type": "modernbert", "config_overrides": "hidden_size=32,intermediate_size=32"}
    started = build_model(ModelArguments(word_vectors=str(tmp_path / "a"), **flags), tokenizer, 32)
    rows = started.get_input_embeddings().weight[:, :16]
    vectors = load_file(tmp_path / "a" / "model.safetensors")["embedding.weight"][:, :16]
    has_vector = vectors.norm(dim=1) > 0
    assert has_vector.any()
    cosines = torch.nn.functional.cosine_similarity(rows, vectors, dim=1)[has_vector]
    assert torch.allclose(cosines, torch.ones_like(cosines), atol=1e-5)


def pack_half(tokenizer, folder, half):
    """Every second sentence, packed."""
    lines = SENTENCES.read_text().split("\n\n")[half::2]
    (folder / f"{half}.txt").write_text("\n\n".join(lines))
    packed = str(folder / f"packed-{half}")
    tokenizer.save_pretrained(folder / f"tokenizer-{half}")
    arguments = {"input": [str(folder / f"{half}.txt")], "max_seq_length": 32, "validation_fraction": 0.1}
    pack(PackingArguments(str(folder / f"tokenizer-{half}"), packed, **arguments))
    return packed


def test_several_folders_count_as_their_blocks_in_one(wordpiece, tmp_path):
    halves = [pack_half(wordpiece, tmp_path, half) for half in (0, 1)]
    report = main(VectorArguments(halves, str(tmp_path / "both"), dimensions=16))
    blocks = np.concatenate([open_blocks(half).splits["train"] for half in halves])
    special = np.isin(np.arange(len(wordpiece)), wordpiece.all_special_ids)
    neighbours, counts = count_neighbours(blocks, special, len(wordpiece), 5)
    assert report["tokens"] == counts.sum() and report["pairs"] == neighbours.nnz
    wanted = make_vectors(neighbours, counts, VectorArguments(halves, "", dimensions=16))
    found = sentence_transformers.SentenceTransformer(str(tmp_path / "both"))[0].embedding.weight.detach().numpy()
    assert report["tokens_without_vector"] >= special.sum() and not found[special, :16].any()
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, rtol=1e-3, atol=1e-6)


def test_folders_of_two_tokenizers_are_refused(wordpiece, bpe, tmp_path):
    halves = [pack_half(one, tmp_path, half) for half, one in enumerate((wordpiece, bpe))]
    with pytest.raises(InputError, match=r"packed-1: packed by another tokenizer than .*packed-0"):
        main(VectorArguments(halves, str(tmp_path / "x")))


def test_wrong_input_is_refused(packed, tmp_path):
    for flags, message in (
        ({"dimensions": 0}, "--dimensions 0"),
        ({"window": 0}, "--window 0"),
        ({"frequency_weight": 2.0}, "--frequency_weight 2.0"),
    ):
        with pytest.raises(InputError, match=message):
            VectorArguments([packed], str(tmp_path / "x"), **flags)
    with pytest.raises(InputError, match="not a folder of packed blocks"):
        main(VectorArguments([str(tmp_path)], str(tmp_path / "x")))
    with pytest.raises(InputError, match="--dimensions 4096: the vocabulary has"):
        main(VectorArguments([packed], str(tmp_path / "x"), dimensions=4096))
    with pytest.raises(InputError, match="too little text"):
        main(VectorArguments([packed], str(tmp_path / "x"), dimensions=150, max_train_samples=1))
    with pytest.raises(InputError, match="not an empty folder"):
        main(VectorArguments([packed], packed))
