import numpy as np
import paddle
import pytest

from distill.losses.embedding import embedding_mse

MASK = np.array([[1.0, 1.0, 0.0]])


def tensor(array):
    return paddle.to_tensor(np.asarray(array, "float32"), stop_gradient=False)


@pytest.mark.parametrize(("form", "expected"), [("paper", (1 + 4 + 0 + 4) / 4), ("official", (1 + 4 + 0 + 4) / 6)])
def test_golden_values(form, expected):
    """Two real positions of width 2, and one of padding, which the published code counts."""
    student = tensor([[[1.0, 2.0], [3.0, 3.0], [50.0, 50.0]]])
    teacher = tensor([[[0.0, 0.0], [3.0, 1.0], [0.0, 0.0]]])
    loss = embedding_mse(student, teacher, tensor(MASK), form=form)
    assert float(loss) == pytest.approx(expected)
    loss.backward()
    assert student.grad.numpy()[0, 2].tolist() == [0, 0] and teacher.grad is None
