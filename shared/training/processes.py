"""Process supervision: stop early if the launch is not what was asked for, or if a process never arrives or dies."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, cast

import torch.distributed as dist

from shared.errors import InputError

BEAT = 1.0  # seconds between two signs of life
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # signals after which a run saves and ends
_watch: "_Watch | None" = None


def watch_start(timeout: float) -> None:
    """End this process with a reason unless all processes of the run have met within `timeout` seconds.

    To be called before anything that waits for another process. After the meeting (`meet`) the same thread sees to
    it that no process waits for one that has died or hangs, for longer than `timeout`, and that no process outlives
    its launcher.
    """
    global _watch
    if _watch is None:
        _watch = _Watch(timeout)
        _watch.start()


def meet() -> None:
    """Wait until all processes of the run are here; `watch_start` limits the wait."""
    if _watch is None:
        return
    if dist.is_initialized() and dist.get_world_size() > 1:
        store = dist.distributed_c10d._get_default_store()
        store.set(f"tiny-olm/met/{dist.get_rank()}", "")
        _watch.waiting_for = cast(Any, store).clone()
        store.wait([f"tiny-olm/met/{rank}" for rank in range(dist.get_world_size())], timedelta(days=1))
        _watch.store = _watch.waiting_for
    _watch.met = True


def leave(reason: str = "") -> None:
    """Say that this process ends: well, or for a reason that the others then give as theirs."""
    global _watch
    if _watch is not None:
        _watch.leave(reason)
        _watch = None
        if not reason and dist.is_initialized():
            dist.destroy_process_group()  # left to the end of the interpreter, its threads may abort the process


def check_launch(args: Any) -> None:
    """Raise InputError when what runs is not what was launched: DeepSpeed, or the number of processes."""
    environment, found = os.environ, args.distributed_state.distributed_type.value
    asked = environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true" or args.deepspeed
    if asked and found != "DEEPSPEED":
        raise InputError(
            f"DeepSpeed was asked for, but is not what runs here ({found}); use accelerate launch --config_file "
            "shared/launch/zero2.yaml (zero2_cpu.yaml on CPUs), without --cpu, --deepspeed and ACCELERATE_USE_CPU"
        )
    launched = int(environment.get("WORLD_SIZE", "1"))
    if launched != args.world_size:
        raise InputError(
            f"{launched} processes were launched, but this one trains as one of {args.world_size}: they would all "
            "read the same data; set --ddp_backend gloo on CPUs, nccl on GPUs"
        )
    # accelerate names the port of several processes even where it then starts a single one.
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= environment.keys() and "WORLD_SIZE" not in environment:
        raise InputError(
            "accelerate was asked for several processes, but has started one, as with --cpu or distributed_type NO; "
            "use torchrun --nproc_per_node N, --config_file shared/launch/zero2_cpu.yaml, or unset MASTER_PORT for one"
        )


def check_engine(trainer: Any) -> None:
    """Raise InputError unless the model is wrapped for what was launched. Call it before the first step."""
    args, found = trainer.args, type(getattr(trainer.model_wrapped, "_orig_mod", trainer.model_wrapped)).__name__
    if trainer.is_deepspeed_enabled:
        wanted = trainer.accelerator.state.deepspeed_plugin.zero_stage
        stage = trainer.model_wrapped.zero_optimization_stage() if found == "DeepSpeedEngine" else None
        if stage != wanted:
            raise InputError(f"DeepSpeed ZeRO-{wanted} was asked for, but a {found} of stage {stage} is what runs")
    elif args.world_size > 1 and found != "DistributedDataParallel":
        raise InputError(f"{args.world_size} processes were launched, but each would train a {found} of its own")


def engine_name(args: Any) -> str:
    """'plain', or 'zero' and the stage."""
    plugin = getattr(args, "deepspeed_plugin", None)
    return f"zero{plugin.hf_ds_config.get_value('zero_optimization.stage', 0)}" if plugin is not None else "plain"


class Signals:
    """`caught` is the first SIGTERM, SIGINT or SIGHUP while the `with` block runs, else 0. One that was ignored
    before, as nohup does with SIGHUP, stays ignored."""

    caught = 0

    @contextmanager
    def catching(self) -> Iterator[None]:
        def remember(number: int, _: Any) -> None:
            if not self.caught:
                self.caught = number
                if int(os.environ.get("RANK", "0")) == 0:  # os.write, since a print may be what was interrupted
                    os.write(2, f"{signal.Signals(number).name}: finishing the step and saving\n".encode())

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heeded = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, remember) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def ignore_signals(_: int) -> None:
    """Leave signals to the main process; the `worker_init_fn` of a DataLoader."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


