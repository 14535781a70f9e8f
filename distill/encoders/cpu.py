"""The layers of a BERT with their arithmetic arranged for a CPU: the same numbers in less than half the time.

Paddle's kernels for a matrix product and for two tensors of one shape are fast here; what goes along or across an axis
is slow, and so are copies of 4-D tensors. So the slow ones are put as the fast ones. Forward and backward of one layer
at width 384, batch 32 x 64, 2 AMD cores, in ms (results/benchmark_bert_step.json, with the profile of whole steps):

    layer                   before   what was slow                               what is done                      after
    linear 384 to 1536        40.7   the bias gradient's sum over rows           ones times the gradient; addmm     18.2
    attention without its     75.4   transposes of 4-D tensors; dropout; the     heads are gathered as rows; exp     8.5
      four projections               mask's broadcast; softmax                   without a shift where it is safe
    dropout                    6.7   mt19937 on one thread                       NumPy's SFC64, 16 bits a number     1.2
    layer norm                 6.4   its backward                                means as matrix products            2.3

Gelu was tried (the error function kept from forward, exp by NumPy) and gained nothing; the embeddings' gradient takes
under 3 ms of a step. Both stay paddle's. What is left above the matrix products is element-wise passes over memory,
which only compiled, fused kernels would save.

Values differ from paddle's by at most 1e-6 of the largest, gradients by 1e-5 (tested on random shapes and against
float64). Dropout's masks follow `paddle.seed`.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer
from paddle.utils.dlpack import from_dlpack

# exp of a larger score could overflow a sum of 512, of a smaller one could leave a row of zeros.
_SAFE_SCORE = 80.0


def arrange(model: nn.Layer) -> nn.Layer:
    """Exchange the arithmetic of `model`'s layers in place and return it.

    Layers change their class to a subclass of it, so parameters, their names, the state dict, hooks and isinstance
    stay as they are. Kinds of layers that are not listed above are left alone. `restore` is the way back.
    """
    return _exchange(model, _ARRANGED)


def restore(model: nn.Layer) -> nn.Layer:
    """Give `model`'s layers paddle's own arithmetic again, in place, and return it."""
    return _exchange(model, _PLAIN)


def _exchange(model: nn.Layer, classes: Mapping[type, type]) -> nn.Layer:
    for layer in model.sublayers(include_self=True):
        layer.__class__ = classes.get(type(layer), type(layer))
    return model


@contextlib.contextmanager
def arranged(model: nn.Layer) -> Iterator[None]:
    """`model` arranged inside the block when the device is the CPU, as it is on any other; afterwards each of its
    layers is as it was before."""
    if paddle.get_device() != "cpu":
        yield
        return
    before = [(layer, type(layer)) for layer in model.sublayers(include_self=True)]
    arrange(model)
    try:
        yield
    finally:
        for layer, kind in before:
            layer.__class__ = kind


def _here(x: Tensor) -> bool:
    """Whether the arranged arithmetic serves: an eager float32 tensor on the CPU. A traced graph gets paddle's own."""
    if not paddle.in_dynamic_mode():
        return False
    return bool(x.dtype == paddle.float32 and x.place.is_cpu_place())


@functools.lru_cache(maxsize=64)
def _ones(*shape: int) -> Tensor:
    return paddle.ones(shape)


def _rows(x: Tensor) -> Tensor:
    return x.reshape([-1, x.shape[-1]])


def _sum_of_rows(x: Tensor) -> Tensor:
    return paddle.matmul(_ones(1, x.shape[0]), x).reshape([-1])


def _across(column: Tensor, width: int) -> Tensor:
    """[n, 1] repeated to [n, width]."""
    return paddle.matmul(column, _ones(1, width))


def _wanted(*tensors: Tensor) -> list[bool]:
    return [not tensor.stop_gradient for tensor in tensors]


