"""The stock path that evaluation/bench/mlm.py measures against: what a reader of Hugging Face's documentation
on masked-language modelling writes, and nothing else.

    python evaluation/bench/stock_mlm.py --packed_dataset data/packed --model_type bert --model_size tiny \
        --per_device_train_batch_size 16 --max_steps 50 --output_dir runs/stock

`...ForMaskedLM` from a configuration, `DataCollatorForLanguageModeling`, `Trainer` with its default settings. It reads
the blocks as rows of `datasets`, as the documentation does, or as a list of rows where that library is not installed.
Writes train_results.json, with the keys of run_mlm.py.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import is_datasets_available

from shared.blocks import open_blocks
from shared.command_line import run_script
from shared.errors import InputError
from shared.files import write_json
from shared.model_config import ModelArguments, build_config
from shared.training.speed import WARM_UP, flops_per_token, measure_peak, peak_memory


@dataclass
class StockArguments:
    packed_dataset: str = field(metadata={"help": "A folder written by data_prep/pack_dataset.py."})
    output_dir: str = field(metadata={"help": "Folder for train_results.json."})
    model_type: str = field(default="bert", metadata={"help": "As in run_mlm.py."})
    model_size: str = field(default="tiny", metadata={"help": "As in run_mlm.py."})
    config_overrides: str | None = field(default=None, metadata={"help": "As in run_mlm.py."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Blocks in a step."})
    max_steps: int = field(default=50, metadata={"help": "Optimizer steps."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first N blocks only."})
    bf16: bool = field(default=False, metadata={"help": "Mixed precision."})

    def __post_init__(self) -> None:
        if self.max_steps <= WARM_UP:
            raise InputError(f"--max_steps {self.max_steps}: the first {WARM_UP} are not timed; give more")


class Timer(TrainerCallback):
    """Seconds from the end of step WARM_UP to the end of the last one."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in (WARM_UP, state.max_steps):
            if args.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if state.global_step == WARM_UP:
                self.start = now
            self.seconds = now - self.start


def load_rows(packed_dataset: str, rows: int | None) -> Any:
    """The first blocks as the documentation's `group_texts` leaves them."""
    blocks = open_blocks(packed_dataset).splits["train"][:rows].astype("int64")
    columns = {"input_ids": blocks.tolist(), "attention_mask": (blocks >= 0).astype("int64").tolist()}
    if is_datasets_available():
        from datasets import Dataset

        return Dataset.from_dict(columns)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def main(args: StockArguments) -> dict[str, float]:
    tokenizer = AutoTokenizer.from_pretrained(f"{args.packed_dataset}/tokenizer")
    length = open_blocks(args.packed_dataset).manifest["max_seq_length"]
    fields = {name: getattr(args, name) for name in ("model_type", "model_size", "config_overrides")}
    model = AutoModelForMaskedLM.from_config(build_config(ModelArguments(**fields), tokenizer, length))
    training_args = TrainingArguments(
        output_dir=args.output_dir,
        per_device_train_batch_size=args.per_device_train_batch_size,
        max_steps=args.max_steps,
        bf16=args.bf16,
        save_strategy="no",
        disable_tqdm=True,
    )
    timer = Timer()
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=load_rows(args.packed_dataset, args.max_train_samples),
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15),
        callbacks=[timer],
    )
    trainer.train()

    rate = (args.max_steps - WARM_UP) * args.per_device_train_batch_size * length / timer.seconds
    memory = peak_memory(training_args.device)
    peak = measure_peak(training_args.device, torch.bfloat16 if args.bf16 else torch.float32)
    useful = flops_per_token(model.config, length, projected=0.15)  # what the task needs, as for run_mlm.py
    results = {
        "train_tokens_per_second": rate,
        "train_peak_memory_gib": memory / 2**30,
        "train_model_flops_utilization": rate * useful / peak,
        "train_peak_tflops": peak / 1e12,
    }
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    write_json(Path(args.output_dir, "train_results.json"), results)
    return results


if __name__ == "__main__":
    run_script(main, StockArguments)
