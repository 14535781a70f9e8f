"""The curve by hand and at its ends, the suggested threshold, and what it does to rows it was not chosen on."""

import numpy as np
import pytest

from distill.data.tasks import get_task
from distill.evaluation.cascade import answers, curve, held_out

SST2, COLA, STSB = map(get_task, ("SST-2", "CoLA", "STS-B"))


def says(answers, sure):
    """Logits [n, 2] with those answers and probabilities."""
    logits = np.zeros((len(answers), 2))
    logits[np.arange(len(answers)), answers] = np.log(np.asarray(sure) / (1 - np.asarray(sure)))
    return logits


LABELS = np.array([1, 1, 1, 1])
STUDENT = says([0, 1, 1, 1], [0.6, 0.7, 0.8, 0.9])
TEACHER = says([1, 1, 1, 0], [0.9, 0.9, 0.9, 0.9])


def test_by_hand():
    """The student errs where it is least sure, the teacher where the student is surest."""
    found = curve(STUDENT, TEACHER, LABELS, SST2)
    assert found.thresholds == pytest.approx([0, 0.65, 0.75, 0.85, 1])
    assert found.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.scores.tolist() == [0.75, 1, 1, 1, 0.75]
    assert found.suggested(0.0) == 0 and found.suggested(0.5) == 0


def test_the_first_point_that_reaches_the_teacher():
    teacher = says([1, 1, 1, 1], [0.9] * 4)
    found = curve(STUDENT, teacher, LABELS, SST2)
    assert found.suggested(0.0) == 1 and found.suggested(0.24) == 1 and found.suggested(0.25) == 0
    hopeless = curve(says([0, 0, 0, 0], [0.6, 0.7, 0.8, 0.9]), teacher, LABELS, SST2)
    assert hopeless.suggested(0.1) == 4 and hopeless.shares[4] == 1


def test_the_ends_are_the_two_models():
    rng = np.random.default_rng(0)
    student, teacher, labels = rng.normal(size=(500, 3)), rng.normal(size=(500, 3)), rng.integers(0, 3, 500)
    task = get_task("MNLI")
    found = curve(student, teacher, labels, task, points=21)
    assert len(found.thresholds) == 21 and (np.diff(found.thresholds) > 0).all() and (np.diff(found.shares) >= 0).all()
    assert (found.shares[0], found.shares[-1]) == (0, 1)
    assert found.scores[0] == pytest.approx((student.argmax(1) == labels).mean())
    assert found.scores[-1] == pytest.approx((teacher.argmax(1) == labels).mean())


def test_points_are_spread_over_the_rows():
    rng = np.random.default_rng(0)
    sure = 1 - rng.random(1000) ** 4 / 2  # most rows are very sure
    student = says(rng.integers(0, 2, 1000), sure.clip(0.5001, 0.9999999))
    found = curve(student, student[::-1], rng.integers(0, 2, 1000), SST2, points=11)
    assert np.diff(found.shares).max() < 0.15


def test_certain_students_and_equal_ones():
    """Probability 1 goes to the teacher at threshold 1; rows that are equally sure go together."""
    student = np.array([[0.0, 800.0], [0.0, 800.0], [1.0, 0.0]])
    logits, asked = answers(student, -student, 1.0)
    assert asked.all() and np.array_equal(logits, -student)
    found = curve(student, -student, np.array([1, 1, 0]), SST2)
    assert found.shares == pytest.approx([0, 1 / 3, 1])


def test_the_tasks_own_metric():
    labels = np.array([0, 1, 0, 1])
    student, teacher = says([0, 0, 0, 0], [0.9, 0.6, 0.9, 0.6]), says(labels, [0.9] * 4)
    assert curve(student, teacher, labels, COLA).scores.tolist() == [0, 1, 1]


def test_held_out_is_worse_than_what_was_chosen():
    """Student and teacher guess: the best threshold on some rows is luck, which does not last."""
    rng = np.random.default_rng(5)
    student, teacher = (rng.normal(size=(400, 2)) for _ in range(2))
    labels = rng.integers(0, 2, 400)
    share, score = held_out(student, teacher, labels, SST2, 0.0)
    assert 0 <= share <= 1 and score < curve(student, teacher, labels, SST2).scores.max()


def test_held_out_of_a_clear_case():
    """The student knows what it does not know: 100 of 400 rows, which the teacher has right."""
    labels = np.zeros(400, int)
    unsure = np.arange(400) % 4 == 0
    student = says(np.where(unsure, 1, 0), np.where(unsure, 0.6, 0.9))
    assert held_out(student, says(labels, [0.9] * 400), labels, SST2, 0.0) == (0.25, 1.0)


def test_what_has_no_cascade():
    with pytest.raises(ValueError, match="classes"):
        curve(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros(2), STSB)
    with pytest.raises(ValueError):
        curve(np.zeros((2, 2)), np.zeros((3, 2)), np.zeros(2, int), SST2)
    with pytest.raises(ValueError):
        curve(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, int), SST2)
