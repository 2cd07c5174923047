"""One variant of a model in a process of its own, for run_cpu_benchmark.py: started, timed and asked from there.

The only argument is JSON: variant, folder, class, threads, vocab_size, input_names, max_seq_length. It imports what
its variant needs and no more, because its start is timed and its memory measured: the ONNX variants do without torch
and transformers. Standard input holds one request a line, standard output one answer a line, both JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Inputs = dict[str, np.ndarray]  # each (rows, tokens) int64
FIRST = "The first answer is the slowest one."
WARM_UP = 3  # calls that are not counted: a new shape is compiled or laid out in the first ones
LEAST_CALLS = 5


def load(variant: str, folder: str, class_name: str, threads: int) -> Callable[[Inputs], np.ndarray]:
    """A function from inputs to logits, float32, on `threads` threads."""
    if variant.startswith("onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        return lambda inputs: session.run(["logits"], inputs)[0]

    import torch
    import transformers

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if variant == "torch_bf16" else torch.float32
    model = getattr(transformers, class_name).from_pretrained(folder, dtype=dtype, use_safetensors=True).eval()
    if variant == "torch_int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    if variant == "compile":
        model = torch.compile(model, dynamic=True)  # one graph for all lengths, as the ONNX file is

    def run(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
            return logits.float().numpy()

    return run


def encode(variant: str, folder: str, text: str, names: list[str], most: int) -> Inputs:
    """A text as inputs, with the tokenizer that a user of the variant has."""
    if variant.startswith("onnx"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        tokenizer.enable_truncation(most)
        encoding = tokenizer.encode(text)
        found = [encoding.ids, encoding.attention_mask, encoding.type_ids]
        rows = dict(zip(("input_ids", "attention_mask", "token_type_ids"), found, strict=True))
    else:
        from transformers import AutoTokenizer

        rows = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=most)
    return {name: np.array([rows[name]], np.int64) for name in names}


def time_calls(run: Callable[[Inputs], np.ndarray], inputs: Inputs, seconds: float) -> list[float]:
    """Seconds of each call, for about `seconds` seconds."""
    for _ in range(WARM_UP):
        run(inputs)
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < LEAST_CALLS:
        start = time.perf_counter()
        run(inputs)
        found.append(time.perf_counter() - start)
    return found


def predict(run: Callable[[Inputs], np.ndarray], path: str, names: list[str]) -> str:
    """Logits of the batches in `path` (see run_cpu_benchmark.write_batches), those of the wanted places only,
    (places, labels) float32, as a file beside it."""
    found = []
    with np.load(path, allow_pickle=False) as batches:
        for number in range(int(batches["count"])):
            logits = run({name: batches[f"{number}.{name}"] for name in names})
            if f"{number}.rows" in batches:
                logits = logits[batches[f"{number}.rows"], batches[f"{number}.columns"]]
            found.append(np.asarray(logits, np.float32))
    output = f"{path}.{os.getpid()}.npy"
    np.save(output, np.concatenate(found))
    return output


def memory() -> dict[str, float]:
    """Resident memory of this process in MiB, now and at most; by ru_maxrss the parent's would count in both."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
        if "VmHWM" in lines:
            return {key: int(lines[name].split()[0]) / 1024 for key, name in (("now", "VmRSS"), ("peak", "VmHWM"))}
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"now": most, "peak": most}


def main() -> None:
    args = json.loads(sys.argv[1])
    names: list[str] = args["input_names"]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**content: object) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    run = load(args["variant"], args["folder"], args["class"], args["threads"])
    run(encode(args["variant"], args["folder"], FIRST, names, args["max_seq_length"]))
    answer(memory=memory())
    for line in sys.stdin:
        request = json.loads(line)
        if "batch" in request:
            shape = (request["batch"], request["length"])
            inputs = {name: np.ones(shape, np.int64) for name in names}
            inputs["input_ids"] = np.random.default_rng(0).integers(args["vocab_size"], size=shape)
            if "token_type_ids" in inputs:
                inputs["token_type_ids"] *= 0
            answer(seconds=time_calls(run, inputs, request["seconds"]), memory=memory())
        else:
            answer(output=predict(run, request["predict"], names))


if __name__ == "__main__":
    main()
