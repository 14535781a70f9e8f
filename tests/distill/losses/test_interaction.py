import numpy as np
import paddle
import pytest

from distill.losses.interaction import interaction_mse

RNG = np.random.default_rng(3)
LAYERS, B, HEADS, Q, K = 2, 3, 2, 4, 5
S, T = RNG.normal(size=(LAYERS, B, HEADS, Q, K)), RNG.normal(size=(LAYERS, B, HEADS, Q, K))
QUERIES = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
KEYS = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])


def tensor(array):
    return paddle.to_tensor(np.asarray(array, "float32"), stop_gradient=False)


def layers(array):
    return [tensor(x) for x in array]


def softmax(scores, keys):
    """Over the keys that are real, float64."""
    powers = np.exp(scores) * keys
    return powers / powers.sum(axis=-1, keepdims=True)


def expected(s, t, queries, keys):
    """The sum over heads and keys, the mean over a row's queries, rows and layers."""
    squares = (softmax(s, keys[:, None, None]) - softmax(t, keys[:, None, None])) ** 2
    shares = queries / queries.sum(axis=1, keepdims=True) / len(queries)
    return (squares.sum(axis=(2, 4)) * shares).sum(axis=(1, 2)).mean()


def loss(s, t, queries, keys, *more):
    return interaction_mse(layers(s), layers(t), queries if queries is None else tensor(queries), tensor(keys), *more)


def test_golden_value_by_hand():
    """One layer, head and query; of three keys the last is padding. Shares of 3/4, 1/4 and of 1/4, 3/4."""
    student, teacher = np.log([[3.0, 1.0, 99.0]]), np.log([[1.0, 3.0, 1e-3]])
    found = loss(student[None, None, None], teacher[None, None, None], [[1]], [[1, 1, 0]])
    assert float(found) == pytest.approx(2 * 0.5**2)
    mean = loss(student[None, None, None], teacher[None, None, None], [[1]], [[1, 1, 0]], "mean", 128)
    assert float(mean) == pytest.approx(2 * 0.5**2 / 128)


def test_against_float64():
    assert float(loss(S, T, QUERIES, KEYS)) == pytest.approx(expected(S, T, QUERIES, KEYS), rel=1e-5)
    assert float(loss(S, T, QUERIES, KEYS, "mean", 7)) == pytest.approx(
        expected(S, T, QUERIES, KEYS) / (HEADS * 7), rel=1e-5
    )


def test_without_a_query_mask_padding_asks_too():
    """The plain mean of the published code over the whole tensor, keys of padding included."""
    squares = (softmax(S, KEYS[:, None, None]) - softmax(T, KEYS[:, None, None])) ** 2
    assert float(loss(S, T, None, KEYS, "mean", K)) == pytest.approx(squares.mean(), rel=1e-5)


def test_the_teachers_own_scores_have_no_loss():
    assert float(loss(T, T, QUERIES, KEYS)) == 0.0
    shifted = T + RNG.normal(size=(LAYERS, B, HEADS, Q, 1))  # softmax does not see it
    assert float(loss(shifted, T, QUERIES, KEYS)) < 1e-12


def test_the_gradient_is_the_students_and_none_of_it_is_paddings():
    student, teacher = layers(S), layers(T)
    interaction_mse(student, teacher, tensor(QUERIES), tensor(KEYS)).backward()
    assert all(x.grad is None for x in teacher)
    real = (QUERIES[:, None, :, None] * KEYS[:, None, None, :]).repeat(HEADS, axis=1) > 0
    for i, x in enumerate(student):
        grad = x.grad.numpy()
        # paddle's softmax gives at least e^-64, so padding has next to nothing and not nothing.
        assert np.abs(grad[real]).min() > 1e-8 and np.abs(grad[~real]).max() < 1e-25
        step = np.zeros_like(S)
        step[i, 0, 1, 2, 3] = 1e-4
        slope = (expected(S + step, T, QUERIES, KEYS) - expected(S - step, T, QUERIES, KEYS)) / 2e-4
        assert grad[0, 1, 2, 3] == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("scaling", ["sum", "mean"])
def test_the_amount_of_padding_and_what_it_holds_change_nothing(scaling):
    def wide(scores, value):
        filled = np.full((LAYERS, B, HEADS, Q + 3, K + 2), value)
        filled[..., :Q, :K] = scores
        return filled

    queries, keys = np.pad(QUERIES, ((0, 0), (0, 3))), np.pad(KEYS, ((0, 0), (0, 2)))
    whole = float(loss(S, T, QUERIES, KEYS, scaling, 128))
    assert float(loss(wide(S, 7.0), wide(T, -2.0), queries, keys, scaling, 128)) == pytest.approx(whole, rel=1e-5)


def test_the_split_of_a_batch_changes_nothing():
    first = float(loss(S[:, :1], T[:, :1], QUERIES[:1], KEYS[:1]))
    rest = float(loss(S[:, 1:], T[:, 1:], QUERIES[1:], KEYS[1:]))
    assert first / 3 + rest * 2 / 3 == pytest.approx(float(loss(S, T, QUERIES, KEYS)), rel=1e-5)


@pytest.mark.parametrize(("empty", "other"), [("queries", KEYS), ("keys", QUERIES)])
def test_a_pair_with_an_empty_text_has_no_loss(empty, other):
    queries, keys = QUERIES.copy(), KEYS.copy()
    (queries if empty == "queries" else keys)[1] = 0
    student = layers(S)
    found = interaction_mse(student, layers(T), tensor(queries), tensor(keys))
    found.backward()
    kept = [0, 2]
    rows = expected(S[:, kept], T[:, kept], QUERIES[kept], KEYS[kept]) * 2 / 3
    assert float(found) == pytest.approx(rows, rel=1e-5)
    assert all(np.isfinite(x.grad.numpy()).all() and not x.grad.numpy()[1].any() for x in student)


@pytest.mark.parametrize(
    ("teacher", "queries", "keys", "message"),
    [
        (T[:1], QUERIES, KEYS, "the same layers and heads"),
        (T[:, :, :1], QUERIES, KEYS, "the same layers and heads"),
        (T, QUERIES, QUERIES, "mask of keys"),
        (T, KEYS, KEYS, "their mask"),
        (T[:0], QUERIES, KEYS, "the same layers"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(teacher, queries, keys, message):
    with pytest.raises(ValueError, match=message):
        loss(S if len(teacher) else S[:0], teacher, queries, keys)


def test_another_scaling_is_refused():
    for more in (("total",), ("mean",)):
        with pytest.raises(ValueError, match=f"scaling '{more[0]}' with None keys"):
            loss(S, T, QUERIES, KEYS, *more)
