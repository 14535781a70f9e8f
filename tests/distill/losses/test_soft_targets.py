import numpy as np
import paddle
import pytest

from distill.losses.soft_targets import (
    hard_cross_entropy,
    kl_divergence,
    label_mse,
    logit_losses,
    logit_mse,
    soft_cross_entropy,
)
from distill.options import SoftTargetOptions

S = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
T = np.array([[2.0, 0.0, -1.0], [1.0, 1.0, 4.0]])


def tensor(array, grad=True, dtype="float32"):
    return paddle.to_tensor(np.asarray(array, dtype), stop_gradient=not grad)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def close(loss, expected):
    assert loss.shape == []
    np.testing.assert_allclose(float(loss), expected, rtol=2e-6)


def test_hard_cross_entropy_by_hand():
    # Logits ln 1, ln 3 give probabilities 1/4 and 3/4; equal logits give 1/2.
    logits = tensor([[0.0, np.log(3.0)], [0.0, np.log(3.0)], [5.0, 5.0]])
    close(hard_cross_entropy(logits, paddle.to_tensor([0, 1, 0])), (np.log(4) + np.log(4 / 3) + np.log(2)) / 3)


def test_hard_cross_entropy_leaves_unlabelled_rows_out():
    logits = tensor(np.vstack([S, [[9.0, 9.0, -9.0]]]))
    loss = hard_cross_entropy(logits, paddle.to_tensor([2, 1, -1]))
    p = softmax(S)
    close(loss, -(np.log(p[0, 2]) + np.log(p[1, 1])) / 2)
    loss.backward()
    expected = np.vstack([(p - np.eye(3)[[2, 1]]) / 2, np.zeros((1, 3))])
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-7)


def test_hard_cross_entropy_without_any_label_is_zero_with_zero_gradient():
    logits = tensor(S)
    loss = hard_cross_entropy(logits, paddle.to_tensor([-1, -1]))
    loss.backward()
    assert float(loss) == 0.0 and not logits.grad.numpy().any()


@pytest.mark.parametrize("shape", [(3, 1), (3,)])
def test_label_mse_by_hand(shape):
    student = tensor(np.array([1.0, 2.0, 9.0]).reshape(shape))
    loss = label_mse(student, tensor([0.0, 4.0, np.nan], grad=False))
    close(loss, (1 + 4) / 2)
    loss.backward()
    np.testing.assert_allclose(student.grad.numpy().ravel(), [1.0, -2.0, 0.0])


def test_label_mse_keeps_the_labels_precision():
    """A student in half precision, as in mixed precision: 1999 is 2000 there, and 100,000 infinite."""
    student = tensor([[2000.0], [50016.0]], dtype="float16")  # both are exact there
    loss = label_mse(student, tensor([1999.0, 100016.0], grad=False))
    close(loss, (1 + 50000.0**2) / 2)
    loss.backward()
    assert loss.dtype == paddle.float32 and student.grad.dtype == paddle.float16


def test_label_mse_without_any_label_is_zero_with_zero_gradient():
    student = tensor([[1.0], [2.0]])
    loss = label_mse(student, tensor([np.nan, np.nan], grad=False))
    loss.backward()
    assert float(loss) == 0.0 and not student.grad.numpy().any()


def test_label_mse_refuses_two_outputs():
    with pytest.raises(ValueError, match="one prediction per label"):
        label_mse(tensor(np.zeros((3, 2))), tensor(np.zeros(3)))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 10.0])
@pytest.mark.parametrize("scale_t2", [False, True])
@pytest.mark.parametrize(("reduction", "divisor"), [("batchmean", 2), ("mean", 6)])
def test_soft_targets_against_float64(temperature, scale_t2, reduction, divisor):
    p, q = softmax(T / temperature), softmax(S / temperature)
    factor = (temperature**2 if scale_t2 else 1) / divisor
    arguments = (tensor(S), tensor(T), temperature, scale_t2, reduction)
    close(soft_cross_entropy(*arguments), -(p * np.log(q)).sum() * factor)
    close(kl_divergence(*arguments), (p * np.log(p / q)).sum() * factor)


def test_soft_cross_entropy_golden_for_two_classes():
    # Teacher 3/4, 1/4 and student 1/4, 3/4: -(3/4 ln 1/4 + 1/4 ln 3/4) = 1.1116421...; KL = 1/2 ln 3.
    student, teacher = tensor([[0.0, np.log(3.0)]]), tensor([[np.log(3.0), 0.0]])
    close(soft_cross_entropy(student, teacher), 1.1116420935410995)
    close(kl_divergence(student, teacher), 0.5493061443340548)


