"""The long form (`make test-faults`): every stage of data_prep killed at 20 random moments, and what that costs."""

import json
import random
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from mirror import make_crawl, make_dump, prose
from test_stage import content, kill

KILLS = 20
PART_RECORDS = 10
pytestmark = pytest.mark.faults


STAGES = {
    "fetch_common_crawl": ["--base_url", "{inputs}/mirror", "--snapshot", "CC-MAIN-2026-43", "--sampling_ratio", "1"],
    "extract_common_crawl": ["--input", "{inputs}/fetch_common_crawl"],
    "extract_wikipedia": ["--input", "{inputs}/mirror/enwiki/20261101"],
    "filter_documents": ["--config", "data_prep/recipes/filter_web.yaml", "--input", "{inputs}/extract_common_crawl"],
    "deduplicate": ["--input", "{inputs}/filter_documents", "{inputs}/extract_wikipedia"],
    "build_corpus": ["--input", "{inputs}/filter_documents", "{inputs}/extract_wikipedia", "--shard_mb", "0.2"],
    "analyse_corpus": ["--input", "{inputs}/filter_documents", "{inputs}/extract_wikipedia"],
}


def start(stage, inputs, output_dir):
    command = [sys.executable, f"data_prep/{stage}.py", *(word.format(inputs=inputs) for word in STAGES[stage])]
    if stage != "fetch_common_crawl":  # whose files have no parts
        command += ["--part_records", str(PART_RECORDS)]
    command += ["--workers", "2", "--output_dir", str(output_dir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A mirror, and the output of each stage, which was never killed, as the input of the next."""
    folder = tmp_path_factory.mktemp("inputs")
    texts = prose()
    make_crawl(folder / "mirror", [f"{text}\n\nPage {i}." for i in range(6) for text in texts], files=3)
    make_dump(folder / "mirror", [f"{text} Number {i}." for i in range(4) for text in texts])
    for stage in STAGES:
        assert start(stage, folder, folder / stage).wait(timeout=600) == 0
    return folder


def records_done(folder):
    """Records in finished parts, in all phases; not in files under the hidden names that a kill has left."""
    done = 0
    for path in folder.glob(".state/*/[!.]*.json"):
        done += json.loads(path.read_text()).get("counts", {}).get("in", 0)
    return done


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments(stage, inputs, tmp_path):
    folder, whole = tmp_path / stage, inputs / stage  # of one name, which the data card shows
    begin = time.monotonic()
    assert start(stage, inputs, folder).wait(timeout=600) == 0
    seconds = time.monotonic() - begin
    shutil.rmtree(folder)

    chance = random.Random(stage)
    kills, lost = 0, 0
    for attempt in range(10 * KILLS):
        process = start(stage, inputs, folder)
        try:
            process.wait(timeout=chance.uniform(0.3, 1.0) * seconds if kills < KILLS else 600)
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
            done = records_done(folder)
            unnamed = [path for path in folder.rglob("*.parquet") if path.name.startswith(".")]
            assert len(unnamed) <= 4, attempt  # what was being written has no final name
            assert done >= lost  # nothing that was done is gone
            lost = done
            continue
        assert process.returncode == 0
        assert content(folder) == content(whole)
        if kills >= KILLS:
            break
        lost = 0
        shutil.rmtree(folder)
    assert kills == KILLS
