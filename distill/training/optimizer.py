"""The optimizer and the mixed precision that the training flags ask for."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from distill.options import TrainOptions


class ClipByGlobalNorm(nn.ClipGradByGlobalNorm):
    """paddle's clipping; on a CPU dense gradients are scaled by a plain number, and only when they are too long, which
    takes a fifth of the time."""

    def __call__(self, params_grads: list[tuple[Tensor, Tensor | None]]) -> list[tuple[Tensor, Tensor | None]]:
        gradients = [g for p, g in params_grads if g is not None and getattr(p, "need_clip", True)]
        if not all(g.is_dense() and g.place.is_cpu_place() and g.dtype == paddle.float32 for g in gradients):
            clipped: list[tuple[Tensor, Tensor | None]] = super().__call__(params_grads)
            return clipped
        views = [g.detach() for g in gradients]
        flat = [np.from_dlpack(view).ravel() for view in views]
        norm = math.sqrt(sum(float(np.dot(g, g)) for g in flat))
        if norm > self.clip_norm:
            for view in views:
                view.scale_(self.clip_norm / norm)
        return params_grads


def build_optimizer(model: nn.Layer, options: TrainOptions) -> paddle.optimizer.Optimizer:
    """The optimizer of `options` over the model's trainable parameters, with clipping by global norm.

    adamw: betas 0.9 and 0.999, decoupled decay of parameters with two or more axes, so not of biases and layer norms.
    adam: the same without decay; rows of an Embedding(sparse=True) are touched only when they have a gradient.
    """
    parameters = [p for p in model.parameters() if not p.stop_gradient]
    clip = ClipByGlobalNorm(options.max_grad_norm) if options.max_grad_norm > 0 else None
    shared: dict[str, Any] = {"parameters": parameters, "grad_clip": clip, "epsilon": options.adam_epsilon}
    if options.optimizer == "adadelta":
        return paddle.optimizer.Adadelta(options.learning_rate, **shared)
    if options.optimizer == "adam":
        return paddle.optimizer.Adam(options.learning_rate, lazy_mode=True, **shared)
    decayed = {p.name for p in parameters if len(p.shape) > 1}
    return paddle.optimizer.AdamW(
        options.learning_rate, weight_decay=options.weight_decay, apply_decay_param_fun=decayed.__contains__, **shared
    )


def mixed_precision(amp: str) -> tuple[Callable[[], Any], Any]:
    """A context for the forward pass, and the loss scaler that fp16 needs (None otherwise)."""
    if amp == "none":
        return contextlib.nullcontext, None
    dtype = {"bf16": "bfloat16", "fp16": "float16"}[amp]
    scaler = paddle.amp.GradScaler() if amp == "fp16" else None
    return functools.partial(paddle.amp.auto_cast, level="O1", dtype=dtype), scaler
