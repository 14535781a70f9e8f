import numpy as np
import paddle
import pytest

from distill.losses.hidden import hidden_mse

RNG = np.random.default_rng(3)
S, T = RNG.normal(size=(2, 4, 3)), RNG.normal(size=(2, 4, 3))
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]])


def tensor(array, grad=True):
    return paddle.to_tensor(np.asarray(array, "float32"), stop_gradient=not grad)


def test_mean_over_real_positions_by_hand():
    student = tensor([[[1.0, 2.0], [3.0, 3.0], [50.0, 50.0]]])
    teacher = tensor([[[0.0, 0.0], [3.0, 1.0], [0.0, 0.0]]])
    # (1 + 4 + 0 + 4) over 2 positions x 2
    assert float(hidden_mse(student, teacher, paddle.to_tensor([[1.0, 1.0, 0.0]]))) == pytest.approx(2.25)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_against_float64_and_its_gradient(dtype):
    student, teacher = tensor(S), tensor(T)
    loss = hidden_mse(student, teacher, paddle.to_tensor(MASK.astype(dtype)))
    weight = (MASK / MASK.sum(axis=1, keepdims=True))[:, :, None] / (2 * 3)  # a mean over rows of each row's mean
    np.testing.assert_allclose(float(loss), (weight * (S - T) ** 2).sum(), rtol=1e-6)
    loss.backward()
    np.testing.assert_allclose(student.grad.numpy(), 2 * weight * (S - T), atol=1e-7)
    assert teacher.grad is None


def test_the_published_form_counts_padding():
    """Golden: 2 rows x 4 positions x 3, of which 5 positions are real; the difference is 2 everywhere."""
    student, teacher, mask = tensor(np.full((2, 4, 3), 3.0)), tensor(np.ones((2, 4, 3))), tensor(MASK)
    assert float(hidden_mse(student, teacher, mask, form="official")) == pytest.approx(4 * 5 / 8)
    assert float(hidden_mse(student, teacher, mask, form="paper")) == pytest.approx(4)
    loss = hidden_mse(tensor(S), tensor(T), mask, form="official")
    np.testing.assert_allclose(float(loss), (MASK[:, :, None] * (S - T) ** 2).sum() / 24, rtol=1e-6)


@pytest.mark.parametrize("form", ["paper", "official"])
def test_without_padding_all_forms_are_the_plain_mean(form):
    expected = ((S - T) ** 2).mean()
    for mask in (None, tensor(np.ones((2, 4)))):
        np.testing.assert_allclose(float(hidden_mse(tensor(S), tensor(T), mask, form=form)), expected, rtol=1e-6)


def test_the_split_of_a_batch_changes_nothing():
    whole = float(hidden_mse(tensor(S), tensor(T), tensor(MASK)))
    parts = [float(hidden_mse(tensor(S[i : i + 1]), tensor(T[i : i + 1]), tensor(MASK[i : i + 1]))) for i in (0, 1)]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("form", ["paper", "official"])
def test_the_teacher_itself_has_no_loss(form):
    assert float(hidden_mse(tensor(T), tensor(T), tensor(MASK), form=form)) == 0.0


def test_another_form_is_refused():
    with pytest.raises(ValueError, match="form 'code': choose paper or official"):
        hidden_mse(tensor(S), tensor(T), tensor(MASK), form="code")


def test_the_amount_of_padding_changes_nothing():
    more = ((0, 0), (0, 5), (0, 0))
    short = hidden_mse(tensor(S), tensor(T), tensor(MASK))
    wide = hidden_mse(
        tensor(np.pad(S, more, constant_values=7.0)), tensor(np.pad(T, more)), tensor(np.pad(MASK, more[:2]))
    )
    assert float(short) == pytest.approx(float(wide), rel=1e-6)


def test_a_projection_before_it_learns():
    project = paddle.nn.Linear(3, 5)
    wide = RNG.normal(size=(2, 4, 5))
    student = tensor(S)
    loss = hidden_mse(project(student), tensor(wide), tensor(MASK))
    projected = S @ project.weight.numpy().astype("float64") + project.bias.numpy()
    weight = (MASK / MASK.sum(axis=1, keepdims=True))[:, :, None] / (2 * 5)
    expected = (weight * (projected - wide) ** 2).sum()
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    loss.backward()
    assert np.abs(project.weight.grad.numpy()).min() > 0 and student.grad is not None


def test_a_batch_of_padding_is_zero():
    student = tensor(S)
    loss = hidden_mse(student, tensor(T), tensor(np.zeros((2, 4))))
    loss.backward()
    assert float(loss) == 0.0 and not student.grad.numpy().any()


@pytest.mark.parametrize(
    ("teacher", "mask"),
    [(np.zeros((2, 4, 5)), MASK), (np.zeros((2, 3, 3)), MASK), (T, np.ones((2, 3))), (T, np.ones((2, 1)))],
)
def test_shapes_that_do_not_fit_are_refused(teacher, mask):
    with pytest.raises(ValueError, match="hidden states do not fit"):
        hidden_mse(tensor(S), tensor(teacher), tensor(mask))
