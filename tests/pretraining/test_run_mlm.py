import json
import math
import os
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from conftest import ROOT, SENTENCES
from packed_sets import pack_parts
from packed_sets import run as run_packed
from transformers import AutoModelForMaskedLM, AutoTokenizer, ModernBertModel, pipeline

from data_prep.pack_dataset import PackingArguments, pack_dataset
from data_prep.pack_dataset import main as pack
from data_prep.train_word_vectors import VectorArguments
from data_prep.train_word_vectors import main as count_vectors
from pretraining.run_mlm import DataArguments, ModelArguments, RunArguments, main
from shared.command_line import parse_arguments
from shared.documents import Documents
from shared.errors import InputError, RunError

SMOKE = "pretraining/recipes/smoke.yaml"
# Losses of the smoke recipe on a CPU in fp32; a change here is a change of what training computes.
GOLDEN = {10: 4.9437, 50: 4.2785, 100: 4.0872}
EVAL_GOLDEN = 3.423


def run(folder, *flags, config=SMOKE):
    arguments = ["--config", config, "--output_dir", str(folder), "--disable_tqdm", "true", *map(str, flags)]
    return main(*parse_arguments([ModelArguments, DataArguments, RunArguments], arguments))


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {row["step"]: row["loss"] for row in history if "loss" in row}


def weights(folder):
    return AutoModelForMaskedLM.from_pretrained(folder).state_dict()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return folder, run(folder)


def test_golden_losses(smoke):
    folder, metrics = smoke
    found = losses(folder)
    assert {step: found[step] for step in GOLDEN} == pytest.approx(GOLDEN, abs=5e-3)
    assert metrics["eval_loss"] == pytest.approx(EVAL_GOLDEN, abs=0.05)


def test_metrics_agree_with_each_other(smoke):
    folder, metrics = smoke
    assert metrics["eval_masked_accuracy"] > 1.4 * metrics["eval_most_frequent_token_accuracy"] > 0
    assert math.log(metrics["eval_perplexity"]) == pytest.approx(metrics["eval_loss"], abs=1e-5)
    facts = json.loads((folder / "manifest.json").read_text())["inputs"]["splits"]["validation"]
    nats_per_byte = torch.tensor(metrics["eval_perplexity"]).log() * facts["tokens"] / facts["bytes"]
    assert metrics["eval_bits_per_byte"] == pytest.approx(
        float(nats_per_byte / torch.log(torch.tensor(2.0))), rel=1e-4
    )
    assert metrics["train_tokens"] == 200 * 16 * 32


def test_the_loss_is_that_of_all_masked_tokens_whatever_the_batch_size(tmp_path):
    """Blocks of 23 tokens, the last of which has no target: a batch of it alone would be a mean over nothing."""
    flags = ["--max_seq_length", 23, "--max_steps", 2, "--eval_strategy", "no"]
    found = [run(tmp_path / str(n), *flags, "--per_device_eval_batch_size", n) for n in (1, 2, 8)]
    for metrics in found:
        assert metrics["eval_loss"] == pytest.approx(math.log(metrics["eval_perplexity"]), abs=1e-5)
        assert metrics["eval_loss"] == pytest.approx(found[0]["eval_loss"], abs=1e-6)


