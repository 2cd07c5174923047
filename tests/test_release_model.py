"""The published folder: half the bytes, the same model, and where its text came from."""

import json
import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

from pretraining.release_model import ReleaseArguments, main
from pretraining.run_mlm import DataArguments
from pretraining.run_mlm import main as pretrain
from shared.command_line import parse_arguments
from shared.errors import InputError
from shared.model_config import ModelArguments
from shared.training.arguments import RunArguments

KINDS = (ModelArguments, DataArguments, RunArguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "run"
    words = ["--config", "pretraining/recipes/smoke.yaml", "--max_steps", "4", "--eval_strategy", "no"]
    pretrain(*parse_arguments(KINDS, [*words, "--output_dir", str(folder)]))
    return folder


def test_a_released_model_is_the_run_in_half_the_bytes(run, tmp_path):
    card = "# corpus\n\n## Mix\n\nx\n\n## Sources and licences\n\n| a blog | MIT |\n\n## Dates\n\ny\n"
    (tmp_path / "card.md").write_text(card)
    folder = tmp_path / "tiny"
    main(ReleaseArguments(str(run), str(folder), stages=[str(run)], data_card=str(tmp_path / "card.md")))
    assert (folder / "model.safetensors").stat().st_size < 0.55 * (run / "model.safetensors").stat().st_size
    before, after = (AutoModelForMaskedLM.from_pretrained(name).state_dict() for name in (run, folder))
    for name, weight in after.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name].bfloat16().float())
    assert len(pipeline("fill-mask", str(folder))("the red [MASK] was afraid")) == 5
    readme = (folder / "README.md").read_text()
    assert readme.startswith("---\nlicense: apache-2.0\n") and "| a blog | MIT |" in readme and "Dates" not in readme
    assert json.loads((folder / "manifest.json").read_text())["results"]
    assert (folder / "stages" / "run" / "recipe.yaml").is_file() and not list(folder.glob("checkpoint*"))
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


PLAIN = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer

ids = np.array([Tokenizer.from_file(sys.argv[1] + "/tokenizer.json").encode("the red cat was afraid of the dog").ids])
for name in ("model", "model_int8"):
    session = onnxruntime.InferenceSession(f"{sys.argv[1]}/onnx/{name}.onnx", providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    print(json.dumps(session.run(["last_hidden_state"], {n: x for n, x in inputs.items() if n in names})[0].tolist()))
assert "torch" not in sys.modules
"""


def test_onnx_files_load_without_torch_and_agree_with_it(run, tmp_path):
    folder = tmp_path / "tiny"
    main(ReleaseArguments(str(run), str(folder), onnx=["fp32", "int8"]))
    command = [sys.executable, "-c", PLAIN, str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    exact, small = (torch.tensor(json.loads(line)) for line in lines)
    inputs = AutoTokenizer.from_pretrained(folder)("the red cat was afraid of the dog", return_tensors="pt")
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
    torch.testing.assert_close(exact, wanted, atol=1e-4, rtol=1e-4)
    assert torch.cosine_similarity(small.mean(1), wanted.mean(1)).item() > 0.98
    onnx, readme = folder / "onnx", (folder / "README.md").read_text()
    assert (onnx / "model_int8.onnx").stat().st_size < 0.6 * (onnx / "model.onnx").stat().st_size
    said = re.search(r"`onnx/model_int8.onnx` \(int8\): cosine with PyTorch at least ([01][.]\d+)", readme)
    assert 0.98 < float(said[1]) <= 1


def test_wrong_input_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="--onnx int4: there are fp32 and int8"):
        ReleaseArguments(str(run), str(tmp_path / "x"), onnx=["int4"])
    for arguments, message in (
        ({"run": "nowhere"}, "--run nowhere: not the folder of a finished run"),
        ({"data_card": "LICENSE"}, "--data_card LICENSE: no section"),
        ({"stages": ["tests"]}, "--stages tests: not the folder of a run"),
        ({"output_dir": "tests"}, "not an empty folder"),
    ):
        with pytest.raises(InputError, match=message):
            main(ReleaseArguments(**({"run": str(run), "output_dir": str(tmp_path / "x")} | arguments)))
    (tmp_path / "part").mkdir()
    for name in ("README.md", "config.json"):
        (tmp_path / "part" / name).write_bytes((run / name).read_bytes())
    (tmp_path / "part" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="has not finished"):
        main(ReleaseArguments(str(tmp_path / "part"), str(tmp_path / "x")))
