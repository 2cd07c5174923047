"""How fast the answers of a validation set are found, against the double loop over first and last tokens.

    python evaluation/bench/answers.py --questions 2000

Makes random logits with a peak, for windows of the lengths that SQuAD has, and finds the n best answers of each
question in both ways. They must be the same, or it stops. Prints and, with --output, writes both times as JSON.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from finetuning.qa.spans import NULL, keep_best_spans, merge_windows
from shared.command_line import run_script
from shared.errors import RunError
from shared.files import write_json
from shared.markdown import markdown_table


@dataclass
class BenchArguments:
    questions: int = field(default=1000, metadata={"help": "Questions to answer."})
    max_seq_length: int = field(default=384, metadata={"help": "Tokens of a window."})
    n_best_size: int = field(default=20, metadata={"help": "Answers kept of a question, and candidates for each end."})
    max_answer_length: int = field(default=30, metadata={"help": "Tokens of an answer at most."})
    seed: int = field(default=0, metadata={"help": "Of the logits."})
    output: str | None = field(default=None, metadata={"help": "A JSON file for the result."})


def answers_by_loops(
    windows: list[dict[str, Any]],
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    contexts: list[str],
    n_best_size: int,
    max_answer_length: int,
    candidates: int | None = None,
) -> list[list[dict[str, Any]]]:
    """The n best answers of each question and no answer, found by loops: as `BestAnswers.n_best` gives them.

    The definition of finetuning/qa/spans.py, straightforwardly: the reference of the tests. `start_logits`,
    `end_logits`: (windows, tokens), of which sums must be exact in float32. `candidates`: look only at this number of
    best starts and ends of a window, as SQuAD scripts have done it since the first ones.
    """
    found: list[list[tuple[float, int, int]]] = [[] for _ in contexts]
    null_scores = [np.inf] * len(contexts)
    for window, starts, ends in zip(windows, start_logits.tolist(), end_logits.tolist(), strict=True):
        (first, end), row = window["context"], window["row"]
        null_scores[row] = min(null_scores[row], starts[NULL] + ends[NULL])
        best_starts, best_ends = (
            sorted(sorted(range(first, end), key=lambda place: -x[place])[:candidates]) for x in (starts, ends)
        )
        pairs = []
        for start in best_starts:
            for last in best_ends if candidates else range(start, min(start + max_answer_length, end)):
                if start <= last < start + max_answer_length:
                    pairs.append((starts[start] + ends[last], start, last))
        for score, start, last in sorted(pairs, key=lambda pair: -pair[0])[:n_best_size]:
            found[row].append((score, window["token_starts"][start - first], window["token_ends"][last - first]))
    answers = []
    for pairs, null_score, context in zip(found, null_scores, contexts, strict=True):
        spans: dict[tuple[int, int], float] = {}
        for score, start, end in sorted(pairs, key=lambda pair: -pair[0]):
            spans.setdefault((start, end), score)
        best = [
            {"text": context[start:end], "score": score, "answer_start": start}
            for (start, end), score in [*spans.items()][:n_best_size]
        ]
        best.append({"text": "", "score": null_score, "answer_start": None})
        best.sort(key=lambda answer: -answer["score"])
        highest = best[0]["score"]
        total = sum(np.exp(answer["score"] - highest) for answer in best)
        for answer in best:
            answer["probability"] = float(np.exp(answer["score"] - highest) / total)
        answers.append(best)
    return answers


def answers_at_once(
    windows: Dataset,
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    contexts: list[str],
    n_best_size: int,
    max_answer_length: int,
    batch_size: int = 64,
) -> list[list[dict[str, Any]]]:
    """The same by the functions that evaluation uses, in batches of its size."""
    context = torch.tensor(windows["context"][:])
    parts = [
        keep_best_spans(*batch, n_best_size, max_answer_length)
        for batch in zip(*(x.split(batch_size) for x in (start_logits, end_logits, context)), strict=True)
    ]
    found = [torch.cat(part).numpy() for part in zip(*parts, strict=True)]
    return list(merge_windows(windows, found, len(contexts)).n_best(contexts, with_null=True))


def same_answers(left: list[list[dict[str, Any]]], right: list[list[dict[str, Any]]]) -> bool:
    """Whether texts, places, scores and their order are equal, and probabilities but for rounding."""
    if [len(answers) for answers in left] != [len(answers) for answers in right]:
        return False
    pairs = [pair for rows in zip(left, right, strict=True) for pair in zip(*rows, strict=True)]
    return all(
        all(a[name] == b[name] for name in ("text", "answer_start", "score"))
        and abs(a["probability"] - b["probability"]) < 1e-9
        for a, b in pairs
    )


def make_windows_and_logits(args: BenchArguments) -> tuple[Dataset, torch.Tensor, torch.Tensor]:
    """Windows of one or two a question, of 80 to `max_seq_length` tokens of 1 to 8 characters, and their logits."""
    rng = np.random.default_rng(args.seed)
    windows: dict[str, list[Any]] = {"row": [], "context": [], "token_starts": [], "token_ends": []}
    for row in range(args.questions):
        count = 1 + int(rng.random() < 0.05)
        for _ in range(count):
            length = args.max_seq_length if count > 1 else int(rng.integers(80, args.max_seq_length + 1))
            first = int(rng.integers(8, 20))
            ends = np.cumsum(rng.integers(2, 9, length - 1 - first))
            windows["row"].append(row)
            windows["context"].append([first, length - 1])
            windows["token_starts"].append(np.concatenate([[0], ends[:-1] + 1]).astype(np.int32))
            windows["token_ends"].append(ends.astype(np.int32))
    logits = rng.normal(size=(2, len(windows["row"]), args.max_seq_length)).astype(np.float32)
    places = np.arange(args.max_seq_length)
    for i, (first, end) in enumerate(windows["context"]):  # as after training: around two places, and at no answer
        for height in (8, 5):
            place = int(rng.integers(first, end))
            last = min(place + int(rng.integers(0, 4)), end - 1)
            logits[0, i] += height * np.exp(-abs(places - place) / 4)
            logits[1, i] += height * np.exp(-abs(places - last) / 4)
        logits[:, i, NULL] += 6
    logits = np.round(logits * 1024) / 1024  # so that sums are exact, in Python's numbers and in float32
    return Dataset.from_dict(windows), *torch.from_numpy(logits)


def make_table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    loops, few, at_once = (result[f"{name}_us_per_window"] for name in ("loops", "loops_over_best_ends", "at_once"))
    best = f"two loops over the best {result['arguments']['n_best_size']} of each"
    rows = [
        ("two loops over all starts and ends", f"{loops:,.0f}", f"{loops / at_once:.1f}", "100%"),
        (best, f"{few:,.0f}", f"{few / at_once:.1f}", f"{result['loops_over_best_ends_same_answer']:.1%}"),
        ("ours", f"{at_once:,.0f}", "", "100%"),
    ]
    head = ["search for answers", "µs a window", "ours is faster by", "best answer found"]
    table = markdown_table(head, rows, "|---|---:|---:|---:|")
    return f"{table}\n\n{result['windows']:,} windows; threads: {result['threads']}.\n"


def main(args: BenchArguments) -> dict[str, Any]:
    windows, *logits = make_windows_and_logits(args)
    contexts = ["the rain " * args.max_seq_length] * args.questions
    settings = (args.n_best_size, args.max_answer_length)
    answers_at_once(windows.select([0]), *(x[:1] for x in logits), contexts[:1], *settings)  # what is loaded once
    rows = windows.to_list()
    times = [time.perf_counter()]
    found = answers_at_once(windows, *logits, contexts, *settings)
    times.append(time.perf_counter())
    wanted = answers_by_loops(rows, *(x.numpy() for x in logits), contexts, *settings)
    times.append(time.perf_counter())
    fewer = answers_by_loops(rows, *(x.numpy() for x in logits), contexts, *settings, candidates=args.n_best_size)
    times.append(time.perf_counter())
    if not same_answers(found, wanted):
        raise RunError("the answers differ")
    at_once, loops, few = (1e6 * np.diff(times) / len(rows)).tolist()
    same = [a[0]["score"] == b[0]["score"] for a, b in zip(wanted, fewer, strict=True)]
    result = {
        "windows": len(rows),
        "threads": torch.get_num_threads(),
        "at_once_us_per_window": at_once,
        "loops_us_per_window": loops,
        "times_faster": loops / at_once,
        "loops_over_best_ends_us_per_window": few,
        "loops_over_best_ends_same_answer": float(np.mean(same)),
    }
    print(json.dumps(result, indent=2))
    if args.output:
        write_json(args.output, result | {"arguments": vars(args)})
    return result


if __name__ == "__main__":
    run_script(main, BenchArguments)
