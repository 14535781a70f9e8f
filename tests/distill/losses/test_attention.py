import numpy as np
import paddle
import pytest

from distill.losses.attention import attention_mse

RNG = np.random.default_rng(5)
S, T = RNG.normal(size=(3, 2, 4, 4)), RNG.normal(size=(3, 2, 4, 4))
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
PAIRS = (MASK[:, :, None] * MASK[:, None, :])[:, None]


def tensor(array):
    return paddle.to_tensor(np.asarray(array, "float32"), stop_gradient=False)


def test_golden_values_by_hand():
    """One head; of three positions the last is padding. Real differences: 1, 2, 0, 3."""
    student = tensor([[[[1.0, 2.0, 9.0], [0.0, 3.0, 9.0], [9.0, 9.0, 9.0]]]])
    teacher, mask = tensor(np.zeros((1, 1, 3, 3))), paddle.to_tensor([[1.0, 1.0, 0.0]])
    assert float(attention_mse(student, teacher, mask)) == pytest.approx((1 + 4 + 0 + 9) / 4)
    assert float(attention_mse(student, teacher, mask, "official")) == pytest.approx((1 + 4 + 0 + 9) / 9)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_against_float64_and_its_gradient(dtype):
    student, teacher = tensor(S), tensor(T)
    loss = attention_mse(student, teacher, paddle.to_tensor(MASK.astype(dtype)))
    weight = PAIRS / PAIRS.sum(axis=(1, 2, 3), keepdims=True) / (3 * 2)
    np.testing.assert_allclose(float(loss), (weight * (S - T) ** 2).sum(), rtol=1e-6)
    loss.backward()
    np.testing.assert_allclose(student.grad.numpy(), 2 * weight * (S - T), atol=1e-7)
    assert teacher.grad is None


def test_the_published_form_clips_at_minus_100():
    """A score of -100 or less is 0 in both models, as the one that a mask of -10000 was added to."""
    student, teacher = S.copy(), T.copy()
    student[0, 0, 0, 0], teacher[0, 0, 0, 1], teacher[0, 1, 2, 3], student[0, 1, 2, 3] = -250.0, -100.0, -99.9, -101.0
    clipped_student, clipped_teacher = np.where(student <= -100, 0, student), np.where(teacher <= -100, 0, teacher)
    loss = attention_mse(tensor(student), tensor(teacher), tensor(MASK), "official")
    expected = (PAIRS * (clipped_student - clipped_teacher) ** 2).sum() / S.size
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)
    whole = attention_mse(tensor(student), tensor(teacher), None, "official")
    np.testing.assert_allclose(float(whole), ((clipped_student - clipped_teacher) ** 2).mean(), rtol=1e-6)


def test_the_paper_clips_nothing():
    student = np.zeros((1, 1, 1, 1)) - 200
    assert float(attention_mse(tensor(student), tensor(student * 0), None)) == pytest.approx(40_000)


def test_the_amount_of_padding_changes_nothing():
    more = ((0, 0), (0, 0), (0, 3), (0, 3))
    wide_mask = np.pad(MASK, ((0, 0), (0, 3)))
    wide = attention_mse(tensor(np.pad(S, more, constant_values=7.0)), tensor(np.pad(T, more)), tensor(wide_mask))
    assert float(wide) == pytest.approx(float(attention_mse(tensor(S), tensor(T), tensor(MASK))), rel=1e-6)


def test_the_split_of_a_batch_changes_nothing():
    whole = float(attention_mse(tensor(S), tensor(T), tensor(MASK)))
    first, rest = (float(attention_mse(tensor(S[i]), tensor(T[i]), tensor(MASK[i]))) for i in (slice(1), slice(1, 3)))
    assert first / 3 + rest * 2 / 3 == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("form", ["paper", "official"])
def test_the_teacher_itself_has_no_loss(form):
    for mask in (None, tensor(MASK)):
        assert float(attention_mse(tensor(T), tensor(T), mask, form)) == 0.0


def test_a_batch_of_padding_is_zero():
    student = tensor(S)
    loss = attention_mse(student, tensor(T), tensor(np.zeros((3, 4))))
    loss.backward()
    assert float(loss) == 0.0 and not student.grad.numpy().any()


@pytest.mark.parametrize(
    ("teacher", "mask"),
    [(np.zeros((3, 3, 4, 4)), MASK), (np.zeros((3, 2, 5, 5)), MASK), (T, np.ones((3, 5))), (T, np.ones((1, 4)))],
)
def test_shapes_that_do_not_fit_are_refused(teacher, mask):
    with pytest.raises(ValueError, match="same number of heads"):
        attention_mse(tensor(S), tensor(teacher), tensor(mask))


def test_another_form_is_refused():
    with pytest.raises(ValueError, match="form 'code': choose paper or official"):
        attention_mse(tensor(S), tensor(T), tensor(MASK), "code")
