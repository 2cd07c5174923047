"""The long form of the resume tests: 50 runs killed at random moments, and 12 kinds of damage under four engines.

    make test-faults

Every run is a real one, started and started again as a user does. Writes shared/faults.json and the tables of
shared/README.md, and exits with 1 when a run did not end with the bits of the uninterrupted one.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from evaluation import readme_tables
from shared.files import write_json
from shared.training.checkpoints import checkpoints
from shared.training.verify_resume import compare, train_killed, train_whole

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
TIMEOUT = 300.0
DROPOUT = "hidden_size=64,intermediate_size=128,mlp_dropout=0.1,attention_dropout=0.1"
RECIPE = ["--config", "pretraining/recipes/smoke.yaml", "--whole_word_mask", "--config_overrides", DROPOUT]
RECIPE += ["--gradient_accumulation_steps", "2", "--eval_strategy", "no"]
ENGINES = {
    "plain": [sys.executable],
    "DDP": [str(BIN / "torchrun"), "--nproc_per_node", "2"],
    "ZeRO-2": [str(BIN / "accelerate"), "launch", "--config_file", "shared/launch/zero2_cpu.yaml"],
    "ZeRO-3": [str(BIN / "accelerate"), "launch", "--config_file", "shared/launch/zero3_cpu.yaml"],
}
KILLED = {"one process": ("plain", 0), "one process, 2 data workers": ("plain", 2), "two processes": ("DDP", 0)}
KILLED |= {"two processes, 2 data workers each": ("DDP", 2), "two processes, ZeRO-2": ("ZeRO-2", 0)}


def command_for(engine, *flags):
    """The command line of a run that reads 16 samples a step."""
    size = "8" if engine == "plain" else "4"
    script = ["pretraining/run_mlm.py", *RECIPE, "--per_device_train_batch_size", size]
    return [*ENGINES[engine], *script, *map(str, flags)]


def kill_runs(folder, count, rng):
    """Kill `count` runs once each, let each go on to its end, and compare the ends."""
    rows = []
    for number, (name, (engine, workers)) in enumerate(KILLED.items()):
        kills = count // len(KILLED) + (number < count % len(KILLED))
        flags = ["--max_steps", 60, "--save_steps", 6, "--dataloader_num_workers", workers]  # an epoch has 39 steps
        command = command_for(engine, *flags)
        whole = train_whole(command, folder / f"{number}-whole", TIMEOUT)
        row = {"run": name, "kills": 0, "while_saving": 0, "before_a_checkpoint": 0, "same_bits": 0}
        while row["kills"] < kills:
            target = folder / f"{number}-{row['kills']}"
            done = train_killed(command, target, whole, [row["kills"] % 2 == 1], rng, TIMEOUT)
            if done:  # else it ended before its moment came
                same = compare(whole.folder, target)
                row["kills"] += 1
                row["while_saving"] += done[0].while_saving
                row["before_a_checkpoint"] += done[0].checkpoint == "no checkpoint"
                row["same_bits"] += all(same.values())
                say(f"{name}, killed after {done[0].seconds:.1f} s: {'same bits' if all(same.values()) else same}")
            shutil.rmtree(target)
        rows.append(row)
    return rows


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip_a_bit(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def remove(path, _):
    path.unlink()


DAMAGE = {
    f"{what}: {how}": (what, action)
    for what in ("weights", "optimizer", "trainer state", "manifest")
    for how, action in (("missing", remove), ("truncated", truncate), ("one bit flipped", flip_a_bit))
    if (what, how) != ("manifest", "truncated")  # a truncated one is no JSON, as a missing one is none
}


def file_of(what, checkpoint):
    """The file to damage; of several the last, which for ZeRO is one that the second process wrote."""
    pattern = {
        "weights": "model.safetensors",
        "optimizer": "**/*optim*.pt",
        "trainer state": "trainer_state.json",
        "manifest": "checkpoint.json",
    }[what]
    return sorted(checkpoint.glob(pattern))[-1]


def damage_checkpoints(folder, rng):
    """Damage the newest of two checkpoints, start again, and see whether it is named, set aside and done without."""
    table = {kind: {} for kind in (*DAMAGE, "every checkpoint damaged")}
    for engine in ENGINES:
        command = command_for(engine, "--max_steps", 12, "--save_steps", 4)
        whole = train_whole(command, folder / f"{engine}-whole", TIMEOUT)
        for number, kind in enumerate(table):
            target = folder / f"{engine}-{number}"
            target.mkdir()
            for step in (4, 8):
                shutil.copytree(whole.folder / f"checkpoint-{step}", target / f"checkpoint-{step}")
            what, action = DAMAGE.get(kind, ("weights", flip_a_bit))
            for checkpoint in checkpoints(target)[: 2 if kind not in DAMAGE else 1]:
                path = file_of(what, checkpoint)
                before = path.read_bytes()
                while path.exists() and path.read_bytes() == before:
                    action(path, rng)
            run = subprocess.run(
                [*command, "--output_dir", str(target)], capture_output=True, text=True, timeout=TIMEOUT
            )
            output = run.stdout + run.stderr
            if kind not in DAMAGE:
                refused = run.returncode != 0 and "no good checkpoint is left" in output
                table[kind][engine] = "refused" if refused else "NOT REFUSED"
            else:
                named = str(target / "checkpoint-8" / path.relative_to(checkpoint)) in output
                aside = (target / "damaged-checkpoint-8").is_dir()
                gone_on = f"Going on from {target / 'checkpoint-4'}" in output and run.returncode == 0
                same = gone_on and all(compare(whole.folder, target).values())
                table[kind][engine] = "recovered" if named and aside and same else f"FAILED {output[-500:]}"
            say(f"{engine}, {kind}: {table[kind][engine]}")
            shutil.rmtree(target)
    return table


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work_dir", type=Path, default=Path("runs/faults"), help="a folder to work in; it is emptied"
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    os.environ["HF_HUB_OFFLINE"] = "1"
    shutil.rmtree(args.work_dir, ignore_errors=True)
    args.work_dir.mkdir(parents=True)
    began, rng = time.monotonic(), random.Random(args.seed)
    report = {"damage": damage_checkpoints(args.work_dir, rng), "kills": kill_runs(args.work_dir, args.kills, rng)}
    versions = json.loads(next(args.work_dir.glob("*-whole/manifest.json")).read_text())["versions"]
    report |= {
        "minutes": round((time.monotonic() - began) / 60),
        "versions": versions,
        "platform": platform.platform(),
    }
    report["seed"] = args.seed
    shutil.rmtree(args.work_dir)
    write_json(ROOT / "shared" / "faults.json", report)
    readme_tables.main()
    print(readme_tables.fault_tables(report))
    cells = [cell for row in report["damage"].values() for cell in row.values()]
    good = all(row["same_bits"] == row["kills"] for row in report["kills"]) and {*cells} <= {"recovered", "refused"}
    print(f"{'all good' if good else 'NOT ALL GOOD'}, {report['minutes']} minutes")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
