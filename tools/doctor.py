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
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 12))
CACHE = "~/.cache/paddle-distill"  # --cache_dir and --cache_limit_gb of the recipes, which need packages
CACHE_LIMIT = 10
CHECKPOINT = 1.4 * 10**9  # bytes, of a BERT of 110 M parameters: weights and two moments
# What pip chooses without constraints.txt: {package: the first version that may break}, what breaks, its last words.
BREAKS: tuple[tuple[dict[str, tuple[int, ...]], str, str], ...] = (
    ({"aistudio-sdk": (0, 3)}, "paddlenlp", "cannot import name 'download' from 'aistudio_sdk.hub'"),
    ({"pyarrow": (21,), "datasets": (4,)}, "paddlenlp", "pyarrow requires NumPy 2.0 or newer"),
    ({"huggingface-hub": (1,), "tokenizers": (0, 22)}, "paddlenlp", "cannot import name 'repo_type_and_id_from_hf_id'"),
    ({"protobuf": (7,)}, "visualdl", "Expected an int, got a boolean"),
)
Problem = tuple[str, str]  # what is broken, the line that mends it
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
started = time.perf_counter()
from visualdl.component.base_component import hparam
hparam("", {"flag": True}, [], 0)
tell(visualdl=time.perf_counter() - started)
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
        return conclusion([problem])
    sys.path.insert(0, str(ROOT))
    from distill import runtime

    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("constraints.txt", "requirements.txt")]
    here, before = installed(), dict(os.environ)
    lines, problems = packages(*texts, here, runtime.GPU_WHEEL)
    more, without_room = room(ROOT / "models", Path(CACHE).expanduser())
    lines += processor(runtime.mkl_path, runtime.physical_cores) + more
    lines += settings(runtime.before_paddle(), before, runtime.mkl_path(cpuinfo()))
    print("\n".join(lines), flush=True)
    works: list[str] = []
    if not any(what.startswith("not installed") for what, _ in problems):
        lines, works, failure = imports(runtime.GPU_WHEEL)
        print("\n".join(lines), flush=True)
        explained = failure and any(words in failure[0] for *_, words in BREAKS) and clashes(here, works)
        problems += [failure] if failure and not explained else []
    return conclusion(clashes(here, works) + problems + without_room)


def conclusion(problems: Collection[Problem]) -> int:
    """Print the last lines; returns the exit status."""
    last = [line for what, mend in problems for line in (f"broken: {what}", f"mend it: {mend}")]
    print("\n".join(last or ["all is well"]))
    return 1 if last else 0


