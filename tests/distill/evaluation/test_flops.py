"""Counted operations against sums by hand, and against the figures published for BERT-base."""

import paddle
import pytest
from paddle import Tensor, nn

from distill.evaluation.flops import forward_flops


class Products(nn.Layer):
    """What is asked of it, and a product that nothing depends on."""

    def __init__(self, forward: object) -> None:
        super().__init__()
        self.idle = nn.Linear(7, 7)
        self._forward = forward

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.idle(paddle.ones([3, 7]))
        return self._forward(x, y)


def flops(forward: object, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    return forward_flops(Products(forward), {"x": (x, "float32"), "y": (y, "float32")})


def test_products_by_hand():
    """[2, 3] by [3, 5]: 30 multiplications and 30 additions, however the factors lie."""
    assert flops(paddle.matmul, (2, 3), (3, 5)) == 60
    assert flops(lambda x, y: paddle.matmul(x, y, transpose_x=True), (3, 2), (3, 5)) == 60
    assert flops(lambda x, y: paddle.matmul(x, y, transpose_y=True), (2, 3), (5, 3)) == 60
    assert flops(paddle.matmul, (4, 2, 3), (4, 3, 5)) == 240
    assert flops(paddle.matmul, (1, 2, 3), (4, 3, 5)) == 240  # one against four
    assert flops(lambda x, y: paddle.matmul(x, y).exp() + 1, (2, 3), (3, 5)) == 60
    assert flops(lambda x, y: paddle.matmul(paddle.matmul(x, y), y, transpose_y=True), (2, 3), (3, 5)) == 120
    assert flops(lambda x, y: x + y, (2, 3), (2, 3)) == 0
    assert flops(lambda x, y: [paddle.matmul(x, y), paddle.matmul(y, x)], (2, 3), (3, 2)) == 2 * (2 * 3 * 2 + 3 * 2 * 3)


def test_a_product_that_is_used_twice_counts_once():
    def twice(x: Tensor, y: Tensor) -> Tensor:
        product = paddle.matmul(x, y)
        return product * product

    assert flops(twice, (2, 3), (3, 5)) == 60


def test_what_is_not_counted_is_refused():
    with pytest.raises(ValueError, match="operations of einsum are not counted"):
        flops(lambda x, y: paddle.einsum("ij,jk->ik", x, y), (2, 3), (3, 5))
    lstm = nn.LSTM(3, 5)
    with pytest.raises(ValueError, match="operations of rnn"):
        flops(lambda x, y: lstm(x)[0], (1, 2, 3), (1,))
    with pytest.raises(ValueError, match="operations of bmm"):
        flops(paddle.bmm, (4, 2, 3), (4, 3, 5))
    with pytest.raises(ValueError, match="operations of if"):
        flops(lambda x, y: paddle.static.nn.cond(x.sum() > 0, lambda: x + y, lambda: x - y), (2, 3), (2, 3))


def test_the_mode_is_left_alone():
    layer = Products(paddle.matmul)
    layer.train()
    forward_flops(layer, {"x": ((2, 3), "float32"), "y": ((3, 5), "float32")})
    assert layer.training and layer.idle.training


def encoder_gflops(length: int, layers: int, hidden: int, inner: int) -> float:
    from paddlenlp.transformers import BertConfig, BertModel

    sizes = {"num_hidden_layers": 1, "hidden_size": hidden, "intermediate_size": inner}
    bert = BertModel(BertConfig(vocab_size=2, num_attention_heads=12, max_position_embeddings=length, **sizes))
    inputs = {"input_ids": ((1, length), "int64"), "mask": ((1, length), "float32")}
    return layers * forward_flops(Hidden(bert), inputs) / 1e9


class Hidden(nn.Layer):
    def __init__(self, bert: nn.Layer) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        return self.bert(input_ids, attention_mask=mask)[0]


def test_encoders_by_hand():
    """2 L (4 H^2 + 2 H I + 2 L H) for each layer; the embeddings have no products, the pooler takes no part."""
    assert encoder_gflops(10, 1, 24, 36) * 1e9 == 2 * 10 * (4 * 24**2 + 2 * 24 * 36 + 2 * 10 * 24)


@pytest.mark.parametrize(
    ("length", "expected"), [(64, 11.0), (130, 22.7), (259, 46.5), (391, 72.1)], ids=lambda value: str(value)
)
def test_figures_of_bert_base(length, expected):
    assert round(encoder_gflops(length, 12, 768, 3072), 1) == expected


def test_figure_of_a_small_bert():
    assert round(encoder_gflops(64, 4, 312, 1200), 2) == 0.60