def test_a_run_leaves_what_the_readme_promises(smoke):
    folder, metrics = smoke
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "recipe.yaml", "manifest.json",
        "train_results.json", "eval_results.json", "all_results.json", "README.md", "curve.png", "checkpoint-200",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seconds"] > 0 and manifest["results"]["eval_loss"] == metrics["eval_loss"]
    assert manifest["versions"]["torch"] and manifest["commit"] and manifest["hardware"]["cores"]
    assert manifest["inputs"]["sources"][0]["file"] == SENTENCES.name
    card = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    values = {m["type"]: m["value"] for m in card["model-index"][0]["results"][0]["metrics"]}
    assert values["masked_accuracy"] == metrics["eval_masked_accuracy"]
    assert (folder / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_the_model_loads_anywhere(smoke):
    folder, _ = smoke
    fill = pipeline("fill-mask", model=str(folder), device="cpu")
    best = fill("The baker was [MASK], and the horse was cold too.", top_k=1)[0]
    assert best["token_str"] and 0 < best["score"] <= 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == AutoModelForMaskedLM.from_pretrained(folder).config.vocab_size == 200


def test_the_saved_recipe_gives_the_same_run(smoke, tmp_path):
    folder, _ = smoke
    run(tmp_path / "again", config=str(folder / "recipe.yaml"))
    assert losses(tmp_path / "again") == losses(folder)


def test_resume_goes_on_from_the_last_checkpoint(smoke, tmp_path):
    folder, metrics = smoke
    copy = tmp_path / "resumed"
    copy.mkdir()
    shutil.copytree(folder / "checkpoint-100", copy / "checkpoint-100")
    with pytest.raises(InputError, match=r"learning_rate: 0\.005 -> 0\.1"):
        run(copy, "--learning_rate", "0.1")
    resumed = run(copy)
    assert losses(copy) == losses(folder)
    assert resumed["eval_loss"] == metrics["eval_loss"]
    assert (copy / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert json.loads((copy / "manifest.json").read_text())["resumed_from"].endswith("checkpoint-100")
    assert " s after checkpoint-100 on" in (copy / "README.md").read_text()


def test_a_finished_run_is_not_touched(smoke, capsys):
    folder, _ = smoke
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run(folder) == json.loads((folder / "manifest.json").read_text())["results"]
    assert "name a new --output_dir" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_finished_run_whose_model_has_gone_or_changed_is_refused(smoke, tmp_path):
    folder, metrics = smoke
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"model\.safetensors: changed since"):
        run(copy)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: deleted since .* remove manifest\.json"):
        run(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["model_files"]  # as earlier versions wrote it
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"model\.safetensors: deleted since"):
        run(copy)
    (copy / "manifest.json").unlink()  # as the message says
    assert run(copy)["eval_loss"] == metrics["eval_loss"] and weights.read_bytes() == whole


def test_files_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        run(tmp_path / "run", "--max_steps", 2, "--save_steps", 1)
    finally:
        os.umask(before)
    files = list((tmp_path / "run").rglob("*"))
    assert {path.name for path in files} >= {"model.safetensors", "checkpoint-1", "optimizer.pt", "curve.png"}
    assert {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in files} == {(True, "0o750"), (False, "0o640")}


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "the baker"}\n' * 3)
    with pytest.raises(InputError, match=r"words enough|no document|characters need"):
        run(tmp_path / "out", "--train_file", tmp_path / "t.jsonl")


@pytest.mark.faults
def test_accumulation_does_not_change_the_losses(smoke, tmp_path):
    folder, _ = smoke
    run(tmp_path / "split", "--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 4)
    for step, loss in losses(tmp_path / "split").items():
        assert loss == pytest.approx(losses(folder)[step], abs=2e-3)


def test_masks_are_fresh_in_every_epoch(tmp_path, monkeypatch):
    from pretraining.masking import MaskedBlocks

    seen = []
    original = MaskedBlocks.__getitems__
    monkeypatch.setattr(
        MaskedBlocks,
        "__getitems__",
        lambda self, rows: (seen.append((self.epoch, len(rows))), original(self, rows))[1],
    )
    run(tmp_path / "r", "--max_train_samples", 32, "--max_steps", 6, "--eval_strategy", "no")
    assert [epoch for epoch, rows in seen if rows == 16] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "model_type", ["roberta", *(pytest.param(one, marks=pytest.mark.faults) for one in ("bert", "modernbert"))]
)
def test_other_architectures_and_going_on_from_a_checkpoint(tmp_path, model_type):
    overrides = "hidden_size=64,intermediate_size=128"
    flags = ["--vocab_size", 300 if model_type == "roberta" else 200, "--whole_word_mask"]
    flags += ["--max_steps", 60]
    first = run(tmp_path / "a", "--model_type", model_type, "--config_overrides", overrides, *flags)
    best = pipeline("fill-mask", model=str(tmp_path / "a"), device="cpu")
    assert best(f"The baker was {best.tokenizer.mask_token}.")[0]["score"] > 0
    recipe = yaml.safe_load((ROOT / SMOKE).read_text())
    del recipe["config_overrides"], recipe["model_type"], recipe["vocab_size"]
    (tmp_path / "continue.yaml").write_text(yaml.safe_dump(recipe))
    second = run(
        tmp_path / "b",
        "--model_name_or_path",
        tmp_path / "a",
        "--max_steps",
        30,
        config=str(tmp_path / "continue.yaml"),
    )
    assert second["eval_loss"] < first["eval_loss"] + 0.05
    assert "notes" not in json.loads((tmp_path / "b" / "manifest.json").read_text())