def install(what: str | None = None) -> str:
    """The line that brings all packages, or `what`: into the environment that is active, otherwise the project's own
    is made active. Beside a GPU wheel they are named: the project itself would bring that for CPUs too."""
    if what is None:
        names = re.findall(r"^([\w.-]+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
        others = " ".join(name for name in names if plain(name) != "paddlepaddle")
        what = others if "paddlepaddle-gpu" in installed() else "-e ."
    if sys.prefix != sys.base_prefix:
        return f"cd {shlex.quote(str(ROOT))} && python -m pip install -c constraints.txt {what}"
    own = ROOT / ".venv" / "bin" / "activate"
    return f"source {shlex.quote(str(own))}" if own.is_file() else _from_nothing()


def _from_nothing() -> str:
    return f"cd {shlex.quote(str(ROOT))} && make venv && source .venv/bin/activate"


def python_problem(version: tuple[int, int]) -> Problem | None:
    """None where this Python will do."""
    if version in PYTHONS:
        return None
    wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    return f"Python {version[0]}.{version[1]}, where {wanted} is needed", _from_nothing()


def installed() -> dict[str, str]:
    """{package: version} of this Python, names as `plain` writes them; what comes first in its path is what counts."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        found.setdefault(plain(distribution.metadata["Name"] or ""), distribution.version)
    return found


def plain(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version: 3.0.0b4 -> (3, 0, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0].split("b")[0].split("rc")[0]))


def packages(
    constraints: str, requirements: str, here: Mapping[str, str], gpu_wheel: str
) -> tuple[list[str], list[Problem]]:
    """Lines on the packages beside the texts of constraints.txt and requirements.txt, and what is broken: one that is
    needed is missing, or two builds of paddle are in each other's way, or that for GPUs is too old."""
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
    if any(here.get(name, version) != version for name, version in wanted.items()):
        lines.append(f"              for the versions that were tested: {install()}")
    problems = []
    missing = [name for name in needed if name not in here and not (name == "paddlepaddle" and gpu)]
    if missing:
        problems.append((f"not installed: {', '.join(missing)}", install()))
    if gpu and numbers(gpu) < numbers(wanted["paddlepaddle"])[:1]:
        problems.append((f"paddlepaddle-gpu {gpu} is too old for paddlenlp {wanted['paddlenlp']}", gpu_wheel))
    if gpu and "paddlepaddle" in here:
        problems.append(
            (
                "paddlepaddle and paddlepaddle-gpu are both installed, and one overwrites the other's files",
                "python -m pip uninstall -y paddlepaddle paddlepaddle-gpu, then install the one you need",
            )
        )
    return lines, problems


def clashes(here: Mapping[str, str], works: Collection[str]) -> list[Problem]:
    """The known breaks by the versions that are `here`, but for those of packages that were seen to work."""
    problems = []
    for first, victim, words in BREAKS:
        bad = [name for name in first if name in here and numbers(here[name]) >= first[name]]
        if bad and victim not in works:
            found = ", ".join(f"{name} {here[name]}" for name in bad)
            problems.append((f"{found}, known to break {victim} ({words})", install(" ".join(bad))))
    return problems


def cpuinfo() -> str:
    """What Linux says of the processors; nothing elsewhere."""
    return Path("/proc/cpuinfo").read_text() if sys.platform.startswith("linux") else ""


def processor(mkl_path: Callable[[str], str | None], physical_cores: Callable[[str, set[int]], int]) -> list[str]:
    """Lines on processor, cores, memory and C library."""
    linux, text = sys.platform.startswith("linux"), cpuinfo()
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


def room(models: Path, cache: Path) -> tuple[list[str], list[Problem]]:
    """Lines on the disks of the folders where runs and the teachers' outputs are kept by default, and what is broken:
    one cannot be written or has no room for a checkpoint."""
    used = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    lines, problems = [], []
    for folder, flag in ((models, "--output_dir"), (cache, "--cache_dir")):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        lines.append(f"disk          {free / 1e9:.1f} GB free for {folder} ({flag})")
        if not os.access(there, os.W_OK | os.X_OK):
            mend = f'sudo chown -R "$(id -un)" {shlex.quote(str(there))}, or name another folder by {flag}'
            problems.append((f"{there} cannot be written", mend))
        elif free < CHECKPOINT:
            frees = f"rm -r {shlex.quote(str(cache))} (it is computed again), or "
            mend = f"{frees if used > CHECKPOINT - free else ''}name a folder on another disk by {flag}"
            problems.append((f"{free / 1e9:.1f} GB are free for {folder}, and a checkpoint may have 1.4", mend))
    full = f"; full, so teachers are asked again each time: rm -r {shlex.quote(str(cache))}, or raise the limit"
    state = full if used > 0.95e9 * CACHE_LIMIT else ""
    lines.append(f"cache         {used / 1e9:.2f} GB of {CACHE_LIMIT:g} (--cache_limit_gb){state}")
    return lines, problems


def settings(values: Mapping[str, str], environment: Mapping[str, str], mkl_path: str | None) -> list[str]:
    """Lines on what holds for paddle; `environment` is what it was before, and what it says was not touched."""
    lines = ["set before paddle is imported:"]
    for name, value in values.items():
        yours = "  (yours)" if name in environment or "environment" in value else ""
        if name == "MKL_DEBUG_CPU_TYPE" and value != mkl_path:
            yours = f"  (yours; for this processor {mkl_path} is faster: unset {name})"
        lines.append(f"  {name}={value}{yours}")
    return lines


def imports(gpu_wheel: str, python: str = sys.executable) -> tuple[list[str], list[str], Problem | None]:
    """Lines on paddle, paddlenlp, visualdl and GPUs, which of the packages work, and what the first of the others
    ends with."""
    done = subprocess.run([python, "-c", IMPORTS, str(ROOT)], capture_output=True, text=True)
    facts: dict[str, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    names = ("paddle", "paddlenlp", "visualdl")
    works = [name for name in names if name in facts]
    lines = [f"import {name:<10} {facts[name]:.1f} s" for name in works]
    if "cuda" in facts:
        gpus = f"this paddle is built for CPUs; for a GPU {gpu_wheel}"
        if facts["cuda"]:
            gpus = f"{facts['gpus']} visible"
            if not facts["gpus"]:
                gpus += "; nvidia-smi shows whether the driver works, CUDA_VISIBLE_DEVICES what it hides"
        lines.append(f"GPU           {gpus}")
    if done.returncode == 0:
        return lines, works, None
    last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
    return lines, works, (f"{names[len(works)]} cannot be used: {last}", install())


if __name__ == "__main__":
    sys.exit(main())
