"""The loss in chunks of targets: torch's own loss and gradients, in a part of the memory."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from test_loss import make_model, sparse
from test_run_mlm import run, weights
from torch.nn.functional import cross_entropy, linear

from pretraining.chunked_loss import ChunkedCrossEntropy, LossArguments, make_loss
from shared.errors import InputError
from shared.loss import IGNORED, project_masked_only

PLAIN = SimpleNamespace(bf16=False, deepspeed_plugin=None)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_gradients_are_those_of_torch(chunk):
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(n, 12, generator=generator) for n in (64, 97))
    bias, labels = torch.randn(97, generator=generator), torch.randint(0, 97, (64,), generator=generator)
    labels[::5] = IGNORED
    found, wanted = ([x.clone().requires_grad_() for x in (states, weight, bias)] for _ in range(2))
    loss = ChunkedCrossEntropy.apply(*found, labels, chunk, torch.float32)
    whole = cross_entropy(linear(*wanted), labels, reduction="sum")
    (3 * loss).backward()
    (3 * whole).backward()
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=0)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sure", [0.0, 0.3])
def test_gradients_in_bf16_are_as_close_as_those_of_torch(sure):
    """Also where the right word has nearly all of the probability, and what is left is a small difference."""
    generator = torch.Generator().manual_seed(0)
    weight, states = (torch.randn(n, 64, generator=generator) for n in (2000, 128))
    labels = torch.randint(0, 2000, (128,), generator=generator)
    inputs = (0.3 * states + sure * weight[labels], weight, torch.zeros(2000))

    def gradients(loss, dtype):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
        loss(*leaves).backward()
        return [x.grad.double() for x in leaves]

    def in_bf16(*leaves):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return cross_entropy(linear(*leaves).float(), labels, reduction="sum")

    exact = gradients(lambda *leaves: cross_entropy(linear(*leaves), labels, reduction="sum"), torch.float64)
    stock = gradients(in_bf16, torch.float32)
    found = gradients(lambda *leaves: ChunkedCrossEntropy.apply(*leaves, labels, 50, torch.bfloat16), torch.float32)
    for one, other, wanted in zip(found, stock, exact, strict=True):
        assert 0 < (one - wanted).norm() < 1.5 * (other - wanted).norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_word_that_cannot_be_has_a_finite_loss_and_its_gradient(dtype):
    weight, states = torch.eye(8), (200 * torch.eye(8)[[0, 0]]).requires_grad_()
    loss = ChunkedCrossEntropy.apply(states, weight, torch.zeros(8), torch.tensor([0, 1]), 2, dtype)
    loss.backward()
    assert loss.item() == pytest.approx(87.3, abs=0.1), "200 nats are more than a probability in fp32 can say"
    torch.testing.assert_close(states.grad, weight[[0, 0]] - weight[[0, 1]])


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_a_model_learns_the_same_and_is_evaluated_as_before(kind):
    """With the embedding tied to the output, and rows of fewer targets than others."""
    ids = torch.randint(5, 97, (8, 16), generator=torch.Generator().manual_seed(1))
    positions, labels = sparse(torch.where(torch.arange(16) % 5 < torch.arange(1, 9)[:, None] % 3, ids, IGNORED))
    found = []
    for chunk in (None, 3):
        model = make_model(kind)
        project_masked_only(model)
        loss_of = make_loss(model, chunk, PLAIN)
        evaluated = loss_of(model(input_ids=ids, masked_positions=positions), labels).detach()
        for module in model.modules():  # no dropout, and training all the same
            module.training = not isinstance(module, torch.nn.Dropout)
        loss = loss_of(model(input_ids=ids, masked_positions=positions), labels, torch.tensor(50))
        loss.backward()
        found.append((evaluated, loss, {name: x.grad for name, x in model.named_parameters() if x.grad is not None}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert len(found[1][2]) > 10


def test_a_batch_without_targets_has_no_loss():
    model = make_model("bert").train()
    loss = make_loss(model, 2, PLAIN)(model(torch.ones(1, 4, dtype=torch.long)), torch.full((1, 4), IGNORED))
    loss.backward()
    assert loss == 0 and not any(x.grad.any() for x in model.parameters() if x.grad is not None)


MEMORY = """
import torch
from types import SimpleNamespace
from pretraining.chunked_loss import make_loss
from shared.training.speed import peak_memory

class Head(torch.nn.Module):
    config = SimpleNamespace(model_type="bert")
    def __init__(self):
        super().__init__()
        self.decoder = torch.nn.Linear(128, 30522)
    def get_output_embeddings(self):
        return self.decoder

for chunk in (512, None):
    head, states = Head(), torch.randn(1, 4096, 128, requires_grad=True)
    loss_of = make_loss(head, chunk, SimpleNamespace(bf16=False, deepspeed_plugin=None))
    before = peak_memory(torch.device("cpu"))
    loss_of(SimpleNamespace(logits=head.decoder(states)), torch.randint(0, 30522, (1, 4096))).backward()
    print((peak_memory(torch.device("cpu")) - before) / 2**20)
"""


@pytest.mark.faults
def test_memory_is_that_of_a_chunk():
    """4,096 targets and 30,522 words: logits of 477 MiB in fp32, and as much again for gradients. One process, the
    smaller peak first."""
    command = [sys.executable, "-c", MEMORY]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    in_chunks, more_at_once = map(float, lines)
    assert in_chunks < 250 and more_at_once > 2 * 477 - 250


def test_a_run_with_the_flag_is_one_without_it_but_for_rounding(tmp_path):
    found = []
    for flags in ([], ["--loss_chunk", 7]):
        folder = tmp_path / str(len(found))
        metrics = run(folder, "--max_steps", 5, "--eval_strategy", "no", "--warmup_steps", 1, *flags)
        found.append((metrics["train_loss"], metrics["eval_loss"], weights(folder)))
    (loss, evaluated, whole), (other_loss, other_evaluated, in_chunks) = found
    assert other_loss == pytest.approx(loss, rel=1e-5) and other_evaluated == pytest.approx(evaluated, rel=1e-4)
    assert any(not torch.equal(weight, in_chunks[name]) for name, weight in whole.items()), "the flag did nothing"
    assert "loss_chunk: 7" in (tmp_path / "1" / "recipe.yaml").read_text()


def test_what_it_cannot_do_is_refused():
    with pytest.raises(InputError, match="--loss_chunk 0: must be at least 1"):
        LossArguments(loss_chunk=0)
    for kind, args, message in (
        ("electra", {}, "--loss_chunk: is for bert, roberta, modernbert, not electra"),
        ("bert", {"deepspeed_plugin": "any"}, "--loss_chunk: not with DeepSpeed"),
    ):
        with pytest.raises(InputError, match=message):
            make_loss(make_model(kind), 2, SimpleNamespace(**(vars(PLAIN) | args)))
    model = make_model("bert")
    model.get_output_embeddings().bias = None  # as with decoder_bias=False of ModernBERT
    with pytest.raises(InputError, match="--loss_chunk: this model has an output embedding without a bias"):
        make_loss(model, 2, PLAIN)
