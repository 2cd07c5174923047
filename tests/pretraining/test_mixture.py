"""Several packed sets in one order, by weights."""

import json
import math
import pickle
import shutil

import numpy as np
import pytest
import yaml
from packed_sets import losses, pack_parts, run

from pretraining.masking import MaskedBlocks, MaskingArguments, make_masker
from pretraining.text.mixture import Mixture, divide
from shared.errors import InputError
from shared.training.data_order import GlobalBatches, Samples

SIZES, COUNTS = (50, 7, 40), (50, 30, 20)  # the second is read more than four times an epoch, the third half


def marked(sizes=SIZES):
    """Blocks that say which one of which set they are."""
    return [np.array([[part, n, 9] for n in range(size)], dtype=np.uint16) for part, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def mixed():
    return Mixture(marked(), COUNTS, seed=3)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, wordpiece):
    return pack_parts(tmp_path_factory.mktemp("packed"), wordpiece)


def test_the_shares_are_right_in_every_stretch(mixed):
    parts = mixed.read(np.arange(100), 0)[0][:, 0]
    assert np.bincount(parts).tolist() == list(COUNTS)
    for rows in range(1, 101):
        assert np.abs(np.bincount(parts[:rows], minlength=3) - rows * np.array([0.5, 0.3, 0.2])).max() <= 1
        assert mixed.rows_read(rows).tolist() == np.bincount(parts[:rows], minlength=3).tolist()


def test_all_of_a_set_is_read_before_any_of_it_again(mixed):
    times = [np.zeros(size, int) for size in SIZES]
    for epoch in range(4):
        for part, number, _ in mixed.read(np.arange(100), epoch)[0].tolist():
            times[part][number] += 1
            assert np.ptp(times[part]) <= 1
    assert [int(of_set.sum()) for of_set in times] == [200, 120, 80]
    first, again = (mixed.read(np.arange(100), epoch)[0][:, :2].tolist() for epoch in (0, 1))
    assert [n for part, n in first if part == 0] != [n for part, n in again if part == 0]


def test_what_stands_at_a_place_depends_on_seed_epoch_and_row_alone(mixed):
    whole = mixed.read(np.arange(100), 2)
    other = Mixture(marked(), COUNTS, seed=3)
    for rows in (np.array([99, 4, 31]), np.arange(40, 60), np.array([7])):  # in another order, by others, elsewhere
        for found, expected in zip(other.read(rows, 2), whole, strict=True):
            assert np.array_equal(found, expected[rows])
    assert not np.array_equal(Mixture(marked(), COUNTS, seed=4).read(np.arange(100), 2)[0], whole[0])


def test_no_two_readings_have_the_same_masks(mixed, wordpiece):
    read = [mixed.read(np.arange(100), epoch) for epoch in range(4)]
    drawn = {(n, again) for _, numbers, repeats in read for n, again in zip(numbers, repeats, strict=True)}
    assert len(drawn) == 400
    dataset = MaskedBlocks(
        Mixture([np.tile(np.arange(40, 72, dtype=np.uint16), (3, 1))] * 2, (3, 6), seed=1),
        make_masker(wordpiece, MaskingArguments(), 5),
        wordpiece.pad_token_id,
    )
    masks = {tuple(row) for row in dataset.__getitems__(range(9))["masked_positions"].tolist()}
    assert len(masks) == 9  # of one and the same text
    dataset.set_epoch(1)
    assert not masks & {tuple(row) for row in dataset.__getitems__(range(9))["masked_positions"].tolist()}


