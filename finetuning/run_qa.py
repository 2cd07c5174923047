"""Fine-tune an encoder to answer questions about a text by a part of it: SQuAD 1.1, SQuAD 2.0, or a set of one's own.

    accelerate launch finetuning/run_qa.py --config finetuning/recipes/qa.yaml

Reads a dataset of the Hub, a local folder, SQuAD's JSON, or parquet, CSV and JSON files with the columns id, question,
context and answers. Writes a model that plain `AutoModelForQuestionAnswering.from_pretrained` loads, results, an error
analysis, and predictions.json and nbest_predictions.json in the format of SQuAD, of the test set with --do_predict.
Reports exact match and F1 as the official scripts do. With --version_2_with_negative a question may have no answer:
the threshold above which none is given is tuned on the validation split and saved in the model's configuration.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import evaluate
from transformers import AutoModelForQuestionAnswering, set_seed

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.common.checkpoint import load_config, load_model, read_head, tokenizer_of
from finetuning.common.data import choose_splits, load_splits, split_off
from finetuning.common.held_out import hold_out
from finetuning.common.run import dry_run, finish, record_data, search_settings, start, train_and_save
from finetuning.qa.answers import write_answer_errors, write_misplaced, write_predictions
from finetuning.qa.spans import WindowCollator, Windows, WindowSettings, cut_windows, keep_best_spans, pass_context_on
from finetuning.qa.squad import QuestionArguments, Questions, check_both_kinds, check_questions, read_questions
from finetuning.qa.usage import USAGE
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import InputError
from shared.loss import rule_out_padding, span_loss
from shared.training.arguments import choose_best_by
from shared.training.trainer import ExactTrainer

METRIC = str(Path(__file__).parent / "metrics" / "squad_answers.py")
THRESHOLD = "no_answer_threshold"  # in the model's configuration


@dataclass
class DataArguments(QuestionArguments):
    version_2_with_negative: bool = field(
        default=False, metadata={"help": "Some questions have no answer, as in SQuAD 2.0."}
    )
    max_seq_length: int = field(default=384, metadata={"help": "Tokens of a window: question and part of a context."})
    doc_stride: int = field(default=128, metadata={"help": "Tokens of the context that two windows share."})
    max_question_length: int = field(default=64, metadata={"help": "Tokens of a question; longer ones are cut."})
    max_answer_length: int = field(default=30, metadata={"help": "Tokens of an answer at most."})
    n_best_size: int = field(default=20, metadata={"help": "Answers of each question in nbest_predictions.json."})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, n_best_size=">= 1")


def load_data(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> tuple[dict[str, Questions], Any, Any, dict[str, str]]:
    """The questions of the splits that are asked for, the configuration, the tokenizer, and the hashes of what was
    read."""
    refuse_flags(model_args, {"ignore_mismatched_sizes": "a head that answers questions has no labels"})
    refuse_flags(training_args, {"label_smoothing_factor": "not for the first and last token of an answer"})
    splits, hashes = load_splits(data_args, read_file=read_questions)
    splits = hold_out(splits, data_args, {data_args.context_column: "context_column"})
    questions = {}
    for name, split in choose_splits(splits, data_args, training_args).items():
        with_negative = data_args.version_2_with_negative
        split = data_args.rename_columns(split, needs_answers=name != "test")
        split = check_questions(split, name != "test", with_negative, data_args.drop_misplaced_answers)
        if with_negative and name != "test":
            check_both_kinds(split)
        questions[name] = split
    head = read_head(model_args, AutoModelForQuestionAnswering, training_args.do_train)
    names = ["LABEL_0", "LABEL_1"] if training_args.do_train and head is None else None  # as checkpoints call them
    config = load_config(model_args, AutoModelForQuestionAnswering, names)
    if training_args.do_train:
        vars(config).pop(THRESHOLD, None)  # that of another training
    if data_args.version_2_with_negative and "validation" not in questions and not hasattr(config, THRESHOLD):
        raise InputError(
            f"--version_2_with_negative: {model_args.model_name_or_path} knows no {THRESHOLD}; find it by --do_eval"
        )
    tokenizer = tokenizer_of(model_args)
    return questions, config, tokenizer, hashes


def score(metric: Any, questions: Any, best: Any, threshold: float | None = None) -> dict[str, float]:
    """Exact match and F1 in percent, and those of questions with and without an answer. Without a threshold the best
    one is taken; what it adds shows against `untuned_f1`, where no answer is given when it scores more than the best.
    """
    ids, texts, odds = questions["id"][:], best.texts(questions["context"]), best.odds.tolist()
    found = zip(ids, texts, odds, strict=True)
    facts = {
        "predictions": [{"id": i, "prediction_text": text, "no_answer_probability": p} for i, text, p in found],
        "references": [{"id": i, "answers": a} for i, a in zip(ids, questions["answers"], strict=True)],
    }
    result = metric.compute(**facts, no_answer_threshold=0.0)
    if metric.config_name == "v1.1":
        return result
    threshold = result["best_f1_threshold"] if threshold is None else threshold
    tuned = metric.compute(**facts, no_answer_threshold=threshold)
    tuned = {name: value for name, value in tuned.items() if not name.startswith("best_")}
    return tuned | {"untuned_f1": result["f1"], THRESHOLD: threshold}


def names_of_measures(metric: Any, part: Windows | None) -> list[str] | None:
    """What `score` will measure, known before a model is."""
    return None if part is None else ["loss", *score(metric, part.questions, part.no_answers())]


def load_answerer(record: Any, model_args: CheckpointArguments, config: Any, tokenizer: Any, most: int) -> Any:
    """A model that gives what `span_loss` and `keep_best_spans` need."""
    model = load_model(record, model_args, AutoModelForQuestionAnswering, config, tokenizer, most)
    rule_out_padding(model)
    pass_context_on(model)
    return model


def predict_splits(trainer: Any, record: Any, parts: dict[str, Windows], metric: Any) -> dict[str, float]:
    """The metrics of validation and test split, with scores where there are answers. Writes what is answered and where
    it is wrong. After training the threshold is tuned on the first split that has answers, and saved in the model."""
    trainer.compute_metrics = None  # what follows needs the answers themselves
    threshold = getattr(trainer.model.config, THRESHOLD, None) if metric.config_name == "v2.0" else None
    metrics: dict[str, float] = {}
    for name, part in [(name, part) for name, part in parts.items() if name != "train"]:
        prefix, questions = name.replace("validation", "eval"), part.questions
        output = trainer.predict(part.ordered, metric_key_prefix=prefix)
        best, found = part.find_answers(output.predictions), output.metrics
        if "answers" in questions.column_names:
            scores = score(metric, questions, best, threshold)
            threshold = scores.get(THRESHOLD)
            found |= {f"{prefix}_{key}": value for key, value in scores.items()}
        if record.is_writer:
            write_predictions(record.folder, "" if name == "test" else f"{prefix}_", questions, best, threshold)
            if "answers" in questions.column_names:
                write_answer_errors(record.folder / prefix.replace("eval", "errors"), questions, best, threshold)
        trainer.save_metrics(prefix, found)
        metrics |= found
    if record.args.do_train and threshold is not None:
        setattr(trainer.model.config, THRESHOLD, threshold)
        trainer.save_model()
    return metrics


def main(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> dict[str, Any]:
    # 1. Start the run.
    record, results = start(main, model_args, data_args, training_args)
    if record is None:
        return results
    settings = WindowSettings(data_args.max_seq_length, data_args.doc_stride, data_args.max_question_length)
    training_args.remove_unused_columns, training_args.label_names = False, ["labels"]  # not what the model names

    # 2. Data and tokenizer.
    with training_args.main_process_first(desc="preparing data"):
        questions, config, tokenizer, hashes = load_data(model_args, data_args, training_args)
        settings.check(tokenizer)
        windows_of = partial(cut_windows, tokenizer=tokenizer, settings=settings)
        parts = {name: windows_of(some.rows, for_training=name == "train") for name, some in questions.items()}
    if record_data(record, hashes, tokenizer):
        return record.finished["results"]
    write_misplaced(record, questions)
    metric = evaluate.load(METRIC, "v2.0" if data_args.version_2_with_negative else "v1.1", keep_in_memory=True)
    choose_best_by(training_args, names_of_measures(metric, parts.get("validation")), "f1")
    reduce = partial(keep_best_spans, n_best_size=data_args.n_best_size, max_answer_length=data_args.max_answer_length)

    # 3. Model and Trainer.
    load = partial(load_answerer, record, model_args, config, tokenizer, data_args.max_seq_length)

    def build_trainer(args: FineTuningArguments, *halves: Windows) -> ExactTrainer:
        """On the training data, or on two parts of it: then the model is made anew for each trial of the search."""
        train, held_out = halves or (parts.get("train"), parts.get("validation"))
        set_seed(args.seed)
        return ExactTrainer(
            model=None if halves else load(),
            model_init=load if halves else None,
            args=args,
            data_collator=WindowCollator(tokenizer, AutoModelForQuestionAnswering._model_mapping[type(config)]),
            train_dataset=train and train.windows,
            eval_dataset=held_out and held_out.ordered,
            processing_class=tokenizer,
            compute_loss_func=span_loss,
            compute_metrics=lambda found: score(metric, held_out.questions, held_out.find_answers(found.predictions)),
            preprocess_logits_for_metrics=lambda logits, _: reduce(*logits),
            callbacks=args.callbacks,
            identity=record.identity,
        )

    if training_args.dry_run:
        return dry_run(build_trainer, parts["train"].windows, record)
    if training_args.search_trials:
        rows = split_off(questions["train"].rows, training_args.search_fraction, training_args.search_seed)
        halves = (windows_of(rows[0], for_training=True), windows_of(rows[1], for_training=False))
        search_settings(build_trainer, halves, "eval_f1", record)
    trainer = build_trainer(training_args)

    # 4. Train.
    metrics = train_and_save(trainer, record)

    # 5. Evaluate, predict and report.
    metrics |= predict_splits(trainer, record, parts, metric)
    what = f"fine-tuned to answer questions, on {data_args.source}."
    return finish(trainer, record, metrics, "question-answering", data_args.source, what, usage=USAGE)


if __name__ == "__main__":
    run_script(main, CheckpointArguments, DataArguments, FineTuningArguments)
