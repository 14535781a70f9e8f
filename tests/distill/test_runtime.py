"""Processor detection on recorded /proc/cpuinfo texts, the user's own settings, and what is refused."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from distill import runtime
from distill.errors import UserError

ROOT = Path(__file__).parents[2]


def cpuinfo(vendor: str, flags: str, cores: int = 2, threads: int = 1) -> str:
    blocks = []
    for processor in range(cores * threads):
        blocks.append(
            f"processor\t: {processor}\nvendor_id\t: {vendor}\nmodel name\t: a processor\nphysical id\t: 0\n"
            f"core id\t\t: {processor // threads}\ncpu cores\t: {cores}\nflags\t\t: fpu sse2 {flags}\n"
        )
    return "\n".join(blocks) + "\n"


_ARM_CORE = "BogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
ARM = f"processor\t: 0\n{_ARM_CORE}\nprocessor\t: 1\n{_ARM_CORE}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (cpuinfo("AuthenticAMD", "avx avx2 avx512f avx512bw"), "7"),
        (cpuinfo("AuthenticAMD", "avx avx2"), "5"),
        (cpuinfo("AuthenticAMD", "avx"), None),
        (cpuinfo("GenuineIntel", "avx avx2 avx512f"), None),
        (ARM, None),
        ("", None),
    ],
)
def test_the_mkl_path_is_for_amd_only(text: str, path: str | None) -> None:
    assert runtime.mkl_path(text) == path


RECORDED = Path(__file__).parents[1] / "golden" / "cpuinfo"  # of four machines; the Xeon's first and last processor


@pytest.mark.parametrize(
    ("name", "path", "bfloat16", "processors", "cores"),
    [
        ("amd_epyc", "7", True, {0, 1}, 2),
        ("amd_ryzen_7735hs", "5", False, {0, 1}, 1),  # two threads of one core
        ("intel_xeon_6140", None, False, {0, 71}, 2),  # one core of each of two sockets
        ("intel_xeon_6140", None, False, {71}, 1),
        ("arm_neoverse_n1", None, False, {0, 1, 2}, 3),
    ],
)
def test_recorded_processors(name: str, path: str | None, bfloat16: bool, processors: set[int], cores: int) -> None:
    text = (RECORDED / f"{name}.txt").read_text()
    assert runtime.mkl_path(text) == path and runtime.bfloat16(text) == bfloat16
    assert runtime.physical_cores(text, processors) == cores


def test_bfloat16_is_read_off_the_flags() -> None:
    assert runtime.bfloat16(cpuinfo("AuthenticAMD", "avx2 avx512f avx512_bf16"))
    assert runtime.bfloat16(cpuinfo("GenuineIntel", "avx2 amx_bf16 amx_tile"))
    assert not runtime.bfloat16(cpuinfo("GenuineIntel", "avx2 avx512f"))


def test_threads_are_the_cores_and_not_their_hyperthreads() -> None:
    text = cpuinfo("GenuineIntel", "avx2", cores=4, threads=2)
    assert runtime.physical_cores(text, set(range(8))) == 4
    assert runtime.physical_cores(text, {0, 1}) == 1  # two threads of one core
    assert runtime.physical_cores(text, {0, 2, 4}) == 3
    assert runtime.physical_cores(ARM, {0, 1}) == 2
    assert runtime.physical_cores("", {0, 1, 2}) == 3


def before_paddle(machine: str = "pass", **environment: str) -> dict[str, str]:
    """What a fresh process sets, with `environment` set by the user; machine: code that makes it another one."""
    own = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "PADDLE_LOCAL_SIZE")
    clean = {name: value for name, value in os.environ.items() if name not in own and not name.startswith("MALLOC_")}
    code = (
        f"import json, os, sys; from distill import runtime; {machine};"
        "s = runtime.before_paddle(); assert runtime.before_paddle() == s;"
        "assert 'paddle' not in sys.modules; print(json.dumps([s, dict(os.environ)]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=True
    ).stdout
    settings, seen = json.loads(out)
    for name, value in settings.items():
        assert name == "allocator" or seen[name] == value
    return settings


def test_a_fresh_process_uses_the_cores_it_may() -> None:
    settings = before_paddle()
    allowed = os.sched_getaffinity(0)
    cores = runtime.physical_cores(Path("/proc/cpuinfo").read_text(), allowed)
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, period = limit.read_text().split() if limit.exists() else ("max", "1")
    expected = cores if quota == "max" else min(cores, max(1, int(quota) // int(period)))
    assert int(settings["OMP_NUM_THREADS"]) == expected <= len(allowed)
    assert settings["allocator"] in ("mallopt", "as installed")


@pytest.mark.parametrize(
    ("cores", "quota", "ranks", "threads"),
    [(6, "inf", "1", 6), (6, "3.9", "1", 3), (2, "16.0", "1", 2), (6, "0.5", "1", 1), (6, "inf", "2", 3)],
)
def test_threads_are_the_fewer_of_cores_and_quota(cores: int, quota: str, ranks: str, threads: int) -> None:
    machine = f"runtime.physical_cores = lambda *_: {cores}; runtime.cpu_quota = lambda: float({quota!r})"
    assert int(before_paddle(machine, PADDLE_LOCAL_SIZE=ranks)["OMP_NUM_THREADS"]) == threads


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", float("inf"))])
def test_the_quota_of_a_container(text: str, cores: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: text if path == Path("/sys/fs/cgroup/cpu.max") else "")
    assert runtime.cpu_quota() == cores


def test_what_the_user_has_set_stays() -> None:
    amd = "runtime.mkl_path = lambda *_: '7'"  # on other processors nothing is set that could replace the user's
    assert before_paddle(amd)["MKL_DEBUG_CPU_TYPE"] == "7"
    settings = before_paddle(amd, OMP_NUM_THREADS="7", MKL_DEBUG_CPU_TYPE="4", MALLOC_ARENA_MAX="2")
    assert (settings["OMP_NUM_THREADS"], settings["MKL_DEBUG_CPU_TYPE"]) == ("7", "4")
    assert settings["allocator"] == "MALLOC_* of the environment"


def test_ranks_of_one_machine_share_its_cores() -> None:
    assert int(before_paddle(PADDLE_LOCAL_SIZE="64")["OMP_NUM_THREADS"]) == 1


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        (str(ROOT / "kd" / "task_distill.py"), "kd/task_distill.py"),
        ("kd/task_distill.py", "kd/task_distill.py"),
        ("task_distill.py", "task_distill.py"),
        ("/elsewhere/mine.py", "/elsewhere/mine.py"),
    ],
)
def test_a_command_names_no_place_of_the_project(script: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--text", "two words"])
    assert runtime.command() == f"python {kept} --text 'two words'"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    code = (
        "from distill import runtime; runtime.before_paddle()\n"
        "import numpy as np, psutil\n"
        "size = lambda: psutil.Process().memory_info().rss // 2**20\n"
        "start, tensors = size(), [np.ones(2**20) for _ in range(40)]\n"
        "last = tensors.pop()\n"
        "del tensors\n"
        "kept = size() - start\n"
        "runtime.return_freed_memory()\n"
        "print(kept, size() - start)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept >= 300 and left <= 100


def test_it_must_come_before_paddle() -> None:
    code = "import paddle; from distill import runtime; runtime.before_paddle()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "must run before paddle is imported" in done.stderr


def test_a_gpu_that_is_not_there_is_refused_with_the_wheel() -> None:
    with pytest.raises(UserError, match="--device gpu: .*GPU wheel of paddle 3.3.1"):
        runtime.start("gpu")


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_on_a_cpu_is_refused(amp: str) -> None:
    with pytest.raises(UserError, match=f"--amp {amp}: mixed precision needs a GPU"):
        runtime.start("cpu", amp)


def test_seeds_fix_every_generator() -> None:
    import random

    import numpy
    import paddle

    def draw() -> tuple[float, float, float]:
        runtime.seed_all(5)
        return random.random(), float(numpy.random.rand()), float(paddle.rand([1]))  # noqa: NPY002

    assert draw() == draw()


def test_hardware_says_nothing_about_names_and_places() -> None:
    told = json.dumps([runtime.hardware(), runtime.versions()])
    assert str(ROOT) not in told and os.uname().nodename not in told
    assert runtime.versions()["paddlepaddle"] == "3.3.1" and runtime.peak_memory_bytes() > 10**8