def test_a_tokenizer_for_raw_text_keeps_every_letter_of_its_script(tmp_path):
    """Thai has no spaces between words, and BERT's normalisation takes its vowel signs."""
    thai = "แม่ครัวที่ตลาดซื้อปลาสดกับผักบุ้งและน้ำปลาทุกเช้า เด็กนักเรียนอ่านหนังสือพิมพ์อยู่ใต้ต้นมะม่วง"
    (tmp_path / "thai.txt").write_text("\n\n".join(f"{thai} {number}" for number in range(300)))
    flags = ["--train_file", tmp_path / "thai.txt", "--vocab_size", 300, "--max_steps", 2, "--eval_strategy", "no"]
    run(tmp_path / "run", *flags, "--model_type", "bert", "--config_overrides", "hidden_size=32,intermediate_size=64")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    ids = tokenizer(thai, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == thai


def test_a_new_head_is_told_and_recorded(smoke, tmp_path, capsys):
    ModernBertModel.from_pretrained(smoke[0]).save_pretrained(tmp_path / "body")
    AutoTokenizer.from_pretrained(smoke[0]).save_pretrained(tmp_path / "body")
    recipe = yaml.safe_load((ROOT / SMOKE).read_text())
    del recipe["config_overrides"], recipe["model_type"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"model_name_or_path": str(tmp_path / "body")}))
    run(tmp_path / "run", "--max_steps", 2, "--eval_strategy", "no", config=str(tmp_path / "r.yaml"))
    (note,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["notes"]
    assert "no fitting weights for decoder.bias, head." in note and capsys.readouterr().out.count(note) == 1


def test_budgets_and_schedules(tmp_path):
    metrics = run_budget(tmp_path / "tokens", "max_tokens: 10_000", "lr_scheduler_type: warmup_stable_decay")
    assert metrics["train_tokens"] == 20 * 512
    history = json.loads((tmp_path / "tokens" / "trainer_state.json").read_text())["log_history"]
    rates = [row["learning_rate"] for row in history if "learning_rate" in row]
    assert max(rates) == pytest.approx(5e-3) and rates[-1] < 1e-3
    metrics = run_budget(tmp_path / "hours", "max_hours: 0.0006", "lr_scheduler_type: cosine")
    assert 0.7 < metrics["train_runtime"] < 7
    metrics = run_budget(tmp_path / "epochs", "num_train_epochs: 0.5")
    assert metrics["epoch"] == pytest.approx(0.5, abs=0.05)


def run_budget(folder, *lines):
    recipe = [x for x in (ROOT / SMOKE).read_text().splitlines() if not x.startswith(("max_steps", "eval_s"))]
    path = folder.with_suffix(".yaml")
    path.write_text("\n".join([*recipe, *lines]))
    return run(folder, "--logging_steps", 5, config=str(path))


def test_dry_run_plans_and_trains_nothing(tmp_path, capsys):
    plan = run(tmp_path / "dry", "--dry_run")
    assert plan["steps"] == 200 and plan["tokens"] == 200 * 512 and plan["parameters"] > 50_000
    assert 0 < plan["seconds_per_step"] < 5 and 0.1 < plan["peak_memory_gib"] < 8
    assert "tokens_per_second" in capsys.readouterr().out
    assert not (tmp_path / "dry").exists()


def test_dry_run_refuses_a_loss_that_depends_on_the_split(tmp_path, monkeypatch):
    def mean_of_the_part(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())

    monkeypatch.setattr("pretraining.chunked_loss.cross_entropy_loss", mean_of_the_part)
    with pytest.raises(RunError, match=r"depends on how a batch is split: \{'gradient_norm_16x1'"):
        run(tmp_path / "dry", "--dry_run")


def test_a_run_that_diverges_stops_before_it_saves(tmp_path):
    with pytest.raises(RunError, match=r"step \d: (loss|.* is not finite)"):
        run(tmp_path / "r", "--learning_rate", "1e38", "--warmup_steps", 0, "--save_steps", 3, "--eval_strategy", "no")
    assert not list((tmp_path / "r").glob("*.safetensors"))


def test_what_has_changed_since_the_checkpoint_is_refused_with_the_difference(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text(SENTENCES.read_text())
    flags = ["--train_file", text, "--save_steps", 5, "--eval_strategy", "no", "--vocab_size", 8192]
    run(tmp_path / "first", *flags, "--max_steps", 5, "--tokenizer_name", smoke_tokenizer(tmp_path / "tokenizer", 200))

    def resume(*more, tokenizer=200):
        folder = tmp_path / "again"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "first" / "checkpoint-5", folder / "checkpoint-5")
        name = smoke_tokenizer(tmp_path / "tokenizer", tokenizer)
        return run(folder, *flags, "--max_steps", 5, "--tokenizer_name", name, *more)

    resume()
    for more, message in [
        (["--weight_decay", "0.1"], r"weight_decay: None -> 0\.1"),
        (["--per_device_train_batch_size", 8], r"samples_per_step: 16 -> 8"),
    ]:
        with pytest.raises(InputError, match=message):
            resume(*more)
    resume("--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 2)
    with pytest.raises(
        InputError, match=r"tokenizer\.sha256: \w{8}\.\.\. -> \w{8}\.\.\., tokenizer\.vocab_size: 200 -> 190"
    ):
        resume(tokenizer=190)
    text.write_text(SENTENCES.read_text() + "\n\nThe baker sold one more loaf to the old miller, and went home.\n")
    capsys.readouterr()
    with pytest.raises(
        InputError, match=r"splits\.train\.bytes: \d+ -> \d+, splits\.train\.documents: \d+ -> \d+"
    ) as e:
        resume()
    assert "{" not in str(e.value) and "every file of which was verified" not in capsys.readouterr().out
    resume("--accept_changes")
    text.write_text(SENTENCES.read_text())
    monkeypatch.setattr("shared.training.record.versions", lambda: {"torch": "9.9"})
    with pytest.raises(InputError, match=r"torch: 2\.\S+ -> 9\.9"):
        resume()


def test_word_vectors_that_changed_since_are_refused(tmp_path, wordpiece):
    pack_parts(tmp_path, wordpiece, ["month"])
    vectors = VectorArguments([str(tmp_path / "month")], str(tmp_path / "vectors"), dimensions=8)
    words = ("--packed_dataset", tmp_path / "month", "--word_vectors", tmp_path / "vectors", "--max_steps")
    count_vectors(vectors)
    run_packed(tmp_path / "run", *words, 1)
    shutil.rmtree(tmp_path / "vectors")
    count_vectors(replace(vectors, window=1))
    with pytest.raises(InputError, match=r"word_vectors/model\.safetensors: \w{8}\.\.\. -> \w{8}"):
        run_packed(tmp_path / "run", *words, 2)


def test_a_run_in_hours_is_prolonged_by_steps(tmp_path):
    hours = ("--save_steps", 1, "--max_hours")
    run(tmp_path, *hours, 0.00002)
    steps = json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] + 2
    for more in (hours, (*hours[:-1], "--accept_changes", "--max_hours")):
        with pytest.raises(InputError, match=r"max_hours: 2e-05 -> 0\.01|prolong it by --max_steps instead"):
            run(tmp_path, *more, 0.01)
    run(tmp_path, "--max_steps", steps, "--save_steps", 1, "--accept_changes")
    assert json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] == steps


