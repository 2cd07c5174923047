"""What a run depends on beside its recipe: hardware, versions of the libraries, the commit of this repository."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from shared.cores import available_cores

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "evaluate", "accelerate", "deepspeed", "numpy")

INSTRUCTIONS = {  # of x86 and ARM, as Linux names them: what the speed of matrix products hangs on
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "sve", "sve2", "bf16", "i8mm", "sme"),
}


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that results depend on, where they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(device_type: str | None = None) -> dict[str, Any]:
    """What this runs on: `device` in words, and its parts. Default: the GPU where there is one."""
    import torch

    device_type = device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    processor = next(names, platform.processor() or platform.machine())
    flags = {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if device_type == "cuda" else []
    cores = available_cores()
    device = f"{len(gpus)} x {gpus[0]}" if gpus else f"{cores} core{'s' if cores > 1 else ''} of {processor}"
    return {
        "device": device,
        "cpu": processor,
        "cores": cores,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # what torch uses
        "cpu_instructions": sorted(flags & INSTRUCTIONS),
        "gpus": gpus,
        "platform": platform.platform(),
    }


def describe_products(facts: dict[str, Any]) -> str:
    """What `hardware` found that the speed of matrix products hangs on, in words; empty for older results."""
    if not facts.get("cpu_instructions"):
        return ""
    bf16, int8 = (
        ", ".join(name for name in facts["cpu_instructions"] if name in known) or "none"
        for known in (("avx512_bf16", "amx_bf16", "bf16"), ("avx512_vnni", "amx_int8", "i8mm"))
    )
    return f"torch uses {facts['cpu_capability']}; instructions for products in bf16: {bf16}, in int8: {int8}"


def git_commit() -> str:
    """The commit of this repository, `-dirty` behind it when tracked files were changed; 'unknown' without git."""
    root = Path(__file__).parents[2]
    try:
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
