"""What runs and comparisons leave for VisualDL, seen in a real browser on the real server's page."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import aiohttp
import numpy as np
import pytest
from PIL import Image

from distill.training.monitor import Run
from tests.recipes.runs import refused
from tools import dashboard
from tools.comparison import board

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RATES = (5e-05, 1e-04)


class Browser:
    """A headless Chromium with one page, led by the DevTools protocol."""

    def __init__(self, profile):
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"]
        self._process = subprocess.Popen(
            [CHROMIUM, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        try:
            self._loop.run_until_complete(self._connect(profile / "DevToolsActivePort"))
        except BaseException:
            self._process.kill()
            raise

    async def _connect(self, port_file):
        until = time.monotonic() + 120
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert time.monotonic() < until and self._process.poll() is None, "Chromium does not start"
            await asyncio.sleep(0.1)
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port_file.read_text().split()[0]}/json") as answer:
            (page,) = [target for target in await answer.json() if target["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    async def _call(self, method, **parameters):
        await self._socket.send_json({"id": 1, "method": method, "params": parameters})
        while (answer := await self._socket.receive_json()).get("id") != 1:
            pass
        return answer["result"]

    def open(self, address):
        self._loop.run_until_complete(self._call("Page.navigate", url=address))
        self.until(f"location.href === {json.dumps(address)} && !!document.body")  # no longer what was there

    def value(self, expression):
        """What the page's JavaScript makes of it; None where it fails."""
        answer = self._loop.run_until_complete(
            self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        )
        return answer["result"].get("value")

    def until(self, expression, seconds=60):
        """Its first value that is true."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}; the page says: {self.text()}"
            time.sleep(0.1)
        return found

    def click(self, *words):
        """Each element that says one of them and nothing else."""
        self.value(
            "[...document.querySelectorAll('*')].filter(e => !e.children.length)"
            f".filter(e => {json.dumps(words)}.includes(e.textContent)).forEach(e => e.click())"
        )

    def text(self):
        return self.value("document.body.innerText")

    def close(self):
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium in PATH: what the page shows is not looked at (Debian: apt install chromium)")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two finished runs, one that has not been evaluated yet, and a comparison."""
    folder = tmp_path_factory.mktemp("logs")
    for rate in RATES:
        settings = {"learning_rate": rate, "layers": (0, 3), "pair": True, "preset": None, "save_steps": 7}
        run = Run(folder / f"rate-{rate}", settings, cosmetic={"save_steps"})
        run.begin(0, "accuracy")
        for step in range(1, 41):
            run.record(step, step / 20, loss=2 / step, losses={"hard": 1 / step, "soft": 1 / step}, lr=rate)
            if step % 10 == 0:
                run.record(step, step / 20, dev={"accuracy": {10: 0.5, 20: 0.8125, 30: 0.75, 40: 0.625}[step] + rate})
        run.close()
        found = {"accuracy": 0.8125 + rate, "modelSize": "1.5 MB", "versions": {"numpy": "1.26"}}
        (run.output_dir / "results_eval.json").write_text(json.dumps(found))
        run.finish(steps=40)
    begun = Run(folder / "begun", {"learning_rate": 0.5, "layers": (0, 3)})
    begun.begin(0, "accuracy")
    begun.record(1, 0.1, loss=3.0, losses={"hard": 3.0}, lr=0.5)
    begun.close()
    Image.fromarray(np.full((30, 50, 4), (200, 30, 60, 255), np.uint8)).save(folder / "chart.png")
    student = {
        "method": "kd", "layers": 2, "hidden": 32, "steps": 40, "parameters": 9000, "agreement": 0.96875,
        "score": {"mean": 0.875, "seeds": [1, 2]}, "control": {"mean": 0.0625}, "latency_ms": {"p50": 1.5, "p95": 2.5},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "texts", lambda result: {"comparison/kd": "the student keeps 98.5 %"})
        result = {"metric": "accuracy", "students": [student]}
        board.write_board(result, [folder / "chart.png"], folder / "comparison")
    return folder


