"""The record of a run: what it is resumed from, and recipe.yaml and manifest.json, which say what it was."""

import dataclasses
import enum
import fcntl
import json
import multiprocessing
import os
import platform
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils import broadcast_object_list

from shared.cores import start_method, use_all_cores
from shared.errors import InputError
from shared.files import must_be_writable, read_json, sha256_of, write_json, write_text
from shared.training.card import ModelCardFacts, draw_curve, readable, write_model_card
from shared.training.checkpoints import MANIFEST, checkpoints, newest_good, sweep, verify
from shared.training.environment import git_commit, hardware, versions
from shared.training.memory import keep_memory
from shared.training.processes import check_launch, engine_name, meet

OWN_WANDB_RUN = "TINY_OLM_WANDB_RUN_ID"
SECRETS = ("hub_token",)  # flags whose values are never written down
# Flags that may change between the parts of one run, by their beginning: where it runs, writes, looks and reports, not
# what it computes. How a step is split may change as well: the samples of a step are compared instead.
FREE = (
    *("output_dir", "dry_run", "use_cpu", "mask_examples", "disable_tqdm", "resume_", "report_to", "push_to_", "hub_"),
    *("dataloader_num", "dataloader_pin", "dataloader_pre", "dataloader_per", "eval_", "per_device_eval", "log_"),
    *("logging_", "save_", "ddp_", "start_timeout", "accept_changes", "per_device_train_batch_size"),
    "gradient_accumulation_steps",
)
# What a run writes, but over the files of runs alone: .lock or the manifest says that a folder is one's.
WRITTEN = (
    *("README.md", "config.json", "manifest.json", "recipe.yaml", "trainer_state.json", "tokenizer*", "checkpoint-*"),
    *("*.safetensors", "*_results.json"),
)


