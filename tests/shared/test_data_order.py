import math
import time
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
import torch
from accelerate.data_loader import skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from shared.errors import InputError
from shared.loss import IGNORED
from shared.training.batch_ramp import read_ramp
from shared.training.data_order import GlobalBatches, MicroBatch, Samples


def read_by_step(samples, batch_size, accumulation, processes, epoch=0, **more):
    """What each step of an epoch reads, put together from what each process reads; fillers left out."""
    steps = {}
    for rank in range(processes):
        order = GlobalBatches(samples, batch_size, accumulation, processes, rank, seed=5, **more)
        order.set_epoch(epoch)
        batches = list(order)
        assert len(batches) == len(order)
        for number, batch in enumerate(batches):
            assert 0 < len(batch.rows) <= batch_size and batch.epoch == epoch
            if not batch.is_filler:
                steps.setdefault(number // accumulation, []).extend(batch.rows.tolist())
    return [sorted(steps[k]) for k in sorted(steps)]


@settings(max_examples=200, deadline=None)
@given(
    samples=st.integers(1, 120),
    batch_size=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    processes=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_a_step_reads_the_same_however_it_is_split(samples, batch_size, accumulation, processes, epoch):
    size = batch_size * accumulation * processes
    alone = read_by_step(samples, size, 1, 1, epoch)
    assert read_by_step(samples, batch_size, accumulation, processes, epoch) == alone
    assert sorted(chain.from_iterable(alone)) == list(range(samples))  # each sample once in an epoch
    order = GlobalBatches(samples, batch_size, accumulation, processes, 0, seed=5)
    assert len(alone) == order.steps_per_epoch
    first = epoch * order.steps_per_epoch
    assert [sorted(order.step_rows(first + k).tolist()) for k in range(len(alone))] == alone


def test_all_processes_have_as_many_batches_and_a_filler_where_samples_are_missing():
    ranks = [list(GlobalBatches(17, 2, 2, 2, rank, seed=5)) for rank in (0, 1)]
    assert [len(batches) for batches in ranks] == [5, 5]
    assert [batches[-1].is_filler for batches in ranks] == [False, True]


def test_epochs_and_seeds_have_orders_of_their_own():
    order = GlobalBatches(100, 4, 1, 1, 0, seed=5)
    assert np.array_equal(order.order(1), order.order(1))
    assert not np.array_equal(order.order(0), order.order(1))
    assert not np.array_equal(order.order(0), GlobalBatches(100, 4, 1, 1, 0, seed=6).order(0))
    assert np.array_equal(GlobalBatches(100, 4, 1, 1, 0, seed=5, shuffle=False).order(3), np.arange(100))


@pytest.mark.parametrize("split", [(8, 1, 1), (2, 2, 2)])
def test_grouping_by_length(split):
    lengths = np.random.default_rng(0).integers(1, 500, 1003)
    steps = read_by_step(1003, *split, epoch=1, lengths=lengths)
    assert sorted(chain.from_iterable(steps)) == list(range(1003))
    assert steps == read_by_step(1003, 8, 1, 1, epoch=1, lengths=lengths)
    assert np.mean([np.ptp(lengths[rows]) for rows in steps]) < 40  # at random it is about 390
    means = [lengths[rows].mean() for rows in steps]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3  # and steps do not go from short to long


def test_dropping_the_last_step():
    assert sum(map(len, read_by_step(17, 2, 2, 2, drop_last=True))) == 16
    assert GlobalBatches(17, 2, 2, 2, 0, seed=5, drop_last=True).steps_per_epoch == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_the_place_in_an_epoch_is_found_again(workers):
    dataset = EpochDataset()
    order = GlobalBatches(50, 4, 1, 1, 0, seed=5)
    loader = DataLoader(
        Samples(dataset, torch.tensor), batch_sampler=order, collate_fn=lambda x: x, num_workers=workers
    )
    order.set_epoch(2)
    whole = [batch.tolist() for batch in loader]
    assert {row[0] for batch in whole for row in batch} == {2}  # a worker knows the epoch
    assert [batch.tolist() for batch in skip_first_batches(loader, 7)] == whole[7:]


@pytest.mark.parametrize("split", [(8, 1, 1), (2, 2, 2)])
def test_the_place_in_the_run_is_that_of_the_step(split):
    for epoch in (0, 1, 2):
        order = GlobalBatches(20, *split, 0, seed=5, steps=7)  # 3 steps an epoch: 2 epochs and one step
        order.set_epoch(epoch)
        found = [batch.progress for batch in order]
        steps = [epoch * 3 + number // split[1] for number in range(len(found))]
        assert found == [min(1, step / 6) for step in steps]
    assert {batch.progress for batch in GlobalBatches(20, *split, 0, seed=5)} == {0.0}
    assert [batch.progress for batch in GlobalBatches(8, *split, 0, seed=5, steps=1)] == [0.0] * split[1]


@settings(max_examples=200, deadline=None)
@given(
    samples=st.integers(1, 120),
    batch_size=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    processes=st.integers(1, 4),
    epoch=st.integers(0, 2),
    share=st.sampled_from(["0.1", "1/3", "0.25", "0.5", "0.9"]),
    drop_last=st.booleans(),
)
def test_a_ramp_is_the_same_however_a_step_is_split(
    samples, batch_size, accumulation, processes, epoch, share, drop_last
):
    size, ramp = batch_size * accumulation * processes, read_ramp([f"{share}:3", "0.95:5"])
    more = {"ramp": ramp, "drop_last": drop_last}
    if drop_last and samples < size:
        return
    alone = read_by_step(samples, size, 1, 1, epoch, **more)
    assert read_by_step(samples, batch_size, accumulation, processes, epoch, **more) == alone
    order = GlobalBatches(samples, batch_size, accumulation, processes, 0, seed=5, **more)
    first = epoch * order.steps_per_epoch
    assert [sorted(order.step_rows(first + k).tolist()) for k in range(len(alone))] == alone
    whole = read_by_step(samples, size, 1, 1, epoch, drop_last=drop_last)
    assert len(whole) == len(alone)
    for k, (some, all_) in enumerate(zip(alone, whole, strict=True)):
        part = Fraction(share) if first + k < 3 else Fraction("0.95") if first + k < 5 else 1
        assert set(some) <= set(all_) and len(some) == math.ceil(part * len(all_))
    read = sorted(chain.from_iterable(alone))
    left_out = sorted([*ramp.left_out(order, first + len(alone)), *read])
    before = ramp.left_out(order, first).tolist()
    assert left_out == sorted([*before, *chain.from_iterable(whole)])


def test_parts_of_a_batch_shrink_alike():
    """Shapes stay the same through a stage where the share of a micro-batch is a whole number."""
    order = GlobalBatches(320, 8, 2, 2, 1, seed=5, ramp=read_ramp(["0.25:3", "0.5:6"]))
    assert [len(batch.rows) for batch in order] == [2] * 6 + [4] * 6 + [8] * 8


def test_budgets_count_what_a_ramp_reads():
    ramp = read_ramp(["0.1:10", "1/2:20"])
    read = np.cumsum([0, *[2] * 10, *[8] * 10, *[16] * 20])
    assert [ramp.samples(16, steps) for steps in range(41)] == read.tolist()
    for steps, samples in enumerate(read.tolist()):
        assert ramp.steps(16, samples) == pytest.approx(steps)
    assert ramp.steps(16, 21) == pytest.approx(10 + 1 / 8) and read_ramp([]).steps(16, 24) == 1.5
    assert read_ramp([]).samples(16, 7) == 112


@pytest.mark.parametrize(
    "entries",
    ["0.5", "half:10", "0.5:ten", "1:10", "0:10", "1/0:5", "0.5:0", "0.5:9 0.2:20", "0.5:9 0.7:9", "-0.5:9", "nan:9"],
)
def test_a_ramp_that_is_none_is_refused(entries):
    with pytest.raises(InputError, match="--batch_ramp"):
        read_ramp(entries.split())


def test_fillers_hide_their_targets():
    batch = {"labels": torch.ones(1, 4), "input_ids": torch.arange(4)}
    rows = MicroBatch(0, np.array([0]), is_filler=True)
    found = Samples([0], lambda _: dict(batch)).__getitems__(rows)
    assert (found["labels"] == IGNORED).all() and (found["input_ids"] == torch.arange(4)).all()


class EpochDataset(torch.utils.data.Dataset):
    def __len__(self):
        return 50

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, row):
        return [self.epoch, row]


def test_the_place_is_found_within_seconds_whatever_the_step():
    order = GlobalBatches(5_000_000, 2, 4, 2, 1, seed=5)  # 1.25 million micro-batches for this process
    loader = DataLoader(Samples(range(5_000_000), torch.tensor), batch_sampler=order, collate_fn=lambda x: x)
    start = time.process_time()  # of this process alone, whatever else runs
    (last,) = skip_first_batches(loader, len(order) - 1)
    assert time.process_time() - start < 5
    assert set(last.tolist()) <= set(order.step_rows(order.steps_per_epoch - 1).tolist())
