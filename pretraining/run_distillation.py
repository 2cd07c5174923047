"""Teach a masked language model what another encoder makes of sentences and of pairs of them.

    accelerate launch pretraining/run_distillation.py --config pretraining/recipes/distil_minilm.yaml

Plain masked-language modelling never asks what two texts have in common. Here the teacher, any sentence or masked
language encoder (also word vectors of data_prep/train_word_vectors.py), says so: the student learns to point where the
teacher points (one text at a time), and to score a pair that it reads as one input, while it goes on filling masks
and, if asked, does the tasks that the scripts make_*.py of data_prep made of plain text.
Writes a model that plain `AutoModelForMaskedLM.from_pretrained` and `SentenceTransformer` load, its tokenizer,
recipe.yaml, manifest.json, results, curve and card. Reports, on held-out sentences, how close it is to the teacher.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from transformers import EvalPrediction, set_seed

from pretraining.distillation.card import RESULTS, describe
from pretraining.distillation.made_tasks import MadeTask, check_lengths, load_made_tasks
from pretraining.distillation.pairs import PairArguments, PairGroups, Pairs, make_pairs
from pretraining.distillation.sentences import SentenceArguments, cached_sentences
from pretraining.distillation.student import LossArguments, add_heads, load_heads, save_student, weighted_loss
from pretraining.distillation.teacher import cached_encodings, check_reads, load_teacher
from pretraining.masking import EVALUATION, MaskedBlocks, MaskingArguments, make_masker, whole_batch
from pretraining.text.blocks import join_sets
from pretraining.text.mixture import MixtureArguments, PackedSets
from pretraining.update.start import AverageArguments, Update
from pretraining.vocabulary.rows import build_model
from shared.blocks import open_blocks
from shared.command_line import refuse_flags, run_script
from shared.documents import Documents
from shared.errors import InputError
from shared.loss import project_masked_only
from shared.model_config import ModelArguments, check_vocab_size
from shared.tokenizer import load_tokenizer, special_tokens, tokenizer_hash
from shared.training.arguments import RunArguments, choose_best_by
from shared.training.budget import plan_steps
from shared.training.record import RunRecord
from shared.training.trainer import ExactTrainer

Say = Callable[[str], None]


@dataclass
class DataArguments(
    AverageArguments, SentenceArguments, PairArguments, MaskingArguments, LossArguments, MixtureArguments
):
    teacher_name_or_path: str | None = field(default=None, metadata={"help": "Any encoder: a folder or Hub id."})
    train_file: list[str] = field(
        default_factory=list,
        metadata={"help": "Text: parquet, JSON lines or .txt (blank lines separate documents), or folders."},
    )
    dataset_name: str | None = field(default=None, metadata={"help": "Text of the Hub instead, by id."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    max_sentence_tokens: int = field(default=60, metadata={"help": "Tokens of a sentence; longer ones are cut."})

    def __post_init__(self) -> None:
        for base in DataArguments.__bases__:
            base.__post_init__(self)
        if not self.packed_dataset:
            refuse_flags(self, dict.fromkeys(MaskingArguments.__annotations__, "is for --packed_dataset"))
        if not self.mlm_weight:
            refuse_flags(self, {"mask_sentences": "is for an --mlm_weight above 0"})


def load_data(
    model_args: ModelArguments, data_args: DataArguments, training_args: RunArguments, record: RunRecord
) -> tuple[Any, dict[str, Pairs], PackedSets | None, dict[str, dict[str, MadeTask]], dict[str, Any]]:
    """The tokenizer; the pairs of `train` and `validation`; the blocks; the made-up tasks; what identifies all."""
    if not data_args.teacher_name_or_path:
        raise InputError("--teacher_name_or_path: name a teacher, a folder or an id of the Hub")
    if bool(data_args.train_file) == bool(data_args.dataset_name):
        raise InputError("give one source of text: --train_file or --dataset_name")
    if data_args.mlm_weight and not (data_args.packed_dataset and data_args.blocks_per_group):
        raise InputError("--mlm_weight: masks need --packed_dataset and --blocks_per_group; else --mlm_weight 0")
    sets = [open_blocks(folder) for folder in data_args.packed_dataset]
    name = model_args.tokenizer_name or model_args.model_name_or_path or (sets and sets[0].path / "tokenizer")
    if not name:
        raise InputError("--model_name_or_path or --tokenizer_name: name the student, or its tokenizer")
    tokenizer = load_tokenizer(name)
    check_vocab_size(model_args, tokenizer)
    packed = join_sets(sets, data_args.mixture_weights, tokenizer) if sets else None
    documents = Documents(data_args.train_file, data_args.dataset_name, data_args.dataset_config_name)
    teacher = load_teacher(data_args.teacher_name_or_path)
    quiet = not record.is_writer
    sentences = cached_sentences(documents, data_args, quiet)
    check_reads(teacher, data_args.teacher_name_or_path, sentences["train"][:1000])
    encode = partial(cached_encodings, bf16=training_args.bf16, quiet=quiet)
    seed = training_args.seed
    pairs = {name: make_pairs(rows, teacher, encode, tokenizer, data_args, seed) for name, rows in sentences.items()}
    made = load_made_tasks(data_args, tokenizer, record.note)
    identity = {"tokenizer": tokenizer_hash(tokenizer), "vectors": {n: p.digest() for n, p in pairs.items()}}
    for task in data_args.made_tasks:
        identity[f"{task}s"] = {split: tasks[task].digest() for split, tasks in made.items()}
    identity["blocks"] = packed and packed.identity.get("sets", packed.manifest["splits"])
    return tokenizer, pairs, packed, made, identity


def make_datasets(
    tokenizer: Any,
    pairs: dict[str, Pairs],
    packed: PackedSets | None,
    made: dict[str, dict[str, MadeTask]],
    data_args: DataArguments,
    seed: int,
    say: Say,
) -> dict[str, PairGroups]:
    """The groups of `train`, and of `validation` under the same masks always."""
    datasets, pad = {}, tokenizer.pad_token_id
    for name, masking, mask_seed in (("train", data_args, seed), ("validation", EVALUATION, 0)):
        blocks = None
        if packed:
            rows = packed.training_rows(None, seed) if name == "train" else packed.validation_rows(None)
            blocks = MaskedBlocks(rows, make_masker(tokenizer, masking, mask_seed), pad)
            blocks.check_share("--packed_dataset", say)
        datasets[name] = PairGroups(pairs[name], special_tokens(tokenizer), pad, data_args, blocks, made[name])
        if not len(datasets[name]):
            raise InputError(f"--pairs_per_group {data_args.pairs_per_group}: more than the {name} text has pairs")
    if data_args.max_eval_samples:
        datasets["validation"].keep(data_args.max_eval_samples)
    return datasets


def compute_metrics(prediction: EvalPrediction, names: list[str]) -> dict[str, float]:
    """The mean of each loss over groups, and Spearman's correlations over all pairs."""
    losses, scores, wanted_scores, cosines, wanted_cosines = prediction.predictions
    others = ~np.eye(cosines.shape[-1], dtype=bool)
    means = losses.mean(0, dtype=np.float64).tolist()
    found = {f"{name}_loss": value for name, value in zip(names, means, strict=True)}
    found["score_spearman"] = float(np.nan_to_num(spearmanr(scores.ravel(), wanted_scores.ravel()).statistic))
    cosines, wanted_cosines = cosines[:, others].ravel(), wanted_cosines[:, others].ravel()
    found["cosine_spearman"] = float(np.nan_to_num(spearmanr(cosines, wanted_cosines).statistic))
    return found


