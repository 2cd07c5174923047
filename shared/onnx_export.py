"""Encoders as ONNX files: exported, quantized to int8, in folders that are ready to load."""

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.errors import InputError, RunError
from shared.files import atomic_folder

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Those that were written and read again with the versions of requirements-evaluation.txt. 23 is not among them: ONNX
# Runtime 1.32 refuses the rotary embedding that the exporter writes for it.
OPSETS = (17, 18, 19, 20, 21, 22, 24, 25)
FUSED = 24  # from this one on there is one operator for attention and one for rotary positions
# Signed 8-bit weights times unsigned 8-bit activations saturate on x86 processors without VNNI: two such products do
# not fit the 16 bits in which the processor adds them. 7 bits do, so that the file is right on every processor; see
# "reduce_range" in ONNX Runtime's page on quantization.
WEIGHTS = {"per_channel": True, "reduce_range": True}
SNIPPET = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({max_seq_length})
tokenizer.enable_padding(pad_id={pad_id}, pad_token="{pad_token}")
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])

encodings = tokenizer.encode_batch(["A first text.", "And a second, longer one."])
inputs = {{
{inputs}
}}
logits = session.run(["logits"], inputs)[0]  # {shape}
"""


def check_installed(flag: str) -> None:
    """Raise InputError, naming the flag that asks for it, unless what the export needs is there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{flag}: {error}; run pip install -r requirements-evaluation.txt") from error


def input_names(model: Any, tokenizer: Any) -> list[str]:
    """The inputs that the tokenizer makes and the model takes."""
    taken = inspect.signature(model.forward).parameters
    return [name for name in INPUTS if name in taken and name in tokenizer.model_input_names]


def export(
    model: Any,
    names: Sequence[str],
    path: Path,
    output: str = "logits",
    opset: int = FUSED,
    shape: tuple[int, int] | None = None,
) -> None:
    """Write a model in fp32 as one file, for any number of rows and tokens, or for those of `shape` alone. Of what it
    computes, `output` is written: `logits`, or `last_hidden_state` of an encoder without head. `opset` is one of
    OPSETS."""
    model.eval()
    rows, tokens = shape or (2, 16)
    ids = torch.arange(rows * tokens).reshape(rows, tokens) % model.config.vocab_size
    inputs = dict(zip(INPUTS, (ids, torch.ones_like(ids), torch.zeros_like(ids)), strict=True))
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    # It warns of operators of packages that are not installed, and of its own use of what is deprecated.
    for name in ("torch.onnx._internal.exporter._registration", "torch.onnx._internal.exporter._compat"):
        logging.getLogger(name).setLevel(logging.ERROR)
    operators = _fused_operators(model) if opset >= FUSED else _plain_operators(model)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"), operators:
        torch.onnx.export(
            _Function(model, names, output).eval(),
            tuple(inputs[name] for name in names),
            path,
            dynamo=True,
            opset_version=opset,
            input_names=list(names),
            output_names=[output],
            dynamic_shapes=None if shape else ((any_size,) * len(names),),
            external_data=False,
            verbose=False,
        )
    clean(path)
    if opset_of(path) != opset:  # the exporter goes on with the nearest one and says so in its log
        raise RunError(f"{path.name}: could not be written in operator set {opset}; take one of {OPSETS}")


@contextlib.contextmanager
def _plain_operators(model: Any) -> Iterator[None]:
    """PyTorch's fused attention is exported as more operators than the plain one: one more test in each layer for rows
    that are masked as a whole."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def _fused_operators(model: Any) -> Iterator[None]:
    """Export attention and rotary positions as one operator each, where the model leaves room for another attention
    and turns its heads by halves, as most do."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: Any = None, **_: Any) -> tuple[Any, None]:
        return torch.onnx.ops.attention(q, k, v, mask, scale=scaling)[0].transpose(1, 2), None

    def rotate(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> tuple[Any, Any]:
        # Of an angle both halves hold the same; of one row of positions for all texts each needs its own.
        cos, sin = (both.chunk(2, dim=-1)[0].expand(q.shape[0], -1, -1) for both in (cos, sin))
        return torch.onnx.ops.rotary_embedding(q, cos, sin), torch.onnx.ops.rotary_embedding(k, cos, sin)

    with _plain_operators(model):
        if model._supports_attention_backend:
            ALL_ATTENTION_FUNCTIONS.register("onnx", attend)
            ALL_MASK_ATTENTION_FUNCTIONS.register("onnx", eager_mask)
            model.set_attn_implementation("onnx")
        module, name = sys.modules[type(model).__module__], "apply_rotary_pos_emb"
        plain = getattr(module, name, None)
        if plain is None or not _same(plain, rotate):
            yield
            return
        setattr(module, name, rotate)
        try:
            yield
        finally:
            setattr(module, name, plain)


def _same(plain: Any, rotate: Any) -> bool:
    """Whether two functions turn the same heads by the same angles alike: some models turn them in pairs."""
    q, k, angles = torch.rand(1, 2, 3, 8), torch.rand(1, 2, 3, 8), torch.rand(1, 3, 4).repeat(1, 1, 2)
    try:
        both = [function(q, k, angles.cos(), angles.sin()) for function in (plain, rotate)]
        return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*both, strict=True))
    except (TypeError, RuntimeError):  # another signature, other shapes
        return False


