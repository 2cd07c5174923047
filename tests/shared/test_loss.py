import copy
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoConfig, AutoModelForMaskedLM

from shared.loss import IGNORED, WeightedLoss, cross_entropy_loss, project_masked_only, sum_over_targets

SMALL = {
    "vocab_size": 97,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
FIELDS = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 97},
    "electra": SMALL | {"embedding_size": 12},
    "modernbert": SMALL
    | {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
}
KINDS = (
    *("albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert"),
    *("electra", "ernie", "esm", "eurobert", "flaubert", "fnet", "ibert", "layoutlm", "longformer", "megatron-bert"),
    *("modernbert", "mpnet", "mra", "nomic_bert", "nystromformer", "rembert", "roberta", "roberta-prelayernorm"),
    *("roformer", "xlm", "xlm-roberta"),
)


def make_model(kind):
    torch.manual_seed(0)
    fields = {"max_position_embeddings": 60, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "pad_token_id": 1}
    fields = FIELDS.get(kind) or SMALL | fields
    known = AutoConfig.for_model(kind)
    fields = {name: value for name, value in fields.items() if hasattr(known, name)}
    return AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **fields)).eval()


@pytest.fixture(params=["bert", "distilbert", "electra", "modernbert", "roberta"])
def model(request):
    return make_model(request.param)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 97, (8, 16), generator=generator)
    chosen = torch.rand(ids.shape, generator=generator) < torch.linspace(0.05, 0.6, 8)[:, None]
    chosen[:, 3] = True
    return {"input_ids": ids}, torch.where(chosen, ids, IGNORED)


def sparse(labels):
    """Columns and labels of the targets alone, one row each, filled up with IGNORED."""
    most = int((labels != IGNORED).sum(1).max())
    positions = (labels == IGNORED).long().sort(dim=1, stable=True).indices[:, :most]
    return positions, labels.gather(1, positions)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = theirs[name].abs().max().clamp_min(1e-6)
        assert (ours[name] - theirs[name]).abs().max() / scale < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_head_gives_the_stock_loss_and_gradients(kind, batch):
    model = make_model(kind)
    inputs, labels = batch
    stock = model(**inputs, labels=labels).loss
    stock.backward()
    expected = gradients(model)
    keys = set(model.state_dict())
    said = []
    assert project_masked_only(model, said.append) and not said
    positions, targets = sparse(labels)
    rows = []  # what the product with the vocabulary works on
    embedding = model.get_output_embeddings() or model.get_submodule("cls")
    hook = embedding.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[:-1].numel()))
    outputs = model(**inputs, masked_positions=positions)
    hook.remove()
    assert rows in ([positions.numel()], [])  # some heads use the weights without calling the module
    assert outputs.logits.shape == (*positions.shape, 97)
    loss = cross_entropy_loss(outputs, targets)
    loss.backward()
    torch.testing.assert_close(loss, stock, rtol=1e-5, atol=0)
    assert_close(gradients(model), expected)
    assert set(model.state_dict()) == keys
    assert model(**inputs).logits.shape == (8, 16, 97)  # without positions nothing has changed
    assert copy.deepcopy(model)(**inputs, masked_positions=positions).logits.shape == (*positions.shape, 97)


def test_gradient_does_not_depend_on_how_the_batch_is_split(model, batch):
    inputs, labels = batch
    project_masked_only(model)
    total = (labels != IGNORED).sum()
    results = []
    for size in (8, 4, 2, 1):
        losses = []
        for i in range(0, 8, size):
            positions, targets = sparse(labels[i : i + size])
            outputs = model(input_ids=inputs["input_ids"][i : i + size], masked_positions=positions)
            losses.append(cross_entropy_loss(outputs, targets, num_items_in_batch=total))
            losses[-1].backward()
        results.append((sum(losses).item(), gradients(model)))
    for loss, found in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert_close(found, results[0][1])