@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence])
def test_gradient_is_q_minus_p_over_temperature(loss):
    student, teacher = tensor(S), tensor(T)
    loss(student, teacher, temperature=2.0).backward()
    np.testing.assert_allclose(student.grad.numpy(), (softmax(S / 2) - softmax(T / 2)) / 2 / 2, atol=1e-7)
    assert teacher.grad is None


def test_kl_is_zero_for_the_teacher_itself_and_finite_for_extreme_logits():
    assert float(kl_divergence(tensor(T), tensor(T), temperature=3.0)) == pytest.approx(0.0, abs=1e-7)
    student = tensor([[-500.0, 500.0]])
    loss = kl_divergence(student, tensor([[500.0, -500.0]]))
    close(loss, 1000.0)
    loss.backward()
    np.testing.assert_allclose(student.grad.numpy(), [[-1.0, 1.0]])


def test_logit_mse_by_hand():
    student, teacher = tensor(S), tensor(T)
    loss = logit_mse(student, teacher)
    close(loss, (1 + 4 + 2.25 + 1 + 4 + 25) / 6)
    loss.backward()
    np.testing.assert_allclose(student.grad.numpy(), 2 * (S - T) / 6, rtol=1e-6)
    assert teacher.grad is None
    close(logit_mse(tensor([[2.0], [0.0]]), tensor([[1.0], [0.0]])), 0.5)


@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence, logit_mse])
def test_logits_of_different_shapes_are_refused(loss):
    for wrong in (np.zeros((2, 2)), np.zeros((1, 3)), np.zeros(3)):
        with pytest.raises(ValueError, match=r"must both be \[B, C\]"):
            loss(tensor(S), tensor(wrong))


@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence])
def test_what_has_no_meaning_is_refused(loss):
    with pytest.raises(ValueError, match="for regression use logit_mse"):
        loss(tensor([[1.0]]), tensor([[2.0]]))
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        loss(tensor(S), tensor(T), temperature=0)
    with pytest.raises(ValueError, match="choose batchmean or mean"):
        loss(tensor(S), tensor(T), reduction="sum")


LABELS = np.array([2, 0])
BATCH = {"logits": paddle.to_tensor(T.astype("float32")), "labels": paddle.to_tensor(LABELS)}


def cross_entropy(logits):
    return -np.log(softmax(logits)[np.arange(2), LABELS]).mean()


def test_alpha_weights_the_teacher_and_what_is_left_the_labels():
    named = logit_losses(SoftTargetOptions(alpha=0.2), regression=False)(tensor(S), BATCH)
    p, q = softmax(T), softmax(S)
    close(named["teacher"], 0.2 * (p * np.log(p / q)).sum() / 2)
    close(named["label"], 0.8 * cross_entropy(S))


def test_a_part_of_weight_0_is_left_out_and_needs_nothing_of_the_batch():
    only_labels = logit_losses(SoftTargetOptions(alpha=0.0), regression=False)(tensor(S), {"labels": BATCH["labels"]})
    close(only_labels.pop("label"), cross_entropy(S))
    only_teacher = logit_losses(SoftTargetOptions(alpha=1.0), regression=False)(tensor(S), {"logits": BATCH["logits"]})
    assert not only_labels and only_teacher.keys() == {"teacher"}


@pytest.mark.parametrize("scale_t2", [True, False])
@pytest.mark.parametrize(("reduction", "divisor"), [("batchmean", 2), ("mean", 6)])
def test_temperature_and_reduction_of_the_published_systems(scale_t2, reduction, divisor):
    options = SoftTargetOptions(alpha=0.7, T=10.0, scale_t2=scale_t2, soft_reduction=reduction)
    p, q = softmax(T / 10), softmax(S / 10)
    expected = 0.7 * (p * np.log(p / q)).sum() / divisor * (100 if scale_t2 else 1)
    np.testing.assert_allclose(float(logit_losses(options, False)(tensor(S), BATCH)["teacher"]), expected, rtol=1e-4)


def test_squared_error_of_logits_by_flag_and_in_regression():
    by_flag = logit_losses(SoftTargetOptions(alpha=0.5, T=3.0, soft_loss="mse"), regression=False)(tensor(S), BATCH)
    close(by_flag["teacher"], 0.5 * ((S - T) ** 2).mean())
    batch = {"logits": tensor([[1.0], [2.0]]), "labels": tensor([0.0, 4.0])}
    named = logit_losses(SoftTargetOptions(alpha=0.25), regression=True)(tensor([[3.0], [2.0]]), batch)
    close(named["teacher"], 0.25 * (4 + 0) / 2)
    close(named["label"], 0.75 * (9 + 4) / 2)
