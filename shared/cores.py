"""The CPU cores that this process may use, and how it starts processes that share its work."""

import multiprocessing
import os


def use_all_cores() -> None:
    """Give this process its share of the cores where accelerate left it one thread.

    `accelerate launch` sets OMP_NUM_THREADS=1 unless the launch file says `use_cpu`, which makes plain
    `accelerate launch script.py` on a machine without a GPU run on one core only. A value other than 1 is the
    user's wish and stays; so does 1 under plain `python`.
    """
    import torch  # here: it takes seconds, and not all who count cores need it

    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        torch.set_num_threads(max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def available_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_method() -> str:
    """What multiprocessing does by default, but fork where that is forkserver, as on Linux from Python 3.14 on.

    A process that is not forked imports torch and the script anew (seconds, and 300 MB), and gets its data through a
    pipe. macOS spawns, since its libraries do not survive a fork.
    """
    usual = multiprocessing.get_start_method()
    return "fork" if usual == "forkserver" else usual
