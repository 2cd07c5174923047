"""Small packed sets, and short runs on them."""

import json

from conftest import SENTENCES

from data_prep.pack_dataset import pack_dataset
from pretraining.run_mlm import DataArguments, ModelArguments, RunArguments, main
from shared.command_line import parse_arguments
from shared.documents import Documents

PARTS = {"month": (0, 90), "year": (90, 130), "old": (130, 230), "long": (0, 90), "bpe": (0, 90)}  # documents
FLAGS = ["--use_cpu", "true", "--disable_tqdm", "true", "--logging_steps", "1", "--save_steps", "50", "--seed", "5"]
FLAGS += ["--per_device_train_batch_size", "8", "--learning_rate", "5e-3"]
SMALL = ["--model_type", "bert", "--config_overrides", "hidden_size=32,intermediate_size=64"]


def pack_parts(folder, tokenizer, names=("month", "year", "old", "long")):
    """Packed sets of the sentences; those of `long` have blocks of 64 tokens, the others of 32."""
    texts = SENTENCES.read_text().strip().split("\n\n")
    for name in names:
        first, last = PARTS[name]
        file = folder / f"{name}.txt"
        file.write_text("\n\n".join(texts[first:last]))
        pack_dataset(Documents([str(file)]), tokenizer, folder / name, 64 if name == "long" else 32, 0.1, quiet=True)
    return folder


def run(folder, *flags):
    """Train as run_mlm.py does: a small new BERT unless the flags name a model."""
    model = [] if "--model_name_or_path" in flags else SMALL
    words = [*FLAGS, *model, "--output_dir", folder, *flags]
    return main(*parse_arguments([ModelArguments, DataArguments, RunArguments], list(map(str, words))))


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {row["step"]: row["loss"] for row in history if "loss" in row}
