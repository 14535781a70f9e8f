"""Say what this machine and its Python have, what is set for paddle, and what is broken with the line that mends it.

    python tools/doctor.py

It needs nothing installed. Exit status 1 when something is broken.
"""

from __future__ import annotations  # it must be able to say that a Python is too old

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 12))
# One after the other in a process of its own: a crash in a C library is an answer too.
IMPORTS = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from distill import runtime
runtime.before_paddle()
def tell(**facts):
    print(json.dumps(facts), flush=True)
started = time.perf_counter()
import paddle
total = float(paddle.ones([8, 8]).matmul(paddle.ones([8, 8])).sum())
assert total == 512, f"a product of matrices gives {total}, not 512"
cuda = paddle.device.is_compiled_with_cuda()
tell(paddle=time.perf_counter() - started, cuda=cuda, gpus=paddle.device.cuda.device_count() if cuda else 0)
started = time.perf_counter()
from paddlenlp.transformers import BertModel
tell(paddlenlp=time.perf_counter() - started)
"""


def main() -> int:
    """Returns the exit status."""
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(f"usage: python tools/doctor.py\n\n{__doc__}".strip())
        return 0
    if words:
        print(f"error: {words[0]}: unknown flag (--help lists all)", file=sys.stderr)
        return 2
    return report()


def report() -> int:
    """Print everything; returns the exit status."""
    problem = python_problem(sys.version_info[:2])
    print(f"python        {platform.python_version()}  {sys.executable}")
    if problem:
        return broken(*problem)
    sys.path.insert(0, str(ROOT))
    from distill import runtime

    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("constraints.txt", "requirements.txt")]
    before = dict(os.environ)
    lines, problem = packages(*texts, installed())
    lines += processor(runtime.mkl_path, runtime.physical_cores) + settings(runtime.before_paddle(), before)
    print("\n".join(lines), flush=True)
    if problem is None:
        lines, problem = imports(runtime.GPU_WHEEL)
        print("\n".join(lines), flush=True)
    if problem:
        return broken(*problem)
    print("all is well")
    return 0


def broken(what: str, mend: str) -> int:
    """Print the last two lines; returns the exit status."""
    print(f"broken: {what}\nmend it: {mend}")
    return 1


def install() -> str:
    """The line that brings all packages: into the environment that is active, otherwise into the project's own."""
    if sys.prefix != sys.base_prefix:
        return f"cd {ROOT} && python -m pip install -c constraints.txt -e ."
    own = ROOT / ".venv" / "bin" / "activate"
    return f"source {own}" if own.is_file() else f"cd {ROOT} && make venv && source .venv/bin/activate"


def python_problem(version: tuple[int, int]) -> tuple[str, str] | None:
    """(what is wrong, the line that mends it) or None."""
    if version in PYTHONS:
        return None
    wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    mend = f"cd {ROOT} && make venv && source .venv/bin/activate"
    return f"Python {version[0]}.{version[1]}, where {wanted} is needed", mend


def installed() -> dict[str, str]:
    """{package: version} of this Python, names as `plain` writes them."""
    return {plain(d.metadata["Name"] or ""): d.version for d in importlib.metadata.distributions()}


def plain(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(constraints: str, requirements: str, here: Mapping[str, str]) -> tuple[list[str], tuple[str, str] | None]:
    """Lines on the packages beside the texts of constraints.txt and requirements.txt, and a problem as in
    `python_problem`: one that is needed is missing, or two builds of paddle are in each other's way."""
    wanted = {plain(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", constraints, re.MULTILINE)}
    needed = [plain(name) for name in re.findall(r"^([\w.-]+)", requirements, re.MULTILINE)]
    gpu = here.get("paddlepaddle-gpu")
    lines = [
        f"{name:<13} {here.get(name, 'not installed')}  (constraints.txt: {wanted[name]})"
        for name in ("paddlepaddle", "paddlenlp")
    ]
    lines += [f"paddlepaddle-gpu {gpu}"] if gpu else []
    others = {
        name: version
        for name, version in wanted.items()
        if here.get(name, version) != version and name not in ("paddlepaddle", "paddlenlp")
    }
    differing = [f"{name} {here[name]}, not {version}" for name, version in others.items()]
    lines.append(f"packages      {'; '.join(differing) if differing else 'the others are as in constraints.txt'}")
    missing = [name for name in needed if name not in here and not (name == "paddlepaddle" and gpu)]
    if missing:
        return lines, (f"not installed: {', '.join(missing)}", install())
    if gpu and "paddlepaddle" in here:
        return lines, (
            "paddlepaddle and paddlepaddle-gpu are both installed, and one overwrites the other's files",
            "python -m pip uninstall -y paddlepaddle paddlepaddle-gpu, then install the one you need",
        )
    return lines, None


def processor(mkl_path: Callable[[str], str | None], physical_cores: Callable[[str, set[int]], int]) -> list[str]:
    """Lines on processor, cores, memory and C library."""
    linux = sys.platform.startswith("linux")
    text = Path("/proc/cpuinfo").read_text() if linux else ""
    model = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)", text, re.MULTILINE)
    interesting = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")
    known = [name for name in interesting if flags and name in flags[1].split()]
    allowed = os.sched_getaffinity(0) if linux else set(range(os.cpu_count() or 1))
    name = model[1] if model else platform.processor() or platform.machine()
    lines = [
        f"processor     {name} ({', '.join([platform.machine(), *known])})",
        f"cores         {physical_cores(text, allowed)} for this process, of {os.cpu_count()} processors",
        f"MKL path      {mkl_path(text) or 'as MKL chooses'} (only AMD processors need another one)",
    ]
    if linux:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        lines.append(f"memory        {memory / 2**30:.1f} GiB, C library {' '.join(platform.libc_ver()) or 'unknown'}")
    return lines


def settings(values: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """Lines on what holds for paddle; `environment` is what it was before, and what it says was not touched."""
    return ["set before paddle is imported:"] + [
        f"  {name}={value}" + ("  (yours)" if name in environment or "environment" in value else "")
        for name, value in values.items()
    ]


def imports(gpu_wheel: str, python: str = sys.executable) -> tuple[list[str], tuple[str, str] | None]:
    """Lines on the imports of paddle and paddlenlp and on GPUs, and a problem as in `python_problem`."""
    done = subprocess.run([python, "-c", IMPORTS, str(ROOT)], capture_output=True, text=True)
    facts: dict[str, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    lines = [f"import {name:<10} {facts[name]:.1f} s" for name in ("paddle", "paddlenlp") if name in facts]
    if "cuda" in facts:
        gpus = "this paddle is built for CPUs" if not facts["cuda"] else f"{facts['gpus']} visible"
        lines.append(f"GPU           {gpus}" + ("" if facts["gpus"] else f"; for a GPU {gpu_wheel}"))
    if done.returncode == 0:
        return lines, None
    name = "paddlenlp" if "paddle" in facts else "paddle"
    last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
    return lines, (f"{name} cannot be imported: {last}", install())


if __name__ == "__main__":
    sys.exit(main())