class _Watch(threading.Thread):
    def __init__(self, timeout: float) -> None:
        super().__init__(daemon=True, name="watch")
        self.timeout = timeout
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
        self.parent = os.getppid()
        self.met = self.ended = False
        self.waiting_for: Any = None
        self.store: Any = None
        self.left = threading.Event()

    def run(self) -> None:
        deadline = time.monotonic() + self.timeout
        while not self.met and not self.ended:
            if time.monotonic() > deadline:
                self._die(self._why_stuck())
            self.left.wait(0.2)
        last = {rank: ("", time.monotonic()) for rank in (range(1, self.world) if self.rank == 0 else [0])}
        beat, woke = 0, time.monotonic()
        while not self.ended:
            if self.launched and os.getppid() != self.parent:
                self.launched, self.store = False, None  # the store was the launcher's
                print("the launcher is gone: stopping", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
            if time.monotonic() - woke > 10 * BEAT:  # this process was suspended, and perhaps the others were too
                last = {rank: (sign, time.monotonic()) for rank, (sign, _) in last.items()}
            woke = time.monotonic()
            if self.store is not None:
                beat += 1
                self._listen(last, beat)
            self.left.wait(BEAT)

    def _listen(self, last: dict[int, tuple[str, float]], beat: int) -> None:
        try:
            self.store.set(f"tiny-olm/alive/{self.rank}", str(beat))
            for rank, (before, since) in last.items():
                key = f"tiny-olm/alive/{rank}"
                sign = self.store.get(key).decode() if self.store.check([key]) else ""
                if sign.startswith("failed"):
                    time.sleep(2 * BEAT)  # it may end this process in a better way than this
                    self._die(f"process {rank} has stopped: {sign.removeprefix('failed: ')}")
                if sign != before or sign == "done":
                    last[rank] = (sign, time.monotonic())
                elif time.monotonic() - since > self.timeout:
                    self._die(
                        f"process {rank} of {self.world} gives no sign of life for {self.timeout:.0f} s "
                        "(--start_timeout): it has died or hangs; start the same command again to go on from the "
                        "last checkpoint"
                    )
        except (dist.DistError, RuntimeError) as error:
            if not self.left.wait(2 * BEAT) and os.getppid() == self.parent:
                self._die(f"the process that holds the run together is gone ({str(error).splitlines()[0]})")

    def leave(self, reason: str) -> None:
        self.ended = True
        self.left.set()
        if self.store is not None and self.is_alive():
            self.join(3 * BEAT)
            with suppress(dist.DistError, RuntimeError):
                self.store.set(f"tiny-olm/alive/{self.rank}", f"failed: {reason}" if reason else "done")

    def _why_stuck(self) -> str:
        missing = ""
        if self.waiting_for is not None:
            ranks = [r for r in range(self.world) if not self.waiting_for.check([f"tiny-olm/met/{r}"])]
            missing = f"; missing: {', '.join(f'process {rank}' for rank in ranks)}"
        address = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
        return (
            f"not all {self.world} processes have come to {address} within {self.timeout:.0f} s (--start_timeout)"
            f"{missing}: one has died, hangs, or another program uses the port"
        )

    def _die(self, reason: str) -> None:
        if not self.ended:
            print(f"error: process {self.rank}: {reason}", file=sys.stderr, flush=True)
            with suppress(dist.DistError, RuntimeError):
                if self.store is not None:
                    self.store.set(f"tiny-olm/alive/{self.rank}", f"failed: {reason}")
            os._exit(1)
