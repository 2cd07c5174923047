"""The stock path that evaluation/bench/glue.py measures against: what a reader of Hugging Face's documentation
on text classification writes, with every text padded to one length, and nothing else.

    python evaluation/bench/stock_glue.py --task_name mrpc --model_name_or_path runs/tiny --output_dir runs/stock

`AutoModelForSequenceClassification`, a `datasets` map with `padding="max_length"`, `Trainer` with default settings.
Writes train_results.json and eval_results.json, with the keys of run_glue.py.
"""

from dataclasses import dataclass, field
from pathlib import Path

import evaluate
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)

from finetuning.run_glue import METRICS, PAIRS
from shared.command_line import run_script
from shared.errors import InputError


@dataclass
class StockArguments:
    output_dir: str = field(metadata={"help": "Folder for the results."})
    model_name_or_path: str = field(metadata={"help": "The pretrained checkpoint."})
    task_name: str = field(metadata={"help": f"A task of GLUE with one validation set: {', '.join(PAIRS)}."})
    dataset_name: str = field(
        default="nyu-mll/glue", metadata={"help": "A dataset of the Hub, or a folder of one task."}
    )
    learning_rate: float = field(default=5e-5, metadata={"help": "The highest one; it falls linearly to 0."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Rows in a step."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Times that every row is read."})
    seed: int = field(default=42, metadata={"help": "Of the head, the dropout and the order."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first N rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate the first N rows only."})
    max_seq_length: int = field(default=128, metadata={"help": "Tokens to which every text is padded or cut."})

    def __post_init__(self) -> None:
        if self.task_name not in PAIRS:
            raise InputError(f"--task_name {self.task_name}: must be one of {', '.join(PAIRS)}")


def main(args: StockArguments) -> dict[str, float]:
    is_local = Path(args.dataset_name).is_dir()
    raw = load_dataset(args.dataset_name) if is_local else load_dataset(args.dataset_name, args.task_name)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    columns = [name for name in PAIRS[args.task_name] if name]

    def tokenize(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = (rows[name] for name in columns)
        return tokenizer(*texts, padding="max_length", truncation=True, max_length=args.max_seq_length)

    tokenized = raw.map(tokenize, batched=True)
    parts = [("train", args.max_train_samples), ("validation", args.max_eval_samples)]
    train, validation = (tokenized[name].select(range(min(most or 2**40, len(raw[name])))) for name, most in parts)
    names = getattr(train.features["label"], "names", None)
    set_seed(args.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model_name_or_path, num_labels=len(names) if names else 1
    )
    metric = evaluate.load(METRICS, args.task_name)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        found = prediction.predictions.argmax(axis=-1) if names else prediction.predictions[:, 0]
        return metric.compute(predictions=found, references=prediction.label_ids)

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.output_dir,
            learning_rate=args.learning_rate,
            per_device_train_batch_size=args.per_device_train_batch_size,
            num_train_epochs=args.num_train_epochs,
            seed=args.seed,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=compute_metrics,
    )
    results = trainer.train().metrics
    trainer.save_metrics("train", results)
    results |= trainer.evaluate()
    trainer.save_metrics("eval", results)
    return results


if __name__ == "__main__":
    run_script(main, StockArguments)
