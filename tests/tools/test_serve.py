"""The server answers every request with its own text's label, under load and while it ends; bad ones get one line."""

import asyncio
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distill.errors import UserError
from tests.tiny import FILLERS, NEGATIVE, NOUNS, POSITIVE
from tests.tools.test_predict import make_bundle, of_bundle
from tools import serve


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


class Running:
    """A server in a process of its own."""

    def __init__(self, bundle, *flags):
        command = [sys.executable, serve.__file__, str(bundle), "--port", "0", "--threads", "1", *map(str, flags)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first, second = self.process.stdout.readline(), self.process.stdout.readline()
        assert first.startswith("self-test passed"), first + second + self.process.stderr.read()
        self.port = int(re.search(r"at http://127\.0\.0\.1:(\d+)$", second)[1])

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method="POST", path="/predict", body=None, headers=(), connection=None):
        """Status and body, read as JSON where it is."""
        connection = connection or self.connection()
        body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        text = answer.read()
        is_json = text and answer.getheader("content-type") == "application/json"
        return answer.status, json.loads(text) if is_json else text

    def end(self, by=signal.SIGTERM):
        """Ask it to end; returns its exit status and what it said."""
        self.process.send_signal(by)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@pytest.fixture(scope="module")
def server(bundle):
    running = Running(
        bundle, "--max_rows", 8, "--max_chars", 60, "--max_body_kb", 4, "--max_queue", 64, "--max_batch", 16
    )
    yield running
    assert running.end() == (0, "")


def texts_of_own(count, seed=0):
    """Texts of known words, no two alike."""
    rng, cut = np.random.default_rng(seed), ("wonderful", "charming", "lovely", "boring", "painful")
    known = [word for word in (*POSITIVE, *NEGATIVE, *NOUNS, *FILLERS) if word not in cut]
    found: set[str] = set()
    while len(found) < count:
        found.add(" ".join(rng.choice(known, 6)))
    return sorted(found)


def is_right(prediction, text):
    label, share = of_bundle(text)
    return prediction["label"] == label and prediction["score"] == pytest.approx(share, abs=1e-5)


