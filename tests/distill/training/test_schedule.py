import pytest

from distill.training.schedule import learning_rate


def test_linear_with_warmup_steps():
    rate = learning_rate(1.0, total_steps=10, warmup_steps=4)
    assert [rate(step) for step in range(11)] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]
    )


def test_constant_with_warmup_proportion():
    rate = learning_rate(2.0, total_steps=10, warmup_proportion=0.25, kind="constant")  # int(2.5) steps
    assert [rate(step) for step in (0, 1, 2, 9, 50)] == [0, 1.0, 2.0, 2.0, 2.0]


def test_warmup_steps_take_precedence_over_the_proportion():
    assert learning_rate(1.0, 10, warmup_steps=2, warmup_proportion=0.9)(2) == 1.0


def test_without_warmup_the_first_step_has_the_peak():
    assert learning_rate(5e-5, 7)(0) == 5e-5


def test_warmup_longer_than_training_only_rises():
    rate = learning_rate(1.0, 4, warmup_steps=100)
    assert [rate(step) for step in range(4)] == [0, 0.25, 0.5, 0.75]


def test_unknown_schedule():
    with pytest.raises(ValueError, match="cosine"):
        learning_rate(1.0, 4, kind="cosine")
