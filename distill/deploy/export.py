"""From a layer to files that serve it: a graph of Paddle, ONNX, and ONNX with matrix products in int8.

Nothing is installed or downloaded on the way: of paddle2onnx's finishing touches the default one runs pip, so none is
asked for, and ONNX Runtime does that work.
"""

import logging
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from paddle import nn

from distill import runtime
from distill.deploy.predict import session_options
from distill.encoders.inference import STATIC_SUFFIXES, Batch, Pass
from distill.errors import UserError

OPSET = 17


@dataclass(frozen=True)
class Graph:
    """A layer with what it is exported as a function of.

    inputs: rank and type of each argument of its forward, whose names they are, as `inference.compiled` takes them.
    lengths: of ids that a recurrent layer reads {name of the ids: name of their lengths, [B]}.
    """

    layer: nn.Layer
    inputs: Mapping[str, tuple[int, str]]
    lengths: Mapping[str, str] = field(default_factory=dict)


def save_onnx(prefix: Path, path: Path, graph: Graph) -> None:
    """Convert what `inference.save_static` wrote of `graph` to ONNX, its constants folded into plain weights.

    paddle2onnx leaves out how long the rows of a recurrent layer are, and says nothing: the layer would read padding.
    They are put back here. Without the folding, `quantise` would find no weights at the matrix products.

    Raises UserError when Paddle's graph has no counterpart in ONNX or one of its inputs lost its free batch or length.
    """
    raw = path.with_name(f"{path.stem}.raw.onnx")
    files = [f"{prefix}{suffix}" for suffix in STATIC_SUFFIXES]
    done = _converted(*files, str(raw))
    if not raw.is_file():
        said = [line for line in (done.stderr + done.stdout).splitlines() if "ERROR" in line] or [
            f"it ended with status {done.returncode}"
        ]
        why = re.sub(r"\x1b\[[\d;]*m", "", said[0]).strip()[:200]
        raise UserError(f"{prefix.name}: paddle2onnx cannot convert it to ONNX ({why})")
    model = onnx.load(str(raw))
    _restore_lengths(model, graph.lengths)
    for value in model.graph.input:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim][:2]
        if any(sizes):
            raise UserError(
                f"{prefix.name}: in ONNX its input {value.name} has the fixed sizes {sizes}; it must be free"
            )
    onnx.save(model, str(raw))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    raw.unlink()


def _converted(*files: str) -> subprocess.CompletedProcess[str]:
    """paddle2onnx in a process of its own, because where it fails it ends the process."""
    script = f"import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:], opset_version={OPSET}, optimize_tool='None')"
    return subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True)


def _restore_lengths(model: onnx.ModelProto, lengths: Mapping[str, str]) -> None:
    """Connect the lengths of each recurrent layer's rows: those of the ids that its input was made of."""
    nodes = list(model.graph.node)
    makers = {name: node for node in nodes for name in node.output}
    for ids, name in lengths.items():
        cast = f"{name}.int32"
        model.graph.node.insert(0, helper.make_node("Cast", [name], [cast], to=onnx.TensorProto.INT32))
        for node in nodes:
            slot = _lengths_slot(node)
            if slot is not None and _comes_from(node.input[0], ids, makers):
                node.input.extend([""] * (slot + 1 - len(node.input)))
                node.input[slot] = cast
    for node in nodes:
        slot = _lengths_slot(node)
        if slot is not None and not any(node.input[slot : slot + 1]):
            raise UserError(f"{node.op_type}: a recurrent layer without the lengths of its rows; export cannot go on")


def _lengths_slot(node: onnx.NodeProto) -> int | None:
    """The place of the lengths among the inputs of a recurrent layer; None for any other."""
    names = [value.name for value in onnx.defs.get_schema(node.op_type, OPSET, node.domain).inputs]
    return names.index("sequence_lens") if "sequence_lens" in names else None


def _comes_from(name: str, source: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether the values `name` are made of the graph's input `source`, on the way of the data: first inputs, and
    of a lookup the ids."""
    while name in makers:
        node = makers[name]
        if not node.input:
            return False
        name = node.input[1] if node.op_type == "Gather" else node.input[0]
    return name == source


def quantise(path: Path, quantised: Path) -> int:
    """Write the model of `save_onnx` with weights in int8 and matrix products in integers; returns how many these are.

    Scales of activations are found anew for each batch, over all its rows. Raises UserError when no matrix product
    became one of integers: such a file would be called int8 and calculate in floats.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path))
    _copy_shared_weights(model)
    logging.disable(logging.WARNING)  # it recommends what `save_onnx` has done
    try:
        # A scale for each column of the weights halves the error and takes no time.
        quantize_dynamic(model, str(quantised), weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    nodes = onnx.load(str(quantised), load_external_data=False).graph.node
    integer = sum(node.op_type == "MatMulInteger" for node in nodes)
    if not integer:
        quantised.unlink()
        raise UserError("int8: not one matrix product of this model was quantised; export it as fp32")
    return integer


def _copy_shared_weights(model: onnx.ModelProto) -> None:
    """Give each recurrent layer weights of its own: of two that share them, as those of a pair's texts do, ONNX Runtime
    quantises the first and breaks the second."""
    weights, taken = {weight.name: weight for weight in model.graph.initializer}, set()
    for number, node in enumerate(model.graph.node):
        for slot, name in enumerate(node.input if _lengths_slot(node) is not None else ()):
            if name in weights and name in taken:
                copy = model.graph.initializer.add()
                copy.CopyFrom(weights[name])
                copy.name = node.input[slot] = f"{name}.{number}"
            taken.add(name)


def open_onnx(path: Path) -> Pass:
    """An ONNX file as a function, as a bundle runs it, with as many threads as Paddle takes."""
    options = session_options(runtime.threads())
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(batch: Batch) -> list[np.ndarray]:
        return session.run(None, {name: batch[name] for name in names})

    return run
