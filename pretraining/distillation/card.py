"""What the card of a distilled model says."""

from pathlib import Path
from typing import Any

from shared.training.card import ModelCardFacts

RESULTS = {
    "eval_loss": "loss (weighted sum)",
    "eval_embedding_loss": "1 - cosine of student and teacher",
    "eval_similarity_loss": "divergence of the similarities in a group, nats",
    "eval_pair_loss": "squared error of the scores of pairs",
    "eval_mlm_loss": "masked language modelling, nats per masked token",
    "eval_question_loss": "ends of answers in made-up questions, nats",
    "eval_name_loss": "kinds of words in made-up names, nats",
    "eval_edit_loss": "whether words of a sentence were edited, nats",
    "eval_opinion_loss": "praise or blame of sentences, nats",
    "eval_score_spearman": "scores of pairs: Spearman with the teacher's",
    "eval_cosine_spearman": "cosines of single encodings: Spearman with the teacher's",
}

USAGE = """from sentence_transformers import SentenceTransformer
from transformers import pipeline

print(pipeline("fill-mask", "path/or/id/of/this/model")("The capital of France is [MASK]."))
print(SentenceTransformer("path/or/id/of/this/model").encode(["One sentence."]).shape)"""


def describe(config: Any, model_args: Any, data_args: Any) -> ModelCardFacts:
    """Title, task, source of the text, results and usage."""
    title = f"A {config.model_type} encoder distilled from {data_args.teacher_name_or_path}."
    source = data_args.dataset_name or Path(data_args.train_file[0]).name
    return ModelCardFacts(title, "fill-mask", source, RESULTS, model_args.model_name_or_path, "loss", USAGE)