def test_a_request_is_answered_row_by_row(server):
    texts = texts_of_own(8)
    status, body = server.ask(body={"texts": texts})
    assert status == 200 and list(body) == ["predictions"] and len(body["predictions"]) == 8
    assert all(map(is_right, body["predictions"], texts))
    assert {prediction["label"] for prediction in body["predictions"]} == {"neg", "pos"}
    for prediction in body["predictions"]:
        assert prediction["probabilities"][prediction["label"]] == prediction["score"]
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    status, body = server.ask(body={"texts": [["a good film", "the plot"], "a bad film"]})
    assert status == 200 and is_right(body["predictions"][1], "a bad film")


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b"{", 400, "the body is not valid JSON (Expecting property name"),
        (b"\xff", 400, "the body is not valid JSON ("),
        (b"", 400, "the body is not valid JSON ("),
        (b"[" * 4000, 400, "the body is not valid JSON ("),
        ([], 422, 'the body must be {"texts": [...]}'),
        ({"text": "a"}, 422, 'the body must be {"texts": [...]}'),
        ({"texts": ["a"], "more": 1}, 422, 'the body must be {"texts": [...]}'),
        ({"texts": []}, 422, 'the body must be {"texts": [...]} with at least one text'),
        ({"texts": "a"}, 422, 'the body must be {"texts": [...]}'),
        ({"texts": ["a"] * 9}, 422, "texts: 9 rows, at most 8 a request"),
        ({"texts": ["a", 1]}, 422, "texts[1]: a text or a pair of texts is needed"),
        ({"texts": [["a", "b", "c"]]}, 422, "texts[0]: a text or a pair of texts is needed"),
        ({"texts": [["a", None]]}, 422, "texts[0]: a text or a pair of texts is needed"),
        ({"texts": ["a", " \n"]}, 422, "texts[1]: the text is empty"),
        ({"texts": ["a" * 61]}, 422, "texts[0]: 61 characters, at most 60 a text"),
        (b'{"texts": ["\\ud800"]}', 422, "texts[0]: half of a surrogate pair"),
        ({"texts": ["a" * 5000]}, 413, "the body has more than 4 kB; send fewer rows at a time"),
        (b"x" * 4096 * 15, 413, "the body has more than 4 kB"),
        (b"x" * 4096 * 17, 413, "the body has more than 4 kB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_requests_are_refused_with_one_line(body, status, line, server):
    found, answer = server.ask(body=body)
    assert found == status and list(answer) == ["error"]
    assert answer["error"].startswith(line) and "\n" not in answer["error"]
    text = "a good film"
    assert is_right(server.ask(body={"texts": [text]})[1]["predictions"][0], text)  # it goes on


def test_a_body_without_its_length_is_limited_too(server):
    def parts():
        for _ in range(9):
            yield b"x" * 512

    connection = server.connection()
    connection.request("POST", "/predict", parts())  # chunked
    answer = connection.getresponse()
    assert answer.status == 413 and "4 kB" in json.loads(answer.read())["error"]


def test_other_paths_and_methods(server):
    for method, path, status, said in (
        ("GET", "/predict", 405, "Method Not Allowed"), ("GET", "/", 404, "Not Found"), ("GET", "/docs", 404, "Not"),
    ):  # fmt: skip
        found, answer = server.ask(method, path)
        assert found == status and answer["error"].startswith(f"{method} {path}: {said}")
        assert answer["error"].endswith("there are POST /predict, GET /healthz, GET /metrics")
    assert server.ask("GET", "/healthz") == (200, {"status": "ok"})
    assert server.ask("HEAD", "/healthz") == (200, b"")
    status, schema = server.ask("GET", "/openapi.json")
    assert status == 200 and schema["paths"]["/predict"]["post"]["requestBody"]["required"]


def test_a_client_that_goes_away_takes_nobody_with_it(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert is_right(server.ask(body={"texts": ["a good film"]})[1]["predictions"][0], "a good film")


def counts(server):
    """The metrics without a comment, by their names and labels."""
    status, text = server.ask("GET", "/metrics")
    assert status == 200
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? \S+', line) for line in lines)
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_every_request_under_concurrent_load_gets_its_own_label(server):
    texts, before = texts_of_own(480, seed=1), counts(server)

    def client(mine):
        connection = server.connection()
        return [(text, *server.ask(body={"texts": [text]}, connection=connection)) for text in mine]

    with ThreadPoolExecutor(16) as pool:
        answers = [answer for part in pool.map(client, (texts[i::16] for i in range(16))) for answer in part]
    assert sorted(text for text, _, _ in answers) == texts
    assert all(status == 200 and is_right(body["predictions"][0], text) for text, status, body in answers)

    after = counts(server)

    def more(name):
        return after[name] - before.get(name, 0)

    assert more("distill_rows_total") == 480 == more('distill_requests_total{path="/predict",status="200"}')
    assert more('distill_labels_total{label="neg"}') + more('distill_labels_total{label="pos"}') == 480
    assert more("distill_request_seconds_count") == 480 == more('distill_request_seconds_bucket{le="+Inf"}')
    assert more("distill_batch_rows_sum") == 480 and after["distill_rows_waiting"] == 0
    batches = more("distill_batch_rows_count")
    assert batches == more("distill_batch_seconds_count") and batches < 480  # some were predicted together
    assert more('distill_batch_rows_bucket{le="16"}') == batches  # none above --max_batch


def test_a_cascades_threshold_and_ctrl_c(bundle, tmp_path):
    own = shutil.copytree(bundle, tmp_path / "bundle")
    settings = json.loads((own / "settings.json").read_text())
    (own / "settings.json").write_text(json.dumps(settings | {"cascade_threshold": 0.8}))
    running, texts = Running(own), texts_of_own(64, seed=3)
    status, body = running.ask(body={"texts": texts})
    shares = [of_bundle(text)[1] for text in texts]
    assert status == 200 and min(shares) < 0.8 < max(shares)
    assert [prediction["sure"] for prediction in body["predictions"]] == [share > 0.8 for share in shares]
    assert running.end(signal.SIGINT) == (0, "")


@pytest.mark.parametrize("kept", [True, False], ids=["kept connections", "a new connection each"])
def test_sigterm_under_load_loses_no_request(kept, bundle):
    """Whatever is sent gets its right answer, until an answer says that the connection is closed."""
    running = Running(bundle)
    texts, lost, right, told = texts_of_own(64, seed=2), [], [], []
    begun = threading.Barrier(9)

    def client(number):
        connection = running.connection()
        begun.wait()
        for i in range(100_000):
            text = texts[(number + 8 * i) % 64]
            try:
                connection.request("POST", "/predict", json.dumps({"texts": [text]}))
                answer = connection.getresponse()
                fine = is_right(json.loads(answer.read())["predictions"][0], text)
                (right if fine else lost).append(text)
            except (OSError, http.client.HTTPException) as error:
                lost.append(f"{text}: {error!r}")
                return
            if answer.getheader("connection") == "close":
                told.append(text)
                return
            if not kept:
                connection.close()

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    begun.wait()
    while len(right) < 100 and not lost:
        time.sleep(0.01)
    assert running.end() == (0, "")
    for thread in clients:
        thread.join(30)
    assert not lost and len(told) == 8 and len(right) >= 100
    with pytest.raises(ConnectionRefusedError):
        running.connection().connect()


def test_sigterm_answers_a_request_that_is_still_being_sent(bundle):
    running, text = Running(bundle), "a good film"
    body = json.dumps({"texts": [text]}).encode()
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        assert running.ask("GET", "/healthz") == (200, {"status": "ok"})
        running.process.send_signal(signal.SIGTERM)
        while running.ask("GET", "/healthz") != (503, {"status": "ending"}):
            time.sleep(0.01)
        assert is_right(running.ask(body={"texts": [text]})[1]["predictions"][0], text)
        with pytest.raises(ConnectionRefusedError):
            for _ in range(1000):
                running.connection().connect()
                time.sleep(0.02)
        client.sendall(body[5:])
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 200 and answer.getheader("connection") == "close"
        assert is_right(json.loads(answer.read())["predictions"][0], text)
    _, said = running.process.communicate(timeout=30)
    assert running.process.returncode == 0 and not said


def arguments(**more):
    return serve.ServeArgs(folder="bundle", **more)


class Slow:
    """A model that waits until it may go on, answers a row with its text, and fails at `bad` ones."""

    pair = False

    def __init__(self):
        self.may, self.batches = threading.Event(), []

    def predict(self, rows):
        assert self.may.wait(10)
        self.batches.append(list(rows))
        if any("bad" in row for row in rows):
            raise RuntimeError("a bad row")
        return [{"label": row, "score": 1.0} for row in rows]


def in_service(model, work, **more):
    """Run `work(service)` while a service of the model works; returns its result."""

    async def whole():
        service = serve.Service(model, arguments(**more))
        working = asyncio.create_task(service.batcher.work())
        found = await work(service)
        service.batcher.close()
        await working
        return found

    return asyncio.run(whole())


def test_rows_that_come_meanwhile_are_predicted_together_in_their_order():
    model = Slow()

    async def work(service):
        first = asyncio.create_task(service.batcher.answers(["row 0"]))
        await asyncio.sleep(0.05)  # the model has it
        rest = [asyncio.create_task(service.batcher.answers([f"row {i}", f"row {i + 1}"])) for i in range(1, 11, 2)]
        await asyncio.sleep(0)
        assert len(service.batcher) == 10
        model.may.set()
        return await asyncio.gather(first, *rest)

    found = in_service(model, work, max_batch=4)
    assert [row["label"] for rows in found for row in rows] == [f"row {i}" for i in range(11)]
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 2]
    assert [row for batch in model.batches for row in batch] == [f"row {i}" for i in range(11)]


def late_rows(waits, **limits):
    """Batches that rows make which ask `waits` seconds after the start, and the seconds until all are answered."""
    model = Slow()
    model.may.set()

    async def work(service):
        async def late(row, seconds):
            await asyncio.sleep(seconds)
            return await service.batcher.answers([row])

        started = time.perf_counter()
        await asyncio.gather(*(late(row, seconds) for row, seconds in waits.items()))
        return time.perf_counter() - started

    seconds = in_service(model, work, **limits)
    return model.batches, seconds


def test_a_row_waits_for_company_so_long():
    batches, seconds = late_rows({"a": 0, "b": 0.05}, max_batch=3, max_wait_ms=400)
    assert batches == [["a", "b"]] and seconds >= 0.4


def test_a_whole_batch_waits_no_longer():
    batches, seconds = late_rows({"c": 0, "d": 0.01, "e": 0.02}, max_batch=3, max_wait_ms=60_000)
    assert batches == [["c", "d", "e"]] and seconds < 30


def test_what_is_queued_is_finished_at_the_end():
    model = Slow()

    async def work(service):
        tasks = [asyncio.create_task(service.batcher.answers([f"row {i}"])) for i in range(9)]
        await asyncio.sleep(0.02)
        service.batcher.close()
        model.may.set()
        return await asyncio.gather(*tasks)

    found = in_service(model, work, max_batch=2, max_wait_ms=10_000)
    assert [rows[0]["label"] for rows in found] == [f"row {i}" for i in range(9)]


def test_a_full_queue_refuses_and_recovers():
    model = Slow()

    async def work(service):
        first = asyncio.create_task(service.batcher.answers(["row"]))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(service.batcher.answers(["row"] * 3))
        await asyncio.sleep(0)
        with pytest.raises(serve.Refused, match="the queue is full .3 rows wait.") as error:
            await service.batcher.answers(["row"] * 2)
        assert error.value.status == 503
        model.may.set()
        await asyncio.gather(first, waiting)
        return await service.batcher.answers(["row"] * 4)

    assert len(in_service(model, work, max_rows=4, max_queue=4)) == 4


def test_a_row_that_fails_fails_alone():
    model = Slow()
    model.may.set()

    async def work(service):
        asked = [service.batcher.answers([row]) for row in ("good 1", "bad", "good 2")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = in_service(model, work, max_wait_ms=20)
    assert (first[0]["label"], third[0]["label"]) == ("good 1", "good 2")
    assert isinstance(second, RuntimeError) and model.batches[0] == ["good 1", "bad", "good 2"]


def test_metrics_escape_labels_and_count_cumulatively():
    metrics = serve.Metrics()
    metrics.labels['a "b"\\\n'] = 2
    for value in (0.001, 0.0015, 9.0):
        metrics.seconds.add(value)
    lines = metrics.text(3).splitlines()
    assert r'distill_labels_total{label="a \"b\"\\\n"} 2' in lines and "distill_rows_waiting 3" in lines
    found = [int(line.split()[-1]) for line in lines if line.startswith("distill_request_seconds_bucket")]
    assert found == [1, *[2] * 11, 3] and "distill_request_seconds_count 3" in lines


def test_refusals_at_the_start(bundle, tmp_path):
    with pytest.raises(UserError, match="--max_rows 9: must be at most --max_queue, 8"):
        serve.main([str(bundle), "--max_rows", "9", "--max_queue", "8"])
    for argv, expected in (
        ([], "give the folder of a bundle"),
        ([str(tmp_path)], f"{tmp_path}: not a bundle; python tools/export.py makes one"),
        ([str(bundle), "--port", "70000"], "--port 70000: must be at most 65535"),
    ):
        with pytest.raises(UserError, match=expected):
            serve.main(argv)
    with serve.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--host 127.0.0.1 --port {port}: cannot listen there"):
            serve.listen("127.0.0.1", port)


def test_answers_are_sent_at_once():
    """A head and a body that are written apart leave together: no waiting for the client to acknowledge the head."""
    with serve.listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_bundle_that_fails_its_self_test_is_not_served(tmp_path):
    spoilt = make_bundle(tmp_path / "bundle")
    golden = json.loads((spoilt / "golden.json").read_text())
    golden["outputs"][0][0] += 1
    (spoilt / "golden.json").write_text(json.dumps(golden))
    done = subprocess.run([sys.executable, serve.__file__, spoilt, "--port", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert "outputs differ from those at export by 1" in done.stderr and "serving" not in done.stdout


@pytest.mark.parametrize(("quota", "found"), [(2.9, 2), (0.5, 1), (16.0, 4), (float("inf"), 4)])
def test_cores_are_those_of_the_containers_quota(quota, found, monkeypatch):
    monkeypatch.setattr(serve.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(serve.runtime, "cpu_quota", lambda: quota)
    assert serve.cores() == found


def test_paddle_is_not_loaded(bundle):
    code = "import sys; from tools import serve; serve.serve = lambda *_: None; serve.main(sys.argv[1:])\n"
    code += "import fastapi, uvicorn; print([name for name in sys.modules if name.startswith('paddle')])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle), "--port", "0"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
