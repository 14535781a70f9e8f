import numpy as np
import paddle
import pytest

from distill.losses.patience import patience_mse

RNG = np.random.default_rng(5)
B, K, H = 3, 2, 8
S, T = RNG.normal(size=(B, K, H)), RNG.normal(size=(B, K, H))


def tensor(array, grad=True):
    return paddle.to_tensor(np.asarray(array, "float32"), stop_gradient=not grad)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_by_hand():
    # (3, 4) becomes (0.6, 0.8), (0, 2) becomes (0, 1): squares 0.36 and 0.04.
    student, teacher = tensor([[[3.0, 4.0]]]), tensor([[[0.0, 2.0]]])
    assert float(patience_mse(student, teacher)) == pytest.approx(0.2, rel=1e-6)
    assert float(patience_mse(student, teacher, form="paper")) == pytest.approx(0.4, rel=1e-6)
    assert float(patience_mse(student, teacher, normalize=False)) == pytest.approx((9 + 4) / 2)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("form", "divisor"), [("official", B * K * H), ("paper", B)])
def test_against_float64(normalize, form, divisor):
    s, t = (unit(S), unit(T)) if normalize else (S, T)
    loss = patience_mse(tensor(S), tensor(T), normalize, form)
    assert loss.shape == []
    np.testing.assert_allclose(float(loss), ((s - t) ** 2).sum() / divisor, rtol=1e-6)


def test_gradient_by_finite_differences_and_none_for_the_teacher():
    student, teacher = tensor(S), tensor(T)
    patience_mse(student, teacher).backward()
    change = np.zeros_like(S)
    for index in np.ndindex(S.shape):
        step = np.zeros_like(S)
        step[index] = 1e-6
        change[index] = (((unit(S + step) - unit(T)) ** 2).mean() - ((unit(S - step) - unit(T)) ** 2).mean()) / 2e-6
    np.testing.assert_allclose(student.grad.numpy(), change, atol=1e-7)
    assert teacher.grad is None


@pytest.mark.parametrize("normalize", [True, False])
def test_zero_for_the_teacher_itself(normalize):
    student = tensor(T)
    loss = patience_mse(student, tensor(T), normalize)
    loss.backward()
    assert float(loss) == 0.0 and not student.grad.numpy().any()


def test_normalised_it_is_at_most_four_over_the_width():
    assert float(patience_mse(tensor(S), tensor(T))) < 4 / H
    assert float(patience_mse(tensor(-T), tensor(T))) == pytest.approx(4 / H, rel=1e-6)  # opposite: the largest


def test_normalised_it_does_not_see_lengths():
    longer = patience_mse(tensor(100 * S), tensor(0.01 * T))
    assert float(longer) == pytest.approx(float(patience_mse(tensor(S), tensor(T))), rel=1e-5)


def test_a_student_at_zero_has_a_finite_gradient():
    student = tensor(np.zeros((1, 1, H)))
    patience_mse(student, tensor(T[:1, :1])).backward()
    assert np.isfinite(student.grad.numpy()).all()


def test_what_does_not_fit_is_refused():
    for wrong in (T[:, :1], T[:, :, :4], T[:, 0]):
        with pytest.raises(ValueError, match=r"must both be \[B, K, H\]"):
            patience_mse(tensor(S), tensor(wrong))
    with pytest.raises(ValueError, match="choose official or paper"):
        patience_mse(tensor(S), tensor(T), form="mean")