def test_workers_and_processes_read_the_same(tmp_path, wordpiece):
    for part, size in enumerate((30, 8)):
        np.save(tmp_path / f"{part}.npy", np.random.default_rng(part).integers(5, 200, (size, 32), dtype=np.uint16))
    sets = [np.load(tmp_path / f"{part}.npy", mmap_mode="r") for part in range(2)]
    dataset = MaskedBlocks(Mixture(sets, (30, 20), seed=2), make_masker(wordpiece, MaskingArguments(), 1), 0)

    def rows(data, processes=1, batch_size=8):
        found = {}
        for rank in range(processes):
            order = GlobalBatches(50, batch_size, 1, processes, rank, seed=2, shuffle=False)
            order.set_epoch(1)
            for batch in order:
                if not batch.is_filler:
                    masked = Samples(data, lambda features: features).__getitems__(batch)["input_ids"]
                    found |= dict(zip(batch.rows.tolist(), masked.tolist(), strict=True))
        return found

    sent = pickle.dumps(dataset)
    assert len(sent) < 4000  # names of files
    expected = rows(dataset)
    assert sorted(expected) == list(range(50))
    assert rows(pickle.loads(sent)) == rows(dataset, processes=2, batch_size=4) == expected  # noqa: S301


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [(10, [5, 3, 2], [5, 3, 2]), (10, [1, 1, 1], [4, 3, 3]), (7, [0.5, 0.25, 0.25], [3, 2, 2]), (1, [1, 9], [0, 1])],
)
def test_whole_numbers_by_weights(total, weights, expected):
    found = divide(total, np.array(weights))
    assert sum(found) == total and sorted(found) == sorted(expected)
    assert all(abs(n - total * w / sum(weights)) < 1 for n, w in zip(found, weights, strict=True))


@pytest.mark.faults
def test_a_run_reads_the_sets_by_their_weights_and_resumes_exactly(packed, tmp_path):
    sets = [packed / name for name in ("month", "year", "old")]
    flags = ["--packed_dataset", *sets, "--mixture_weights", 0.5, 0.3, 0.2, "--max_steps", 15, "--save_steps", 7]
    metrics = run(tmp_path / "whole", *flags)
    assert [metrics[f"train_mixture_{name}"] for name in ("month", "year", "old")] == pytest.approx(
        [0.5, 0.3, 0.2], abs=1 / 60
    )
    shutil.copytree(tmp_path / "whole" / "checkpoint-7", tmp_path / "again" / "checkpoint-7")
    again = run(tmp_path / "again", *flags, "--dataloader_num_workers", 1)
    assert losses(tmp_path / "again") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 15
    assert again["train_mixture_month"] == metrics["train_mixture_month"]
    model = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert model == (tmp_path / "whole" / "model.safetensors").read_bytes()
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    read = [json.loads((path / "manifest.json").read_text())["splits"]["train"]["tokens"] for path in sets]
    assert manifest["inputs"]["splits"]["train"]["tokens"] == sum(read) and len(manifest["inputs"]["sources"]) == 3
    shutil.copytree(tmp_path / "whole" / "checkpoint-7", tmp_path / "other" / "checkpoint-7")
    flags[5:8] = [0.4, 0.4, 0.2]
    with pytest.raises(InputError, match=r"mixture_weights: \[0\.5, 0\.3, 0\.2\] -> \[0\.4, 0\.4, 0\.2\]"):
        run(tmp_path / "other", *flags)


def test_the_shares_are_those_read_and_right_while_the_batch_is_small(packed, tmp_path):
    """An order that alternates, of which every second block would be of one set."""
    sets = [packed / name for name in ("month", "year")]
    flags = ["--packed_dataset", *sets, "--mixture_weights", 0.5, 0.5, "--batch_ramp", "0.5:4", "--max_steps", 3]
    metrics = run(tmp_path / "run", *flags)
    assert (metrics["train_mixture_month"], metrics["train_mixture_year"]) == (0.5, 0.5)


def test_each_set_is_evaluated_as_it_would_be_alone(packed, tmp_path):
    flags = ["--packed_dataset", packed / "month", packed / "old", "--max_steps", 3]
    metrics = run(tmp_path / "both", *flags)
    nats = targets = 0.0
    for name in ("month", "old"):
        alone = run(
            *(tmp_path / name, "--model_name_or_path", tmp_path / "both", "--packed_dataset", packed / name),
            *("--max_steps", 1, "--learning_rate", 0),
        )
        assert metrics[f"eval_bits_per_byte_{name}"] == pytest.approx(alone["eval_bits_per_byte"], rel=1e-6)
        facts = json.loads((packed / name / "manifest.json").read_text())["splits"]["validation"]
        nats += alone["eval_loss"] * facts["tokens"]
        targets += facts["tokens"]
    assert metrics["eval_loss"] == pytest.approx(nats / targets, rel=5e-3)  # the targets are 15% of the tokens
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_loss"]), rel=1e-5)


