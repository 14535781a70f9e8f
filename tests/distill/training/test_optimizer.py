"""Clipping on a CPU is paddle's."""

import numpy as np
import paddle
import pytest
from paddle import nn

from distill.training.optimizer import ClipByGlobalNorm


def network(sparse: bool = False) -> nn.Layer:
    paddle.seed(0)
    layer = nn.Sequential(nn.Embedding(9, 6, sparse=sparse), nn.Linear(6, 4))
    (layer(paddle.to_tensor([[1, 3, 3], [0, 8, 1]])) ** 2).sum().backward()
    return layer


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("limit", [0.01, 1.0, 1e6])
def test_gradients_are_clipped_as_paddle_does(limit: float, sparse: bool) -> None:
    before, moved = network(), []
    gradients = [p.grad.numpy() for p in before.parameters()]
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    assert (norm > limit) == (limit < 1e6)
    for clip, layer in ((nn.ClipGradByGlobalNorm, network()), (ClipByGlobalNorm, network(sparse))):
        paddle.optimizer.SGD(1.0, parameters=layer.parameters(), grad_clip=clip(limit)).step()
        moved.append([a.numpy() - b.numpy() for a, b in zip(before.parameters(), layer.parameters(), strict=True)])
    for theirs, ours, gradient in zip(*moved, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-7)
        np.testing.assert_allclose(ours, gradient * min(1.0, limit / norm), atol=2e-7)


def test_parameters_that_need_no_clipping_are_left_alone() -> None:
    pairs = [(p, p.grad) for p in network().parameters()]
    pairs[0][0].need_clip = False
    kept = pairs[0][1].numpy()
    ClipByGlobalNorm(1e-3)(pairs)
    np.testing.assert_array_equal(pairs[0][1].numpy(), kept)
    assert np.sqrt(sum(float((g.numpy() ** 2).sum()) for _, g in pairs[1:])) == pytest.approx(1e-3, rel=1e-5)
