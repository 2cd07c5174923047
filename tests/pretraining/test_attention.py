import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForMaskedLM, modeling_flash_attention_utils
from transformers.masking_utils import create_bidirectional_sliding_window_mask
from transformers.utils import is_flash_attn_2_available

from finetuning.common.arguments import CheckpointArguments
from pretraining.attention import ARCHITECTURES, _flash_arguments, _mask, keep_documents_apart
from pretraining.distillation.student import add_heads
from pretraining.masking import number_documents
from shared.errors import InputError
from shared.loss import project_masked_only

PAD, VOCABULARY, LENGTH = 1, 97, 32
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,  # so large that tokens do see each other
    "pad_token_id": PAD,
}
FIELDS = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    | {name: SMALL[name] for name in ("vocab_size", "initializer_range", "pad_token_id")},
    "electra": SMALL | {"embedding_size": 12},
    # One global layer and one whose tokens see 4 to either side.
    "modernbert": SMALL
    | {"local_attention": 8, "cls_token_id": 0, "sep_token_id": 2, "bos_token_id": 0, "eos_token_id": 2},
}


NO_DROPOUT = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}


def make_model(architecture, implementation="sdpa", **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **FIELDS.get(architecture, SMALL) | more)
    return AutoModelForMaskedLM.from_config(config, attn_implementation=implementation).eval()


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture(params=["eager", "sdpa"])
def stock(request, architecture):
    return make_model(architecture, request.param)


@pytest.fixture
def model(stock):
    model = copy.deepcopy(stock)
    keep_documents_apart(model)
    return model


@pytest.fixture
def batch():
    """Three blocks: three documents and padding, three documents that fill their block, one document."""
    numbers = [[0] * 7 + [1] * 14 + [2] * 6 + [3] * 5, [0] + [1] * 20 + [2] * 11, [0] * LENGTH]
    ids = torch.randint(5, VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[0, -5:] = PAD
    return {"input_ids": ids, "document_ids": torch.tensor(numbers)}


def documents(batch):
    """Row and columns of each document, and whether it is padding."""
    for row, numbers in enumerate(batch["document_ids"]):
        for number in numbers.unique():
            columns = numbers == number
            yield row, columns, bool((batch["input_ids"][row, columns] == PAD).all())


def changes(model, batch, apart=True):
    """For each document: the largest change of its own outputs, and of all others, when its tokens are replaced."""

    def outputs(ids):
        return model(ids, **{"document_ids": batch["document_ids"]} if apart else {}).logits

    ids = batch["input_ids"]
    before = outputs(ids)
    for row, columns, is_padding in documents(batch):
        if not is_padding:
            others = ids.clone()
            others[row, columns] = (ids[row, columns] + 40) % (VOCABULARY - 5) + 5
            change = (outputs(others) - before).float().abs().amax(-1)
            own = torch.zeros_like(change, dtype=torch.bool)
            own[row, columns] = True
            yield change[own].max().item(), change[~own].max().item()


@torch.no_grad()
def test_no_token_sees_another_document(model, batch):
    for own, others in changes(model, batch):
        assert own > 0.1 and others <= 1e-6
    mixed = [others for _, others in changes(model, batch, apart=False)]
    assert min(mixed[:6]) > 1e-3 and mixed[6] == 0  # the last document is alone in its row
    for own, others in changes(model.bfloat16(), batch):
        assert own > 0.1 and others <= 1e-6


@torch.no_grad()
def test_outputs_are_those_of_the_document_alone(stock, model, batch):
    """The stock model is given the same block with one document left and a mask of the usual kind over the others."""
    outputs = model(**batch).logits
    for row, columns, _ in documents(batch):
        alone = stock(batch["input_ids"][row : row + 1], attention_mask=columns[None].long()).logits
        torch.testing.assert_close(outputs[row, columns], alone[0, columns], rtol=0, atol=1e-5)
    torch.testing.assert_close(model(batch["input_ids"]).logits, stock(batch["input_ids"]).logits, rtol=0, atol=0)
    assert model.state_dict().keys() == stock.state_dict().keys()


def test_eager_and_sdpa_agree(architecture, batch):
    outputs, gradients = [], []
    for implementation in ("eager", "sdpa"):
        model = make_model(architecture, implementation)
        keep_documents_apart(model)
        outputs.append(model(**batch).logits)
        outputs[-1].logsumexp(-1).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys() and any("emb" in name for name in gradients[0])
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-5 * largest, name


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_local_layers_see_what_they_always_saw(implementation):
    """One document: the masks of ModernBERT are those that it makes itself."""
    model = make_model("modernbert", implementation)
    masks = _mask(torch.zeros(2, LENGTH, dtype=torch.long), model)
    states = torch.zeros(2, LENGTH, 16)
    theirs = create_bidirectional_sliding_window_mask(model.config, states, attention_mask=None)
    assert torch.equal(masks["sliding_attention"], theirs.expand(2, 1, LENGTH, LENGTH))
    assert masks["sliding_attention"].dtype == theirs.dtype
    assert masks["sliding_attention"][0, 0, 10].gt(-1 if implementation == "eager" else 0).sum() == 9
    assert masks["full_attention"].all() if implementation == "sdpa" else not masks["full_attention"].any()


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "apart_first"), [("bert", True), ("modernbert", False)])
def test_with_the_sparse_head_compiled_and_distributed(architecture, batch, apart_first):
    model = make_model(architecture)
    expected = copy.deepcopy(model)
    keep_documents_apart(expected)
    for change in (keep_documents_apart, project_masked_only)[:: 1 if apart_first else -1]:
        change(model)
    positions = torch.tensor([[3, 8, 20], [0, 1, 31], [2, 2, 5]])
    other = batch | {"document_ids": batch["document_ids"].roll(1, 0)}
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        for run in (compiled, DistributedDataParallel(model)):
            graphs = 0
            for inputs in (batch, other):
                logits = expected(**inputs).logits[torch.arange(3)[:, None], positions]
                ours = run(**inputs, masked_positions=positions).logits
                torch.testing.assert_close(ours, logits, rtol=0, atol=1e-5)
                assert graphs in (0, counter.frame_count)  # other documents need no other graph
                graphs = counter.frame_count
    finally:
        destroy_process_group()


