"""Every task of the repository on three architectures, tiny: what the gradient and resume tests train.

As a program, in several processes: trains all of them in one process group and writes their logged losses and norms.
"""

import copy
import json
import sys

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PrinterCallback,
    set_seed,
)

from shared.loss import (
    IGNORED,
    cross_entropy_loss,
    multi_label_loss,
    project_masked_only,
    regression_loss,
    rule_out_padding,
    span_loss,
)
from shared.training.arguments import RunArguments
from shared.training.trainer import ExactTrainer

TASKS = {
    "masked_lm": (AutoModelForMaskedLM, cross_entropy_loss, 0),
    "single_label": (AutoModelForSequenceClassification, cross_entropy_loss, 3),
    "multi_label": (AutoModelForSequenceClassification, multi_label_loss, 4),
    "regression": (AutoModelForSequenceClassification, regression_loss, 1),
    "token_classification": (AutoModelForTokenClassification, cross_entropy_loss, 5),
    "question_answering": (AutoModelForQuestionAnswering, span_loss, 2),
}
MODELS = ("bert", "roberta", "modernbert")
CASES = [(task, model) for task in TASKS for model in MODELS]
SAMPLES = 17  # two steps of 8, and a last one of a single sample
STEPS = 4
VOCABULARY = 97


def make_samples(task, count=SAMPLES):
    """Sequences of 5 to 20 tokens with targets of the task, very unevenly spread in those that label tokens."""
    rng = np.random.default_rng(7)
    samples = []
    for number in range(count):
        length = int(rng.integers(5, 21))
        ids = rng.integers(5, VOCABULARY, length)
        targets = rng.random(length) < (number % 5) / 5
        targets[2] = True
        labels = {
            "masked_lm": lambda ids=ids, targets=targets: np.where(targets, ids, IGNORED),
            "single_label": lambda: rng.integers(3),
            "multi_label": lambda: rng.integers(0, 2, 4).astype(np.float32),
            "regression": lambda: np.float32(rng.random()),
            "token_classification": lambda n=length, targets=targets: np.where(
                targets, rng.integers(0, 5, n), IGNORED
            ),
            "question_answering": lambda n=length: np.sort(rng.integers(0, n, 2)),
        }[task]()
        samples.append({"input_ids": torch.from_numpy(ids), "labels": torch.as_tensor(labels)})
    return samples


def collate(samples):
    ids = pad_sequence([s["input_ids"] for s in samples], batch_first=True, padding_value=1)
    labels = [s["labels"] for s in samples]
    is_per_token = labels[0].dim() == 1 and len(labels[0]) == len(samples[0]["input_ids"])
    batch = {
        "input_ids": ids,
        "attention_mask": (ids != 1).long(),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        if is_per_token
        else torch.stack(labels),
    }
    return batch


def collate_masked(samples):
    batch = collate(samples)
    labels = batch["labels"]
    most = int((labels != IGNORED).sum(1).max())
    positions = (labels == IGNORED).long().sort(dim=1, stable=True).indices[:, :most]
    return batch | {"masked_positions": positions, "labels": labels.gather(1, positions)}


def make_model(task, model_type, dropout=0.0):
    auto, _, labels = TASKS[task]
    fields = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 1, "cls_token_id": 0,
        "sep_token_id": 2, "bos_token_id": 0, "eos_token_id": 2, "classifier_dropout": dropout,
    }  # fmt: skip
    names = ("attention_dropout", "mlp_dropout", "embedding_dropout")
    names = names if model_type == "modernbert" else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    fields |= dict.fromkeys(names, dropout) | ({"num_labels": labels} if labels else {})
    set_seed(1)
    return auto.from_config(AutoConfig.for_model(model_type, **fields))


def make_arguments(output_dir, **changes):
    settings = {"max_steps": STEPS, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"}
    return RunArguments(str(output_dir), use_cpu=True, disable_tqdm=True, seed=3, **settings | changes)


def make_trainer(args, task, model_type, dropout=0.0, samples=None, model=None, loss=None, **more):
    model = make_model(task, model_type, dropout) if model is None else model
    if task == "masked_lm":
        project_masked_only(model)
    if task == "question_answering":
        rule_out_padding(model)
    trainer = ExactTrainer(
        model=model,
        args=args,
        train_dataset=make_samples(task) if samples is None else samples,
        data_collator=collate_masked if task == "masked_lm" else collate,
        compute_loss_func=loss or TASKS[task][1],
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(args, task, model_type, batch_size, accumulation):
    """The logged (loss, gradient norm) of each step."""
    args = copy.copy(args)  # a second TrainingArguments would take the process group away
    args.per_device_train_batch_size, args.gradient_accumulation_steps = batch_size, accumulation
    trainer = make_trainer(args, task, model_type)
    trainer.train()
    return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "grad_norm" in row]


def evaluate(args, task):
    """The loss of an evaluation in batches of 4: of 17 samples, two processes read some twice."""
    args = copy.copy(args)
    args.per_device_eval_batch_size, args.label_names, args.remove_unused_columns = 4, ["labels"], False
    return make_trainer(args, task, "bert", eval_dataset=make_samples(task)).evaluate()["eval_loss"]


def main(output, splits):
    args = make_arguments(output + ".run")
    found = {}
    for task, model_type in CASES:
        for size, accumulation in splits:
            found[f"{task} {model_type} {size}x{accumulation}"] = train(args, task, model_type, size, accumulation)
    for task in TASKS:
        found[f"{task} evaluation"] = evaluate(args, task)
    if args.process_index == 0:
        with open(output, "w") as file:
            json.dump({"processes": args.world_size, "found": found}, file)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # or its threads may abort the interpreter's end


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