def test_the_best_checkpoint_is_that_of_the_lowest_loss_unless_another_measure_is_named(tmp_path):
    flags = ("--max_steps", 4, "--eval_steps", 2, "--save_strategy", "best")
    run(tmp_path, *flags)
    assert json.loads((tmp_path / "trainer_state.json").read_text())["best_global_step"] in (2, 4)


def test_an_older_checkpoint_is_not_resumed_beside_a_newer_one(smoke):
    folder, _ = smoke
    with pytest.raises(InputError, match=r"checkpoint-200, which is newer"):
        run(folder, "--resume_from_checkpoint", folder / "checkpoint-100")


def test_what_is_pushed_is_the_model_without_its_checkpoints(smoke, tmp_path, monkeypatch):
    """The upload alone does not happen: which files it would take, the Hub's own library says."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects
    from transformers import Trainer

    folder, pushed = tmp_path / "run", {}
    shutil.copytree(smoke[0], folder)
    (folder / "trunk").mkdir()
    (folder / "trunk" / "model.safetensors").touch()
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **asked: pushed.update(asked))
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda self, **_: setattr(self, "hub_model_id", "me/tiny"))
    monkeypatch.chdir(ROOT)
    run(folder, "--push_to_hub", "--hub_model_id", "me/tiny")
    assert pushed["repo_id"] == "me/tiny" and pushed["folder_path"] == folder
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    taken = set(filter_repo_objects(files, ignore_patterns=pushed["ignore_patterns"]))
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "manifest.json"} <= taken
    assert not [name for name in taken if "/" in name or name.startswith(".")]
    assert any(name.startswith("checkpoint-") for name in files)


def smoke_tokenizer(folder, size):
    from conftest import make_tokenizer

    make_tokenizer("wordpiece", size).save_pretrained(folder)
    return folder


def test_wrong_input_is_refused_before_the_model_is_built(tmp_path, wordpiece, bpe, monkeypatch):
    monkeypatch.setattr("pretraining.run_mlm.build_model", lambda *_: pytest.fail("the model was built"))
    pack_dataset(Documents([str(SENTENCES)]), wordpiece, tmp_path / "packed", 32, 0.1, quiet=True)
    pack_dataset(Documents([str(SENTENCES)]), wordpiece, tmp_path / "all", 32, 0.0, quiet=True)
    bpe.save_pretrained(tmp_path / "bpe")
    recipe = [line for line in (ROOT / SMOKE).read_text().splitlines() if not line.startswith("train_file")]
    (tmp_path / "r.yaml").write_text("\n".join(recipe))
    for flags, message in [
        ([], "give one source of text"),
        (["--packed_dataset", tmp_path / "packed", "--train_file", SENTENCES], "give one source of text"),
        (["--packed_dataset", tmp_path / "packed", "--max_seq_length", "64"], "these blocks are of 32 tokens"),
        (["--packed_dataset", tmp_path / "packed", "--mask_examples", "no gap"], "must hold <mask> once"),
        (["--packed_dataset", tmp_path / "packed", "--config_overrides", "hiden_size=1"], "did you mean hidden_size"),
        (["--packed_dataset", tmp_path / "packed", "--tokenizer_name", tmp_path / "bpe"], "another tokenizer"),
        (["--packed_dataset", tmp_path / "all"], "no held-out documents"),
        (["--packed_dataset", tmp_path / "packed", "--validation_fraction", "0.2"], "was packed with 0.1; leave the"),
        (["--packed_dataset", tmp_path / "packed", "--vocab_size", "300"], "--vocab_size 300: .* has 200 entries"),
        (["--packed_dataset", tmp_path / "nowhere"], "not a folder of packed blocks"),
        (["--packed_dataset", tmp_path / "packed", "--mlm_probability", "0"], "--mlm_probability 0.0: must be above"),
        (["--packed_dataset", tmp_path / "packed", "--max_train_samples", "0"], "--max_train_samples"),
        (["--packed_dataset", tmp_path / "packed", "--max_tokens", "5", "--max_steps", "9"], "give one budget"),
        (["--packed_dataset", tmp_path / "packed", "--max_steps", "-1", "--max_hours", "-1"], "must be above 0"),
        (["--packed_dataset", tmp_path / "packed", "--resume_from_checkpoint", "nowhere"], "not a checkpoint folder"),
        (["--packed_dataset", tmp_path / "packed", "--report_to", "no_such_reporter"], "report_to"),
        (["--packed_dataset", tmp_path / "packed", "--train_sampling_strategy", "group_by_length"], "use .* random"),
    ]:
        with pytest.raises(InputError, match=message):
            run(tmp_path / "out", *flags, config=str(tmp_path / "r.yaml"))


def test_blocks_of_another_tokenizer_can_be_packed_as_the_error_says(tmp_path, wordpiece, bpe):
    pack_dataset(Documents([str(SENTENCES)]), wordpiece, tmp_path / "packed", 32, 0.1, quiet=True)
    bpe.save_pretrained(tmp_path / "bpe")
    recipe = [line for line in (ROOT / SMOKE).read_text().splitlines() if not line.startswith("train_file")]
    (tmp_path / "r.yaml").write_text("\n".join(recipe))
    flags = ["--tokenizer_name", tmp_path / "bpe", "--max_steps", 1, "--eval_strategy", "no", "--packed_dataset"]
    with pytest.raises(InputError, match=r"pack the text again with data_prep/pack_dataset\.py") as error:
        run(tmp_path / "out", *flags, tmp_path / "packed", config=str(tmp_path / "r.yaml"))
    words = str(error.value).partition("data_prep/pack_dataset.py ")[2].split()
    packing = [*words, "--input", str(SENTENCES), "--output_dir", str(tmp_path / "again"), "--max_seq_length", "32"]
    pack(*parse_arguments([PackingArguments], [*packing, "--validation_fraction", "0.1"]))
    with pytest.raises(InputError, match=r"--vocab_size 200: .*bpe has 400 entries already.* with --vocab_size 8192"):
        run(tmp_path / "out", *flags, tmp_path / "again", config=str(tmp_path / "r.yaml"))
    flags = ["--vocab_size", 8192, *flags]  # as it says
    run(tmp_path / "out", *flags, tmp_path / "again", config=str(tmp_path / "r.yaml"))
    path = tmp_path / "packed" / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace('"the"', '"teh"'))
    with pytest.raises(InputError, match=r"packed/tokenizer: altered since the text was packed; remove the folder"):
        run(tmp_path / "other", "--packed_dataset", tmp_path / "packed", config=str(tmp_path / "r.yaml"))


def test_documents_kept_apart(smoke, tmp_path):
    metrics = run(tmp_path / "apart", "--isolate_documents")
    assert "isolate_documents: true" in (tmp_path / "apart" / "recipe.yaml").read_text()
    assert metrics["eval_masked_accuracy"] > 1.4 * metrics["eval_most_frequent_token_accuracy"]
    assert metrics["eval_loss"] != smoke[1]["eval_loss"]
    with pytest.raises(InputError, match=r"--attn_implementation flash_attention_2: needs --bf16 or --fp16"):
        run(tmp_path / "flash", "--attn_implementation", "flash_attention_2")
    flex = ["--attn_implementation", "flex_attention"]
    for flags, message in (
        (flex, "is for --isolate_documents"),
        ([*flex, "--isolate_documents"], "its backward pass needs a GPU; use sdpa on a CPU"),
    ):
        with pytest.raises(InputError, match=f"--attn_implementation flex_attention: {message}"):
            run(tmp_path / "flex", *flags)
