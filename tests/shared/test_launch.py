"""The commands as a user types them, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import fork_group

BIN = Path(sys.executable).parent
SMOKE = ["pretraining/recipes/smoke.yaml"]


def launch(*words, **environment):
    return subprocess.run(
        [str(BIN / words[0]), *map(str, words[1:])],
        capture_output=True, text=True, timeout=900, env=os.environ | environment,
    )  # fmt: skip


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in history if "loss" in row]


def test_one_and_two_processes_train_the_same(tmp_path):
    one = launch(
        "accelerate", "launch", "--config_file", "shared/launch/cpu.yaml", "pretraining/run_mlm.py",
        "--config", *SMOKE, "--max_steps", 20, "--output_dir", tmp_path / "one",
        "--mask_examples", "The <mask> was cold.",
    )  # fmt: skip
    assert one.returncode == 0, one.stderr[-2000:]
    assert "The <mask> was cold.  ->" in one.stdout
    flags = ["--config", *SMOKE, "--max_steps", 20, "--per_device_train_batch_size", 8]
    flags += ["--output_dir", tmp_path / "two"]
    two = fork_group(tmp_path / "two", 2, "pretraining/run_mlm.py", *flags)
    assert [process.wait(900) for process in two] == [0, 0], two[0].output()[-2000:]
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert manifest["processes"] == 2
    assert [process.output().count("masked accuracy:") for process in two] == [1, 0]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=5e-3)


def test_wrong_input_exits_with_2_and_one_line(tmp_path):
    for script, flags in [
        ("pretraining/run_mlm.py", ["--train_file", "nowhere.txt", "--use_cpu", "--output_dir", tmp_path]),
        ("data_prep/pack_dataset.py", ["--output_dir", "x", "--input", "LICENSE", "--tokenizer_name", "x"]),
    ]:
        done = launch("python", script, *flags)
        assert done.returncode == 2, done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr


@pytest.mark.faults
def test_each_script_of_data_prep_reads_what_the_one_before_wrote(tmp_path):
    code = "from data_prep import collect_docstrings as s; s.LIBRARIES = {'networkx': 'networkx'}; "
    code += f"s.main(s.DocstringArguments({str(tmp_path / 'text')!r}))"
    text, tokenizer, packed = tmp_path / "text", tmp_path / "tokenizer", tmp_path / "packed"
    for words in (
        ["-c", code],
        ["data_prep/train_tokenizer.py", "--input", text, "--vocab_size", 800, "--output_dir", tokenizer],
        ["data_prep/pack_dataset.py", "--input", text, "--tokenizer_name", tokenizer, "--output_dir", packed],
        [
            "pretraining/run_mlm.py",
            "--packed_dataset",
            packed,
            "--dry_run",
            "--use_cpu",
            "--max_steps",
            9,
            "--output_dir",
            tmp_path / "dry",
        ],
    ):
        done = launch("python", *words)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "seconds_per_step" in done.stdout


def test_plain_launch_uses_every_core():
    code = (
        "import torch\nfrom shared.cores import *\nuse_all_cores()\nprint(torch.get_num_threads(), available_cores())"
    )
    launched = launch("python", "-c", code, OMP_NUM_THREADS="1", ACCELERATE_MIXED_PRECISION="no").stdout.split()
    assert launched[0] == launched[1]
    assert launch("python", "-c", code, OMP_NUM_THREADS="1").stdout.split()[0] == "1"
