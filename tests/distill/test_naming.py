"""Names of runs, in the published spelling."""

import re
from typing import Any

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


ID = re.compile(
    r"(?P<prefix>.+)_epoch-(?P<epochs>\d+)_lr-(?P<learning_rate>[^_]+)_wd-(?P<weight_decay>[^_]+)"
    r"(_kd_alpha-(?P<alpha>[^_]+))?(_kd_beta-(?P<beta>[^_]+))?"
)


@pytest.mark.parametrize(
    "name",
    [
        "SST-2_epoch-3_lr-2e-5_wd-0.0001",
        "MRPC_epoch-5_lr-1e-5_wd-0.001",
        "CoLA_epoch-5_lr-1e-5_wd-0.01",
        "bert-kd-distl_epoch-5_lr-5e-5_wd-0.0001_kd_alpha-0.8",
        "bert-lstm_32-distl_epoch-5_lr-1e-4_wd-0.0001_kd_alpha-0.7",
        "bert-distilled_lstm_epoch-30_lr-5e-6_wd-0.001_kd_alpha-0.7",
        "bert-pkd_3_epoch-100_lr-5e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10",
        "tinybert_epoch-5_lr-1e-4_wd-0.0001",
    ],
)
def test_published_names_and_their_numbers_give_each_other(name: str) -> None:
    match = ID.fullmatch(name)
    assert match is not None
    values: dict[str, Any] = {
        key: float(value) for key, value in match.groupdict().items() if value and key != "prefix"
    }
    values["epochs"] = int(values["epochs"])
    assert naming.run_id(match["prefix"], **values) == name


@pytest.mark.parametrize(("rate", "spelt"), [(1.0, "1"), (1e-3, "0.001"), (3e-4, "3e-4"), (1.5e-4, "1.5e-4")])
def test_learning_rates(rate: float, spelt: str) -> None:
    assert naming.run_id("x", epochs=1, learning_rate=rate, weight_decay=0) == f"x_epoch-1_lr-{spelt}_wd-0"


def test_default_folders() -> None:
    assert naming.teacher_dir("SST-2", "ID").relative_to(naming.ROOT).as_posix() == "models/teacher_model/SST-2/ID"
    assert naming.student_dir("kd", "RTE", "ID").relative_to(naming.ROOT).as_posix() == "models/student_model/kd/RTE/ID"
