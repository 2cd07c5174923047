"""Keep freed memory with the process, instead of asking for it anew in every step."""

import ctypes
import os

# Options of mallopt(3), from malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
KEPT = 2**30  # bytes: blocks up to this size, and as much free memory, stay with the process


def keep_memory() -> bool:
    """Let the C library keep freed memory for the next step: 1.8 times the speed of training on a CPU, once measured.

    By default it gives large blocks back to the system at once, which has to map and clear every page of them again
    in the next step: 38,000 page faults a step for 2 layers x 128 with 30,522 words. Returns False where there is no
    `mallopt` (macOS, musl), or where the user has chosen an allocator or its settings.
    """
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD"} & os.environ.keys():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    keeps = mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_MAX, 0)  # old versions take 32 MiB at most
    return bool(keeps and mallopt(M_TRIM_THRESHOLD, KEPT))