def loop_over_documents(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size=None
):
    """What flash attention computes for documents laid end to end, (tokens, heads, width), one after the other."""
    assert cu_seqlens_q.dtype == torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k) and not causal
    outputs = []
    for start, end in pairwise(cu_seqlens_q.tolist()):
        assert 0 <= end - start <= max_seqlen_q == max_seqlen_k
        columns = torch.arange(end - start)
        near = (columns[:, None] - columns).abs() <= (window_size[0] if window_size else LENGTH)
        parts = (x[start:end].transpose(0, 1)[None] for x in (q, k, v))
        outputs.append(scaled_dot_product_attention(*parts, attn_mask=near, scale=softmax_scale)[0].transpose(0, 1))
    return torch.cat(outputs)


@torch.no_grad()
def test_flash_attention_is_given_the_documents(architecture, batch, monkeypatch):
    """The library's own way to flash attention, with a loop in place of the kernel, gives what sdpa gives."""
    flash = modeling_flash_attention_utils
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn", "_pad_fn"):
        monkeypatch.setattr(flash, name, None)
    for name in ("_unpad_fn", "_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn"):
        monkeypatch.setattr(flash, name, None, raising=False)
    monkeypatch.setattr(flash, "_lazy_imports", lambda *_, **__: (None, loop_over_documents, None, None, None))
    model = make_model(architecture)
    keep_documents_apart(model, most_documents=4)
    expected = model(**batch).logits
    model.config._attn_implementation = "flash_attention_2"
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)
    for own, others in changes(model, batch):
        assert own > 0.1 and others <= 1e-6


def test_boundaries_are_those_of_the_documents():
    compiled = torch.compile(_flash_arguments, backend="eager", fullgraph=True)
    begins = torch.rand(40, 3, 9, generator=torch.Generator().manual_seed(0)) < torch.linspace(0, 1, 40)[:, None, None]
    for numbers in begins.cumsum(2) * 5:
        wanted = [0]
        for row in numbers.tolist():
            for left, right in pairwise([*row, None]):
                wanted[-1] += 1
                if left != right:
                    wanted.append(wanted[-1])
        wanted = wanted[:-1]  # where each document ends; the last entry began one that is not there
        most = max(len(row.unique()) for row in numbers)
        for function, limit in ((_flash_arguments, None), (_flash_arguments, most), (compiled, None)):
            given = function(numbers, limit)
            bounds = given["cu_seq_lens_q"]
            assert bounds is given["cu_seq_lens_k"] and bounds.dtype == torch.int32
            assert bounds.tolist() == [0, *wanted, *[27] * (len(bounds) - 1 - len(wanted))]
            assert len(bounds) == 3 * (limit or 9) + 1
            assert given["max_length_q"] == given["max_length_k"] == 9 and given["attention_mask"] is None
    with pytest.raises(RuntimeError, match="more documents than"):
        _flash_arguments(torch.arange(9).expand(3, 9), 8)


@pytest.mark.skipif(
    not (torch.cuda.is_available() and is_flash_attn_2_available()), reason="needs flash-attn and a GPU"
)
@torch.no_grad()
def test_flash_attention_on_a_gpu(architecture, batch):
    batch = {name: tensor.cuda() for name, tensor in batch.items()}
    expected, flash = (
        make_model(architecture, implementation).cuda().bfloat16() for implementation in ("sdpa", "flash_attention_2")
    )
    for model in (expected, flash):
        keep_documents_apart(model, most_documents=4)
    exact = copy.deepcopy(expected).float()(**batch).logits
    error = (expected(**batch).logits - exact).abs().max()
    assert (flash(**batch).logits - exact).abs().max() <= 2 * error
    for own, others in changes(flash, batch):
        assert own > 0.1 and others <= 1e-6