class RunRecord:
    """The record of one run. Create it first thing in `main`; call `finish` last.

    `checkpoint` is the folder to resume from, or None; `finished` the manifest of the run in this folder if that has
    ended well (no dry run looks), else empty; `identity` what makes this run the one it is, for `ExactTrainer`.
    Whether a finished run had the same data is known after `use_inputs`.
    """

    def __init__(self, training_args: Any, *others: Any) -> None:
        """Meet the other processes, lock the folder, find the checkpoint, write recipe.yaml and manifest.json.

        Raises InputError when what runs is not what was launched, when another run writes into the folder, when its
        checkpoints are all damaged, or when recipe or library versions are not those of the checkpoint.
        """
        check_launch(training_args)
        meet()
        use_all_cores()
        multiprocessing.set_start_method(start_method(), force=True)  # the workers of a DataLoader
        if training_args.device.type == "cpu":
            keep_memory()
        self.args = training_args
        self.folder = Path(training_args.output_dir)
        self.recipe = recipe_of(*others, training_args)
        if training_args.hub_token:  # out of everything that is written
            os.environ["HF_TOKEN"], training_args.hub_token = training_args.hub_token, None
        self.start = time.time()
        self.identity: dict[str, Any] = {
            "recipe": {name: value for name, value in self.recipe.items() if not name.startswith(FREE)},
            "samples_per_step": training_args.samples_per_step,
            "versions": versions(),
            "engine": engine_name(training_args),
            "processes": training_args.world_size,
            "started_from": _hashes_of_models(self.recipe),
        }
        self.checkpoint: str | None = None
        self.finished: dict[str, Any] = {}
        self.before: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {
            "command": _without_secrets(sys.argv),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(),
            "hardware": hardware(training_args.device.type),
        }
        if not training_args.dry_run:
            self._look()

    def _look(self, may_have_finished: bool = True) -> None:
        """Find out what to go on from."""
        found: list[Any] = [None]
        if self.is_writer:  # one process looks, sets damaged checkpoints aside, and tells the others
            try:
                with must_be_writable(self.folder):
                    found = [self._open(may_have_finished)]
            except InputError as error:
                found = [error]
        broadcast_object_list(found)
        if isinstance(found[0], InputError):
            raise found[0]
        self.checkpoint, self.finished, self.before = found[0]

    @property
    def is_writer(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return bool(self.args.process_index == 0)

    def print(self, text: str) -> None:
        """Print on one process only."""
        if self.is_writer:
            print(text, flush=True)

    def show(self, values: dict[str, float]) -> None:
        """Print numbers with their names, one a line."""
        self.print("\n".join(f"{name}: {readable(value)}" for name, value in values.items()))

    def use_inputs(self, inputs: dict[str, Any], identity: dict[str, Any]) -> bool:
        """Record the data: `inputs` for the manifest, `identity` for the comparison with the run that is in the
        folder. Returns whether that run has finished, and `finished` holds its results; says what happens then, or
        what is gone on from.

        Raises InputError when the data or the tokenizer of that run had another `identity`.
        """
        self.manifest["inputs"] = inputs
        self.identity["data"] = identity
        changed = self._refuse_changes({"data": self.before.get("data", identity)}, {"data": identity})
        if self.finished and changed:  # and accepted
            self._look(may_have_finished=False)
        if self.finished:
            self.print(f"This run finished on {self.finished['ended']}. To train again, name a new --output_dir.")
        if self.checkpoint:
            self.print(f"Going on from {self.checkpoint}, every file of which was verified.")
        return bool(self.finished)

    def note(self, text: str) -> None:
        """Print what a reader of the results has to know, once, and keep it in the manifest."""
        notes = self.manifest.setdefault("notes", [])
        if text not in notes:
            notes.append(text)
            self.print(text)

    def finish(self, trainer: Any, metrics: dict[str, float], card: ModelCardFacts) -> None:
        """Write the final manifest, the curve and the card, and push all of it when `push_to_hub` is set."""
        if not self.is_writer:
            return
        self.manifest |= {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.start, 1),
            "results": metrics,
            "model_files": {path.name: sha256_of(path) for path in _model_files(self.folder)},
        }
        draw_curve(trainer.state.log_history, self.folder / "curve.png", card.loss)
        write_model_card(self.folder, metrics, self.recipe, self.manifest | self.identity, card)
        self._write_manifest()  # last: it says that the run has ended well
        if self.args.push_to_hub:
            from huggingface_hub import HfApi

            HfApi(token=self.args.hub_token).upload_folder(
                repo_id=trainer.hub_model_id,
                folder_path=self.folder,
                commit_message="End of training",
                ignore_patterns=["*checkpoint-*", "trunk/*", ".*"],
            )
            self.manifest["published"] = True
            self._write_manifest()

    def _open(self, may_have_finished: bool) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
        """Look into the folder: the checkpoint, the manifest if finished, and the identity of the run in it."""
        wish = self.args.resume_from_checkpoint
        self._refuse_foreign_files()
        content = self._written_manifest()
        if wish is None and content and may_have_finished:
            published = content.get("published") or not self.args.push_to_hub
            if "results" in content and published and not self._refuse_changes(content, self.identity):
                self._check_model(content)
                return None, content, content
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        sweep(self.folder)
        before: dict[str, Any] = {}
        checkpoint = None
        if wish in (None, "true", "True"):
            found = newest_good(self.folder)
            if found:
                checkpoint, before = str(found[0]), found[1]
            elif wish:
                raise InputError(f"--resume_from_checkpoint {wish}: there is no checkpoint in {self.folder}")
        else:
            if not Path(wish).is_dir():
                raise InputError(f"--resume_from_checkpoint {wish}: not a checkpoint folder; name one, or say true")
            newest = checkpoints(self.folder)[:1]
            if newest and newest[0].resolve() != Path(wish).resolve():
                raise InputError(
                    f"--resume_from_checkpoint {wish}: the next start would go on from {newest[0]}, which is newer; "
                    "move it away first, or name a new --output_dir"
                )
            try:
                checkpoint, before = str(wish), verify(Path(wish))
            except InputError as error:
                raise InputError(f"--resume_from_checkpoint {wish}: {error}") from error
        if checkpoint:
            self._refuse_other_engine(before)
            self._refuse_changes(before, self.identity)
        self.manifest["resumed_from"] = checkpoint
        if "wandb" in self.args.report_to:
            self._name_wandb_run(content if checkpoint else {})
        write_text(self.folder / "recipe.yaml", yaml.safe_dump(self.recipe, sort_keys=False))
        self._write_manifest()
        return checkpoint, {}, before

    def _refuse_foreign_files(self) -> None:
        """Raise InputError where a run would write over files that no run has written, or go on from them."""
        if (self.folder / ".lock").is_file() or "hardware" in self._written_manifest():
            return
        found = sorted({path.name for pattern in WRITTEN for path in self.folder.glob(pattern)})
        # Checkpoints may be moved to a new folder; one of them may have lost its record, and is set aside later.
        if any((self.folder / name / MANIFEST).is_file() for name in found):
            found = [name for name in found if not name.startswith("checkpoint-")]
        if found:
            raise InputError(
                f"--output_dir {self.folder}: holds files of something else ({', '.join(found[:5])}); name a new one"
            )

    def _written_manifest(self) -> dict[str, Any]:
        """The manifest that is in the folder, empty if there is none. Raises InputError where it is not whole."""
        path = self.folder / "manifest.json"
        content: dict[str, Any] = read_json(path) if path.exists() else {}
        return content

    def _check_model(self, manifest: dict[str, Any]) -> None:
        """Raise InputError unless the model of a finished run is in the folder as it was written."""
        found = {path.name: path for path in _model_files(self.folder)}
        written = manifest.get("model_files")
        if written is None:  # by an earlier version
            written = {} if any(name.endswith(".safetensors") for name in found) else {"model.safetensors": ""}
        for name, digest in written.items():
            if name not in found or sha256_of(found[name]) != digest:
                raise InputError(
                    f"{self.folder / name}: {'changed' if name in found else 'deleted'} since this run finished; name "
                    "a new --output_dir, or remove manifest.json from this one to go on from its newest checkpoint"
                )

    def _name_wandb_run(self, before: dict[str, Any]) -> None:
        """Let W&B go on in the run of the manifest `before`, unless WANDB_RUN_ID is the user's."""
        given = os.environ.get("WANDB_RUN_ID")
        if not given or given == os.environ.get(OWN_WANDB_RUN):  # ours, of another run of this process
            given = os.environ[OWN_WANDB_RUN] = before.get("wandb_run_id") or secrets.token_hex(4)
            os.environ |= {"WANDB_RUN_ID": given, "WANDB_RESUME": "allow"}
        self.manifest["wandb_run_id"] = given

    def _lock(self) -> None:
        """Take the folder for as long as this process lives; the system gives it back however that ends."""
        self.lock = open(self.folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.lock.seek(0)
            raise InputError(
                f"--output_dir {self.folder}: another run writes here ({self.lock.read().strip() or error}); wait for "
                "it, or name another folder"
            ) from error
        self.lock.truncate(0)
        self.lock.write(f"process {os.getpid()} on {platform.node()} since {self.manifest['started']}")
        self.lock.flush()

    def _write_manifest(self) -> None:
        write_json(self.folder / "manifest.json", self.manifest | self.identity)

    def _refuse_other_engine(self, before: dict[str, Any]) -> None:
        was, now = (f"{x['engine']} on {x['processes']}" for x in (before, self.identity))
        if before["engine"] != self.identity["engine"] or (before["engine"] != "plain" and was != now):
            suffix = "_cpu" if self.args.device.type == "cpu" else ""
            plain = before["engine"] == "plain"
            launch = "" if plain else f"--config_file shared/launch/{before['engine']}{suffix}.yaml "
            raise InputError(
                f"--output_dir {self.folder}: its checkpoints were written by {was} processes, and this run is {now}; "
                "a DeepSpeed state fits only as many processes as wrote it: start it with accelerate launch "
                f"{launch}--num_processes {before['processes']}, or begin a new run from the weights with "
                f"--model_name_or_path {checkpoints(self.folder)[0] if checkpoints(self.folder) else 'CHECKPOINT'}"
            )

    def _refuse_changes(self, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
        """The changes, when they are accepted."""
        changed: list[str] = []
        for part in ("recipe", "samples_per_step", "versions", "started_from", "data"):
            if part in before and part in now:
                is_one = not isinstance(before[part], dict)
                changed += _differences(before[part], now[part], part if is_one else "")
        if changed and not self.args.accept_changes:
            raise InputError(
                f"--output_dir {self.folder}: holds a run that was started otherwise ({', '.join(changed)}); name a "
                "new folder, or insist with --accept_changes"
            )
        if now.get("recipe", {}).get("max_hours") and any(one.startswith("max_hours: ") for one in changed):
            raise InputError("--max_hours: a run in hours keeps its steps; prolong it by --max_steps instead")
        if changed and self.identity["engine"] != "plain" and before.get("recipe") != now.get("recipe"):
            raise InputError(
                f"--accept_changes: DeepSpeed goes on with the settings in its checkpoint whatever the recipe says "
                f"({', '.join(changed)}); begin a new run from the weights with --model_name_or_path"
            )
        return changed


def _model_files(folder: Path) -> list[Path]:
    """Weights and configuration in a folder, sorted."""
    return sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])