@contextlib.contextmanager
def serving(logs, *words):
    """The tool as a user starts it."""
    process = subprocess.Popen(
        [sys.executable, dashboard.__file__, str(logs), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def page(logs):
    with serving(logs, "--port", "0") as process:
        address, _, words = process.stdout.readline().partition(" ")
        assert address.startswith("http://127.0.0.1:") and "Ctrl-C" in words
        yield address


# In the page

COLOURED = """[...document.querySelectorAll('canvas')].filter(c => c.width && c.height).filter(c => {
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let coloured = 0;
  for (let i = 0; i < d.length; i += 4)
    coloured += d[i + 3] > 200 && Math.max(d[i], d[i + 1], d[i + 2]) - Math.min(d[i], d[i + 1], d[i + 2]) > 100;
  return coloured > 10;
})"""


def test_the_curves_are_drawn(browser, page):
    browser.open(f"{page}/scalar")
    browser.until("document.querySelectorAll('canvas').length >= 2")
    text = browser.text()
    assert all(f"rate-{rate}/vdl" in text for rate in RATES) and "begun/vdl" in text
    browser.click("dev", "loss", "train")
    # The comparison's five; accuracy, its best, the losses hard, soft and all, and the learning rate.
    browser.until(COLOURED + ".length === 5 + 6")


def test_the_table_of_hyper_parameters(browser, page):
    browser.open(f"{page}/hyper-parameter")
    names = [*(f"rate-{rate}/vdl" for rate in RATES), "begun/vdl", "comparison/kd"]
    browser.until(f"{json.dumps(['Trial ID', *names])}.every(name => document.body.innerText.includes(name))")
    lines = browser.text().split("\n")
    starts = {name: next(i for i, line in enumerate(lines) if line.endswith(name)) for name in names}
    columns = lines[lines.index("Trial ID") + 1 : min(starts.values())]
    table = {
        name: dict(zip(columns, lines[at + 1 : at + 1 + len(columns)], strict=True)) for name, at in starts.items()
    }
    assert "save_steps" not in columns and "preset" not in columns  # they change nothing, or are not set
    for name, rate in zip(names, ("0.00005", "0.0001", "0.5"), strict=False):
        assert (table[name]["learning_rate"], table[name]["layers"]) == (rate, "[0, 3]")
    scores = [float(table[name]["dev/best_accuracy"]) for name in names]
    assert scores == pytest.approx([0.81255, 0.8126, np.nan, np.nan], abs=1e-6, nan_ok=True)  # not those of the end
    assert table["comparison/kd"]["comparison/accuracy"] == "0.875" and table["comparison/kd"]["parameters"] == "9000"


def test_the_texts(browser, page):
    browser.open(f"{page}/sample/text")
    browser.until("document.body.innerText.includes('the student keeps 98.5 %')")
    browser.click("run")
    browser.until("document.body.innerText.includes('run/command')")
    browser.click("run/command", "run/results")
    browser.until("document.body.innerText.includes('modelSize 1.5 MB')")
    text = browser.text()
    assert f"accuracy {0.8125 + RATES[1]}, modelSize 1.5 MB\n" in text and "\npython " in text


def test_the_picture(browser, page):
    browser.open(f"{page}/sample/image")
    browser.until("document.body.innerText.includes('comparison/chart')")
    width, height, *colour = browser.until(
        "(() => { const i = [...document.images].find(i => i.naturalWidth === 50); if (!i || !i.complete) return null;"
        " const c = document.createElement('canvas'); c.width = 50; c.height = 30; const g = c.getContext('2d');"
        " g.drawImage(i, 0, 0); return [i.naturalWidth, i.naturalHeight, ...g.getImageData(25, 15, 1, 1).data]; })()"
    )
    assert (width, height) == (50, 30) and colour == [200, 30, 60, 255]


# The tool


def test_it_waits_until_the_page_answers_and_ends_its_server(logs):
    with serving(logs, "--port", "0") as process:
        port = int(process.stdout.readline().split()[0].split(":")[2].split("/")[0])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and not out and not err
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.fixture
def handlers(monkeypatch):
    """Those of the tests stay."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_a_port_that_is_taken(logs, handlers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}: " in refused(dashboard.main, [str(logs), "--port", str(port)], logs)


def test_folders_without_runs(tmp_path):
    assert f"{tmp_path}/no: no such folder" in refused(dashboard.main, [f"{tmp_path}/no"], tmp_path)
    (tmp_path / "a").mkdir()
    assert "no run below it has written a vdl folder yet" in refused(dashboard.main, [str(tmp_path)], tmp_path)


def test_a_server_that_does_not_start(logs, tmp_path, handlers, monkeypatch):
    (tmp_path / "python").write_text("#!/bin/sh\necho 'cannot import visualdl' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "does not start: cannot import visualdl" in refused(dashboard.main, [str(logs), "--port", "0"], logs)
