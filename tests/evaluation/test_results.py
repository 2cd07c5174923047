"""Every table of the pages says what the result files say, and what they promise holds."""

import json
import re

import pytest
from conftest import ROOT

from evaluation import make_report, readme_tables
from evaluation.readme_tables import PRETRAINED, TABLES, fill, read
from shared.command_line import parse_arguments


@pytest.mark.parametrize("page", TABLES)
def test_a_page_agrees_with_its_result_files(page):
    text = (ROOT / page).read_text()
    assert fill(page, text) == text, "run make results"


FOLDERS = ("shared", "data_prep", "pretraining", "finetuning", "evaluation")
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {
                re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings
            }, link


def test_the_front_page_is_short():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 120 and len(text.split()) <= 1600


def test_every_result_file_is_shown():
    shown = {file for tables in TABLES.values() for files, _ in tables.values() for file in files}
    shown |= {"data_prep/results/filters.json"}
    found = {*ROOT.glob("*/results/*.json"), *ROOT.glob("*/results/*/manifest.json")}
    assert {str(path.relative_to(ROOT)) for path in found} <= shown


def test_a_wrong_number_or_a_lost_table_does_not_pass(monkeypatch, tmp_path):
    page = "pretraining/RESULTS.md"
    text = (ROOT / page).read_text()
    assert fill(page, text.replace("| 0.251 |", "| 0.999 |")) == text != text.replace("| 0.251 |", "| 0.999 |")
    with pytest.raises(ValueError, match="0 places for the table pretraining"):
        fill(page, text.replace("<!-- pretraining -->", ""))
    with monkeypatch.context() as patch:  # one run less is a row less
        patch.setattr(readme_tables, "read", lambda file: None if "/demo/" in file else read(file))
        assert fill(page, text) == "".join(line for line in text.splitlines(True) if "results/demo)" not in line)
    monkeypatch.setattr(readme_tables, "ROOT", tmp_path)
    assert "<!-- faults -->\nNot measured.\n<!-- /faults -->" in fill(
        "shared/README.md", "<!-- faults -->\n<!-- /faults -->"
    )


def test_the_report_agrees_with_its_result_files(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the recipe's paths start
    command = ["--config", "evaluation/recipes/results.yaml", "--output_dir", str(tmp_path)]
    (args,) = parse_arguments((make_report.ReportArguments,), command)
    make_report.main(args)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"report.html", "README.md", "curve.png", "freshness.png"} == made.keys()
    kept = {path.name: path.read_bytes() for path in (ROOT / "evaluation" / "results" / "report").iterdir()}
    assert made == kept, "run make results"


def test_curves_of_pretraining_are_there():
    assert all((ROOT / "pretraining" / "results" / name / "curve.png").is_file() for name in PRETRAINED)


def test_killed_and_damaged_runs_ended_with_the_same_bits():
    report = read("shared/faults.json")
    assert sum(row["kills"] for row in report["kills"]) >= 50
    assert all(row["same_bits"] == row["kills"] for row in report["kills"])
    cells = [cell for row in report["damage"].values() for cell in row.values()]
    assert len(cells) == 48 and set(cells) <= {"recovered", "refused", "aborted"} and cells.count("aborted") <= 1


def test_data_stages_are_as_fast_as_asked():
    rate = {(row["task"], row["side"]): row for row in read("data_prep/results/speed.json")}
    assert rate["web", "ours"]["per_second"] >= 100 and rate["web", "datatrove"]["ratio"] >= 2
    assert rate["wikipedia", "ours"]["per_second"] >= 60 and rate["signatures", "ours"]["per_second"] >= 800


def test_the_filters_decide_as_the_reference_does():
    report = json.loads((ROOT / "data_prep" / "results" / "filters.json").read_text())
    assert report["documents"] >= 1000 and len(report["agree"]) >= 40
    assert min(report["agree"].values()) >= 0.995
