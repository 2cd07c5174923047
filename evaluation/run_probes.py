"""Probe masked-language models in minutes, without training: copying, similarity, rare tokens, grammar, dated facts.

    python evaluation/run_probes.py --models runs/tiny runs/tiny_modern --stsb nyu-mll/glue --output_dir runs/probes

Each probe runs if its input is given; the others are "not measured". What each one asks, and what a model has to beat
there, is said in evaluation/README.md. Writes probes.json and probes.md, with 95% intervals from a bootstrap over
sentences, pairs, blocks or questions.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from evaluation.masked.copy_probe import Chosen, measure_copies
from evaluation.masked.dated_cloze import answer_cloze, baselines
from evaluation.masked.frequency_bands import BANDS, count_hits, rank_tokens
from evaluation.masked.probe_inputs import errors_of, load_all
from evaluation.masked.probes_page import make_table
from evaluation.masked.scores import Checkpoint, load_model, open_checkpoints, publish
from evaluation.masked.sentence_similarity import cosines, encode_words, overlaps, random_twin, rate, rate_layers
from evaluation.run_blimp import score_pairs
from evaluation.run_mlm_eval import EvalArguments, load_blocks, most_frequent, with_intervals
from evaluation.tasks.bootstrap import resample_sums
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import InputError
from shared.tokenizer import tokenizer_hash
from shared.training.memory import keep_memory


@dataclass
class ProbeArguments:
    models: list[str] = field(default_factory=list, metadata={"help": "Checkpoints: folders, Hub ids or NAME=FOLDER."})
    copy_text: list[str] = field(
        default_factory=list, metadata={"help": "Text for the copy probe: files, folders. Default: that of --stsb."}
    )
    stsb: str | None = field(default=None, metadata={"help": "Scored pairs of sentences: file, folder or Hub id."})
    text: list[str] = field(
        default_factory=list, metadata={"help": "Text: files or folders. Or one folder written by pack_dataset.py."}
    )
    blimp: str | None = field(default=None, metadata={"help": "BLiMP's zip file, or a folder of JSON lines."})
    cloze: str | None = field(default=None, metadata={"help": "Dated sentences with a gap: a file or a folder."})
    output_dir: str = field(default="runs/probes", metadata={"help": "The folder for results and table."})
    max_samples: int = field(default=1000, metadata={"help": "Sentences for the copy probe, chosen by hash."})
    max_blocks: int = field(default=2000, metadata={"help": "Blocks of --text that are measured, from the first on."})
    validation_fraction: float = field(
        default=0.0, metadata={"help": "Of --text, only the documents that packing with this share holds out."}
    )
    max_seq_length: int = field(default=128, metadata={"help": "Tokens in a block, when --text is packed here."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Blocks in one forward pass."})
    seed: int = field(default=0, metadata={"help": "Of the bootstrap and of the random weights."})

    def __post_init__(self) -> None:
        check_ranges(self, max_samples=">= 1", max_blocks=">= 1", per_device_eval_batch_size=">= 1")
        if not self.text:
            refuse_flags(self, dict.fromkeys(("max_blocks", "max_seq_length", "validation_fraction"), "is for --text"))
        with errors_of("text"):
            self.text_arguments  # noqa: B018  a wrong share is refused now

    @property
    def text_arguments(self) -> EvalArguments:
        """The flags of run_mlm_eval.py that mean the same."""
        share, length = self.validation_fraction, self.max_seq_length
        return EvalArguments(self.models, self.text, validation_fraction=share, max_seq_length=length)


def probe_copy(model: Any, checkpoint: Checkpoint, chosen: list[Chosen], args: ProbeArguments) -> dict[str, Any]:
    """Share of masked words found behind the same sentence, without it, and the difference: the copy gain."""
    found = measure_copies(model, checkpoint, chosen)
    samples = resample_sums(found, args.seed) / len(found)

    def rates(means: np.ndarray) -> dict[str, Any]:
        both, alone = means[..., 0], means[..., 1]
        return {"found_with": both, "found_without": alone, "copy_gain": both - alone}

    row = {"sentences": len(found), "left_out": len(chosen) - len(found), "tokens": float(found[:, 2].mean())}
    return row | with_intervals(rates(found.mean(0)), rates(samples))


def probe_similarity(model: Any, checkpoint: Checkpoint, data: Any, args: ProbeArguments) -> dict[str, Any]:
    """Spearman's correlation of the last layer, of all layers, and of the controls."""
    texts, pairs, labels = data
    layers = rate_layers(model, checkpoint, texts, pairs, labels, args.seed)
    controls = {name: rate(values, labels, args.seed) for name, values in overlaps(texts, pairs).items()}
    controls["input_embeddings"] = rate(cosines(encode_words(model, checkpoint, texts), pairs), labels, args.seed)
    twin = random_twin(model, args.seed)
    controls["random_weights"] = rate_layers(twin, checkpoint, texts, pairs, labels, args.seed)
    last = {key: value for key, value in layers[-1].items() if key != "layer"}
    return {"pairs": len(pairs), "layers": layers, "controls": controls} | last


