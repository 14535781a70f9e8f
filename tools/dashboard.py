"""Show runs in the browser: curves, the table of hyper-parameters, texts and pictures, by VisualDL.

    make dashboard LOGDIR=models

VisualDL's server runs as a process of its own, answers this machine only and reports to nobody; Ctrl-C ends both.
Runs that go on are read again: reload the page.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from simple_parsing import field

from distill.cli import parse, run
from distill.errors import UserError
from distill.options import option

HOST = "127.0.0.1"
_STARTS_WITHIN = 180.0  # seconds; it takes 2, and much longer where others work


@dataclass
class DashboardArgs:
    """Show runs in the browser."""

    logdir: str = field(default="models", positional=True, nargs="?", help="folder with the runs, at any depth")
    port: int = option(8040, "port of the page; 0: any free one", low=0, high=65535)


def main(argv: Sequence[str] | None = None) -> None:
    """Returns after Ctrl-C."""
    args = parse(DashboardArgs, argv, __doc__)
    if not os.path.isdir(args.logdir):
        raise UserError(f"{args.logdir}: no such folder; give that of your runs: make dashboard LOGDIR=...")
    names = (name for _, _, files in os.walk(args.logdir, followlinks=True) for name in files)
    if not any("vdlrecords" in name for name in names):
        raise UserError(f"{args.logdir}: no run below it has written a vdl folder yet; give the folder of your runs")
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell's background jobs ignore it
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), serving(args.logdir, args.port) as (url, server):
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        server.wait()
        raise UserError(f"VisualDL's server ended by itself, with status {server.returncode}; start it again")


@contextlib.contextmanager
def serving(logdir: str, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The page's address, when it answers, and the server's process, which ends with the block.

    Raises UserError when the port is taken or the server does not start.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; choose another, or 0 for any free one") from None
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "visualdl.server.app", "--logdir", logdir, "--host", HOST, "--port", str(port)]
    with tempfile.TemporaryFile() as output:
        # In a session of its own: Ctrl-C reaches this process, which then ends the server.
        server = subprocess.Popen(
            [*command, "--disable-telemetry"], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(server, port, output)
            yield f"http://{HOST}:{port}/app", server
        finally:
            server.terminate()
            try:
                server.wait(timeout=5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, output: BinaryIO) -> None:
    """Until the server answers. UserError with its last line when it ends instead, or says nothing for too long."""
    until = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < until and server.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)  # which knows of no proxy
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/alive")
            if connection.getresponse().status < 400:
                return
        time.sleep(0.1)
    output.seek(0)
    said = output.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise UserError(f"VisualDL's server does not start: {said[-1]}; `python tools/doctor.py` looks for the cause")


if __name__ == "__main__":
    run(main)
