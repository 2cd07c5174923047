"""The published folder: half the bytes, the same model, and where its text came from."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

from pretraining.distillation.student import HEADS, write_pooling
from pretraining.release_model import ReleaseArguments, main
from pretraining.run_mlm import DataArguments
from pretraining.run_mlm import main as pretrain
from shared.command_line import parse_arguments
from shared.errors import InputError
from shared.model_config import ModelArguments
from shared.onnx_export import opset_of
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
    shutil.copytree(run, tmp_path / "encoder")
    write_pooling(tmp_path / "encoder", 64)  # a stage that made it load as a sentence encoder
    stages = [str(tmp_path / "encoder"), str(run)]
    shutil.copytree(run, tmp_path / "last")
    (tmp_path / "last" / HEADS).write_bytes(b"of a distillation")
    main(ReleaseArguments(str(tmp_path / "last"), str(folder), stages=stages, data_card=str(tmp_path / "card.md")))
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
    assert (folder / HEADS).read_bytes() == b"of a distillation"
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    for name in ("modules.json", "1_Pooling/config.json"):
        assert (folder / name).read_text() == (tmp_path / "encoder" / name).read_text()


PLAIN = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer

text = "the red cat was afraid of the dog"
for folder, name in (path.rsplit("/onnx/", 1) for path in sys.argv[1:]):
    tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
    length = len(tokenizer.encode(text).ids)
    if "static" in name:
        tokenizer.enable_padding(length=128, pad_id=tokenizer.token_to_id("[PAD]"))
    encoding = tokenizer.encode(text)
    session = onnxruntime.InferenceSession(f"{folder}/onnx/{name}", providers=["CPUExecutionProvider"])
    names = {one.name: one.shape for one in session.get_inputs()}
    rows = (encoding.ids, encoding.attention_mask, encoding.type_ids)
    inputs = dict(zip(("input_ids", "attention_mask", "token_type_ids"), rows))
    inputs = {name: np.array([inputs[name]]) for name in names}
    found = session.run(["last_hidden_state"], inputs)[0][:, :length]
    print(json.dumps({"shape": names["input_ids"], "found": found.tolist()}))
assert "torch" not in sys.modules
"""
FILES = ("model.onnx", "model_static.onnx", "model_int8.onnx")


@pytest.mark.parametrize("opset", [17, pytest.param(24, marks=pytest.mark.faults)])
def test_onnx_files_load_without_torch_and_agree_with_it(run, tmp_path, opset):
    """For any shape and for one, and the int8 files of the models that we ship."""
    released = tmp_path / "released"
    more = {} if opset == 24 else {"onnx_opset": opset}
    main(ReleaseArguments(str(run), str(released), onnx=["fp32", "static", "int8"], **more))
    shipped = [path.parent.parent for path in (ROOT / "pretraining" / "models").glob("*/onnx/model_int8.onnx")]
    paths = [released / "onnx" / name for name in FILES]
    paths += [folder / "onnx" / "model_int8.onnx" for folder in shipped]
    command = [sys.executable, "-c", PLAIN, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(paths) == 5
    for path, line in zip(paths, map(json.loads, lines), strict=True):
        folder, found = path.parent.parent, torch.tensor(line["found"])
        inputs = AutoTokenizer.from_pretrained(folder)("the red cat was afraid of the dog", return_tensors="pt")
        with torch.no_grad():
            wanted = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        if "int8" in path.name:
            assert torch.cosine_similarity(found.mean(1), wanted.mean(1)).item() > 0.98
        else:
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        assert (line["shape"] == [1, 128]) == ("static" in path.name)
    onnx, readme = released / "onnx", (released / "README.md").read_text()
    assert {opset_of(path) for path in onnx.iterdir()} == {opset} and f"Operator set {opset}." in readme
    assert (onnx / "model_int8.onnx").stat().st_size < 0.6 * (onnx / "model.onnx").stat().st_size
    for form, least in (("", 0.9999), ("_int8", 0.98), ("_static", 0.9999)):
        said = re.search(rf"`onnx/model{form}.onnx` \(\w+\): cosine with PyTorch at least ([01][.]\d+)", readme)
        assert least < float(said[1]) <= 1


def test_wrong_input_is_refused(run, tmp_path):
    for flags, message in (
        ({"onnx": ["int4"]}, "--onnx int4: there are fp32, int8, static"),
        ({"onnx": ["fp32"], "onnx_opset": 23}, "--onnx_opset 23: there are 17, 18, 19"),
        ({"onnx_opset": 17}, "--onnx_opset 17: there is no file to write; add --onnx fp32"),
    ):
        with pytest.raises(InputError, match=message):
            ReleaseArguments(str(run), str(tmp_path / "x"), **flags)
    for arguments, message in (
        ({"run": "nowhere"}, "--run nowhere: not the folder of a finished run"),
        ({"data_card": "LICENSE"}, "--data_card LICENSE: no section"),
        ({"stages": ["tests"]}, "--stages tests: not the folder of a run"),
        ({"stages": [str(run), str(run)]}, "two are called run; name one by a symbolic link"),
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