def probe_frequency(model: Any, checkpoint: Checkpoint, data: np.ndarray, args: ProbeArguments) -> dict[str, Any]:
    """Masked accuracy of all targets and of each band of frequency, beside that of the most frequent token."""
    blocks, ranks = data[: args.max_blocks], rank_tokens(data, checkpoint.masker)
    sums = count_hits(model, checkpoint, blocks, ranks, args.per_device_eval_batch_size)
    sums = np.concatenate([sums.sum(1, keepdims=True), sums], axis=1)  # all targets first
    if not sums[:, 0, 1].sum():
        raise InputError("--text: too little text, there is no token to mask")
    samples = resample_sums(sums.reshape(len(sums), -1), args.seed).reshape(-1, *sums.shape[1:])
    rows = []
    for number, (hits, targets) in enumerate(sums.sum(0)):
        accuracy = samples[:, number, 0] / np.maximum(samples[:, number, 1], 1)
        row = with_intervals({"accuracy": hits / max(targets, 1)}, {"accuracy": accuracy})
        rows.append({"targets": int(targets)} | (row if targets else {}))
    more = {"most_frequent_token": most_frequent(blocks, checkpoint.masker), "blocks": len(blocks)}
    more["same_tokenizer"] = tokenizer_hash(checkpoint.tokenizer)
    return rows[0] | more | dict(zip(BANDS, rows[1:], strict=True))


def probe_blimp(model: Any, checkpoint: Checkpoint, pairs: Any, args: ProbeArguments) -> dict[str, Any]:
    """Accuracy over all pairs."""
    with errors_of("blimp"):
        scores = score_pairs(model, checkpoint, pairs, within_word=True)
    paradigms = len({pair["UID"] for pair in pairs})
    return {"pairs": len(pairs), "paradigms": paradigms} | mean_of(scores, args.seed)


def probe_cloze(model: Any, checkpoint: Checkpoint, data: Any, args: ProbeArguments) -> dict[str, Any]:
    """Accuracy over all questions, by year and by kind, beside a blind guess and the most frequent answer."""
    questions, choices = data
    right = answer_cloze(model, checkpoint, questions, choices)
    chance, frequent = baselines(questions, choices)

    def row(chosen: np.ndarray) -> dict[str, Any]:
        controls = {"chance": float(chance[chosen].mean()), "most_frequent_answer": float(frequent[chosen].mean())}
        return {"questions": int(chosen.sum())} | mean_of(right[chosen], args.seed) | controls

    years, kinds = np.array([q.year for q in questions]), np.array([q.kind for q in questions])
    by_year = [{"year": year} | row(years == year) for year in sorted(set(years.tolist()))]
    by_kind = [{"kind": kind, "choices": len(found)} | row(kinds == kind) for kind, found in choices.items()]
    return row(np.full(len(right), True)) | {"by_year": by_year, "by_kind": by_kind}


def mean_of(scores: np.ndarray, seed: int) -> dict[str, Any]:
    """The mean of (examples,) scores from 0 to 1, as accuracy, with its interval."""
    samples = resample_sums(scores[:, None], seed)[:, 0] / len(scores)
    return with_intervals({"accuracy": scores.mean()}, {"accuracy": samples})


PROBES = {  # in the order of the table
    "copy": probe_copy, "similarity": probe_similarity, "frequency": probe_frequency, "blimp": probe_blimp,
    "cloze": probe_cloze,
}  # fmt: skip


def main(args: ProbeArguments) -> dict[str, Any]:
    if not (args.copy_text or args.stsb or args.text or args.blimp or args.cloze):
        raise InputError("--copy_text, --stsb, --text, --blimp, --cloze: give at least one of them")
    with errors_of("text"):
        length = args.text_arguments.block_length if args.text else 1
    checkpoints = open_checkpoints(args.models, length)
    data = load_all(args.stsb, args.copy_text, args.max_samples, args.blimp, args.cloze)
    blocks = {}
    if args.text:
        with errors_of("text"):
            blocks = {one.name: load_blocks(args.text_arguments, one)[0] for one in checkpoints}
    keep_memory()

    report: dict[str, Any] = {"models": {}, "settings": asdict(args)}
    for checkpoint in checkpoints:
        model, start = load_model(checkpoint), time.perf_counter()
        inputs = data | ({"frequency": blocks[checkpoint.name]} if blocks else {})
        row = {name: probe(model, checkpoint, inputs[name], args) for name, probe in PROBES.items() if name in inputs}
        row["seconds"] = round(time.perf_counter() - start, 1)
        report["models"][checkpoint.label] = row
        print(f"{checkpoint.label}: {', '.join(inputs)} in {row['seconds']:.0f} s", flush=True)
    return publish(args.output_dir, "probes", report, make_table)


if __name__ == "__main__":
    run_script(main, ProbeArguments)
