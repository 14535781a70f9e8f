"""Requests a second and latency of tools/serve.py at 1, 8 and 64 clients on loopback, and how many requests are lost.

    python benchmarks/serving.py --bundle my_bundle --texts data/glue_data/SST-2/dev.tsv

Each client keeps its connection and sends a text as soon as the one before is answered. An answer counts when it has
status 200 and the label of its own text, which the bundle gave it alone before (in int8 a label may depend on the rows
of its batch, so other labels are counted apart). At last the server gets SIGTERM under load. Writes
results/benchmark_serving.json.
"""

import argparse
import asyncio
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.naming import ROOT


@dataclass
class Load:
    """What some clients saw: milliseconds of each right answer; requests that were lost, and why; answers with another
    label; how many were told that the connection is closed."""

    milliseconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    other_label: int = 0
    told: int = 0
    seconds: float = 0.0


class Server:
    """tools/serve.py in a process of its own, on a free port."""

    def __init__(self, bundle: str, *flags: str) -> None:
        command = [sys.executable, str(ROOT / "tools" / "serve.py"), bundle, "--port", "0", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stderr is not None
        for line in self.process.stdout:
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)$", line):
                self.port = int(found[1])
                return
        sys.exit(f"the server did not start: {self.process.stderr.read()[-2000:]}")

    def end(self) -> int:
        """Its exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


def load(port: int, texts: Sequence[tuple[Any, str]], clients: int, requests: int, seconds: float) -> Load:
    """So many clients at once, until so many requests were sent or the time is over; texts: with their labels."""
    found, turn = Load(), itertools.islice(itertools.cycle(texts), requests)
    started = time.perf_counter()

    async def whole() -> None:
        await asyncio.gather(*(_client(port, turn, started + seconds, found) for _ in range(clients)))

    asyncio.run(whole())
    found.seconds = time.perf_counter() - started
    return found


async def _client(port: int, texts: Iterator[tuple[Any, str]], until: float, found: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for text, label in texts:
        body = json.dumps({"texts": [text]}).encode()
        started = time.perf_counter()
        if started > until:
            break
        try:
            writer.write(b"POST /predict HTTP/1.1\r\nHost: loopback\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            answer = await reader.readexactly(int(re.search(r"content-length: (\d+)", head)[1]))
        except (OSError, EOFError) as error:
            found.lost.append(repr(error))
            break
        taken = 1000 * (time.perf_counter() - started)
        if not head.startswith("http/1.1 200"):
            found.lost.append(f"{head.splitlines()[0]}: {answer[:200].decode()}")
        elif json.loads(answer)["predictions"][0]["label"] == label:
            found.milliseconds.append(taken)
        else:
            found.other_label += 1
        if "connection: close" in head:
            found.told += 1
            break
    writer.close()


def ending(server: Server, texts: Sequence[tuple[Any, str]], clients: int = 8) -> dict[str, Any]:
    """SIGTERM half a second after these clients have begun; each goes on until it is told to stop."""

    async def whole() -> Load:
        found, turn = Load(), iter(itertools.cycle(texts))
        asyncio.get_running_loop().call_later(0.5, server.process.send_signal, signal.SIGTERM)
        await asyncio.gather(*(_client(server.port, turn, time.perf_counter() + 30, found) for _ in range(clients)))
        return found

    found = asyncio.run(whole())
    server.process.communicate(timeout=60)
    return {
        "clients": clients,
        "told_to_stop": found.told,
        "answered": len(found.milliseconds) + found.other_label,
        "lost": len(found.lost),
        "exit_status": server.process.returncode,
    }


def labelled(bundle: str, path: str, column: str | None, most: int) -> list[tuple[Any, str]]:
    """Texts of a file as a request has them, each with the label that the bundle gives it alone."""
    from distill.deploy.predict import Predictor
    from tools.predict import PredictArgs, rows

    predictor = Predictor(bundle)
    texts = [list(row) for row in itertools.islice(rows(PredictArgs(input=path, text_column=column), None), most)]
    plain: list[Any] = [row[0] if len(row) == 1 else row for row in texts]
    return [(text, predictor.predict([text])[0]["label"]) for text in plain]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--texts", required=True, help="txt, tsv, csv or jsonl, as tools/predict.py reads them")
    parser.add_argument("--text_column")
    parser.add_argument("--most_texts", type=int, default=1000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=3000, help="of all clients together, for each number of them")
    parser.add_argument("--seconds", type=float, default=15.0, help="after which nothing more is sent")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_wait_ms", type=float, default=0.0)
    parser.add_argument("--max_batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="of the model; 0: as tools/serve.py says")
    args = parser.parse_args()
    import numpy as np

    from benchmarks.common import save

    texts = labelled(args.bundle, args.texts, args.text_column, args.most_texts)
    flags = [f"--{name}={getattr(args, name)}" for name in ("max_wait_ms", "max_batch", "threads")]
    server = Server(args.bundle, *flags)
    loads: dict[int, list[Load]] = {number: [] for number in args.clients}
    try:
        load(server.port, texts, max(args.clients), 200, args.seconds)  # to warm up
        for _ in range(args.rounds):
            for number in args.clients:
                loads[number].append(load(server.port, texts, number, args.requests, args.seconds))
        at_the_end = ending(server, texts)
    finally:
        server.process.kill()
    found = {}
    for number, rounds in loads.items():
        taken = np.concatenate([one.milliseconds for one in rounds])
        answered = [len(one.milliseconds) + one.other_label for one in rounds]
        rates = [count / one.seconds for count, one in zip(answered, rounds, strict=True)]
        found["1 client" if number == 1 else f"{number} clients"] = {
            "requests_per_second": round(float(np.median(rates)), 1),
            "p50_ms": round(float(np.percentile(taken, 50)), 3),
            "p99_ms": round(float(np.percentile(taken, 99)), 3),
            "answered": sum(answered),
            "lost": sum(len(one.lost) for one in rounds),
            "other_label": sum(one.other_label for one in rounds),
        }
    for line in {reason for rounds in loads.values() for one in rounds for reason in one.lost}:
        print(f"lost: {line}", file=sys.stderr)
    what = "POST /predict with one text, over kept connections on loopback; clients and server share the cores"
    settings = {name: getattr(args, name) for name in ("max_wait_ms", "max_batch", "threads", "rounds")}
    save("serving", {"what": what, "texts": len(texts), **settings, "clients": found, "ending": at_the_end})


if __name__ == "__main__":
    main()
