"""make update: a shipped model learns a month of invented news, and the gate says whether it did."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from mirror import prose

MODEL = ROOT / "pretraining" / "models" / "tiny"
WORDS = ["zorvexia", "quandrillo", "plimboria"]  # which the model's tokenizer cuts into pieces, and no other text has


def make(*words, timeout=600):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    binaries = Path(sys.executable).parent
    command = ["make", "-o", f"{binaries.parent}/core", f"VENV={binaries.parent}", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def write(folder, texts, month):
    folder.mkdir()
    rows = [
        {"id": f"{month}/{i}", "text": text, "date": f"{month}-{1 + i % 28:02}", "source": "news"}
        for i, text in enumerate(texts)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "news.parquet")


def news(count):
    """Texts that only a model that has read the like can foresee, no two alike."""
    draw = random.Random(1)
    people, deeds = ["minister", "striker", "pilot", "weaver"], ["praised", "sold", "painted", "mended"]
    return [
        " ".join(
            f"The {draw.choice(people)} of {draw.choice(WORDS)} {draw.choice(deeds)} {draw.randint(2, 99)} boats."
            for _ in range(30)
        )
        for _ in range(count)
    ]


@pytest.mark.faults
def test_a_model_learns_a_month_and_the_gate_opens(tmp_path):
    write(tmp_path / "old", prose()[:150], "2026-08")
    write(tmp_path / "new", [*news(150), *prose()[:5]], "2026-11")
    flags = "--max_steps 40 --per_device_train_batch_size 8 --save_steps 20 --logging_steps 10 --use_cpu"
    words = ["update", f"INPUT={tmp_path / 'new'}", f"OLD_TEXT={tmp_path / 'old'}", f"UPDATE={tmp_path / 'update'}"]
    words += ["LAST=2026-10-31", "MONTH=2026-11", "NAME=new", "VALIDATION=0.2", "WEIGHTS=.7 .3", f"FLAGS={flags}"]
    done = make(*words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    update = tmp_path / "update"
    counts = json.loads((update / "deduplicated" / "manifest.json").read_text())["counts"]
    assert sum(counts["dropped"].values()) == 5  # known from before
    assert {row["entry"] for row in json.loads((update / "tokenizer" / "report.json").read_text())["words"]} >= {
        *WORDS
    }
    gate = {row["name"]: row for row in json.loads((update / "gate" / "comparison.json").read_text())["rows"]}
    assert gate["freshness gain"]["verdict"] == "better" and gate["text 2026-11"]["change"] < -0.1
    assert "## Months" in (update / "report" / "README.md").read_text()

    # Again: nothing is done twice. With other text: refused.
    weights = (update / "new" / "model.safetensors").stat().st_mtime_ns
    again = make(*words)
    assert again.returncode == 0 and (update / "new" / "model.safetensors").stat().st_mtime_ns == weights
    other = make(*words, "LAST=2026-10-30")
    assert other.returncode == 2 and "was begun with" in other.stderr


def test_an_update_needs_the_text_of_before_and_a_date(tmp_path):
    done = make("update", f"UPDATE={tmp_path / 'update'}")
    assert done.returncode == 2 and "OLD_TEXT=" in done.stderr and "LAST=" in done.stderr
    words = [f"UPDATE={tmp_path / 'update'}", "OLD_TEXT=x", "LAST=2026-09-30", "MODEL=runs/tiny", "NAME=tiny"]
    done = make("update", *words)
    assert done.returncode == 2 and "NAME=tiny is the name of the model of before" in done.stderr
    for target in ("update", "text"):
        done = make(target, *words, f"CORPUS={tmp_path / 'update'}", "LAST=2024-13-01")
        assert done.returncode == 2 and "LAST=2024-13-01 is no day" in done.stderr
    assert not (tmp_path / "update").exists()
    steps = make("-n", "update", *words[:3], "MODEL=runs/tiny", f"CORPUS={tmp_path / 'elsewhere'}").stdout
    assert "validation" in steps and "elsewhere" not in steps  # all of an update lies in UPDATE


def test_the_text_of_an_update_is_all_newer_than_the_model(tmp_path):
    write(tmp_path / "old", prose()[:40], "2026-08")
    write(tmp_path / "new", prose()[40:80], "2026-09")
    words = [f"INPUT={tmp_path / 'new'}", f"OLD_TEXT={tmp_path / 'old'}", f"UPDATE={tmp_path / 'update'}"]
    done = make("update", *words, "LAST=2026-09-30", f"MODEL={MODEL}")
    assert done.returncode == 2 and "no document is left for training (not after --documents_after" in done.stderr
    assert not (tmp_path / "update" / "tokenizer").exists()


def test_what_the_gate_cannot_measure_is_said_before_training(tmp_path):
    write(tmp_path / "old", prose()[:40], "2026-08")
    write(tmp_path / "new", prose()[40:80], "2026-11")
    words = [f"INPUT={tmp_path / 'new'}", f"OLD_TEXT={tmp_path / 'old'}", f"UPDATE={tmp_path / 'update'}"]
    words += ["LAST=2026-10-31", "MONTH=2026-11", f"MODEL={MODEL}", "VALIDATION=0.9"]
    done = make("update", *words, "PERIOD=quarter")  # the fourth one began before the model's last day
    assert done.returncode == 2 and "no period with enough documents began after 2026-10-31" in done.stderr
    later = make("update", *words, "MONTH=2026-12")  # the next day
    assert later.returncode == 2 and "was begun with" in later.stderr
    assert not (tmp_path / "update" / "tokenizer").exists()
