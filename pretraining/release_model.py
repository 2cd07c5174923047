"""Make of a finished run the folder that is published: weights, tokenizer, card, and where its text came from.

    python pretraining/release_model.py --run runs/tiny --data_card data/corpus/README.md --output_dir models/tiny

Copies what a user needs, and what a next stage goes on with, and leaves out checkpoints; what tells
SentenceTransformer how to take the mean is that of the last stage that has it. Weights are rounded to bfloat16, half
the bytes, and load as float32 (`dtype` in the configuration), so that a CPU computes with them at full speed. The card
is that of the run, with the sources of the text and their licences behind it; recipes and manifests of earlier stages
lie in stages/.
--onnx adds the encoder for ONNX Runtime, whose output is the last layer, and writes into the card how far its mean
over the tokens, which compares texts, is from that of PyTorch.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pretraining.distillation.student import HEADS
from shared.command_line import run_script
from shared.errors import InputError
from shared.files import atomic_folder, check_new_folder, write_json
from shared.onnx_export import FUSED, OPSETS, check_installed, export, input_names, opset_of, quantize

STAGE_FILES = ("recipe.yaml", "manifest.json")
COPIED = ("tokenizer.json", "tokenizer_config.json", "curve.png", "recipe.yaml", HEADS)
FORMS = {"fp32": "model.onnx", "int8": "model_int8.onnx", "static": "model_static.onnx"}
STATIC = (1, 128)  # rows and tokens of the form that takes no others, for runtimes that plan memory ahead
SOURCES = "## Sources and licences"  # the heading of a data card that is taken over, up to the next one


@dataclass
class ReleaseArguments:
    run: str = field(metadata={"help": "The output_dir of the finished run."})
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    stages: list[str] = field(
        default_factory=list, metadata={"help": "Runs before it, whose recipe and manifest are kept: runs/trunk."}
    )
    data_card: str | None = field(
        default=None, metadata={"help": "README.md of the corpus, written by data_prep/build_corpus.py."}
    )
    licence: str = field(default="apache-2.0", metadata={"help": "The licence of the weights, for the Hub."})
    onnx: list[str] = field(
        default_factory=list,
        metadata={"help": "The encoder as ONNX files too: fp32, int8, static (one text padded to 128 tokens)."},
    )
    onnx_opset: int | None = field(
        default=None, metadata={"help": f"The operator set of these files, 17 to 25. Default: {FUSED}, the fastest."}
    )

    def __post_init__(self) -> None:
        for name in self.onnx:
            if name not in FORMS:
                raise InputError(f"--onnx {name}: there are {', '.join(FORMS)}")
        if self.onnx_opset is not None and not self.onnx:
            raise InputError(f"--onnx_opset {self.onnx_opset}: there is no file to write; add --onnx fp32")
        if self.onnx_opset not in (None, *OPSETS):
            raise InputError(f"--onnx_opset {self.onnx_opset}: there are {', '.join(map(str, OPSETS))}")


def read_sources(data_card: str) -> str:
    """The table of sources and licences of a data card. Raises InputError if it has none."""
    try:
        text = Path(data_card).read_text(encoding="utf-8")
        section = text.split(f"{SOURCES}\n", 1)[1].split("\n## ", 1)[0].strip()
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"--data_card {data_card}: no section '{SOURCES}'; name the corpus's README.md") from error
    return section


def round_weights(source: Path, target: Path) -> float:
    """Write the weights rounded to bfloat16; returns the largest relative difference of a tensor's length."""
    weights = load_file(source)
    rounded = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(rounded, target, metadata={"format": "pt"})
    norms = [
        (value.float() - weights[name]).norm() / weights[name].norm().clamp(min=1e-9)
        for name, value in rounded.items()
    ]
    return float(max(norms))


