"""Serve a bundle over HTTP, without paddle: POST /predict, GET /healthz, GET /metrics (Prometheus).

    python tools/serve.py my_bundle --port 8080

    POST /predict   {"texts": ["a text", ...]}, or {"texts": [["first", "second"], ...]} for pairs
    answer          {"predictions": [{"label": "1", "score": 0.98, "probabilities": {"0": 0.02, "1": 0.98}}, ...]}

Rows of all requests wait in one queue and are predicted together, at most --max_batch at a time: whatever has come in
while the batch before was predicted, so that one client waits for nobody and many clients share the work. A request
that is refused gets {"error": "..."}, one line, with status 400 (not JSON), 408 (its body does not come), 413 (body too
large), 422 (not such texts, too many or too long) or 503 (the queue is full).

After SIGTERM or Ctrl-C /healthz says 503 and every answer closes its connection; what is still sent is answered, until
nothing has come for a quarter of a second (three seconds at most). Then what is open is finished, and the process ends
with status 0.
"""

import asyncio
import bisect
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.options import option

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

Row = str | list[str]
_BODY_SECONDS = 30.0  # in which a request's body must have come
_QUIET_SECONDS, _ENDING_SECONDS = 0.25, 3.0


@dataclass
class ServeArgs:
    """Serve a bundle."""

    folder: str = field(default="", positional=True, help="folder that tools/export.py wrote")
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 is every one of this machine")
    port: int = option(8080, "port to listen on; 0: any that is free", low=0, high=65535)
    max_batch: int = option(32, "rows predicted at once", low=1)
    max_wait_ms: float = option(
        0.0, "milliseconds a row waits for company when the model is idle; it delays a lone client by as much", low=0
    )
    max_rows: int = option(256, "rows a request", low=1)
    max_chars: int = option(10_000, "characters a text", low=1)
    max_body_kb: int = option(1024, "kilobytes a request's body", low=1)
    max_queue: int = option(4096, "rows that wait; a request that does not fit is refused with 503", low=1)
    threads: int = option(0, "threads of ONNX Runtime; 0: one for each core but one, which HTTP needs", low=0)

    def __post_init__(self) -> None:
        if self.max_rows > self.max_queue:
            raise UserError(f"--max_rows {self.max_rows}: must be at most --max_queue, {self.max_queue}")


class Model(Protocol):
    """What is served: `distill.deploy.predict.Predictor`."""

    pair: bool | None

    def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]: ...


class Refused(Exception):
    """A request that is answered with this status and line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


def _metric(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]


class Histogram:
    """How many values were at most each bound, as Prometheus counts."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, what: str) -> Iterator[str]:
        yield from _metric(name, "histogram", what)
        for bound, count in zip([*self._bounds, "+Inf"], itertools.accumulate(self._counts), strict=True):
            yield f'{name}_bucket{{le="{bound}"}} {count}'
        yield from (f"{name}_sum {self._sum}", f"{name}_count {sum(self._counts)}")


class Metrics:
    """What /metrics tells."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.labels: Counter[str] = Counter()
        self.rows = 0
        self.seconds = Histogram((0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0))
        self.batch_rows = Histogram((1, 2, 4, 8, 16, 32, 64, 128, 256))
        self.batch_seconds = Histogram((0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0))

    def text(self, waiting: int) -> str:
        """In Prometheus' format; waiting: rows in the queue."""
        lines = _metric("distill_requests_total", "counter", "Answered requests.")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'distill_requests_total{{path="{path}",status="{status}"}} {count}')
        lines += [*_metric("distill_rows_total", "counter", "Predicted rows."), f"distill_rows_total {self.rows}"]
        lines += _metric("distill_labels_total", "counter", "Predicted rows by their label.")
        for label, count in sorted(self.labels.items()):
            escaped = label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            lines.append(f'distill_labels_total{{label="{escaped}"}} {count}')
        lines += [*_metric("distill_rows_waiting", "gauge", "Rows in the queue."), f"distill_rows_waiting {waiting}"]
        lines += self.seconds.lines("distill_request_seconds", "Seconds from a request of /predict to its answer.")
        lines += self.batch_rows.lines("distill_batch_rows", "Rows predicted at once.")
        lines += self.batch_seconds.lines("distill_batch_seconds", "Seconds the model took for a batch.")
        return "\n".join([*lines, ""])


