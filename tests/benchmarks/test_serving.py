"""The load counts what is answered and what is lost, and the result is written in the form of the other benchmarks."""

import json
import sys
import threading

from benchmarks import serving
from tests.tools.test_predict import make_bundle
from tests.tools.test_serve import texts_of_own


def test_the_benchmark(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts_of_own(20)))
    monkeypatch.setattr("benchmarks.common.ROOT", tmp_path)
    flags = ["--clients", "1", "4", "--requests", "50", "--rounds", "2", "--threads", "1"]
    argv = ["benchmarks/serving.py", "--bundle", str(bundle), "--texts", str(tmp_path / "texts.txt"), *flags]
    monkeypatch.setattr(sys, "argv", argv)
    serving.main()
    written = json.loads((tmp_path / "results" / "benchmark_serving.json").read_text())
    assert list(written["clients"]) == ["1 client", "4 clients"] and written["texts"] == 20
    for found in written["clients"].values():
        assert (found["answered"], found["lost"], found["other_label"]) == (100, 0, 0)
        assert 0 < found["p50_ms"] <= found["p99_ms"] and found["requests_per_second"] > 0
    ending = written["ending"]
    assert (ending["clients"], ending["told_to_stop"], ending["lost"], ending["exit_status"]) == (8, 8, 0, 0)
    assert ending["answered"] >= 8 and "hardware" in written and "versions" in written


def answering(*answers):
    """A server that gives one connection these answers, then closes it; its port."""
    import socket

    listening = socket.create_server(("127.0.0.1", 0))

    def work():
        with listening, listening.accept()[0] as connection:
            for answer in answers:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=work, daemon=True).start()
    return listening.getsockname()[1]


def http(status, body, *headers):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_what_is_lost_and_what_is_not():
    right, other = (json.dumps({"predictions": [{"label": label}]}).encode() for label in ("pos", "neg"))
    port = answering(http(200, right), http(200, other), http(500, b"{}"), b"")
    found = serving.load(port, [("a", "pos")], clients=1, requests=9, seconds=9)
    assert (len(found.milliseconds), found.other_label, found.told) == (1, 1, 0)
    assert len(found.lost) == 2 and found.lost[0].startswith("http/1.1 500") and "IncompleteRead" in found.lost[1]
    port = answering(http(200, right), http(200, right, "Connection: close"))
    found = serving.load(port, [("a", "pos")], clients=1, requests=9, seconds=9)
    assert (len(found.milliseconds), found.told, found.lost) == (2, 1, [])


def test_it_ends_by_count_and_by_time():
    right = http(200, json.dumps({"predictions": [{"label": "pos"}]}).encode())
    found = serving.load(answering(*[right] * 5), [("a", "pos")], clients=1, requests=3, seconds=9)
    assert len(found.milliseconds) == 3 and not found.lost
    found = serving.load(answering(*[right] * 5), [("a", "pos")], clients=1, requests=3, seconds=-1)
    assert not found.milliseconds and not found.lost and found.seconds < 5