def opset_of(path: Path) -> int:
    """The version of the standard operators that an ONNX file asks for."""
    import onnx

    return next(one.version for one in onnx.load(path).opset_import if not one.domain)


def clean(path: Path) -> None:
    """Take out of an ONNX file where in which source its parts were made, names of folders of this machine, and what
    operator set 17 does not know: the exporter converts from 18, where Split has a number of parts. Without it, 17
    makes as many equal parts as there are outputs."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for node in graph.node if opset_of(path) < 18 else ():
        if node.op_type == "Split":
            kept = [one for one in node.attribute if one.name != "num_outputs"]
            del node.attribute[:]
            node.attribute.extend(kept)
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(model, path)


class _Function(torch.nn.Module):
    """The model as a function of its inputs in order: the names of the graph are then ours."""

    def __init__(self, model: Any, names: Sequence[str], output: str) -> None:
        super().__init__()
        self.model, self.names, self.output = model, names, output

    def forward(self, *inputs: Any) -> Any:
        return getattr(self.model(**dict(zip(self.names, inputs, strict=True))), self.output)


def quantize(path: Path, output: Path, calibration: Sequence[dict[str, np.ndarray]] | None = None) -> None:
    """Write an ONNX model with int8 weights: dynamic, or static if there are inputs to calibrate activations on.

    Dynamic quantization has the embeddings in int8 too. Static has not: they are the start of everything, and it cost
    a point of accuracy when measured.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.registry import IntegerOpsRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output.with_name("prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    if calibration is None:
        # It would take the standard Attention for ONNX Runtime's own of that name, which has other inputs.
        types = [name for name in IntegerOpsRegistry if name != "Attention"]
        quantize_dynamic(prepared, output, weight_type=QuantType.QInt8, op_types_to_quantize=types, **WEIGHTS)
    else:
        rows = iter(calibration)

        class Rows(CalibrationDataReader):
            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(rows, None)

        quantize_static(
            prepared,
            output,
            Rows(),
            op_types_to_quantize=["MatMul", "Gemm"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            **WEIGHTS,
        )
    prepared.unlink()


def write_folder(
    folder: Path,
    model: Any,
    tokenizer: Any,
    title: str,
    max_seq_length: int,
    source: Path | None = None,
    calibration: Sequence[dict[str, np.ndarray]] | None = None,
) -> None:
    """Write a folder with model.onnx, tokenizer, configuration and a README.md that says how to load it.

    Without `source` the model is exported; with it, that ONNX file is quantized. The folder is whole or not there.
    """
    names = input_names(model, tokenizer)
    with atomic_folder(folder) as temporary:
        if source is None:
            export(model, names, temporary / "model.onnx")
        else:
            quantize(source, temporary / "model.onnx", calibration)
        model.config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(
            f"# {title}\n\nFrom this folder, with `pip install onnxruntime tokenizers numpy`:\n\n"
            f"```python\n{snippet(model, tokenizer, names, max_seq_length)}```\n",
            encoding="utf-8",
        )


def snippet(model: Any, tokenizer: Any, names: Sequence[str], max_seq_length: int) -> str:
    """The lines that load the folder and run it."""
    attributes = dict(zip(INPUTS, ("ids", "attention_mask", "type_ids"), strict=True))
    lines = [f'    "{name}": np.array([e.{attributes[name]} for e in encodings], np.int64),' for name in names]
    kind = type(model).__name__
    shape = "(texts, labels)" if "Sequence" in kind else "(texts, tokens, labels)"
    shape = "(texts, tokens, vocabulary)" if "MaskedLM" in kind else f"{shape}; config.json names the labels"
    return SNIPPET.format(
        max_seq_length=max_seq_length,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        inputs="\n".join(lines),
        shape=shape,
    )
