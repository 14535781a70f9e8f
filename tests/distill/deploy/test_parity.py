"""What a hop may change, in numbers that can be checked by hand."""

import dataclasses
import math

import numpy as np
import pytest

from distill.deploy import parity
from distill.deploy.parity import Budget, Gate, compare
from distill.errors import UserError

WAS = np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 0.5], [2.0, 0.0]], np.float32)
NOW = np.array([[1.0, 2.0], [3.0, -1.25], [0.0, -0.25], [2.0, 0.0]], np.float32)  # the third row's class has changed


def right(outputs):
    return float((outputs.argmax(axis=1) == [1, 0, 1, 1]).mean())


def test_a_hop_of_classes():
    hop = compare("int8", "onnx", {"onnx": WAS, "int8": NOW}, "classes", right)
    assert (hop.difference, hop.agreement, hop.metric, hop.drop) == (0.75, 0.75, 0.5, 0.25)
    assert hop.breach(Budget(0.75, 0.75, 0.25)) is None
    assert hop.breach(Budget(0.7, 0.75, 0.25)) == "hop onnx -> int8: outputs differ by 0.75, allowed is 0.7"
    assert hop.breach(Budget(0.75, 0.8, 0.2)) == (
        "hop onnx -> int8: agreement is 0.7500, needed is 0.8; the metric falls by 0.2500, allowed is 0.2"
    )


def test_a_drop_as_large_as_its_budget_is_none_too_large():
    """0.81 - 0.805 is 0.0050000000000000044."""
    hop = compare("bf16", "static", {"static": WAS, "bf16": NOW}, "classes", right)
    hop = dataclasses.replace(hop, drop=0.81 - 0.805)
    assert hop.breach(Budget(1, 0.5, 0.005)) is None and hop.breach(Budget(1, 0.5, 0.0049))


def test_a_metric_that_rises_is_no_drop():
    hop = compare("int8", "onnx", {"onnx": NOW, "int8": WAS}, "classes", right)
    assert hop.drop == -0.25 and hop.breach(Budget(1, 0.5, 0)) is None


def test_hops_of_numbers_and_vectors():
    number = compare("onnx", "static", {"static": WAS[:, :1], "onnx": WAS[:, :1] + 0.5}, "number")
    assert (number.difference, number.agreement, number.metric, number.drop) == (0.5, None, None, None)
    vectors = compare("onnx", "static", {"static": WAS, "onnx": np.array([[2.0, 1.0], *WAS[1:]])}, "vectors")
    assert vectors.agreement == pytest.approx(4 / 5) and vectors.difference == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_beyond_every_budget(value):
    broken = WAS.copy()
    broken[1, 1] = value
    hop = compare("static", "dygraph", {"dygraph": WAS, "static": broken}, "classes", right)
    assert hop.breach(Budget(1e9, 0.0, 1.0))


def test_budgets_of_all_hops_and_of_some():
    assert parity.budgets(None, None, None) == parity.DEFAULTS
    found = parity.budgets("0.5", "int8=0.9,bf16=0.95", None)
    assert {hop: b.max_logit_difference for hop, b in found.items()} == dict.fromkeys(parity.HOPS, 0.5)
    assert [found[hop].min_agreement for hop in ("int8", "bf16", "onnx")] == [0.9, 0.95, 0.995]
    assert found["int8"].max_metric_drop == parity.DEFAULTS["int8"].max_metric_drop
    wider = parity.DEFAULTS | {"bundle": Budget(0.1, 0.9, 0.5)}
    assert parity.budgets("int8=3", "bundle=1.5", None, wider)["bundle"] == Budget(0.1, 1.5, 0.5)


def test_rounded_numbers_may_differ_by_a_share_of_their_range():
    found = parity.defaults_of_numbers(np.array([[-1.0], [3.0], [1.0]], np.float32))
    assert [found[hop].max_logit_difference for hop in ("int8", "bf16")] == [0.2, 0.2]
    assert [found[hop] for hop in ("static", "onnx", "bundle")] == [parity.DEFAULTS["onnx"]] * 3
    assert found["int8"].max_metric_drop == parity.DEFAULTS["int8"].max_metric_drop
    assert parity.budgets("int8=1", None, None, found)["int8"].max_logit_difference == 1


@pytest.mark.parametrize("text", ["", "much", "-1", "nan", "int8=", "int9=1", "int8=1,", "int8=1 onnx=2", "1,2", "=1"])
def test_budgets_that_are_none(text):
    with pytest.raises(UserError, match=f"--max_metric_drop {text}: a number from 0 on") as error:
        parity.budgets(None, None, text)
    assert "\n" not in str(error.value)


def test_a_gate_puts_rows_in_order_and_names_the_hop():
    batches = [(np.array([2, 0]), {"x": WAS[[2, 0]]}), (np.array([1, 3]), {"x": WAS[[1, 3]]})]
    gate = Gate(batches, "classes", right, {"static": Budget(0, 1, 0), "onnx": Budget(0.1, 0, 1)})
    assert gate.answer("dygraph", lambda batch: batch["x"]) is None
    assert np.array_equal(gate.outputs["dygraph"], WAS) and gate.hops["dygraph"].metric == 0.75
    assert gate.answer("static", lambda batch: batch["x"].copy(), "dygraph") is None
    assert gate.answer("onnx", lambda batch: batch["x"] + 0.25, "static") == (
        "hop static -> onnx: outputs differ by 0.25, allowed is 0.1"
    )
    assert gate.add("onnx", WAS, "static") is None


def test_latencies_are_medians_of_the_fastest_rounds(monkeypatch):
    clock = iter(np.cumsum([0.0] + [s for seconds in (5, 1, 2, 9, 3, 3, 4, 4) for s in (seconds, 0)]).tolist())
    monkeypatch.setattr(parity.time, "perf_counter", lambda: next(clock))
    found = parity.latencies({"a": len}, ["x", "y", "z"], [(4, "yyyy")], rounds=2)
    # single rows: fastest of (5, 1), (2, 9), (3, 3) seconds; the batch of four: 4 seconds
    assert (found["a"].single, found["a"].batched) == (2000.0, 1000.0)
