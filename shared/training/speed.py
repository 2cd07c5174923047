"""Where the time of a step goes, and how far a run is from what the machine can do."""

import copy
import functools
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from shared.training.environment import hardware

PHASES = ("data", "forward", "backward", "optimizer", "other")
WARM_UP = 2  # first steps of a start, which compile and allocate, are not counted
KEPT_EVENTS = 512
CPU_SIZES, QUICK = (512, 1024, 2048, 4096), 0.15  # of the products that the peak is taken from; seconds of one
MOST = 5.0  # seconds for the question whether bf16 pays, if two rounds do not take longer
_SAID: set[tuple[type, int]] = set()
GATED = ("modernbert",)  # architectures whose feed-forward layers have three matrices instead of two


class StepClock:
    """Divides the time of training among the PHASES.

    On a GPU the marks are events in its stream, read when they are long over, so that nothing waits for them; "data"
    is the time in which the GPU had nothing to do because its next batch was not there. On a CPU they are plain clock
    readings. Under DeepSpeed, which steps at the end of its backward pass, the optimizer's time is in "backward".
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: Counter[str] = Counter()
        self.warm_up: Counter[str] = Counter()  # the seconds of the first steps
        self.steps = 0
        self.marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """Say that the time since the last mark belongs to `phase`, one of PHASES, or is to be forgotten ("")."""
        now: Any = time.perf_counter()
        if self.device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self.marks.append((phase, now))
        if len(self.marks) > KEPT_EVENTS:
            self._add_up(len(self.marks) // 2)

    def end_step(self) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps == WARM_UP:
            self._add_up()
            self.warm_up = self.seconds.copy()

    def _add_up(self, count: int | None = None) -> None:
        """Turn the first `count` marks, by default all, into seconds."""
        marks = self.marks[:count]
        if self.device.type == "cuda" and marks:
            marks[-1][1].synchronize()
        for (_, before), (phase, now) in pairwise(marks):
            self.seconds[phase] += before.elapsed_time(now) / 1000 if self.device.type == "cuda" else now - before
        del self.marks[: len(marks) - 1]

    @property
    def timed_steps(self) -> int:
        """The steps that `report` is about, the last ones."""
        return self.steps - WARM_UP if self.steps > WARM_UP else self.steps

    def report(self, tokens_per_step: float, flops_per_token: float | None, peak_flops: float) -> dict[str, float]:
        """Tokens per second of all processes, the share of each phase, and model FLOPs utilisation.

        Evaluations, checkpoints and the first steps are left out, unless there are no others. `tokens_per_step`: of
        all processes, the mean of these steps; `flops_per_token`: forward and backward; `peak_flops`: a second, of all
        devices together. Empty when no step was done.
        """
        if not self.steps:
            return {}
        self._add_up()
        left_out, steps = self.warm_up if self.steps > WARM_UP else Counter(), self.timed_steps
        seconds = {phase: self.seconds[phase] - left_out[phase] for phase in PHASES}
        total = sum(seconds.values())
        rate = steps * tokens_per_step / total
        found = {"tokens_per_second": rate, **{f"share_{phase}": seconds[phase] / total for phase in PHASES}}
        if flops_per_token is not None:
            found |= {"tflops": rate * flops_per_token / 1e12, "peak_tflops": peak_flops / 1e12}
            found["model_flops_utilization"] = rate * flops_per_token / peak_flops
        return found


def flops_per_token(config: Any, length: int, projected: float) -> float | None:
    """Floating-point operations of forward and backward pass for one token of a `...ForMaskedLM` model.

    `length` of the blocks in tokens; `projected`: share of positions that the prediction head works on. Two a
    multiplication and addition, three times for the two passes: the matrix products alone, as is the custom
    (Chowdhery et al., 2022, arXiv:2204.02311, appendix B). None for an architecture that names its sizes otherwise: a
    figure for a report ends no run.
    """
    try:
        return _count_flops(config, length, projected)
    except (AttributeError, NotImplementedError, TypeError):
        return None


def _count_flops(config: Any, length: int, projected: float) -> float:
    width, layers, words = config.hidden_size, config.num_hidden_layers, config.vocab_size
    inner = getattr(config, "intermediate_size", None) or config.hidden_dim
    feed_forward = (3 if config.model_type in GATED else 2) * width * inner
    body = layers * (4 * width**2 + feed_forward + 2 * length * width)
    narrow = getattr(config, "embedding_size", width)  # ELECTRA widens its embeddings, and its head is as narrow
    body += narrow * width if narrow != width else 0
    return float(6 * (body + projected * (width * narrow + narrow * words)))


@functools.cache
def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The floating-point operations a second that one square matrix product reaches here: the best of several.

    On a CPU the size is doubled while a product is quick: small ones do not fill matrix units (AMX), and without any
    for its dtype a large one would take minutes. A process measures once: it takes a second or more.
    """
    best = 0.0
    for size in [8192] if device.type == "cuda" else CPU_SIZES:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = shortest(functools.partial(torch.matmul, a, b), device)
        best = max(best, 2 * size**3 / seconds)
        if seconds > QUICK:
            break
    return best