def _hashes_of_models(recipe: dict[str, Any]) -> dict[str, str]:
    """Hashes of the configurations, and of the weights read, in the folders that `..._name_or_path` flags and
    `word_vectors` name; a SentenceTransformer has some in folders within."""
    unread = ".safetensors" if recipe.get("random_weights") else None
    flags = [name for name in recipe if name.endswith("name_or_path") or name == "word_vectors"]
    found = {}
    for name in flags:
        folder = Path(recipe[name])
        within = folder.glob("*/config.json") if (folder / "modules.json").is_file() else ()
        for path in (path for part in (folder, *(file.parent for file in within)) for path in _model_files(part)):
            if path.suffix != unread:
                found[f"{name}/{path.relative_to(folder).as_posix()}"] = sha256_of(path)
    return found


def _differences(old: Any, new: Any, name: str) -> list[str]:
    """The keys that differ, with both values; those of nested dictionaries with dots, hashes shortened."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [x for k in keys for x in _differences(old.get(k), new.get(k), f"{name}.{k}".lstrip("."))]
    if old == new:
        return []
    old, new = (re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1...", str(value)) for value in (old, new))
    return [f"{name}: {old} -> {new}"]


def recipe_of(*arguments: Any) -> dict[str, Any]:
    """All flags of the given dataclasses that differ from the defaults, as a recipe that --config reads back.

    No default TrainingArguments is made for the comparison: that would reset the process group of this run.
    """
    recipe: dict[str, Any] = {}
    for given in arguments:
        values = getattr(given, "given", vars(given))
        for field in dataclasses.fields(given):
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            value = _plain(values.get(field.name))
            if field.init and field.name not in SECRETS and value is not None and value != _plain(default):
                recipe[field.name] = value
    return recipe


def _plain(value: Any) -> Any:
    """A value as it would be typed in a recipe."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return json.dumps(value) if value else None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value] or None
    return value if isinstance(value, (str, int, float, bool)) else None


def _without_secrets(command: list[str]) -> list[str]:
    hidden = []
    for word, following in zip(["", *command], command, strict=False):
        name, equals, _ = following.partition("=")
        if name.lstrip("-").replace("-", "_") in SECRETS and equals:
            hidden.append(f"{name}=***")
        else:
            hidden.append("***" if word.lstrip("-").replace("-", "_") in SECRETS else following)
    return hidden
