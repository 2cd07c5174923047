"""Prove on this machine that a killed run ends like one that was never interrupted, bit by bit.

    python -m shared.training.verify_resume --config pretraining/recipes/smoke.yaml --save_steps 20 --kills 5

Trains once without interruption; then again, killed (SIGKILL, all processes) at random moments, every other time while
it saves, and started again with the same command, until it ends. Flags that are not listed here go to the script.
Writes resume.json with every kill and what was compared; exits with 1 when a bit differs.
"""

import argparse
import dataclasses
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from shared.command_line import report
from shared.errors import InputError, RunError
from shared.files import check_new_folder, sha256_of, write_json
from shared.training.checkpoints import INCOMING, checkpoints, verify

WEIGHTS = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its folder, and seconds from its first file to its end."""

    folder: Path
    seconds: float


@dataclasses.dataclass
class Kill:
    """Seconds after the run's first file; the newest checkpoint then; whether it was writing another one."""

    seconds: float
    checkpoint: str
    while_saving: bool


def train_whole(command: Sequence[str], folder: Path, timeout: float) -> Whole:
    """Run `command --output_dir folder` to its end. Raises RunError with the last lines it printed if it fails."""
    return Whole(folder, _Run(command, folder).finish(timeout))


def train_killed(
    command: Sequence[str],
    folder: Path,
    whole: Whole,
    while_saving: Sequence[bool],
    rng: random.Random,
    timeout: float,
) -> list[Kill]:
    """Run `command --output_dir folder`, kill it at random moments, then let it end.

    It is killed once for each of `while_saving`, which says whether to wait for the next checkpoint to be written.
    Returns the kills, fewer where it ended first.
    """
    done: list[Kill] = []
    for saving in while_saving:
        left = whole.seconds * (1 - _step(folder) / _step(whole.folder)) / (len(while_saving) - len(done))
        run = _Run(command, folder)
        killed = run.kill(10 ** rng.uniform(-3, 0.5) if saving else rng.uniform(0, left), saving, timeout)
        if killed is None:
            break  # it ended first
        done.append(killed)
    _Run(command, folder).finish(timeout)
    return done


def compare(whole: Path, other: Path) -> dict[str, bool]:
    """Which files are the same in both runs: the final weights, and everything in the last checkpoint that resuming
    needs. Raises InputError when a checkpoint is damaged."""
    same = {WEIGHTS: sha256_of(whole / WEIGHTS) == sha256_of(other / WEIGHTS)}
    if not checkpoints(whole):
        raise InputError("the run saves no checkpoint, so there is nothing to resume; give --save_steps")
    ours, theirs = (verify(checkpoints(folder)[0])["files"] for folder in (whole, other))
    for name in sorted({*ours, *theirs} - {"trainer_state.json"}):  # that one holds times
        same[f"last checkpoint: {name}"] = ours.get(name) == theirs.get(name)
    return same


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", required=True, help="the recipe, or several in layers")
    parser.add_argument("--script", default="pretraining/run_mlm.py", help="the script to prove")
    parser.add_argument("--launch", default=sys.executable, help="how to start it, e.g. 'torchrun --nproc_per_node 2'")
    parser.add_argument("--kills", type=int, default=4, help="how often to kill it")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for each start at most")
    parser.add_argument("--output_dir", default="runs/verify_resume", help="a new folder for both runs")
    args, rest = parser.parse_known_args(argv)
    if "--max_hours" in rest:
        raise InputError("--max_hours: the number of steps would be measured anew; give --max_steps")
    folder = Path(args.output_dir)
    check_new_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    launcher, *words = shlex.split(args.launch)
    program = shutil.which(launcher, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise InputError(f"--launch {launcher}: no such program")
    command = [program, *words, args.script, "--config", *args.config, *rest]
    print(f"1. uninterrupted: {shlex.join(command)}", flush=True)
    whole = train_whole(command, folder / "whole", args.timeout)
    print(f"2. killed {args.kills} times (the first took {whole.seconds:.1f} s after its start-up)", flush=True)
    saving = [number % 2 == 1 for number in range(args.kills)]
    kills = train_killed(command, folder / "killed", whole, saving, random.Random(args.seed), args.timeout)
    for kill in kills:
        what = ", while it saved the next" if kill.while_saving else ""
        print(f"   after {kill.seconds:.2f} s, with {kill.checkpoint}{what}")
    same = compare(whole.folder, folder / "killed")
    print("3. compared, bit by bit:")
    for name, equal in same.items():
        print(f"   {'same     ' if equal else 'DIFFERENT'}  {name}")
    found = {"command": command, "kills": [dataclasses.asdict(kill) for kill in kills], "same": same}
    write_json(folder / "resume.json", found)
    is_same = all(same.values())
    print(f"{len(kills)} kills, {'the same bits' if is_same else 'NOT THE SAME'}: {folder / 'resume.json'}")
    return 0 if is_same and len(kills) == args.kills else 1


class _Run:
    """A started run."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.json"
        self.before = self.manifest.stat().st_mtime_ns if self.manifest.exists() else 0
        folder.mkdir(parents=True, exist_ok=True)
        self.log = open(folder.with_suffix(".log"), "ab")  # noqa: SIM115  closed by _end
        self.process = subprocess.Popen(
            [*command, "--output_dir", str(folder)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def finish(self, timeout: float) -> float:
        began = self._wait_for_first_file(timeout)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        self._end()
        if code != 0:
            tail = Path(self.log.name).read_text(errors="replace").splitlines()[-15:]
            raise RunError(f"the run in {self.folder} ended with {code}: \n" + "\n".join(tail))
        return time.monotonic() - began

    def kill(self, seconds: float, while_saving: bool, timeout: float) -> Kill | None:
        """Kill it some seconds after its first file; or after the next checkpoint begins to be written, and as soon as
        that is whole. None if it ended first."""
        began = self._wait_for_first_file(timeout)
        moment = None if while_saving else began + seconds
        while self.process.poll() is None and time.monotonic() < began + timeout:
            saves = any(self.folder.glob(f"{INCOMING}*"))
            if moment is None and saves:
                moment = time.monotonic() + seconds
            if moment is not None and (time.monotonic() > moment or (while_saving and not saves)):
                self._end()
                newest = checkpoints(self.folder)
                saves = any(self.folder.glob(f"{INCOMING}*"))
                return Kill(time.monotonic() - began, newest[0].name if newest else "no checkpoint", saves)
            time.sleep(0.0005)
        self._end()
        return None

    def _wait_for_first_file(self, timeout: float) -> float:
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.manifest.exists() and self.manifest.stat().st_mtime_ns != self.before:
                break
            time.sleep(0.01)
        return time.monotonic()

    def _end(self) -> None:
        """Kill the launcher, its processes, which torchrun gives sessions of their own, and their workers."""
        try:
            launcher = psutil.Process(self.process.pid)
            family = [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=60)
        self.process.wait()
        self.log.close()


def _step(folder: Path) -> int:
    """The step of the newest checkpoint."""
    found = checkpoints(folder)
    return int(found[0].name.removeprefix("checkpoint-")) if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (InputError, RunError) as error:
        sys.exit(report(error))
