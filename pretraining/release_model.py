"""Make of a finished run the folder that is published: weights, tokenizer, card, and where its text came from.

    python pretraining/release_model.py --run runs/tiny --data_card data/corpus/README.md --output_dir models/tiny

Copies what a user needs and leaves out checkpoints. Weights are rounded to bfloat16, half the bytes, and load as
float32 (`dtype` in the configuration), so that a CPU computes with them at full speed. The card is that of the run,
with the sources of the text and their licences behind it; recipes and manifests of earlier stages lie in stages/.
"""

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from shared.command_line import run_script
from shared.errors import InputError
from shared.files import atomic_folder, check_new_folder, write_json

COPIED = ("tokenizer.json", "tokenizer_config.json", "modules.json", "curve.png", "recipe.yaml")
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
    target.chmod(0o644)  # safetensors writes files that only their owner may read
    norms = [
        (value.float() - weights[name]).norm() / weights[name].norm().clamp(min=1e-9)
        for name, value in rounded.items()
    ]
    return float(max(norms))


def main(args: ReleaseArguments) -> dict[str, Any]:
    run, output = Path(args.run), Path(args.output_dir)
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        card = (run / "README.md").read_text(encoding="utf-8")
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--run {run}: not the folder of a finished run: {error}") from error
    if "results" not in manifest:
        raise InputError(f"--run {run}: the run has not finished; start its command again first")
    for stage in args.stages:
        if not (Path(stage) / "recipe.yaml").is_file():
            raise InputError(f"--stages {stage}: not the folder of a run (no recipe.yaml)")
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
        if (run / "1_Pooling").is_dir():
            shutil.copytree(run / "1_Pooling", folder / "1_Pooling")
        write_json(folder / "manifest.json", manifest)
        for stage in map(Path, args.stages):
            (folder / "stages" / stage.name).mkdir(parents=True)
            for name in ("recipe.yaml", "manifest.json"):
                shutil.copyfile(stage / name, folder / "stages" / stage.name / name)
        (folder / "README.md").write_text(card, encoding="utf-8")
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size / 1e6:.1f} MB; rounding moved no tensor by more than {difference:.2%} of its length")
    return {"bytes": size, "largest_difference": difference}


if __name__ == "__main__":
    run_script(main, ReleaseArguments)