def main(model_args: ModelArguments, data_args: DataArguments, training_args: RunArguments) -> dict[str, Any]:
    # 1. Start the run.
    record = RunRecord(training_args, model_args, data_args)
    training_args.remove_unused_columns = False  # the batches carry more than the model's signature names
    choose_best_by(training_args, data_args.measures)
    update = Update(model_args, data_args, training_args)

    # 2. Tokenizer and data.
    with training_args.main_process_first(desc="preparing data"):
        tokenizer, pairs, packed, made, identity = load_data(model_args, data_args, training_args, record)
    if record.use_inputs(identity, identity | update.identity):
        return record.finished["results"]
    length = packed.manifest["max_seq_length"] if packed else 2 * data_args.max_sentence_tokens
    datasets = make_datasets(tokenizer, pairs, packed, made, data_args, training_args.seed, record.note)

    # 3. Model and Trainer.
    def build_trainer(args: RunArguments) -> ExactTrainer:
        set_seed(args.seed)
        model = build_model(model_args, tokenizer, length, record.note, packed and datasets["train"].blocks.blocks)
        check_lengths(made, model.config)
        callbacks = update.callbacks(model, tokenizer)
        project_masked_only(model, record.note)
        classes = {name: task.classes for name, task in made["train"].items()}
        add_heads(model, pairs["train"].vectors.shape[1], data_args.pair_weight > 0, classes)
        load_heads(model, model_args.model_name_or_path, record.note)
        return ExactTrainer(
            model=model,
            args=args,
            data_collator=whole_batch,
            train_dataset=datasets["train"],
            eval_dataset=datasets["validation"],
            processing_class=tokenizer,
            compute_loss_func=partial(weighted_loss, weights=list(data_args.weights.values())),
            compute_metrics=partial(compute_metrics, names=list(data_args.weights)),
            callbacks=callbacks,
            identity=record.identity,
        )

    tokens = int(datasets["train"].lengths.mean() * data_args.pairs_per_group * 2)
    plan = plan_steps(build_trainer, training_args, len(datasets["train"]), tokens, record.checkpoint)
    if training_args.dry_run:
        record.show(plan)
        return plan
    trainer = build_trainer(training_args)

    # 4. Train.
    metrics = trainer.train(resume_from_checkpoint=record.checkpoint).metrics
    metrics["train_pairs"] = training_args.samples_read(trainer.state.global_step) * data_args.pairs_per_group
    trainer.save_metrics("train", metrics)

    # 5. Evaluate and report.
    update.finish(trainer, record.note)
    evaluation = trainer.evaluate()
    trainer.save_metrics("eval", evaluation)
    trainer.save_state()
    metrics |= evaluation
    save_student(trainer)
    record.finish(trainer, metrics, describe(trainer.model.config, model_args, data_args))
    record.show({name: metrics[key] for key, name in RESULTS.items() if key in metrics})
    return metrics


if __name__ == "__main__":
    run_script(main, ModelArguments, DataArguments, RunArguments)