def shortest(work: Callable[[], Any], device: torch.device, times: int = 5) -> float:
    """The seconds of the fastest of some tries."""
    best = float("inf")
    for _ in range(times):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def say_if_bf16_pays(trainer: Any) -> None:
    """Time forward and backward pass of a batch on a CPU in both precisions, and print the outcome, once for a model.

    The products alone do not tell: processors with instructions for them are faster in bf16, but torch's fused
    attention may be slower by more than that, so attention by plain products is timed as well. Copies of the model do
    the work. Without such instructions, nothing is said to those who have not asked for bf16.
    """
    has_products = any("bf16" in name for name in hardware("cpu")["cpu_instructions"])
    if not (trainer.args.bf16 or has_products) or not isinstance(trainer.model, PreTrainedModel):
        return  # nor of sentence encoders, whose loss takes other batches
    key = (type(trainer.model), trainer.model.num_parameters())
    if key in _SAID or trainer.is_deepspeed_enabled:  # its weights are in bf16 themselves
        return
    _SAID.add(key)
    loader = trainer.get_train_dataloader()
    inputs = loader.dataset.__getitems__(next(iter(loader.batch_sampler)))
    if "input_ids" not in inputs:  # groups of distillation
        return

    def work(model: Any, is_bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = trainer.compute_loss(model, dict(inputs))
        loss.backward()

    model, eager = (copy.deepcopy(trainer.model).train() for _ in range(2))
    tries = {"fp32": functools.partial(work, model, False), "": functools.partial(work, model, True)}
    if has_products and model.config._attn_implementation == "sdpa":
        eager.set_attn_implementation("eager")
        tries[" with --attn_implementation eager"] = functools.partial(work, eager, True)
    seconds, start = dict.fromkeys(tries, float("inf")), time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        for number in range(5):  # in turns, as other work may come and go; the first round warms up
            for name, step in tries.items():
                seconds[name] = min(seconds[name], shortest(step, torch.device("cpu"), 1))
            if number and time.perf_counter() - start > MOST:
                break
    ratios = {name: value / seconds["fp32"] for name, value in seconds.items() if name != "fp32"}
    best = min(ratios, key=lambda name: ratios[name])
    advice = f"it pays{best}" if ratios[best] < 0.9 else "it does not pay, leave the flag out"
    found = " and".join(f" {ratio:.2f}{name}" for name, ratio in ratios.items())
    size = " x ".join(map(str, inputs["input_ids"].shape))
    print(
        f"--bf16: against fp32, a forward and backward pass of {size} tokens takes{found} of the time here: {advice}",
        flush=True,
    )


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: on the GPU if it uses one, else in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage counts what the process was before it started this program, too
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
