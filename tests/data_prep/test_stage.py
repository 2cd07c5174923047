import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.engine.stage import StageArguments
from shared.documents import Documents
from shared.errors import BadRecordsError, InputError
from tests import stage_script
from tests.stage_script import EvenArguments

SCRIPT = str(Path(stage_script.__file__))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for part in range(3):
        rows = [{"id": f"{part}-{i}", "text": f"text number {part * 1000 + i}"} for i in range(400 + part)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{part}.parquet")
    return folder


def run(corpus, output_dir, **flags):
    names = {name: flags.pop(name) for name in ("keep_odd", "delay") if name in flags}
    flags = {"workers": 1, "part_records": 50} | flags
    args = StageArguments(str(output_dir), [str(corpus)], **flags)
    return stage_script.main(args, EvenArguments(**names))


def command(corpus, output_dir, *flags):
    return [sys.executable, SCRIPT, "--input", str(corpus), "--output_dir", str(output_dir), *map(str, flags)]


def content(folder):
    """Every file that a stage leaves, except when it was made."""
    names = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in names
        if path.name not in ("time.json", "lock") and "logs" not in path.parts
    }


def kill(process):
    """SIGKILL of the parent alone. Its workers see that it is gone, and end; until then they write."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)  # it starts no more of them
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert not psutil.wait_procs(workers, timeout=120)[1]
    return process.wait()


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    run(corpus, folder)
    return folder


def test_what_is_written(corpus, whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    counts = manifest["counts"]
    assert (counts["in"], counts["kept"], counts["dropped"], counts["bad"]) == (1203, 602, {"odd": 601}, {})
    assert [entry["file"] for entry in manifest["inputs"]] == ["0.parquet", "1.parquet", "2.parquet"]
    kept = [text for path in sorted(whole.glob("*.parquet")) for text in pq.read_table(path)["text"].to_pylist()]
    assert kept == [f"text number {part * 1000 + i}" for part in range(3) for i in range(400 + part) if i % 2 == 0]
    dropped = pa.concat_tables(pq.read_table(path) for path in sorted((whole / "dropped").iterdir()))
    assert dropped.num_rows == 601
    assert dropped.slice(0, 1).to_pylist()[0] | {"offset": None} == dict.fromkeys(dropped.column_names) | {
        "id": "0-1",
        "reason": "odd",
        "detail": "text numb",
    }
    assert sum(pq.read_table(path).num_rows for path in (whole / "lengths").iterdir()) == 1203
    for name, facts in manifest["files"].items():
        assert facts["bytes"] == (whole / name).stat().st_size


def test_any_number_of_workers_writes_the_same_bytes(corpus, whole, tmp_path):
    for workers in (2, 4):
        run(corpus, tmp_path / str(workers), workers=workers)
        assert content(tmp_path / str(workers)) == content(whole)


@pytest.mark.parametrize("executor", ["datatrove", pytest.param("ray", marks=pytest.mark.faults)])
def test_datatroves_executors_write_the_same_bytes(executor, corpus, whole, tmp_path):
    subprocess.run(
        command(corpus, tmp_path / "out", "--executor", executor, "--workers", 2, "--part_records", 50),
        check=True,
        capture_output=True,
        timeout=600,
    )
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.faults
def test_killed_runs_go_on_and_lose_little(corpus, whole, tmp_path):
    """SIGKILL of the parent alone, at random moments, until a run ends by itself."""
    chance = random.Random(0)
    folder = tmp_path / "out"
    state = folder / ".state" / "documents"

    kills = 0

    def parts():
        return len(list(state.glob("[!.]*.json"))) if state.is_dir() else 0

    for _ in range(50):
        before, kills = parts(), kills + 1
        process = subprocess.Popen(
            command(corpus, folder, "--part_records", 50, "--delay", 0.002, "--workers", 2),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        enough = before + chance.randint(3, 9)
        while process.poll() is None and parts() < enough:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.1)
        if kill(process) == 0:
            break
        assert parts() >= enough  # what was done is still there
    assert process.returncode == 0
    assert kills > 2
    assert content(folder) == content(whole)


def test_work_that_is_done_is_not_done_again(corpus, whole, tmp_path):
    folder = tmp_path / "out"
    run(corpus, folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("0*.parquet")}
    victim = sorted(folder.glob("0*.parquet"))[4]
    victim.write_bytes(b"cut")  # a damaged part is made again, with all later ones of its source
    (folder / "manifest.json").unlink()
    run(corpus, folder)
    assert content(folder) == content(whole)
    same = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns == stamp]
    assert len(same) == len(stamps) - 4
    run(corpus, folder)  # nothing left to do


def test_other_settings_or_input_are_refused(corpus, whole, tmp_path):
    before = content(whole)
    with pytest.raises(InputError, match=r"settings\.keep_odd was False, is True"):
        run(corpus, whole, keep_odd=True)
    with pytest.raises(InputError, match=r"settings\.part_records was 50, is 60"):
        run(corpus, whole, part_records=60)
    with pytest.raises(InputError, match=r"inputs has 0 new of 1 and lacks \d of \d, like .*1.parquet"):
        run(corpus / "0.parquet", whole)
    (tmp_path / "foreign.txt").write_text("mine")
    with pytest.raises(InputError, match="no stage has written"):
        run(corpus, tmp_path)
    assert content(whole) == before


def test_an_output_folder_within_the_input_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "number 2"}\n')
    with pytest.raises(InputError, match=r"lies in --input .*, so what is written would be read"):
        run(tmp_path, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="lies in --input"):
        Documents([str(tmp_path)]).check_output(str(tmp_path / "tokenizer"))
    run(tmp_path / "a.jsonl", tmp_path / "out")  # a file may lie beside it
    run(tmp_path / "out", tmp_path / "out" / "next")  # and a stage's folder gives what its manifest lists


def test_a_finished_part_that_was_changed_is_refused_and_made_again(corpus, whole, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(whole, copy)
    file = copy / "00001-00002.parquet"
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    with pytest.raises(InputError, match=r"00001-00002\.parquet: changed since .*; remove it, and the same"):
        run(corpus, copy)
    file.unlink()  # as the message says
    run(corpus, copy)
    assert content(copy) == content(whole)


@pytest.mark.parametrize("damage", ["", '{"files": ', "[]"])
def test_what_is_damaged_or_gone_is_named_and_made_again(corpus, whole, tmp_path, damage):
    copy = tmp_path / "out"
    shutil.copytree(whole, copy)
    (copy / "00001-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"/00001-00002\.parquet: is gone, .* makes it again"):
        run(copy, tmp_path / "next")
    (copy / "manifest.json").write_text(damage)
    with pytest.raises(InputError, match=r"/manifest\.json: damaged; .* makes it again"):
        run(copy, tmp_path / "next")
    run(corpus, copy)
    assert content(copy) == content(whole)
    (copy / ".state" / "stage.json").write_text(damage)
    with pytest.raises(InputError, match=r"stage\.json: damaged|was made with other settings"):
        run(corpus, copy)


@pytest.mark.parametrize("folder", ["file", "file/out", "/proc/out"])
def test_a_folder_that_cannot_be_written_is_refused(corpus, tmp_path, folder):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"--output_dir .* cannot be written \(.*\); name another folder"):
        run(corpus, tmp_path / folder)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_a_full_disk_is_told_in_one_line_and_loses_nothing(corpus, whole, tmp_path, workers):
    """A limit on the size of files stands for the disk: the write fails in the same place."""
    words = command(corpus, tmp_path / "out", "--workers", workers, "--part_records", 50)
    limited = (
        "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (2000, 2000)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    ended = subprocess.run([sys.executable, "-c", limited, *words], capture_output=True, text=True)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert len(errors) == 1 and "File too large" in errors[0] and "the same command goes on" in errors[0]
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert content(tmp_path / "out") == content(whole)


def test_two_runs_in_one_folder(corpus, tmp_path):
    first = subprocess.Popen(command(corpus, tmp_path / "out", "--delay", 0.01), stderr=subprocess.DEVNULL)
    while not (tmp_path / "out" / ".state" / "stage.json").is_file():
        assert first.poll() is None
        time.sleep(0.01)
    with pytest.raises(InputError, match="another run"):
        run(corpus, tmp_path / "out")
    first.kill()
    first.wait()


def test_too_many_bad_records(tmp_path):
    lines = [json.dumps({"text": f"number {i}"}) for i in range(40)]
    lines[5] = lines[6] = lines[7] = "damaged"
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadRecordsError, match=r"3 of 40 records are damaged \(line is not JSON 3\)"):
        run(tmp_path / "a.jsonl", tmp_path / "out")
    done = subprocess.run(command(tmp_path / "a.jsonl", tmp_path / "other"), capture_output=True, text=True)
    assert done.returncode == 3
    assert "--max_bad_records" in done.stderr
    counts = run(tmp_path / "a.jsonl", tmp_path / "out", max_bad_records=0.1)["counts"]  # goes on in the same folder
    assert counts["bad"] == {"line is not JSON": 3}
    assert counts["kept"] == 19


def test_many_bad_records_stop_the_work_early(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "number 2"}\n' + "damaged\n" * 3000)
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "number 2"}\n' * 500)  # smaller: its turn comes later
    with pytest.raises(BadRecordsError):
        run(tmp_path / "in", tmp_path / "out", part_records=500)
    assert not (tmp_path / "out" / "00001-00000.parquet").exists()


def test_a_cut_file_stops_the_stage_unless_that_is_allowed(tmp_path):
    lines = "".join(f'{{"text": "{random.Random(i).random()} {i}"}}\n' for i in range(4000))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-9000])
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "number 2"}\n')
    for _ in range(2):  # the second time nothing is left to do
        with pytest.raises(BadRecordsError, match=r"/a.jsonl.gz: damaged gzip file: the rest is lost; fetch it again"):
            run(tmp_path / "in", tmp_path / "out")
    manifest = run(tmp_path / "in", tmp_path / "out", max_bad_records=1)  # goes on in the same folder
    assert 1000 < manifest["counts"]["in"] < 4000 and manifest["counts"]["bad"]["damaged gzip file: the rest is lost"]


def test_a_killed_worker_is_told(corpus, tmp_path):
    done = subprocess.run(
        command(corpus, tmp_path / "out", "--die", "True", "--workers", 2), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1
    assert "a worker was killed" in done.stderr.splitlines()[-1]


def test_ctrl_c_stops_at_once(corpus, tmp_path):
    process = subprocess.Popen(
        command(corpus, tmp_path / "out", "--delay", 0.05, "--workers", 2), stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "out" / ".state" / "stage.json").is_file():
        time.sleep(0.01)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert process.stderr.read().splitlines()[-1] == "error: interrupted"


def test_history_reaches_back(corpus, whole, tmp_path):
    manifest = run(whole, tmp_path / "second")
    assert [step["stage"] for step in manifest["history"]] == ["even"]
    assert manifest["counts"]["in"] == manifest["history"][0]["counts"]["kept"] == 602
    third = run(tmp_path / "second", tmp_path / "third")
    assert [step["counts"]["in"] for step in third["history"]] == [1203, 602]


def test_wrong_flags(tmp_path):
    for flags, message in [
        ({"workers": 0}, "--workers 0"),
        ({"part_records": 0}, "--part_records 0"),
        ({"max_bad_records": 2}, "--max_bad_records 2"),
        ({"executor": "slurm"}, "--slurm_partition"),
    ]:
        with pytest.raises(InputError, match=message):
            StageArguments(os.path.join(tmp_path, "x"), **flags)
