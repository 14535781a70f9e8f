"""Floating-point operations of a forward pass: two for each multiplication and addition of its matrix products."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from paddle import nn

from distill.encoders.inference import evaluating

# Operators that multiply matrices in other ways.
_REFUSED = re.compile("conv|rnn|cudnn|einsum|bmm|addmm|^mv$|^dot$|attention|flash|fused")


def forward_flops(layer: nn.Layer, inputs: Mapping[str, tuple[Sequence[int], str]]) -> int:
    """The operations of `layer`'s forward in eval mode, counted on its traced graph.

    inputs: shape and type of each argument of forward, by name. Counted are the matrix products on which the result
    depends, 2 m k n for [m, k] by [k, n]; what goes element by element (activations, norms, softmax) is below a
    hundredth of a BERT and is left out, as in the figures of the papers. Raises ValueError for a graph with products of
    another kind, or with branches or loops, whose operations depend on the values.
    """
    import paddle
    from paddle.static import InputSpec

    specs = [InputSpec(list(shape), kind, name) for name, (shape, kind) in inputs.items()]
    with evaluating(layer):
        traced = paddle.jit.to_static(layer, input_spec=specs, full_graph=True)
        program = traced.forward.concrete_program
    return sum(map(_flops, _needed(paddle.utils.flatten(program.outputs))))


def _needed(values: Sequence[Any]) -> list[Any]:
    """The operators that these values of a graph come from, each once."""
    found: dict[int, Any] = {}
    waiting = [value.get_defining_op() for value in values]
    while waiting:
        operator = waiting.pop()
        if operator is not None and operator.id() not in found:
            found[operator.id()] = operator
            waiting += [value.get_defining_op() for value in operator.operands_source()]
    return list(found.values())


def _flops(operator: Any) -> int:
    name = operator.name().removeprefix("pd_op.")
    if list(operator.blocks()) or _REFUSED.search(name):
        raise ValueError(f"operations of {name} are not counted")
    if name != "matmul":
        return 0
    left = operator.operand_source(0).shape
    transposed = operator.attrs()["transpose_x"] and len(left) > 1
    return 2 * math.prod(operator.result(0).shape) * left[-2 if transposed else -1]
