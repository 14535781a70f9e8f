import numpy as np
import pytest

from distill.evaluation import latency


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the calls under test move on."""
    now = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    return now


def test_percentiles_are_of_single_rows_and_throughput_of_all(clock):
    calls = []

    def call(rows):  # 1 ms for row 0, ... 100 ms for row 99, one at a time; 4 s for all together
        calls.append(list(rows))
        clock[0] += 4.0 if len(rows) > 1 else (rows[0] + 1) / 1000

    found = latency.measure(call, range(100), calls=200, warm_up=10)
    times = np.arange(1, 101.0)
    expected = {"p50": 50.5, "p95": np.percentile(times, 95), "p99": np.percentile(times, 99), "mean": 50.5}
    assert found.milliseconds == pytest.approx(expected)
    assert found.calls == 100 and found.samples_per_second == pytest.approx(25.0)
    assert calls == [[i] for i in range(10)] + [[i] for i in range(100)] + [list(range(100))]


def test_the_first_slow_calls_are_not_counted(clock):
    seen = []

    def call(rows):
        clock[0] += 5.0 if len(seen) < 3 else 0.002
        seen.append(rows)

    assert latency.measure(call, ["text"] * 4, warm_up=3).milliseconds["p99"] == pytest.approx(2.0)


def test_timed_rows_are_spread_over_the_split(clock):
    singles = []

    def call(rows):
        clock[0] += 1.0
        singles.extend(rows if len(rows) == 1 else [])

    assert latency.measure(call, range(1000), calls=5, warm_up=0).calls == 5
    assert singles == [0, 249, 499, 749, 999]


def test_a_quick_set_is_repeated_for_a_second(clock):
    wholes = []

    def call(rows):
        clock[0] += 0.3
        wholes.extend([1] if len(rows) > 1 else [])

    assert latency.measure(call, ["a", "b", "c"]).samples_per_second == pytest.approx(10.0)
    assert len(wholes) == 4


def test_real_time_is_measured():
    found = latency.measure(lambda rows: sum(range(20000)), ["a", "b"], calls=2, warm_up=1)
    ms = found.milliseconds
    assert 0 < ms["p50"] <= ms["p95"] <= ms["p99"] < 1000 and found.samples_per_second > 0


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows to measure"):
        latency.measure(print, [])
