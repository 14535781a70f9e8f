"""Losses over all pairs of a batch: golden numbers, what they ignore, and what reaches the teacher."""

import numpy as np
import paddle
import pytest

from distill.losses.contrastive import cosines, identity_mse, matching_cross_entropy, similarity_mse

RNG = np.random.default_rng(5)
S, T, TEACHER = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6)), RNG.normal(size=(4, 3))
LOSSES = {
    "similarity": lambda s, t: similarity_mse(s, t, tensor(TEACHER)),
    "identity": identity_mse,
    "matching": matching_cross_entropy,
}


def tensor(array):
    return paddle.to_tensor(np.asarray(array, "float32"), stop_gradient=False)


def cos64(a, b):
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b)]
    return unit[0] @ unit[1].T


def test_by_hand():
    """Source (1, 0), (0, 1); target (2, 0), (3, 3); teacher (1, 0), (1, 1)."""
    source, target, teacher = tensor([[1, 0], [0, 1]]), tensor([[2, 0], [3, 3]]), tensor([[1, 0], [1, 1]])
    half = 0.5**0.5
    np.testing.assert_allclose(cosines(source, target).numpy(), [[1, half], [0, half]], atol=1e-7)
    # Student [[1, h], [0, h]], teacher [[1, h], [h, 1]]: the second line differs.
    assert float(similarity_mse(source, target, teacher)) == pytest.approx((0.5 + (1 - half) ** 2) / 4, rel=1e-6)
    assert float(identity_mse(source, target)) == pytest.approx((0.5 + (1 - half) ** 2) / 4, rel=1e-6)
    lines = [np.log(1 + np.exp(2 * (half - 1))), np.log(1 + np.exp(2 * (0 - half)))]
    assert float(matching_cross_entropy(source, target, 2.0)) == pytest.approx(np.mean(lines), rel=1e-6)


def test_against_float64():
    found = cos64(S, T)
    share = np.exp(20 * found) / np.exp(20 * found).sum(axis=1, keepdims=True)  # a line for each source sentence
    expected = {
        "similarity": ((found - cos64(TEACHER, TEACHER)) ** 2).mean(),
        "identity": ((found - np.eye(4)) ** 2).mean(),
        "matching": -np.log(np.diag(share)).mean(),
    }
    assert {name: float(loss(tensor(S), tensor(T))) for name, loss in LOSSES.items()} == pytest.approx(
        expected, rel=1e-5
    )


def test_a_student_that_is_the_teacher_has_no_loss():
    assert float(similarity_mse(tensor(T), tensor(T), tensor(T))) == 0.0
    # Nor one that is longer, or turned: cosines alone are compared.
    turn, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    assert float(similarity_mse(tensor(3 * T @ turn), tensor(T @ turn), tensor(T))) < 1e-12
    assert float(identity_mse(tensor(np.eye(4)), tensor(np.eye(4)))) == 0.0


def test_no_gradient_reaches_the_teacher():
    source, target, teacher = tensor(S), tensor(T), tensor(TEACHER)
    similarity_mse(source, target, teacher).backward()
    assert teacher.grad is None
    assert abs(source.grad.numpy()).max() > 1e-4 and abs(target.grad.numpy()).max() > 1e-4


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_gradient_against_differences(loss):
    source = tensor(S)
    loss(source, tensor(T)).backward()
    for place in ((0, 0), (2, 5)):
        step = np.zeros_like(S)
        step[place] = 1e-2
        slope = float(loss(tensor(S + step), tensor(T)) - loss(tensor(S - step), tensor(T))) / 2e-2
        assert float(source.grad[place]) == pytest.approx(slope, abs=2e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_rows_changes_nothing_but_their_pairing_does(name):
    turn = [2, 0, 3, 1]
    loss = LOSSES[name] if name != "similarity" else lambda s, t: similarity_mse(s, t, tensor(TEACHER[turn]))
    whole = float(LOSSES[name](tensor(S), tensor(T)))
    assert float(loss(tensor(S[turn]), tensor(T[turn]))) == pytest.approx(whole, rel=1e-5)
    assert abs(float(LOSSES[name](tensor(S), tensor(T[turn]))) - whole) > 1e-3


def test_a_row_of_zeros_has_no_cosine():
    assert cosines(tensor(np.zeros((1, 6))), tensor(S)).numpy().tolist() == [[0.0] * 4]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_shapes_that_do_not_fit_are_refused(loss):
    with pytest.raises(ValueError, match="must both be"):
        loss(tensor(S), tensor(T[:3]))
    with pytest.raises(ValueError, match="must both be"):
        loss(tensor(S[0]), tensor(T[0]))


def test_a_teacher_of_other_sentences_and_no_scale_are_refused():
    with pytest.raises(ValueError, match="a vector for each of 4 sentences"):
        similarity_mse(tensor(S), tensor(T), tensor(TEACHER[:3]))
    with pytest.raises(ValueError, match="the scale must be positive, not 0"):
        matching_cross_entropy(tensor(S), tensor(T), 0)