class Mixed(torch.nn.Module):
    """A head in which positions see each other, which no head of masked positions alone can do."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, states):
        return self.head(states + states.mean(1, keepdim=True))


def test_heads_that_mix_positions_are_told_and_give_the_right_loss(batch):
    inputs, labels = batch
    model = make_model("mpnet")
    model.lm_head.decoder = Mixed(model.lm_head.decoder)
    expected = model(**inputs, labels=labels).loss
    said = []
    assert not project_masked_only(model, said.append)
    assert len(said) == 1 and "every position is projected" in said[0]
    positions, targets = sparse(labels)
    outputs = model(**inputs, masked_positions=positions)
    assert outputs.logits.shape == (*positions.shape, 97)
    torch.testing.assert_close(cross_entropy_loss(outputs, targets), expected)


def test_to_look_for_the_head_changes_nothing():
    """BigBird, for one, leaves its sparse attention for ever when it is given a short text."""
    model = make_model("big_bird")
    before, state = model.bert.attention_type, torch.random.get_rng_state()
    project_masked_only(model.train())
    assert model.bert.attention_type == before and model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_loss_of_no_target_is_0():
    labels = torch.full((1, 3), IGNORED)
    logits = torch.randn(1, 3, 5, requires_grad=True)
    for count in (None, torch.tensor(0), 0):
        loss = cross_entropy_loss(SimpleNamespace(logits=logits), labels, num_items_in_batch=count)
        loss.backward()
        assert loss == 0 and not logits.grad.any()


def test_sums_over_targets(model, batch):
    inputs, labels = batch
    labels[2] = IGNORED
    logits = model(**inputs).logits
    sums = sum_over_targets(logits, labels)
    assert sums.shape == (8, 2) and sums[2].tolist() == [0, 0]
    project_masked_only(model)
    positions, targets = sparse(labels)
    torch.testing.assert_close(
        sum_over_targets(model(**inputs, masked_positions=positions).logits, targets), sums, rtol=1e-5, atol=1e-5
    )
    count = (labels != IGNORED).sum()
    torch.testing.assert_close(sums[:, 0].sum() / count, model(**inputs, labels=labels).loss)
    hits = ((logits.argmax(-1) == labels) & (labels != IGNORED)).sum(1)
    assert sums[:, 1].tolist() == hits.tolist()


@pytest.mark.parametrize("weights", [None, [0.1, 1.0, 4.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(7,), (7, 5)])  # a label for each sequence, or for each token
def test_weighted_loss_is_torchs(weights, smoothing, shape):
    torch.manual_seed(0)
    logits, labels = torch.randn(*shape, 3, requires_grad=True), torch.randint(0, 3, shape)
    labels[2] = IGNORED
    loss = WeightedLoss(weights, smoothing)
    found = loss(SimpleNamespace(logits=logits), labels)
    expected = cross_entropy(
        logits.reshape(-1, 3),
        labels.flatten(),
        weight=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
        ignore_index=IGNORED,
    )
    torch.testing.assert_close(found, expected)
    parts = [loss(SimpleNamespace(logits=logits[i : i + 3]), labels[i : i + 3], loss.count(labels)) for i in (0, 3, 6)]
    torch.testing.assert_close(sum(parts), expected)


def test_weights_of_several_labels_are_torchs_pos_weight():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.randint(0, 2, (6, 3)).float()
    weights = [0.5, 1.0, 8.0]
    found = WeightedLoss(weights, multi=True)(SimpleNamespace(logits=logits), labels)
    expected = binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(weights))
    torch.testing.assert_close(found, expected)


def test_focal_loss_is_that_of_the_paper():
    """Lin et al., 2017, equation 5: -alpha_t (1 - p_t)^gamma log p_t."""
    torch.manual_seed(0)
    weights = torch.tensor([0.1, 1.0, 4.0])
    logits, labels = torch.randn(6, 3), torch.randint(0, 3, (6,))
    p = logits.double().softmax(1)[torch.arange(6), labels]
    alpha = weights.double()[labels]
    expected = (-alpha * (1 - p) ** 2 * p.log()).sum() / alpha.sum()
    found = WeightedLoss(weights.tolist(), gamma=2.0)(SimpleNamespace(logits=logits), labels)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)

    several = torch.randint(0, 2, (6, 3)).double()
    sigmoid = logits.double().sigmoid()
    p = torch.where(several > 0, sigmoid, 1 - sigmoid)
    expected = (-((1 - p) ** 2) * p.log()).mean()
    found = WeightedLoss(gamma=2.0, multi=True)(SimpleNamespace(logits=logits), several.float())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


def test_a_row_that_fills_a_step_up_has_no_gradient():
    """Where fewer rows are left than processes, some get a row without labels."""
    logits, labels = torch.tensor([[1.0, 0.5, -2.0]], requires_grad=True), torch.full((1, 3), -100.0)
    WeightedLoss(gamma=2.0, multi=True)(SimpleNamespace(logits=logits), labels, torch.tensor(6)).backward()
    assert logits.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_weighted_loss_without_a_target_is_zero_and_small_weights_are_no_ones():
    logits, weights = torch.randn(2, 3), torch.tensor([0.1, 0.2, 0.3])
    loss = WeightedLoss(weights.tolist())
    assert loss(SimpleNamespace(logits=logits), torch.full((2,), IGNORED)) == 0
    labels = torch.tensor([0, IGNORED])
    wanted = cross_entropy(logits, labels, weights, ignore_index=IGNORED)
    torch.testing.assert_close(loss(SimpleNamespace(logits=logits), labels), wanted)