def write_onnx(folder: Path, forms: list[str], texts: list[str], opset: int) -> dict[str, float]:
    """Write the encoder of a folder as onnx/model.onnx and so on, as `forms` and `opset` say. Returns of each form the
    smallest cosine of its encodings of `texts`, means over tokens, with those of PyTorch."""
    from onnxruntime import InferenceSession
    from transformers import AutoModel, AutoTokenizer

    (folder / "onnx").mkdir()
    paths = {form: folder / "onnx" / name for form, name in FORMS.items()}
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    names = input_names(model, tokenizer)
    if "static" in forms:
        export(model, names, paths["static"], "last_hidden_state", opset, STATIC)
    if {"fp32", "int8"} & set(forms):
        export(model, names, paths["fp32"], "last_hidden_state", opset)
    if "int8" in forms:
        quantize(paths["fp32"], paths["int8"])
    if "fp32" not in forms:
        paths["fp32"].unlink(missing_ok=True)
    sessions = {form: InferenceSession(paths[form], providers=["CPUExecutionProvider"]) for form in forms}
    least = dict.fromkeys(forms, 1.0)
    for text in texts:
        cut = {"truncation": True, "max_length": STATIC[1], "return_tensors": "np"}
        inputs, padded = tokenizer(text, **cut), tokenizer(text, padding="max_length", **cut)
        length = inputs["input_ids"].shape[1]
        with torch.no_grad():
            wanted = model(**{name: torch.from_numpy(inputs[name]) for name in names}).last_hidden_state[0].mean(0)
        for form, session in sessions.items():
            given = padded if form == "static" else inputs
            found = session.run(None, {name: given[name] for name in names})[0][0, :length].mean(0)
            cosine = found @ wanted.numpy() / np.linalg.norm(found) / wanted.norm().item()
            least[form] = min(least[form], float(cosine))
    return least


def check_stages(stages: Sequence[str]) -> None:
    """Raise InputError for a folder of no run, or two that would be one folder of the release."""
    names: set[str] = set()
    for stage in map(Path, stages):
        for name in STAGE_FILES:
            if not (stage / name).is_file():
                raise InputError(f"--stages {stage}: not the folder of a run (no {name})")
        if stage.name in names:
            raise InputError(
                f"--stages {stage}: two are called {stage.name}; name one by a symbolic link that is called otherwise"
            )
        names.add(stage.name)


def main(args: ReleaseArguments) -> dict[str, Any]:
    run, output = Path(args.run), Path(args.output_dir)
    runs = [run, *map(Path, reversed(args.stages))]  # the last one first
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        card = (run / "README.md").read_text(encoding="utf-8")
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--run {run}: not the folder of a finished run: {error}") from error
    if "results" not in manifest:
        raise InputError(f"--run {run}: the run has not finished; start its command again first")
    check_stages(args.stages)
    if args.onnx:
        check_installed("--onnx")
    sources = read_sources(args.data_card) if args.data_card else None
    check_new_folder(output)
    card = card.replace("---\n", f"---\nlicense: {args.licence}\n", 1)
    card = re.sub(r"^base_model: [./].*\n|^base_model: runs/.*\n", "", card, flags=re.MULTILINE)  # of this machine
    if sources:
        card += f"\n## Text\n\n{sources}\n"
    with atomic_folder(output) as folder:
        difference = round_weights(run / "model.safetensors", folder / "model.safetensors")
        write_json(folder / "config.json", config | {"dtype": "float32"})
        for name in COPIED:
            if (run / name).is_file():
                shutil.copyfile(run / name, folder / name)
        pooled = next((one for one in runs if (one / "modules.json").is_file()), None)
        if pooled:
            shutil.copyfile(pooled / "modules.json", folder / "modules.json")
            shutil.copytree(pooled / "1_Pooling", folder / "1_Pooling")
        write_json(folder / "manifest.json", manifest)
        for stage in map(Path, args.stages):
            (folder / "stages" / stage.name).mkdir(parents=True)
            for name in STAGE_FILES:
                shutil.copyfile(stage / name, folder / "stages" / stage.name / name)
        if args.onnx:
            texts = [line for line in card.splitlines() if line.count(" ") > 8]
            least = write_onnx(folder, args.onnx, texts, args.onnx_opset or FUSED)
            card += "\n## ONNX\n\nThe encoder alone, for ONNX Runtime; its output is the last layer.\n"
            card += f"Operator set {opset_of(folder / 'onnx' / FORMS[args.onnx[0]])}."
            card += " A static file takes one text, padded to 128 tokens.\n\n" if "static" in args.onnx else "\n\n"
            card += "".join(
                f"- `onnx/{FORMS[form]}` ({form}): cosine with PyTorch at least {cosine:.4f} on {len(texts)} texts\n"
                for form, cosine in least.items()
            )
        (folder / "README.md").write_text(card, encoding="utf-8")
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size / 1e6:.1f} MB; rounding moved no tensor by more than {difference:.2%} of its length")
    return {"bytes": size, "largest_difference": difference}


if __name__ == "__main__":
    run_script(main, ReleaseArguments)
