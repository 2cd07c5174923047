import json

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import pack_dataset as packing
from data_prep.pack_dataset import PackingArguments, cached_blocks, main, pack_dataset
from shared.blocks import open_blocks
from shared.documents import Documents, is_held_out
from shared.errors import InputError
from shared.tokenizer import special_tokens


def write_texts(folder, texts):
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Documents([str(file)])


def expected_stream(tokenizer, texts):
    """What the blocks must hold between their edge tokens, made the slow and obvious way."""
    stream = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids:
            stream += (special_tokens(tokenizer).separator if stream else []) + ids
    return stream


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.sampled_from("abc xyz.,é中\n"), max_size=60), min_size=1, max_size=30),
    length=st.integers(3, 40),
    batch=st.sampled_from([1, 30, 10**6]),
    fraction=st.sampled_from([0.0, 0.3]),
)
def test_no_token_is_lost_and_only_the_last_block_is_padded(
    tmp_path_factory, monkeypatch, tokenizer, texts, length, batch, fraction
):
    folder = tmp_path_factory.mktemp("pack")
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", batch)
    documents = write_texts(folder, texts)
    splits = {"train": [t for t in texts if not is_held_out(t, fraction)]}
    if fraction:
        splits["validation"] = [t for t in texts if is_held_out(t, fraction)]
    streams = {name: expected_stream(tokenizer, split) for name, split in splits.items()}
    if not all(streams.values()):
        with pytest.raises(InputError, match="no document"):
            pack_dataset(documents, tokenizer, folder / "out", length, fraction, quiet=True)
        assert not (folder / "out").exists() and len(list(folder.iterdir())) == 1
        return

    manifest = pack_dataset(documents, tokenizer, folder / "out", length, fraction, quiet=True)
    blocks = open_blocks(folder / "out").splits
    special = special_tokens(tokenizer)
    for name, stream in streams.items():
        rows, facts = blocks[name], manifest["splits"][name]
        assert rows.dtype == np.uint16 and rows.shape == (facts["blocks"], length)
        flat = rows[:, len(special.prefix) :].copy()
        assert (rows[:, : len(special.prefix)] == special.prefix).all()
        full = flat[:-1]
        assert (full[:, -len(special.suffix) :] == special.suffix).all()
        last = flat[-1][: flat.shape[1] - facts["padding"]].tolist()
        assert (flat[-1][len(last) :] == tokenizer.pad_token_id).all()
        assert last[-len(special.suffix) :] == special.suffix
        content = full[:, : -len(special.suffix)].ravel().tolist() + last[: -len(special.suffix)]
        assert content == stream
        separators = (facts["documents"] - 1) * len(special.separator)
        assert facts["tokens"] == len(stream) - separators
        assert facts["bytes"] >= facts["tokens"] / 4


