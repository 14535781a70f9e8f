"""Names of runs, in the published spelling."""

import pytest

from distill import naming


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (2e-5, "2e-5"),
        (1e-4, "0.0001"),
        (0.0001, "0.0001"),
        (1.0, "1"),
        (0.8, "0.8"),
        (5e-6, "5e-6"),
        (10, "10"),
        (0.01, "0.01"),
        (0, "0"),
    ],
)
def test_numbers(value: float, name: str) -> None:
    assert naming.short(value) == name


def test_published_run_names() -> None:
    assert (
        naming.run_id("SST-2", epochs=3, learning_rate=2e-5, weight_decay=0.0001) == "SST-2_epoch-3_lr-2e-5_wd-0.0001"
    )
    pkd = naming.run_id("bert-pkd_3", epochs=4, learning_rate=2e-5, weight_decay=0.0001, alpha=0.2, beta=10)
    assert pkd == "bert-pkd_3_epoch-4_lr-2e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10"


def test_default_folders() -> None:
    assert naming.teacher_dir("SST-2", "ID").relative_to(naming.ROOT).as_posix() == "models/teacher_model/SST-2/ID"
    assert naming.student_dir("kd", "RTE", "ID").relative_to(naming.ROOT).as_posix() == "models/student_model/kd/RTE/ID"