@torch.no_grad()
def test_flex_attention_is_given_the_documents(architecture, batch):
    """Without its kernel, as plain operations: forward only, since PyTorch has no backward pass of it on a CPU."""
    expected = make_model(architecture)
    model = make_model(architecture, "flex_attention", **NO_DROPOUT)
    keep_documents_apart(expected)
    keep_documents_apart(model)
    with torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(model(**batch).logits, expected(**batch).logits, rtol=0, atol=1e-5)
        for own, others in changes(model, batch):
            assert own > 0.1 and others <= 1e-6
        assert project_masked_only(model)
        positions = torch.tensor([[3, 8, 20], [0, 1, 31], [2, 2, 5]])
        logits = expected(**batch).logits[torch.arange(3)[:, None], positions]
        found = model(**batch, masked_positions=positions).logits
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_flex_attention_on_a_gpu(architecture, batch, compiled):
    """Outputs and gradients are those of sdpa; its kernels take heads of 16 and more."""
    batch = {name: tensor.cuda() for name, tensor in batch.items()}
    wide = {"dim": 64} if architecture == "distilbert" else {"hidden_size": 64}
    found = []
    for implementation in ("sdpa", "flex_attention"):
        model = make_model(architecture, implementation, **wide, **NO_DROPOUT).cuda().train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        keep_documents_apart(model)
        run = torch.compile(model, dynamic=False) if compiled else model
        logits = run(**batch).logits
        logits.logsumexp(-1).mean().backward()
        found.append((logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-3)
    assert found[0][1].keys() == found[1][1].keys()
    largest = max(gradient.abs().max() for gradient in found[0][1].values())
    for name, gradient in found[0][1].items():
        assert (gradient - found[1][1][name]).abs().max() <= 1e-3 * largest, name
    with torch.no_grad():
        for own, others in changes(model.eval(), batch):
            assert own > 0.1 and others <= 1e-5


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert"], indirect=True)
def test_flex_attention_has_no_dropout(architecture):
    field = "attention_probs_dropout_prob" if architecture == "bert" else "attention_dropout"
    model = make_model(architecture, "flex_attention", **{field: 0.1})
    with pytest.raises(InputError, match=f"{field} is 0.1; set --config_overrides {field}=0"):
        keep_documents_apart(model)


def test_flex_attention_is_for_packed_blocks_alone():
    way_out = "flex_attention: is for --isolate_documents of run_mlm.py; use sdpa"
    with pytest.raises(InputError, match=way_out):
        add_heads(make_model("bert", "flex_attention"), 8)
    with pytest.raises(InputError, match=way_out):
        CheckpointArguments(attn_implementation="flex_attention")


def test_what_is_not_shown_to_work_is_refused(batch):
    model = make_model("bert")
    keep_documents_apart(model)
    model.config._attn_implementation = "paged"
    with pytest.raises(InputError, match=r"--attn_implementation paged: .* use sdpa, eager, flex_attention, flash_at"):
        keep_documents_apart(model)
    with pytest.raises(InputError, match="--attn_implementation paged"):  # changed after the call
        model(**batch)
    model = make_model("mpnet", "eager")
    with pytest.raises(InputError, match="kept apart in mpnet, only in bert, "):
        keep_documents_apart(model)


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        ("[CLS] a [SEP] b [SEP] pad pad", [0, 0, 0, 1, 1, 2, 2]),
        ("[CLS] a a [SEP] b c [SEP]", [0, 0, 0, 0, 1, 1, 1]),
        ("[CLS] a a a a a [SEP]", [0] * 7),
        ("[CLS] [SEP] b b [SEP] c [SEP]", [0, 0, 1, 1, 1, 2, 2]),  # the block before ended with its document
        ("[CLS] a [SEP] b b [SEP] [SEP]", [0, 0, 0, 1, 1, 1, 1]),  # this one does, and the separator still fitted
        ("<s> a </s> </s> b </s> pad pad", [0, 0, 0, 0, 1, 1, 2, 2]),
        ("<s> </s> b </s> </s> c c </s>", [0, 0, 1, 1, 1, 2, 2, 2]),  # cut between two separators
    ],
)
def test_documents_are_numbered(ids, numbers):
    words = ["pad", "[CLS]", "<s>", "a", "b", "c"]
    row = np.array([[len(words) if word in ("[SEP]", "</s>") else words.index(word) for word in ids.split()]])
    found = number_documents(row, len(words))
    assert found.dtype == np.int64 and found.tolist() == [numbers]
