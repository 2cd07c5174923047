import json
import re
from html.parser import HTMLParser

import pytest
import yaml
from huggingface_hub import ModelCard

from evaluation.make_report import ReportArguments, fenced, main, shift
from evaluation.report.page import Line, draw_lines, render_page
from shared.errors import InputError

HOSTILE = '</td><script>alert("1")</script>|`*a*` [x](javascript:alert(1))'
VOID = {"meta", "line", "circle", "polygon", "polyline", "br", "img"}


class Page(HTMLParser):
    """The elements of a page, its text, and whether every element that was opened is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.texts, self.elements = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action", "style")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in VOID:
            self.open.append(tag)
            self.elements.append((tag, []))

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)
            if self.elements:
                self.elements[-1][1].append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def of(self, tag):
        """The text of each element of this kind."""
        return [" ".join("".join(text).split()) for name, text in self.elements if name == tag]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path.parent)


def run_folder(folder, name="news.parquet"):
    """What run_mlm.py leaves."""
    manifest = {
        "command": ["pretraining/run_mlm.py", "--config", "a b.yaml"], "commit": "c0ffee", "seconds": 7200.0,
        "processes": 4, "hardware": {"device": "4 x H100", "gpus": ["H100"] * 4}, "versions": {"torch": "2"},
        "resumed_from": None, "inputs": {
            "splits": {"train": {"documents": 12345, "tokens": 10**7, "bytes": 4 * 10**7}},
            "sources": [{"file": name, "bytes": 999, "sha256": "ab" * 32}], "skipped": {"empty": 3},
        },
        "results": {"train_tokens": 123456789, "eval_masked_accuracy": 0.4321, "eval_bits_per_byte": 1.2345},
    }  # fmt: skip
    history = [{"step": 10, "loss": 5.0}, {"step": 20, "loss": 4.0}, {"step": 20, "eval_loss": 4.5}, {"train_loss": 1}]
    write(folder / "manifest.json", manifest)
    write(folder / "trainer_state.json", {"log_history": history})
    write(folder / "recipe.yaml", "learning_rate: 0.002\n")
    (folder / "curve.png").write_bytes(b"picture")
    return str(folder)


def cpu_report(name):
    def variant(ms, points):
        run = {"start_seconds": 1.0, "start_memory_mib": 50.0, "peak_memory_mib": 70.0}
        run["latency"] = {"128": {"p50_ms": ms, "p95_ms": 2 * ms, "ratio": 9.0 / ms}}
        run["throughput"] = {"128": {"rows_per_second": 1000 / ms, "ratio": 9.0 / ms}}
        parity = {"largest_logit_difference": 0.25, "agreement": 0.99, "score": 0.8, "points": points}
        return {"file_bytes": 2**20, "parity": parity, "threads": {"1": run}}

    variants = {"eager": variant(9.0, 0.0), "onnx": variant(3.0, 0.0), "onnx_int8": variant(1.5, -2.0)}
    model = {"task": "sequence_classification", "model_type": "bert", "parameters": 10**6, "variants": variants}
    model["data"] = {"source": name, "rows": 872, "places": None, "metric": "accuracy"}
    return {
        "kind": "cpu_benchmark", "models": {name: model}, "settings": {"rounds": 3, "batch_size": 32},
        "hardware": {"device": "2 cores"}, "versions": {"torch": "2"},
    }  # fmt: skip


def blimp_report(name):
    row = {"accuracy": 0.6543, "standard_error": 0.01, "pairs": 67000}
    scores = {"overall": row, "fields": {"syntax": row}, "phenomena": {"binding": row}, "ties": 0.0, "seconds": 90.0}
    settings = {"input": "blimp.zip", "max_samples": None}
    return {"models": {name: scores, "another": scores}, "settings": settings, "hardware": {"device": "2 cores"}}


def freshness_report(name):
    row = {"bits_per_byte": 1.5, "bits_per_byte_interval": [1.4, 1.6]}
    periods = [
        {"name": str(year), "documents": 9, "bytes": 99, "models": {name: row, "old": row}} for year in (2024, 2025)
    ]
    gain = {"gain": 0.021, "gain_interval": [0.01, 0.03], "is_fresher": True}
    gain |= {f"{name}_{part}": 0.1 for name in ("lead", "ahead") for part in ("early", "late")}
    text = {"periods": periods, "old": "old", "gains": {name: gain}, "held_out_in_training": {name: 0.1}}
    cutoffs = {"old": "2024-12-31", name: None}
    return {"models": ["old", name], "cutoffs": cutoffs, "settings": {"period": "year"}, "text": text}


def probes_report(name):
    gain = {"copy_gain": 0.031, "copy_gain_interval": [0.01, 0.05], "found_with": 0.25, "found_without": 0.219}
    row = {"copy": gain | {"sentences": 1000, "left_out": 0, "tokens": 1.5}, "seconds": 90.0}
    return {"models": {name: row}, "settings": {"copy_text": ["a.txt"]}, "hardware": {"device": "2 cores"}}


@pytest.fixture
def flags(tmp_path):
    """A report with everything that these tests make, about the model `mine`."""
    return {
        "output_dir": str(tmp_path / "report"),
        "pretraining": run_folder(tmp_path / "mine"),
        "cpu_benchmark": write(tmp_path / "cpu_benchmark" / "cpu_benchmark.json", cpu_report("mine")),
        "blimp": write(tmp_path / "blimp" / "blimp.json", blimp_report("mine")),
    }


def make(flags, **more):
    paths = main(ReportArguments(**flags | more))
    return Page(paths["page"].read_text()), paths["card"].read_text(), paths["page"].read_text()


def test_numbers_are_those_of_the_files_and_the_rest_is_not_measured(flags):
    page, card, _ = make(flags)
    for text in ("123,456,789 tokens", "43.2%", "1.234", "65.4% ± 1.0", "3.00 ms", "3.0 times", "12,345", "8.00"):
        assert text in page.text and text in card, text
    summary = page.text[: page.text.index("Training measure")] if "Training measure" in page.text else page.text
    for measure in ("Task average", "Freshness gain", "Energy"):
        assert f"{measure} not measured" in summary
        assert f"| {measure} | not measured |" in card
    assert "perplexity of masked tokens not measured" in page.text
    assert "python pretraining/run_mlm.py --config 'a b.yaml'" in page.text and "learning_rate: 0.002" in page.text
    assert "input: blimp.zip" in page.text and "max_samples" not in page.text


def test_a_number_of_another_model_is_under_its_name(flags, tmp_path):
    only = blimp_report("older")
    del only["models"]["another"]
    page, _, _ = make(flags, blimp=write(tmp_path / "older" / "blimp.json", only))
    assert "65.4% ± 1.0 older: 67,000 minimal pairs" in page.text
    page, _, _ = make(flags)
    assert "65.4% ± 1.0 67,000 minimal pairs" in page.text


def test_energy_is_estimated_from_its_assumptions(flags):
    page, _, _ = make(flags, device_watts=500.0, power_usage_effectiveness=1.2)
    assert "about 4.8 kWh" in page.text  # 2 hours x 4 devices x 500 W x 1.2
    assert "500 W per device" in page.text and "times 1.2 for the building" in page.text


def test_the_page_needs_nothing_else(flags):
    page, _, source = make(flags)
    assert {"svg", "table", "section", "nav"} <= {*page.tags} and not {"script", "img", "iframe", "link"} & {
        *page.tags
    }
    assert all(link.startswith(("#", "background:var(--c", "text-align:")) for link in page.links)
    assert "@import" not in source and "url(" not in source and "http" not in re.sub(r"<pre>.*?</pre>", "", source)
    ids = re.findall(r'<section id="([^"]+)"', source)
    assert [link[1:] for link in page.links if link.startswith("#")] == ids and len(ids) == 11
    assert 'name="viewport"' in source and "prefers-color-scheme:dark" in source


def test_the_card_is_one_for_the_hub(flags, tmp_path):
    _, card, _ = make(flags, license="apache-2.0", language=["en"], hub_datasets=["a/b"], title="A tiny | model")
    data = ModelCard(card).data
    assert (data.license, data.language, data.model_name, data.datasets) == ("apache-2.0", ["en"], "mine", ["a/b"])
    found = {(row.dataset_name, row.metric_type): row.metric_value for row in data.eval_results}
    assert found["BLiMP", "accuracy"] == 0.6543 and found["held-out text", "masked_accuracy"] == 0.4321
    assert yaml.safe_load(card.split("---\n")[1])["model-index"][0]["name"] == "mine"
    assert "# A tiny \\| model" in card
    assert "(curve.png)" in card and (tmp_path / "report" / "curve.png").read_bytes() == b"picture"


def test_a_picture_that_is_not_there_is_not_shown_in_the_card(flags, tmp_path):
    (tmp_path / "mine" / "curve.png").unlink()
    page, card, _ = make(flags)
    assert "curve.png" not in card and "svg" in page.tags


def test_text_of_files_stays_text(tmp_path):
    flags = {
        "output_dir": str(tmp_path / "report"),
        "model_name": HOSTILE,
        "freshness": write(tmp_path / "fresh" / "freshness.json", freshness_report(HOSTILE)),
        "pretraining": run_folder(tmp_path / "mine", HOSTILE),
        "cpu_benchmark": write(tmp_path / "cpu_benchmark" / "cpu_benchmark.json", cpu_report(HOSTILE)),
        "blimp": write(tmp_path / "blimp" / "blimp.json", blimp_report(HOSTILE)),
        "data": write(
            tmp_path / "corpus" / "README.md", f"---\na: b\n---\n# Card\n\n{HOSTILE}\n\n```\n</pre>{HOSTILE}\n```\n"
        ),
    }
    page, _, source = make(flags)
    assert "script" not in page.tags and page.text.count(HOSTILE) >= 8  # every sign as it is, in the chart as well
    assert page.of("title") == page.of("h1") == [HOSTILE]
    assert HOSTILE in page.of("i") and "&lt;script&gt;" in source  # the mark before a label of the legend is an <i>
    assert not any("javascript" in link for link in page.links) and "a: b" not in page.text


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "blimp",
            lambda report: report["models"]["mine"]["overall"].pop("accuracy"),
            "blimp.json: has no key 'accuracy'",
        ),
        ("blimp", lambda report: report.pop("models"), "blimp.json: has no key 'models'"),
        ("blimp", lambda report: report.update(models=[1]), "blimp.json: is not as run_blimp.py writes it"),
        ("cpu_benchmark", lambda report: report.pop("hardware"), "cpu_benchmark.json: has no key 'hardware'"),
    ],
)
def test_a_file_that_lacks_a_key_is_named_and_nothing_is_written(name, damage, message, flags, tmp_path):
    report = blimp_report("mine") if name == "blimp" else cpu_report("mine")
    damage(report)
    write(tmp_path / name / f"{name}.json", report)
    with pytest.raises(InputError, match=re.escape(message)):
        make(flags)
    assert not (tmp_path / "report").exists()


def test_wrong_input_is_refused(flags, tmp_path):
    def refused(message, **more):
        with pytest.raises(InputError, match=message):
            make(flags, **more)

    nowhere = {name: str(tmp_path / "nowhere") for name in ("pretraining", "blimp", "cpu_benchmark")}
    refused("--pretraining .*nowhere, --blimp .*: there is no such", **nowhere)
    refused("--model_name other: the results are of mine, another", model_name="other")
    refused("--device_watts", device_watts=-1.0)
    refused("--power_usage_effectiveness 0.5", power_usage_effectiveness=0.5)
    write(tmp_path / "blimp" / "blimp.json", '{"models": NaN}')
    refused("blimp.json: cannot be read as JSON: NaN is no number")
    write(tmp_path / "blimp" / "blimp.json", "{")
    refused("blimp.json: cannot be read as JSON")
    with pytest.raises(InputError, match="name at least one"):
        ReportArguments("out")


def test_probes_stand_behind_grammar_and_those_without_input_are_not_measured(flags, tmp_path):
    page, card, _ = make(flags)
    assert "## Probes\n\nNot measured." in card
    page, card, _ = make(flags, probes=write(tmp_path / "probes" / "probes.json", probes_report("mine")))
    assert "copy gain +3.1 (+1.0 to +5.0)" in page.text and "dated cloze not measured" in page.text
    assert card.index("## Grammar") < card.index("## Probes") < card.index("## On a CPU")
    assert "copy_text" in page.text


def test_a_path_that_is_not_there_is_named_and_not_measured(flags, tmp_path, capsys):
    page, card, _ = make(flags, blimp=str(tmp_path / "nowhere"), pretraining=str(tmp_path / "no_run"))
    assert f"Not measured: --blimp {tmp_path / 'nowhere'} is not there." in capsys.readouterr().out
    assert "## Grammar\n\nNot measured." in card and "12,345" not in page.text and "3.00 ms" in page.text


def test_a_folder_without_the_file_is_named_and_not_measured(flags, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    page, _, _ = make(flags, blimp=str(empty), data=str(empty))
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("Not measured")] == [
        f"Not measured: --blimp {empty} has no blimp.json.",
        f"Not measured: --data {empty} has no README.md.",
    ]
    nothing = dict.fromkeys(("pretraining", "cpu_benchmark"), str(empty)) | {"blimp": str(tmp_path / "nowhere")}
    with pytest.raises(
        InputError, match=r"blimp .* is not there; .*cpu_benchmark\.json; .*manifest\.json.*: nothing is"
    ):
        make(flags | {"data": None}, **nothing)
    assert "BLiMP accuracy not measured" in page.text and "Grammar Not measured." in page.text


def test_freshness_has_a_figure_of_its_numbers(flags, tmp_path):
    flags["freshness"] = write(tmp_path / "fresh" / "freshness.json", freshness_report("mine"))
    page, card, _ = make(flags)
    assert (
        "+0.021 bits per byte" in page.text and "+0.010 to +0.030: fresher than old (text to 2024-12-31)" in page.text
    )
    assert "old (text to 2024-12-31)" in page.text and page.tags.count("polygon") == 2
    assert "1.500" in card and "freshness.png" not in card


def test_markdown_is_rendered():
    text = (
        "# T *t*\n\na *b* **c *d*** `x<y` \\*e\\* [f](https://g.h) [i](javascript:j)\nnext [k](javascript://k.png)\n\n"
        "## S `s`\n\n- one\n  more\n- two\n\n"
        "| a | b |\n|---|---:|\n| 1 \\| 2 | 3 |\n\n````\n```\n# no\n````\n\n![gone](no.png)\n\n![*d*](d.png)\n"
    )
    source = render_page(text, {"d.png": draw_lines([Line("flat", [(1, 0.0), (2, 0.0)])], "x", "y")})
    page = Page(source)
    assert "<em>b</em>" in source and "<code>x&lt;y</code>" in source and "*e*" in page.text and "next" in page.text
    assert 'href="https://g.h"' in source and "[i](javascript:j)" in page.text
    assert page.links[0] == "https://g.h" and not any("javascript" in link for link in page.links)
    assert page.of("li")[:2] == ["one more", "two"] and page.of("td") == ["1 | 2", "3"]
    assert "```\n# no" in source and page.tags.count("h1") == 1 and "gone" not in page.text
    assert page.of("title") == ["T t"] and '<section id="s-s">' in source and "S s" in page.of("a")
    assert page.tags.count("figure") == page.tags.count("svg") == 1 and "<figcaption><em>d</em>" in source
    assert '<div class="scroll" tabindex="0"><table>' in source  # what is wider than a phone scrolls by itself


def test_headings_are_shifted_outside_of_code():
    assert shift("# A\n\n```\n# a\n```\n![p](x.png)\n## B") == "### A\n\n```\n# a\n```\n#### B"
    assert fenced("a ``` b").startswith("````\n")


def test_a_chart_holds_its_points_and_their_bands():
    lines = [Line("a<b", [(0, 1.0), (1, 3.0)], [(0.5, 1.5), (2.0, 4.0)], dots=True), Line("c", [(0, 2.0)])]
    page = Page(draw_lines(lines, "time", "loss", ["2020", "2021"]))
    assert page.tags.count("polyline") == 2 and page.tags.count("polygon") == 1 and page.tags.count("circle") == 3
    assert "2020" in page.text and "a<b" in page.text
    source = draw_lines(lines, "time", "loss")
    coordinates = [float(n) for n in re.findall(r"-?\d+\.\d", " ".join(re.findall(r'points="([^"]+)"', source)))]
    assert min(coordinates) >= 0 and max(coordinates) <= 560
    assert Page(draw_lines([Line("flat", [(1, 0.0), (2, 0.0)])], "x", "y")).text


def save_update(folder, name, gain, rise, average=None):
    """What make update leaves of a model, as far as the series reads it."""
    leads = [
        {"lead": 0.02, "lead_interval": [0.01, 0.03]},
        {"lead": -rise, "lead_interval": [-rise - 0.01, -rise + 0.01]},
    ]
    found = {"gain": gain, "gain_interval": [gain - 0.01, gain + 0.01], "early": ["2024", "2025"]}
    found["periods"] = [*leads, {"lead": -9.0, "lead_interval": [-9.1, -8.9]}]  # the last period is of the new text
    text = {"old": "old", "gains": {name: found}, "periods": [{"name": year} for year in ("2024", "2025", "2026")]}
    write(folder / "results" / "freshness.json", {"text": text, "cutoffs": {"old": "2025-12", name: "2026-11"}})
    write(folder / name / "manifest.json", {"results": {"train_tokens": 6144000}})
    write(folder / "tokenizer" / "report.json", {"words": [{}] * 41})
    if average:
        write(folder / "results" / "benchmark.json", {"averages": {name: {"mean": average}}})
    return str(folder)


def test_updates_in_a_row_are_those_of_their_folders(flags, tmp_path):
    folders = [
        save_update(tmp_path / "a", "tiny-10", 0.03, -0.015),
        save_update(tmp_path / "b", "tiny-11", 0.04, 0.002, 0.5),
    ]
    main(ReportArguments(**flags | {"output_dir": str(tmp_path / "out"), "months": folders}))
    card = (tmp_path / "out" / "README.md").read_text()
    rows = [line for line in card.split("## Months")[1].split("\n## ")[0].splitlines() if line.startswith("| tiny")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["tiny-10", "tiny-11"] and [row[3] for row in cells] == ["41", "41"]
    assert cells[0][4] == "+0.030 (+0.020 to +0.040)" and cells[0][5] == "-0.015 (-0.025 to -0.005)"
    assert cells[1][5] == "+0.002 (-0.008 to +0.012)" and [row[6] for row in cells] == ["–", "50.0"]
    with pytest.raises(InputError, match=r"--months .*there is no such file"):
        main(ReportArguments(**flags | {"months": [str(tmp_path / "out")]}))
