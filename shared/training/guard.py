"""What ExactTrainer looks at and sets at the edges of steps and epochs."""

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from shared.errors import RunError
from shared.training.checkpoints import verify
from shared.training.data_order import seed_step
from shared.training.loss_sums import restore_sums
from shared.training.processes import check_engine

MOST_OVERFLOWS = 20  # in a row: fp16's scale starts at 2^16 and is halved each time
LEAST_POINTS = 10  # of the training curve


class Guard(TrainerCallback):
    """The callback of an ExactTrainer."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.save_at_epoch_end = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_engine(self.trainer)
        state.compute_steps(args, state.max_steps)  # the checkpoint's save_steps and so on would win
        state.logging_steps = min(state.logging_steps, max(1, state.max_steps // LEAST_POINTS))  # or there is no curve
        self.trainer.saved_step = state.global_step or None
        patient = self._follow_changes(args, state) if args.accept_changes and state.global_step else None
        best = Path(args.output_dir, f"checkpoint-{state.best_global_step}")  # the folder may have moved
        state.best_model_checkpoint = str(best) if state.best_global_step and best.is_dir() else None
        if args.load_best_model_at_end and state.best_global_step:
            verify(best)  # now, and not after days
        before = state.stateful_callbacks.get("TrainerControl", {})
        stopped = before.get("args", {}).get("should_training_stop", False) and not patient
        self.trainer.has_sums = not state.global_step or "losses" in before
        if "losses" in before:
            restore_sums(self.trainer, before["losses"])
        self.trainer.already_over = state.global_step > 0 and (state.global_step >= state.max_steps or stopped)

    def _follow_changes(self, args: Any, state: Any) -> bool:
        """Go on with the patience and the metric of now, where the checkpoint has those of before. The best value is
        that of the checkpoints that are still there. Returns whether early stopping has patience left."""
        metric = f"eval_{args.metric_for_best_model or ''}".replace("eval_eval_", "eval_")
        values = {row["step"]: row[metric] for row in state.log_history if metric in row}
        kept = {step: value for step, value in values.items() if Path(args.output_dir, f"checkpoint-{step}").is_dir()}
        if metric != "eval_" and kept:
            pick = max if args.greater_is_better else min
            state.best_global_step = pick(kept, key=lambda step: kept[step])
            state.best_metric = kept[state.best_global_step]
        stoppers = [one for one in self.trainer.callback_handler.callbacks if isinstance(one, EarlyStoppingCallback)]
        for stopper in stoppers:
            stopper.early_stopping_patience = args.early_stopping_patience
        return all(one.early_stopping_patience_counter < one.early_stopping_patience for one in stoppers)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        order = self.trainer.order
        order.set_epoch(state.global_step // order.steps_per_epoch)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.step_loss, self.trainer.has_looked = 0.0, False
        seed_step(args.seed, state.global_step, args.process_index, args.device)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        trainer.clock.mark("optimizer")
        trainer.clock.end_step()
        if not trainer.has_looked:
            raise RunError("this version of transformers does not ask ExactTrainer for the gradient's norm any more")
        trainer.overflows = trainer.overflows + 1 if trainer.accelerator.optimizer_step_was_skipped else 0
        if trainer.overflows >= MOST_OVERFLOWS:
            raise RunError(f"step {state.global_step}: fp16 overflowed {trainer.overflows} times in a row; use --bf16")
        if state.global_step >= state.max_steps:
            trainer._read_late_flags()
        if trainer.is_trial:
            control.should_training_stop |= bool(trainer.stop_signal)
            return
        save = control.should_save or bool(self.trainer.stop_signal)
        # Where an evaluation closes the epoch, a checkpoint before it would lose that evaluation.
        at_edge = state.global_step % self.trainer.order.steps_per_epoch == 0 and args.eval_strategy == "epoch"
        self.save_at_epoch_end, control.should_save = save and at_edge, save and not at_edge

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save |= self.save_at_epoch_end
        self.save_at_epoch_end = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.stop_signal:
            control.should_training_stop = True
            state.best_model_checkpoint = None  # on disk it stands; here Trainer would load it, and delete the newest