def test_the_best_model_may_be_that_of_one_set(packed, tmp_path):
    flags = ["--packed_dataset", packed / "month", packed / "old", "--max_steps", 4, "--load_best_model_at_end"]
    flags += ["--eval_strategy", "steps", "--eval_steps", 2, "--save_steps", 2]
    run(tmp_path / "run", *flags, "--metric_for_best_model", "bits_per_byte_old")
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    measured = [row["eval_bits_per_byte_old"] for row in state["log_history"] if "eval_bits_per_byte_old" in row]
    assert state["best_metric"] == min(measured[:2])  # the third is that of the best one, loaded again


def test_one_folder_is_read_as_ever(packed, tmp_path):
    """What earlier versions wrote into recipe.yaml and checkpoints is one word."""
    run(tmp_path / "run", "--packed_dataset", packed / "month", "--max_steps", 1)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["packed_dataset"] == str(packed / "month")
    inputs = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert inputs["inputs"] == json.loads((packed / "month" / "manifest.json").read_text())
    assert inputs["data"].keys() == {"tokenizer", "splits"}


def test_blocks_in_all_are_limited_and_divided(packed, tmp_path):
    flags = ["--packed_dataset", packed / "month", packed / "old", "--mixture_weights", 3, 1, "--max_train_samples", 8]
    metrics = run(tmp_path / "run", *flags, "--num_train_epochs", 2, "--max_eval_samples", 3)
    assert (metrics["train_mixture_month"], metrics["epoch"], metrics["train_tokens"]) == (0.75, 2.0, 2 * 8 * 32)


def test_sets_that_cannot_be_mixed_are_refused(packed, tmp_path, bpe, monkeypatch):
    monkeypatch.setattr("pretraining.run_mlm.build_model", lambda *_: pytest.fail("the model was built"))
    pack_parts(tmp_path, bpe, names=("bpe",))
    month, year = packed / "month", packed / "year"
    for flags, message in [
        ([month, tmp_path / "bpe"], r"--packed_dataset \S+/bpe: packed by another tokenizer"),
        ([month, packed / "long"], r"/long: blocks of 64 tokens, and those of \S+/month have 32"),
        ([month, packed / "nowhere"], "nowhere: not a folder of packed blocks"),
        ([month, month / ".." / "month"], "named twice"),
        ([month, year, "--mixture_weights", 1], "1 for 2 folders of --packed_dataset"),
        ([month, "--mixture_weights", 1, 2], "2 for 1 folders"),
        ([month, year, "--mixture_weights", 1, 0], "--mixture_weights 1 0: must be above 0"),
        ([month, year, "--mixture_weights", 1, "nan"], "must be above 0"),
        ([month, year, "--mixture_weights", 99, 1, "--max_train_samples", 5], r"--packed_dataset year: none of its"),
        ([month, year, "--mixture_weights", 1e-9, 1], "an epoch, .* name the folder with the largest share first"),
        ([month, year, "--train_sampling_strategy", "group_by_length"], "use .* random"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            run(tmp_path / "out", "--packed_dataset", *flags)
        assert "\n" not in str(error.value)


def test_folders_of_one_name_are_told_apart(packed, tmp_path):
    for month in ("2026-05", "2026-06"):
        shutil.copytree(packed / ("old" if month == "2026-05" else "month"), tmp_path / month / "packed")
    flags = ["--packed_dataset", tmp_path / "2026-05" / "packed", tmp_path / "2026-06" / "packed", "--max_steps", 1]
    assert run(tmp_path / "run", *flags)["eval_bits_per_byte_2026-06/packed"] > 0
