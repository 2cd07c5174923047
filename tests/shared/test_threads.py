import ctypes
import os
import subprocess
import sys

import pytest
from conftest import ROOT

LOOP = """
import resource, sys
import torch
from shared.training.memory import keep_memory
assert keep_memory() == (sys.argv[1] == "keep")
faults = []
for _ in range(60):
    torch.zeros(15_000_000).add_(1)  # 60 MB: above what the C library learns to keep by itself
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-21])
"""


@pytest.mark.faults
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no mallopt in this C library")
def test_memory_stays_with_the_process():
    def faults_of_20_steps(wish, **variables):
        command = [sys.executable, "-c", LOOP, wish]
        return int(subprocess.check_output(command, cwd=ROOT, text=True, env=os.environ | variables))

    assert faults_of_20_steps("keep") < 500
    assert faults_of_20_steps("leave", MALLOC_TRIM_THRESHOLD_="1000000000") > 20_000  # the user's own setting stays