def test_bytes_depend_on_input_and_settings_only(tmp_path, texts, wordpiece, monkeypatch):
    documents = write_texts(tmp_path, texts)
    pack_dataset(documents, wordpiece, tmp_path / "a", 32, 0.1, quiet=True)
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 100)
    pack_dataset(documents, wordpiece, tmp_path / "b", 32, 0.1, quiet=True)
    for file in ("train.npy", "validation.npy", "manifest.json", "tokenizer/tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_adding_documents_moves_none_between_splits(tmp_path, texts, wordpiece):
    for name, some in (("few", texts[:120]), ("all", texts)):
        (tmp_path / name).mkdir()
        pack_dataset(write_texts(tmp_path / name, some), wordpiece, tmp_path / name / "out", 32, 0.2, quiet=True)
    few, everything = (open_blocks(tmp_path / name / "out").splits["validation"] for name in ("few", "all"))
    assert (few[:-1] == everything[: len(few) - 1]).all()


def test_special_tokens_spelt_in_the_text_stay_text(tmp_path, wordpiece):
    documents = write_texts(tmp_path, ["the [MASK] and [SEP] and [PAD] too"])
    pack_dataset(documents, wordpiece, tmp_path / "out", 64, 0.0, quiet=True)
    ids = open_blocks(tmp_path / "out").splits["train"][0].tolist()
    assert wordpiece.mask_token_id not in ids and ids.count(wordpiece.sep_token_id) == 1
    assert wordpiece("[MASK]")["input_ids"][1] == wordpiece.mask_token_id  # and the tokenizer itself is untouched


def test_text_without_tokens_is_counted(tmp_path, wordpiece):
    manifest = pack_dataset(
        write_texts(tmp_path, ["the baker", "", "\u200b\x01", "   "]), wordpiece, tmp_path / "out", 16, 0.0, quiet=True
    )
    assert manifest["skipped"] == {"empty text": 1, "no token in text": 2}


def test_large_vocabularies_take_four_bytes(tmp_path, wordpiece, monkeypatch):
    monkeypatch.setattr(type(wordpiece), "__len__", lambda self: 2**16 + 1)
    pack_dataset(write_texts(tmp_path, ["the baker"]), wordpiece, tmp_path / "out", 16, 0.0, quiet=True)
    assert open_blocks(tmp_path / "out").splits["train"].dtype == np.uint32


def test_a_failure_leaves_nothing_behind(tmp_path, texts, wordpiece):
    class Failing(Documents):
        def progress(self, description, disable=False):
            yield from texts
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        pack_dataset(Failing([str(ROOT / "tests" / "data")]), wordpiece, tmp_path / "o", 16, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_damaged_folders_are_named(tmp_path, texts, wordpiece):
    pack_dataset(write_texts(tmp_path, texts), wordpiece, tmp_path / "out", 32, 0.0, quiet=True)
    with pytest.raises(InputError, match="not an empty folder"):
        main(PackingArguments(str(tmp_path / "out" / "tokenizer"), str(tmp_path / "out"), [str(tmp_path)]))
    data = (tmp_path / "out" / "train.npy").read_bytes()
    (tmp_path / "out" / "train.npy").write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"train\.npy"):
        open_blocks(tmp_path / "out")
    (tmp_path / "out" / "train.npy").write_bytes(data)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["splits"]["train"]["blocks"] += 1
    del manifest["hash"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="the manifest says"):
        open_blocks(tmp_path / "out")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        open_blocks(tmp_path)


def test_cache_packs_again_only_when_something_changed(tmp_path, texts, wordpiece):
    documents = write_texts(tmp_path, texts)
    first = cached_blocks(documents, wordpiece, 32, 0.1, quiet=True)
    stamp = (first / "train.npy").stat().st_mtime_ns
    assert cached_blocks(documents, wordpiece, 32, 0.1, quiet=True) == first
    assert (first / "train.npy").stat().st_mtime_ns == stamp
    assert cached_blocks(documents, wordpiece, 48, 0.1, quiet=True) != first
    assert cached_blocks(write_texts(tmp_path, texts[1:]), wordpiece, 32, 0.1, quiet=True) != first


@pytest.mark.parametrize("arguments", [(2, 0.1), (32, 1.0), (32, -0.1)])
def test_impossible_settings_are_refused(tmp_path, texts, wordpiece, arguments):
    with pytest.raises(InputError, match=r"--max_seq_length|--validation_fraction"):
        pack_dataset(write_texts(tmp_path, texts), wordpiece, tmp_path / "out", *arguments, quiet=True)


def test_a_flipped_bit_in_packed_blocks_is_found(tmp_path, wordpiece, texts):
    """Anywhere in the files that are read: one line that names the file; what is no error is what was packed."""
    folder = tmp_path / "packed"
    pack_dataset(write_texts(tmp_path, texts), wordpiece, folder, 32, 0.1, quiet=True)
    whole = open_blocks(folder)
    splits = {name: rows.copy() for name, rows in whole.splits.items()}
    rng, found = np.random.default_rng(0), 0
    for name in ("train.npy", "validation.npy", "manifest.json"):
        path = folder / name
        content = path.read_bytes()
        ends = range(128 if name.endswith("npy") else 0)  # all of the header
        for place in [*ends, *rng.integers(0, len(content), 40)]:
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                blocks = open_blocks(folder)
            except InputError as error:
                assert str(folder) in str(error) and "pack" in str(error).partition("; ")[2]
                found += 1
            else:
                assert blocks.manifest.keys() | {"hash"} >= whole.manifest.keys() - {"hash"}
                assert all((blocks.splits[split] == rows).all() for split, rows in splits.items())
        path.write_bytes(content)
    assert found > 200


def test_blocks_without_a_hash_in_their_manifest_can_be_read(tmp_path, wordpiece, texts):
    """Those that were packed before there was one."""
    pack_dataset(write_texts(tmp_path, texts), wordpiece, tmp_path / "packed", 32, 0.1, quiet=True)
    path = tmp_path / "packed" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["hash"]
    path.write_text(json.dumps(manifest))
    assert open_blocks(tmp_path / "packed").manifest == manifest
    del manifest["splits"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: altered"):
        open_blocks(tmp_path / "packed")
