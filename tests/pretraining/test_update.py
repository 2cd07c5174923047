"""Going on from last month's model: the trunk that a run keeps, and weights averaged with older ones."""

import json
import shutil

import numpy as np
import pytest
from conftest import SENTENCES
from packed_sets import losses, pack_parts, run
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from data_prep.train_tokenizer import TokenizerArguments, train_tokenizer
from shared.documents import Documents
from shared.errors import InputError
from shared.training.checkpoints import verify

# 12 steps, of which the last 4 decay: the trunk is that of step 8.
SCHEDULE = ["--lr_scheduler_type", "warmup_stable_decay", "--warmup_steps", 2, "--max_steps", 12, "--save_steps", 5]
SCHEDULE += ["--lr_scheduler_kwargs", '{"num_decay_steps": 4}', "--keep_trunk"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory, wordpiece):
    return pack_parts(tmp_path_factory.mktemp("packed"), wordpiece, names=("month", "old"))


@pytest.fixture(scope="module")
def first(tmp_path_factory, packed):
    """Last month's run."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(packed)
        run(folder, *SCHEDULE, "--packed_dataset", packed / "old")
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_trunk_is_the_model_before_the_decay(first):
    verify(first / "trunk")
    trunk = content(first / "trunk")
    facts = json.loads(trunk["trunk.json"])
    assert (facts["step"], facts["decay_begins"], facts["learning_rate"]) == (8, 8, 5e-3)
    assert facts["schedule"]["warmup_steps"] == 2 and facts["commit"]
    manifest = json.loads((first / "manifest.json").read_text())
    assert facts["tokenizer_sha256"] == manifest["inputs"]["tokenizer"]["sha256"]
    history = json.loads((first / "trainer_state.json").read_text())["log_history"]
    rates = {row["step"]: row["learning_rate"] for row in history if "learning_rate" in row}
    assert rates[8] == 5e-3 > rates[10] > rates[12]
    assert trunk["model.safetensors"] == (first / "checkpoint-8" / "model.safetensors").read_bytes()
    assert trunk["model.safetensors"] != (first / "model.safetensors").read_bytes()
    assert trunk.keys() == {
        *(
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "trunk.json",
            "checkpoint.json",
        )
    }
    assert len(AutoTokenizer.from_pretrained(first / "trunk")) == 200


@pytest.mark.faults
def test_the_trunk_of_a_resumed_run_has_the_same_bytes(first, packed, tmp_path, monkeypatch):
    flags = [*SCHEDULE, "--packed_dataset", packed / "old", "--save_total_limit", 1]
    for step in (5, 8, 10):  # before the trunk, at its step with the copy not made, after it
        folder = tmp_path / str(step)
        shutil.copytree(first / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        if step == 10:
            shutil.copytree(first / "trunk", folder / "trunk")
        run(folder, *flags)
        assert content(folder / "trunk") == content(first / "trunk")
        assert (folder / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
        assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-12"]

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # killed while the trunk is written
        patch.setattr("pretraining.update.trunk.seal", die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", *flags)
    assert not (tmp_path / "killed" / "trunk").exists()
    run(tmp_path / "killed", *flags)
    assert content(tmp_path / "killed" / "trunk") == content(first / "trunk")
    assert not list((tmp_path / "killed").glob(".incoming*"))


def test_a_run_that_decays_already_has_no_trunk_to_keep(first, packed, tmp_path):
    shutil.copytree(first / "checkpoint-10", tmp_path / "late" / "checkpoint-10")
    with pytest.raises(InputError, match=r"the decay began at step 8, and this run goes on from step 10") as error:
        run(tmp_path / "late", *SCHEDULE, "--packed_dataset", packed / "old")
    assert "\n" not in str(error.value)


def test_a_trunk_may_not_depend_on_what_is_best(packed, tmp_path):
    flags = [*SCHEDULE, "--packed_dataset", packed / "old", "--save_strategy", "best"]
    with pytest.raises(InputError, match=r"--keep_trunk: its step may not be the best; say --save_strategy steps"):
        run(tmp_path / "out", *flags)


def test_an_update_goes_on_from_the_trunk(first, packed, tmp_path):
    flags = ["--packed_dataset", packed / "month", packed / "old", "--mixture_weights", 0.5, 0.5, "--keep_trunk"]
    flags += ["--lr_scheduler_type", "warmup_stable_decay", "--max_steps", 10, "--warmup_steps", 2, "--save_steps", 4]
    flags += ["--average_with", f"{first}:0.25"]
    run(tmp_path / "next", "--model_name_or_path", first / "trunk", *flags)
    assert losses(tmp_path / "next")[1] < losses(first)[1] - 0.1  # a new model begins at the loss of chance
    assert json.loads((tmp_path / "next" / "trunk" / "trunk.json").read_text())["step"] == 8
    shutil.copytree(tmp_path / "next" / "checkpoint-4", tmp_path / "again" / "checkpoint-4")
    run(tmp_path / "again", "--model_name_or_path", first / "trunk", *flags)
    for name in ("trunk/model.safetensors", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "next" / name).read_bytes()


def test_what_is_no_trunk_is_refused(first, packed, tmp_path, monkeypatch):
    monkeypatch.setattr("pretraining.run_mlm.build_model", lambda *_: pytest.fail("the model was built"))

    def refused(message, change):
        shutil.rmtree(tmp_path / "trunk", ignore_errors=True)
        shutil.copytree(first / "trunk", tmp_path / "trunk")
        change(tmp_path / "trunk")
        with pytest.raises(InputError, match=message) as error:
            run(tmp_path / "out", "--model_name_or_path", tmp_path / "trunk", "--packed_dataset", packed / "month")
        assert "\n" not in str(error.value) and "--model_name_or_path" in str(error.value)

    def decay(folder):
        facts = json.loads((folder / "trunk.json").read_text())
        (folder / "trunk.json").write_text(json.dumps(facts | {"step": 11}))

    def flip(folder):
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    refused(r"no trunk, it is of step 11 and its learning rate had begun to decay at step 8; name a trunk", decay)
    refused(r"trunk is damaged \(\S+model\.safetensors: altered", flip)
    refused(r"trunk is damaged .*tokenizer\.json: missing", lambda folder: (folder / "tokenizer.json").unlink())
    refused("its trunk.json is damaged", lambda folder: (folder / "trunk.json").write_text('{"step": 8'))
    refused("its trunk.json is damaged", lambda folder: (folder / "trunk.json").write_text("[]"))
    refused("not a whole checkpoint", lambda folder: (folder / "checkpoint.json").unlink())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--keep_trunk"], "--keep_trunk: a linear schedule has no stable phase"),
        ([*SCHEDULE, "--warmup_steps", 8], "begins at step 8, before the warm-up has ended"),
        (["--average_with", "runs/old"], "--average_with runs/old: write FOLDER:SHARE"),
        (["--average_with", "runs/old:1.5"], "share between 0 and 1"),
        (["--average_with", "runs/old:nan"], "share between 0 and 1"),
        (["--average_with", ":0.3"], "write FOLDER:SHARE"),
        (["--average_with", "runs/nowhere:0.3"], "--average_with runs/nowhere: not the folder of a model"),
    ],
)
def test_flags_that_cannot_work_are_refused(packed, tmp_path, flags, message):
    with pytest.raises(InputError, match=message) as error:
        run(tmp_path / "out", "--packed_dataset", packed / "month", "--max_steps", 12, *flags)
    assert "\n" not in str(error.value) and not (tmp_path / "out" / "trunk").exists()


def test_an_older_model_of_another_architecture_is_refused(first, packed, tmp_path):
    flags = ["--packed_dataset", packed / "month", "--max_steps", 1, "--average_with", f"{first}:0.5"]
    with pytest.raises(InputError, match=r"another architecture .* \(num_attention_heads 2 and 4\)"):
        run(tmp_path / "heads", *flags, "--config_overrides", "hidden_size=32,num_attention_heads=4")
    with pytest.raises(
        InputError, match=r"another architecture .*intermediate.dense.bias of shape \(64,\) and \(96,\)"
    ):
        run(tmp_path / "width", *flags, "--config_overrides", "hidden_size=32,intermediate_size=96")
    with pytest.raises(InputError, match=r"another architecture .* \(model_type bert and modernbert"):
        run(tmp_path / "type", *flags, "--model_type", "modernbert", "--config_overrides", "intermediate_size=64")
    broken = shutil.copytree(first, tmp_path / "broken", ignore=shutil.ignore_patterns("checkpoint-*", "trunk"))
    (broken / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes()[:-9])
    flags[-1] = f"{broken}:0.5"
    with pytest.raises(InputError, match=r"--average_with \S+broken: damaged weights") as error:
        run(tmp_path / "broken_run", *flags)
    assert "\n" not in str(error.value)


def test_the_average_is_that_of_each_token_in_both_vocabularies(packed, tmp_path):
    """Against numpy, on files that the library alone has written: the last checkpoint has the weights before it."""
    (tmp_path / "few.txt").write_text("\n\n".join(SENTENCES.read_text().split("\n\n")[:12]))  # and other pieces
    few = Documents([str(tmp_path / "few.txt")])
    tokenizer, _ = train_tokenizer(few, TokenizerArguments("", vocab_size=180, reserved_entries=0), quiet=True)
    old_packed = pack_parts(tmp_path, tokenizer, names=("old",)) / "old"
    old, new = tmp_path / "runs" / "old", tmp_path / "runs" / "new"
    run(old, "--packed_dataset", old_packed, "--max_steps", 3)
    flags = ["--packed_dataset", packed / "month", "--max_steps", 3, "--save_steps", 3]
    metrics = run(new, *flags, "--average_with", f"{old}:0.3")
    before, after, other = (load_file(f / "model.safetensors") for f in (new / "checkpoint-3", new, old))
    ours, theirs = (json.loads((f / "tokenizer.json").read_text())["model"]["vocab"] for f in (new, old))
    both = sorted(ours.keys() & theirs.keys())
    assert 100 < len(both) < len(theirs) == 180 and any(ours[word] != theirs[word] for word in both)
    here, there = ([vocabulary[word] for word in both] for vocabulary in (ours, theirs))
    tables = [name for name in after if len(after[name]) == 200 and len(other[name]) == 180]
    assert len(tables) >= 2  # embedding and bias; the decoder is tied
    for name, weight in after.items():
        expected = before[name].astype(np.float64)
        if name in tables:
            expected[here] = 0.7 * expected[here] + 0.3 * other[name].astype(np.float64)[there]
        else:
            expected = 0.7 * expected + 0.3 * other[name].astype(np.float64)
        assert np.array_equal(weight, expected.astype(np.float32)), name
    kept = sorted(set(range(200)) - set(here))
    assert np.array_equal(after[tables[0]][kept], before[tables[0]][kept])
    (note,) = json.loads((new / "manifest.json").read_text())["notes"]
    assert f"of 200 tokens {len(both)} are in both" in note
    again = run(tmp_path / "again", "--model_name_or_path", new, *flags, "--learning_rate", 0)
    assert metrics["eval_loss"] == pytest.approx(again["eval_loss"], rel=1e-6)
    assert metrics == run(new, *flags, "--average_with", f"{old}:0.3")  # it has finished
    for other_share in ([], ["--average_with", f"{old}:0.2"]):  # and these are others
        with pytest.raises(InputError, match=r"started otherwise .*average_with"):
            run(new, *flags, *other_share)
