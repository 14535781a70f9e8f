"""Forward passes without gradient: eager, or a fixed graph run by Paddle Inference with oneDNN, whichever is faster.

Outputs of the two differ by less than 1e-5 (tested). On 2 AMD cores with AVX-512 the graph takes about half the time of
the eager pass, and with bfloat16 about a quarter (results/benchmark_bert_step.json).
"""

import atexit
import contextlib
import platform
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from distill import runtime
from distill.encoders import cpu
from distill.errors import UserError

Batch = Mapping[str, np.ndarray]
Pass = Callable[[Batch], list[np.ndarray]]
"""A batch by the names of its inputs -> the layer's outputs."""

BERT_INPUTS = {"input_ids": (2, "int64"), "token_type_ids": (2, "int64"), "mask": (2, "float32")}
"""Rank and type of what `Encoded.pad` gives a BERT."""


class Classifier(nn.Layer):
    """A BertForSequenceClassification as a function of BERT_INPUTS: logits [B, C]."""

    def __init__(self, model: nn.Layer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids, token_type_ids, attention_mask=mask)
        return logits


_MANY = 256  # for fewer tokens the arranged layers' calls cost more than they save


def available() -> bool:
    """Whether graphs can run through oneDNN here: on x86 processors, when the device is the CPU."""
    return paddle.get_device() == "cpu" and platform.machine() in ("x86_64", "AMD64")


def require(precision: str) -> None:
    """Raise UserError when forward passes in `precision` (`fp32` or `bf16`) are not possible here."""
    if precision == "bf16" and not (available() and runtime.has_bfloat16()):
        raise UserError("--forward_precision bf16: this processor calculates no bfloat16; use fp32")


@contextlib.contextmanager
def evaluating(model: nn.Layer) -> Iterator[None]:
    """Put `model` into eval mode without gradient; afterwards each of its layers is in the mode it was in."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        with paddle.no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training


def eager(layer: nn.Layer, inputs: Mapping[str, tuple[int, str]]) -> Pass:
    """`layer` run as it is, in eval mode, its arithmetic arranged for a CPU where it runs on one with many tokens."""

    def run(batch: Batch) -> list[np.ndarray]:
        many = batch[next(iter(inputs))].size >= _MANY
        with cpu.arranged(layer) if many else contextlib.nullcontext(), evaluating(layer):
            found = layer(*(paddle.to_tensor(batch[name]) for name in inputs))
        return [value.numpy() for value in (found if isinstance(found, (list, tuple)) else [found])]

    return run


def compiled(layer: nn.Layer, inputs: Mapping[str, tuple[int, str]], precision: str = "fp32") -> Pass:
    """`layer` with the weights it has now, in eval mode, as a graph. The same batch gives the same bits each time.

    inputs: rank and type of each argument of its forward, whose names they are. precision: fp32, or bf16 for matrix
    products in bfloat16. Takes about half a second to make.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_static(layer, inputs, Path(folder) / "model")
        return open_static(Path(folder) / "model", precision)


STATIC_SUFFIXES = (".json", ".pdiparams")
"""Of the two files of a static graph."""


def save_static(layer: nn.Layer, inputs: Mapping[str, tuple[int, str]], prefix: Path) -> None:
    """Write `prefix`.json and `prefix`.pdiparams: `layer` in eval mode, for any batch and length; it is as it was then.

    The arguments are those of `compiled`.
    """
    from paddle.static import InputSpec

    specs = [InputSpec([None] * rank, kind, name) for name, (rank, kind) in inputs.items()]
    with evaluating(layer):
        graph = paddle.jit.to_static(layer, input_spec=specs, full_graph=True)
        try:
            paddle.jit.save(graph, str(prefix))
        finally:
            graph.forward.rollback()


def open_static(prefix: Path, precision: str = "fp32") -> Pass:
    """The graph of `save_static`, run by Paddle Inference, with oneDNN where that is available."""
    from paddle import inference

    config = inference.Config(*(f"{prefix}{suffix}" for suffix in STATIC_SUFFIXES))
    config.disable_gpu()
    config.disable_glog_info()
    if available():
        config.enable_mkldnn()
        # Batches come sorted by length, so one shape's plan is enough; each further one keeps memory.
        config.set_mkldnn_cache_capacity(1)
    if precision == "bf16":
        config.enable_mkldnn_bfloat16()
    config.set_cpu_math_library_num_threads(runtime.threads())
    predictor = inference.create_predictor(config)
    return _Graph(predictor, predictor.get_input_names())


class _Graph:
    """A predictor as a function. It is closed before the interpreter takes paddle apart, which it must not outlive."""

    alive: "weakref.WeakSet[_Graph]" = weakref.WeakSet()

    def __init__(self, predictor: Any, inputs: Iterable[str]) -> None:
        self._predictor = predictor
        self._inputs = {name: predictor.get_input_handle(name) for name in inputs}
        self._outputs = [predictor.get_output_handle(name) for name in predictor.get_output_names()]
        self.alive.add(self)

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        from paddle.base import core

        for name, handle in self._inputs.items():
            handle.copy_from_cpu(np.ascontiguousarray(batch[name]))
        self._predictor.run()
        core.set_num_threads(runtime.threads())  # it leaves one: everything eager would take twice as long
        return [np.asarray(output.copy_to_cpu()) for output in self._outputs]

    def close(self) -> None:
        self._inputs, self._outputs, self._predictor = {}, [], None


@atexit.register
def _close_graphs() -> None:
    for graph in list(_Graph.alive):
        graph.close()


def faster(ways: Mapping[str, Pass], batch: Batch, rounds: int = 3) -> str:
    """The name of the pass that takes the least time on `batch`, after one round to warm up; says so in the log."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run(batch)
            taken[name].append(time.perf_counter() - started)
    best = {name: min(times[1:]) for name, times in taken.items()}
    chosen = min(best, key=best.__getitem__)
    rows, width = next(iter(batch.values())).shape
    timed = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in best.items())
    runtime.log(f"forward passes: {chosen} (a batch of {rows} x {width} tokens: {timed})")
    return chosen


def sample(vocab_size: int, rows: int, width: int) -> dict[str, np.ndarray]:
    """A batch for timing a BERT: random ids without padding."""
    ids = np.random.default_rng(0).integers(0, vocab_size, (rows, width))
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "mask": np.ones(ids.shape, np.float32)}