class _Linear(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.wanted = _wanted(x, weight, bias)
        return paddle.addmm(bias, _rows(x), weight).reshape([*x.shape[:-1], weight.shape[1]])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensor()
        g = _rows(g)
        to_x, to_weight, to_bias = ctx.wanted
        return (
            paddle.matmul(g, weight, transpose_y=True).reshape(x.shape) if to_x else None,
            paddle.matmul(_rows(x), g, transpose_x=True) if to_weight else None,
            _sum_of_rows(g) if to_bias else None,
        )


class Linear(nn.Linear):
    """x W + b; the bias enters through the matrix product, its gradient is one."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None or not _here(x):
            return super().forward(x)
        return _Linear.apply(x, self.weight, self.bias)


def _keep(shape: list[int], p: float) -> Tensor:
    """Dropout's factors: 0 with probability p (to 1/65536), else what keeps the mean."""
    seed = paddle.randint(0, 2**31 - 1, [4]).numpy()
    size = int(np.prod(shape))
    bits = np.random.SFC64(seed).random_raw(-(-size // 4)).view(np.uint16)[:size].reshape(shape)
    dropped = round(p * 65536)
    factors = np.empty(shape, np.float32)
    np.multiply(bits >= dropped, np.float32(65536 / (65536 - dropped)), out=factors)
    return from_dlpack(factors)


class _Dropout(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        keep = _keep(x.shape, p)
        ctx.save_for_backward(keep)
        return x * keep

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (keep,) = ctx.saved_tensor()
        return g * keep


class Dropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.axis is not None or self.mode != "upscale_in_train" or not _here(x):
            return super().forward(x)
        return _Dropout.apply(x, self.p)


class _LayerNorm(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.epsilon, ctx.wanted = epsilon, _wanted(x, weight, bias)
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensor()
        shape, width = x.shape, x.shape[-1]
        x, g = _rows(x), _rows(g)
        mean_of, repeated = _ones(width, 1) / width, _ones(1, width)
        centred = paddle.addmm(x, paddle.matmul(x, mean_of), repeated, alpha=-1.0)
        deviation = paddle.matmul(centred * centred, mean_of) + ctx.epsilon
        scale = _across(paddle.rsqrt(deviation), width)
        normal = centred.multiply_(scale)
        shares = g * normal
        to_x, to_weight, to_bias = ctx.wanted
        dx = None
        if to_x:
            factors = (weight / width).unsqueeze(1)
            dx = g * paddle.matmul(_ones(x.shape[0], 1), weight.unsqueeze(0))
            dx = paddle.addmm(dx, paddle.matmul(g, factors), repeated, alpha=-1.0)
            normal.multiply_(_across(paddle.matmul(shares, factors), width))
            dx = dx.subtract_(normal).multiply_(scale).reshape(shape)
        return dx, _sum_of_rows(shares) if to_weight else None, _sum_of_rows(g) if to_bias else None


class LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None or self.bias is None or len(self._normalized_shape) > 1 or not _here(x):
            return super().forward(x)
        return _LayerNorm.apply(x, self.weight, self.bias, self._epsilon)


def _exp(x: Tensor) -> Tensor:
    """exp by NumPy, in half of paddle's time."""
    out = np.empty(x.shape, np.float32)
    np.exp(np.from_dlpack(x), out=out)
    return from_dlpack(out)


@functools.lru_cache(maxsize=64)
def _head_order(batch: int, length: int, heads: int) -> tuple[Tensor, Tensor]:
    """Which row of [B * L * heads, d] comes where in [B * heads * L, d], and the way back."""
    split = np.arange(batch * length * heads).reshape(batch, length, heads).transpose(0, 2, 1).ravel()
    return paddle.to_tensor(split), paddle.to_tensor(np.argsort(split, kind="stable"))


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, L, heads * d] to [B * heads, L, d]."""
    batch, length, width = x.shape
    rows = x.reshape([batch * length * heads, width // heads])
    return paddle.gather(rows, _head_order(batch, length, heads)[0]).reshape([batch * heads, length, width // heads])


def _merge(x: Tensor, batch: int) -> Tensor:
    """[B * heads, L, d] to [B, L, heads * d]."""
    n, length, width = x.shape
    heads = n // batch
    rows = paddle.gather(x.reshape([n * length, width]), _head_order(batch, length, heads)[1])
    return rows.reshape([batch, length, heads * width])


class _SplitHeads(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int) -> Tensor:
        batch, length, width = x.shape
        return _split(x, heads).reshape([batch, heads, length, width // heads])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        batch, heads, length, width = g.shape
        return _merge(g.reshape([batch * heads, length, width]), batch)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, heads * d] to [B, heads, L, d]: rows are gathered, where that serves; paddle's transpose else."""
    if _here(x):
        return _SplitHeads.apply(x, heads)
    return x.reshape([0, 0, heads, -1]).transpose([0, 2, 1, 3])


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(scores + mask)"""
    values = np.from_dlpack(scores)
    width = scores.shape[-1]
    if values.max() < _SAFE_SCORE and values.min() > -_SAFE_SCORE:
        shares = _exp(scores)
        if mask is not None:
            shares = shares.multiply_(_expanded(paddle.exp(mask), scores))
        flat = shares.reshape([-1, width])
        sums = paddle.matmul(flat, _ones(width, 1))
        if np.from_dlpack(sums).min() > 1e-30:
            return flat.divide_(_across(sums, width)).reshape(scores.shape)
    return F.softmax(scores if mask is None else scores + _expanded(mask, scores))


def _expanded(mask: Tensor, scores: Tensor) -> Tensor:
    """[B, 1, 1, Lk] to [B * heads, Lq, Lk]"""
    n, rows, width = scores.shape
    mask = paddle.repeat_interleave(mask.reshape([mask.shape[0], 1, width]), n // mask.shape[0], axis=0)
    return paddle.matmul(_ones(n, rows, 1), mask)


class _Attention(PyLayer):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, p: float) -> Tensor:
        batch = q.shape[0]
        q, k, v = _split(q, heads), _split(k, heads), _split(v, heads)
        scale = q.shape[-1] ** -0.5
        probabilities = _softmax(paddle.matmul(q * scale, k, transpose_y=True), mask)
        keep = _keep(probabilities.shape, p) if p else None
        dropped = probabilities * keep if p else probabilities
        out = paddle.matmul(dropped, v)
        ctx.save_for_backward(q, k, v, probabilities, dropped, keep)
        ctx.heads, ctx.batch, ctx.scale = heads, batch, scale
        return _merge(out, batch)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, probabilities, dropped, keep = ctx.saved_tensor()
        g = _split(g, ctx.heads)
        dv = paddle.matmul(dropped, g, transpose_x=True)
        ds = paddle.matmul(g, v, transpose_y=True)
        if keep is not None:
            ds.multiply_(keep)
        ds.multiply_(probabilities)
        totals = _across(paddle.matmul(_rows(ds), _ones(ds.shape[-1], 1)), ds.shape[-1]).reshape(ds.shape)
        ds = ds.subtract_(totals.multiply_(probabilities)).scale_(ctx.scale)
        dq, dk = paddle.matmul(ds, k), paddle.matmul(ds, q, transpose_x=True)
        return tuple(_merge(t, ctx.batch) for t in (dq, dk, dv))


class MultiHeadAttention(nn.MultiHeadAttention):
    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        cache: Any = None,
    ) -> Any:
        plain = attn_mask is None or (attn_mask.dtype == paddle.float32 and attn_mask.shape[1:3] == [1, 1])
        if not plain or cache is not None or self.need_weights or not _here(query):
            return super().forward(query, key, value, attn_mask, cache)
        key = query if key is None else key
        value = query if value is None else value
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        if attn_mask is not None and not np.from_dlpack(attn_mask).any():
            attn_mask = None
        p = self.dropout if self.training else 0.0
        return self.out_proj(_Attention.apply(q, k, v, attn_mask, self.num_heads, p))


_ARRANGED: dict[type, type] = {
    nn.Linear: Linear,
    nn.Dropout: Dropout,
    nn.LayerNorm: LayerNorm,
    nn.MultiHeadAttention: MultiHeadAttention,
}
_PLAIN = {ours: plain for plain, ours in _ARRANGED.items()}
