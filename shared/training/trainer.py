"""A Trainer whose result depends on the recipe alone: not on how batches are split, on interruptions, or on damage."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch.utils.data import DataLoader, SequentialSampler
from transformers import Trainer
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ExportableState

from shared.errors import InputError, RunError
from shared.loss import IGNORED
from shared.training.checkpoints import INCOMING, move_files, rotate, seal, verify
from shared.training.data_order import GlobalBatches, Samples, lengths_of
from shared.training.guard import Guard
from shared.training.kept_settings import keep_settings
from shared.training.loss_sums import prepare_mean, sums_to_keep
from shared.training.processes import Signals, ignore_signals
from shared.training.speed import StepClock, measure_peak, peak_memory, say_if_bf16_pays

SKIPPED = "skipped_step"  # the key of skipped steps in the log history


class ExactTrainer(Trainer):
    """A Trainer with the same arguments and these differences.

    - The samples of a step, and the random numbers of its dropout, are functions of seed and step (and rank), so a
      resumed run goes on bit by bit like one that was never interrupted. Give it a `compute_loss_func` of
      shared/loss.py and the gradient does not depend on accumulation or processes either.
    - Checkpoints are whole or not there (shared/training/checkpoints.py) and hold no pickled arguments.
    - A loss or gradient that is not finite stops the run or is skipped and counted.
    - The loss of an evaluation is the sum over all targets divided by their number, as in training: it depends neither
      on the batch size nor on the processes.
    - SIGTERM, SIGINT and SIGHUP finish the step, save, and exit with 143, 130 and 129.
    - On a GPU the host does not wait for a step before it prepares the next one: batches are copied asynchronously,
      and whether numbers were finite is read one step later (not with DeepSpeed or `skip_nonfinite_steps`, which look
      at once). `speed` says where the time went.

    `train_dataset` must be a pure function of (epoch, row); see `shared.training.data_order.Samples`. `identity` is
    what a resumed run is compared with; it is written into each checkpoint.
    """

    compute_loss_func: Any

    def __init__(self, *args: Any, identity: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.identity = identity or {}
        self.count_targets = getattr(self.compute_loss_func, "count", None)  # that of a WeightedLoss
        if self.args.torch_compile and self.compute_loss_func is not None:  # Trainer compiles the model alone
            self.compute_loss_func = torch.compile(
                self.compute_loss_func, backend=self.args.torch_compile_backend, dynamic=False
            )
        self.signals = Signals()
        self.stop_signal = 0  # the signal that all processes have agreed on
        self.order: Any = None
        self.step_loss: Any = 0.0
        self.eval_sums: torch.Tensor | None = None  # loss and targets of an evaluation, (2,) float64
        self.clock = StepClock(self.args.device)
        self.reads_late = self.args.device.type == "cuda" and not self.args.skip_nonfinite_steps
        self.late: tuple[int, torch.Tensor, Any] | None = None  # the step whose flags are still to be read
        self.has_sums = True  # of the losses of all steps; checkpoints of earlier versions have none
        self.already_over = self.is_trial = self.has_looked = False
        self.overflows = 0
        self.saved_step: int | None = None
        self.lengths = lengths_of(self.train_dataset, self.args)
        self.add_callback(Guard(self))
        for callback in self.callback_handler.callbacks:  # TensorBoard's names a new folder in every start
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = os.path.join(self.args.output_dir, "runs")

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Train as Trainer does; `metrics` counts `skipped_steps`. Raises RunError, or SystemExit after a signal."""
        with self.signals.catching():
            asked = self.args.bf16 or self.is_trial  # a dry run tells who has not thought of it
            if asked and self.args.device.type == "cpu" and self.is_world_process_zero():
                say_if_bf16_pays(self)
                self.clock = StepClock(self.args.device)
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
            self._read_late_flags()
        signal = self._any_process(self.stop_signal or self.signals.caught)
        if signal:
            if self.args.process_index == 0 and self.saved_step == self.state.global_step:
                print(f"Saved checkpoint-{self.saved_step}. The same command goes on from there.", flush=True)
            raise SystemExit(128 + signal)
        if self.args.batch_ramp and "train_samples_per_second" in output.metrics:  # Trainer takes batches for whole
            whole = self.args.samples_per_step * self.state.global_step
            output.metrics["train_samples_per_second"] *= self.args.samples_read(self.state.global_step) / whole
        if self.already_over:  # rates are those of the steps of this process, and there were none
            for name in [name for name in output.metrics if name != "train_loss" or not self.has_sums]:
                del output.metrics[name]
        output.metrics["skipped_steps"] = sum(SKIPPED in row for row in self.state.log_history)
        return output

    def get_train_dataloader(self) -> DataLoader[Any]:
        args, dataset = self.args, self.train_dataset
        if args.remove_unused_columns and hasattr(dataset, "column_names"):
            dataset = self._remove_unused_columns(dataset, description="training")
        self.order = GlobalBatches(
            samples=len(dataset),
            batch_size=args.per_device_train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            processes=args.world_size,
            rank=args.process_index,
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=args.train_sampling_strategy != "sequential",
            lengths=self.lengths,
            drop_last=args.dataloader_drop_last,
            steps=args.max_steps,
            ramp=args.ramp,
        )
        if not len(self.order):
            raise InputError(f"{len(dataset)} training samples: fewer than a step reads ({args.samples_per_step})")
        return DataLoader(
            Samples(dataset, self.data_collator),
            batch_sampler=self.order,
            collate_fn=_as_it_is,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            persistent_workers=args.dataloader_persistent_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # its own, so that workers take no number from the model's
        )

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """Of evaluation, which reads every row: `dataloader_drop_last` is for training, whose loader stands above."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler | None:
        """Rows in their order: Trainer shuffles them with group_by_length, and predictions then fit no input."""
        return SequentialSampler(eval_dataset) if self.args.world_size == 1 else None

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        if self.already_over:  # Trainer would train one step more
            self.control.should_training_stop = True
            return [], None
        self.clock.mark("other")
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        # Called when the batches are there; to count on the device is to count without waiting for it.
        batch_samples[:] = [self._prepare_inputs(batch) for batch in batch_samples]
        self.clock.mark("data")
        if self.count_targets is None or "labels" not in batch_samples[0]:
            return super()._get_num_items_in_batch(batch_samples, device)
        total = sum(self.count_targets(batch["labels"]) for batch in batch_samples)
        return self.accelerator.gather(total.to(device)).sum()

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, torch.Tensor):
            data = data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(model, *args, **kwargs)
        if model.training:
            self.clock.mark("forward")
        elif self.eval_sums is not None:  # Trainer multiplies by the processes, for a mean over them
            loss = (result[0] if isinstance(result, tuple) else result).detach().double() / self.args.world_size
            count = torch.as_tensor(kwargs["num_items_in_batch"], dtype=torch.float64, device=loss.device)
            self.eval_sums = self.eval_sums + torch.stack([loss * count.where(count > 0, 1.0), count])
        return result

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.clock.mark("backward")
        self.step_loss = self.step_loss + loss
        if self.args.skip_nonfinite_steps and not torch.isfinite(loss):  # the logged mean is that of the other steps
            loss = self._tr_loss / (1 + self.state.global_step - self._globalstep_last_logged)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called between the backward pass and the optimizer: the last moment to see that a number is none."""
        self.has_looked = True
        norm = super()._get_grad_norm(model, grad_norm)
        device = self.args.device
        size = torch.as_tensor(0.0 if norm is None else norm, device=device)
        loss = torch.as_tensor(self.step_loss, device=device)
        bad = ~torch.isfinite(loss)
        if not self.args.fp16:  # which scales and retries itself; DeepSpeed may say -1 for what is not finite
            bad = bad | ~torch.isfinite(size) | (size < 0)
        # Whether a process found something bad or caught a signal, and the loss and norm of this one.
        flags = torch.stack([bad.float(), torch.full_like(bad, self.signals.caught, dtype=torch.float)])
        if self.args.world_size > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        report = torch.cat([flags, torch.stack([loss.float(), size.float()])])
        if self.reads_late:
            self._read_late_flags()
            event = None
            if device.type == "cuda":
                report = torch.empty(4, pin_memory=True).copy_(report, non_blocking=True)
                event = torch.cuda.Event()
                event.record()
            self.late = (self.state.global_step, report, event)
        elif self._read_flags(self.state.global_step, report):
            model.zero_grad()  # without a gradient the optimizer leaves weights and moments alone
            self.log({SKIPPED: self.state.global_step + 1})
        return norm

    def _read_late_flags(self) -> None:
        """Look at the flags of the last step that was left to the GPU, which has computed on meanwhile."""
        if self.late is not None:
            step, report, event = self.late
            self.late = None
            if event is not None:
                event.synchronize()
            self._read_flags(step, report)

    def _read_flags(self, step: int, report: torch.Tensor) -> bool:
        """Whether the step is to be skipped. Raises RunError when it is not finite and none may be skipped."""
        bad, signal, loss, size = report.tolist()
        self.stop_signal = int(signal)
        if bad and not self.args.skip_nonfinite_steps:
            raise RunError(
                f"step {step + 1}: loss {loss}, gradient norm {size}: there is nothing to "
                "learn from, or training diverges. Look at these samples, lower --learning_rate, or leave such "
                f"steps out with --skip_nonfinite_steps. Samples: {self.order.step_rows(step).tolist()}"
            )
        return bool(bad)

    def _any_process(self, flag: int) -> int:
        if self.args.world_size == 1:
            return flag
        tensor = torch.tensor(flag, device=self.args.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self._read_late_flags()
        self.clock.mark("other")
        clock, self.clock = self.clock, StepClock(self.args.device)  # prediction counts its targets like training
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.clock = clock
            self.clock.mark("")

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        rows = self.accelerator.gradient_state.remainder if self.accelerator.gradient_state.end_of_dataloader else 0
        labels = inputs.get("labels")
        if rows > 0 and labels is not None:  # the last rows of the last batch may be the first ones once more
            numbers = torch.arange(len(labels), device=labels.device) + self.args.process_index * len(labels)
            inputs["labels"] = labels.clone()
            inputs["labels"][numbers >= rows] = IGNORED
        return super().prediction_step(model, inputs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """As Trainer does; the loss is that of all targets together, not a mean of means; without any, none."""
        self.eval_sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, self.eval_sums = self.eval_sums, None
        if self.args.world_size > 1:
            dist.all_reduce(total)  # the targets were counted over all processes on each of them
            total[1] /= self.args.world_size
        if output.metrics.pop(f"{metric_key_prefix}_loss", None) is not None and total[1]:
            output.metrics[f"{metric_key_prefix}_loss"] = float(total[0] / total[1])
        return output

    def speed(self, tokens_per_step: float, flops_per_token: float | None) -> dict[str, float]:
        """What `StepClock.report` says, against one matrix product in the precision of this run; as train metrics."""
        args, memory = self.args, peak_memory(self.args.device)
        if not self.clock.steps:
            return {}
        dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
        peak = measure_peak(args.device, dtype) * args.world_size
        report = self.clock.report(tokens_per_step, flops_per_token, peak)
        return {f"train_{name}": value for name, value in report.items()} | {"train_peak_memory_gib": memory / 2**30}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As Trainer does, but each file appears when it is whole."""
        if _internal_call:  # into a checkpoint, which appears as one
            return super().save_model(output_dir, _internal_call=True)
        folder = Path(output_dir or self.args.output_dir)
        staging = folder / f"{INCOMING}model"
        with self._writing(folder / "model.safetensors", staging):
            super().save_model(str(staging), _internal_call=True)
            if self.args.should_save:
                move_files(staging, folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            for name, weight in (self.model.state_dict() if state_dict is None else state_dict).items():
                if not torch.isfinite(weight).all():
                    raise RunError(
                        f"step {self.state.global_step}: {name} is not finite any more and is not saved; lower "
                        "--learning_rate and go on from the last checkpoint with --accept_changes, or begin again"
                    )
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # a pickle; recipe.yaml says the same in text
            Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write all of a checkpoint aside, then make it appear at once."""
        output = Path(self.args.output_dir)
        folder = output / f"checkpoint-{self.state.global_step}"
        if self.saved_step == self.state.global_step:
            return
        self.clock.mark("other")
        self._read_late_flags()
        staging = output / f"{INCOMING}{folder.name}"
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(folder)
        self.store_flos()
        losses = sums_to_keep(self)
        with self._writing(folder, staging):
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self.save_model(str(staging), _internal_call=True)
            self._save_optimizer_and_scheduler(str(staging))
            self._save_scaler(str(staging))
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.state.stateful_callbacks = self._callback_states(losses)
                # As the flag has it: the guard may have lowered it, and Trainer compares the two when a run goes on.
                state = replace(self.state, logging_steps=self.args.logging_steps)
                state.save_to_json(str(staging / "trainer_state.json"))
                seal(staging, folder, self.identity)
                rotate(output, self.args.save_total_limit, self.state.best_model_checkpoint)
        self.saved_step = self.state.global_step
        self.accelerator.wait_for_everyone()
        self.clock.mark("")

    @contextmanager
    def _writing(self, target: Path, staging: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(staging, ignore_errors=True)
            free = shutil.disk_usage(self.args.output_dir).free / 2**20
            raise RunError(
                f"{target}: could not be written ({str(error).splitlines()[0]}; {free:,.0f} MiB free); older "
                "checkpoints are untouched; make room and start the same command again"
            ) from error

    def _callback_states(self, losses: dict[str, Any]) -> dict[str, Any]:
        """As Trainer reads them: by class name, a list where there are several of one class; and sums of losses."""
        states: dict[str, Any] = {}
        for callback in (*self.callback_handler.callbacks, self.control):
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        if self.state.global_step >= self.state.max_steps:  # so that a run that is prolonged later goes on
            states["TrainerControl"][0]["args"]["should_training_stop"] = False
        states["TrainerControl"][0]["losses"] = losses
        return {name: found[0] if len(found) == 1 else found for name, found in states.items()}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As Trainer does; with `accept_changes` the settings are the new ones, where Trainer goes on with the old."""
        changed = checkpoint is not None and self.args.accept_changes and not self.is_deepspeed_enabled
        with keep_settings(self.optimizer, self.lr_scheduler) if changed else nullcontext():
            super()._load_optimizer_and_scheduler(checkpoint)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        prepare_mean(self, self.has_sums)
        return super()._finalize_training(*args, **kwargs)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Say nothing of a weight that is tied to one that was loaded; refuse any other that does not fit."""
        weights, missing = self.model.state_dict(keep_vars=True), set(load_result.missing_keys)
        loaded = {weight.data_ptr() for name, weight in weights.items() if name not in missing}
        wrong = [name for name in load_result.missing_keys if weights[name].data_ptr() not in loaded]
        wrong += load_result.unexpected_keys
        if wrong:
            raise RunError(
                f"--output_dir {self.args.output_dir}: the checkpoint and the model differ in {len(wrong)} weights, "
                f"{', '.join(wrong[:3])} among them; name a new --output_dir"
            )

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            verify(Path(self.state.best_model_checkpoint))
        super()._load_best_model()

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing to save: random numbers are a function of the step."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: random numbers are a function of the step."""


def _as_it_is(batch: Any) -> Any:
    return batch