class Batcher:
    """Rows of all requests in the order in which they come, predicted together in a thread of their own."""

    def __init__(
        self, predict: Callable[[Sequence[Row]], list[dict[str, Any]]], args: ServeArgs, metrics: Metrics
    ) -> None:
        self._predict, self._args, self._metrics = predict, args, metrics
        self._waiting: deque[tuple[Row, asyncio.Future[dict[str, Any]], float]] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._closing = False

    def __len__(self) -> int:
        """How many rows wait."""
        return len(self._waiting)

    async def answers(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The predictions of a request's rows. Raises Refused when the queue has no room for them."""
        if len(self._waiting) + len(rows) > self._args.max_queue:
            raise Refused(503, f"the queue is full ({len(self._waiting)} rows wait); try again in a moment")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        now = loop.time()
        self._waiting.extend((row, future, now) for row, future in zip(rows, futures, strict=True))
        self._arrived.set()
        if len(self._waiting) >= self._args.max_batch:
            self._full.set()
        return await asyncio.gather(*futures)

    async def work(self) -> None:
        """Predict what comes, until `close` was called and the queue is empty."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            while True:
                await self._arrived.wait()
                if not self._waiting:
                    return
                await self._company(self._waiting[0][2] + self._args.max_wait_ms / 1000 - loop.time())
                batch = [self._waiting.popleft() for _ in range(min(self._args.max_batch, len(self._waiting)))]
                if not self._waiting and not self._closing:
                    self._arrived.clear()
                started = loop.time()
                found = await loop.run_in_executor(thread, self._outcomes, [row for row, _, _ in batch])
                self._metrics.batch_seconds.add(loop.time() - started)
                self._metrics.batch_rows.add(len(batch))
                for (_, future, _), outcome in zip(batch, found, strict=True):
                    if future.done():  # nobody waits for it any more
                        continue
                    if isinstance(outcome, Exception):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
                        self._metrics.rows += 1
                        self._metrics.labels.update([outcome["label"]] if "label" in outcome else [])

    def close(self) -> None:
        self._closing = True
        self._arrived.set()

    async def _company(self, seconds: float) -> None:
        """Wait until there is a whole batch, so long at most."""
        self._full.clear()
        if seconds > 0 and len(self._waiting) < self._args.max_batch and not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._full.wait()

    def _outcomes(self, rows: Sequence[Row]) -> list[dict[str, Any] | Exception]:
        """A prediction or an exception for each row: a row that fails takes no other request's rows with it."""
        try:
            return list(self._predict(rows))
        except Exception as error:
            if len(rows) == 1:
                return [error]
            return [self._outcomes([row])[0] for row in rows]


class Service:
    """Everything behind the endpoints."""

    def __init__(self, model: Model, args: ServeArgs) -> None:
        self.args, self.pair = args, model.pair
        self.metrics = Metrics()
        self.batcher = Batcher(model.predict, args, self.metrics)
        self.last = 0.0  # when the last request came or was answered
        self.draining = False

    async def predict(self, request: "Request") -> dict[str, Any]:
        """Raises Refused for a request that is not as the head of this file says."""
        body = await _body(request, 1024 * self.args.max_body_kb)
        return {"predictions": await self.batcher.answers(rows_of(body, self.pair, self.args))}


async def _body(request: "Request", most: int) -> bytes:
    """The request's body. One that is too large is read on without being kept, as its sender reads no answer before."""
    large = f"the body has more than {most // 1024} kB; send fewer rows at a time"
    declared = int(request.headers.get("content-length", 0))
    if declared > 16 * most:
        raise Refused(413, large)
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > 16 * most:
                    raise Refused(413, large)
                if size <= most:
                    parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the body did not come within {_BODY_SECONDS:g} seconds") from None
    if size > most:
        raise Refused(413, large)
    return b"".join(parts)


def rows_of(body: bytes, pair: bool | None, args: ServeArgs) -> list[Row]:
    """The rows of a request; pair: whether they must be pairs, None: either. Raises Refused."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not valid JSON ({error})") from None
    texts = value.get("texts") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(texts, list) or not texts:
        raise Refused(422, 'the body must be {"texts": [...]} with at least one text, and no other key')
    if len(texts) > args.max_rows:
        raise Refused(422, f"texts: {len(texts)} rows, at most {args.max_rows} a request")
    for number, row in enumerate(texts):
        two = isinstance(row, list)
        parts = row if two else [row]
        if not all(isinstance(part, str) for part in parts) or (two and len(parts) != 2) or pair not in (None, two):
            needed = {True: "a pair of texts", False: "a text", None: "a text or a pair of texts"}[pair]
            raise Refused(422, f"texts[{number}]: {needed} is needed")
        for part in parts:
            if not part.strip():
                raise Refused(422, f"texts[{number}]: the text is empty")
            if len(part) > args.max_chars:
                raise Refused(422, f"texts[{number}]: {len(part)} characters, at most {args.max_chars} a text")
            if any("\ud800" <= character <= "\udfff" for character in part):
                raise Refused(422, f"texts[{number}]: half of a surrogate pair; send whole characters")
    return texts


_BODY_SCHEMA = {
    "type": "object",
    "required": ["texts"],
    "additionalProperties": False,
    "properties": {
        "texts": {
            "type": "array",
            "minItems": 1,
            "items": {
                "oneOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
                ]
            },
        }
    },
}


def make_app(service: Service) -> "FastAPI":
    """The endpoints of a service; it works while the application's lifespan lasts."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        working = asyncio.create_task(service.batcher.work())
        yield
        service.batcher.close()
        await working

    app = FastAPI(title="Predictions", lifespan=lifespan, docs_url=None, redoc_url=None)  # their pages need the web

    # The body is read here, not by FastAPI: it would take one of any size, and say what is wrong in its own long form.
    async def predict(request: Request) -> JSONResponse:
        return JSONResponse(await service.predict(request))

    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": _BODY_SCHEMA}}}}
    app.add_api_route("/predict", predict, methods=["POST"], openapi_extra=body)

    @app.get("/healthz")
    @app.head("/healthz", include_in_schema=False)
    async def healthz() -> JSONResponse:
        if service.draining:
            return JSONResponse({"status": "ending"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text(len(service.batcher)), media_type="text/plain; version=0.0.4")

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return JSONResponse({"error": str(error)}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        known = "POST /predict, GET /healthz, GET /metrics"
        line = f"{request.method} {request.url.path}: {error.detail}; there are {known}"
        return JSONResponse({"error": line}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"error": "the client has gone"}, 400)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the prediction failed; the server's log says why"}, 500)

    app.add_middleware(_Watched, service=service)
    return app


class _Watched:
    """Counts and times the requests; while the server ends, tells every client to close its connection."""

    def __init__(self, app: Any, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        service, status = self._service, 500
        started = service.last = time.perf_counter()

        async def told(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if service.draining:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            service.last = time.perf_counter()
            path = scope["path"] if scope["path"] in ("/predict", "/healthz", "/metrics") else "other"
            service.metrics.requests[path, status] += 1
            if path == "/predict" and status == 200:
                service.metrics.seconds.add(service.last - started)


def serve(service: Service) -> None:
    """Answer until SIGTERM or SIGINT; then finish what was sent. Raises UserError when it cannot listen."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Only now, when a signal is no longer the end: what is accepted is answered.
            listening = listen(service.args.host, service.args.port)
            await super().startup([listening])
            host, port = listening.getsockname()[:2]
            where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            print(f"serving {service.args.folder} at {where}", flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # To close the door at once would break the connections that are just being made, and those on which a
            # client that was answered a moment ago is sending its next request.
            service.draining, service.last = True, time.perf_counter()
            latest = service.last + _ENDING_SECONDS
            while time.perf_counter() < min(latest, service.last + _QUIET_SECONDS):
                await asyncio.sleep(0.01)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        make_app(service), http="h11", loop="asyncio", ws="none", lifespan="on", log_level="warning",
        access_log=False, server_header=False, timeout_keep_alive=75, timeout_graceful_shutdown=60,
    )  # fmt: skip
    Server(config).run()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError when the address is not free or not of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror})") from None
    # Its connections inherit it. Without it an answer's body waits 40 ms until the client acknowledges the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def cores() -> int:
    """How many processors this process may use; of a container's quota the whole ones."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, runtime.cpu_quota())))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(ServeArgs, argv, __doc__)
    if not args.folder:
        raise UserError("give the folder of a bundle: python tools/serve.py FOLDER")
    start(args)


def start(args: ServeArgs) -> None:
    """Open the bundle, test it and serve it. Raises UserError when it is none, is damaged, or the port is taken."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # before the server is there, and after it has ended
    from distill.deploy import is_bundle
    from distill.deploy.predict import BundleError, Predictor

    if not is_bundle(args.folder):
        raise UserError(f"{args.folder}: not a bundle; python tools/export.py makes one of a model's folder")
    try:
        model = Predictor(args.folder, args.threads or max(1, cores() - 1))
        print(model.self_test(), flush=True)
    except BundleError as error:
        raise UserError(str(error)) from None
    serve(Service(model, args))


if __name__ == "__main__":
    run(main)
