"""What has to be right around paddle: threads, MKL path and allocator before its import; device, seeds and facts
after it.

Measured on 2 AMD cores (6-layer/384 BERT, batch 32 x 64, one training step): paddle as installed 2787 ms; with both
cores and the MKL path for AMD 1300 ms. The wheel carries MKL 2019.5, which takes its slow path on AMD processors, and
paddle sets one thread when OMP_NUM_THREADS is unset. glibc returns every large tensor to the system and pays its page
faults again; the three mallopt settings below keep them (gelu on 2048 x 1536, forward and backward: 39 ms, then 8
ms).
"""

import contextlib
import ctypes
import importlib.metadata
import io
import os
import platform
import random
import re
import resource
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.errors import UserError

_SETTINGS: dict[str, str] = {}

GPU_WHEEL = (
    "install the GPU wheel of paddle 3.3.1 for your CUDA version from PaddlePaddle's own package index "
    "(https://www.paddlepaddle.org.cn/en/install/quick), not `pip install paddlepaddle-gpu`, which is 2.6"
)


def mkl_path(cpuinfo: str) -> str | None:
    """The MKL_DEBUG_CPU_TYPE for this text of /proc/cpuinfo: '7' (AMD with AVX-512), '5' (AMD with AVX2), None (any
    other)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    if fields.get("vendor_id") != "AuthenticAMD":
        return None
    flags = fields.get("flags", "").split()
    return "7" if "avx512f" in flags else "5" if "avx2" in flags else None


def bfloat16(cpuinfo: str) -> bool:
    """Whether this text of /proc/cpuinfo names instructions that multiply bfloat16 numbers."""
    return any(
        {"avx512_bf16", "amx_bf16"} & set(line.split()) for line in cpuinfo.splitlines() if line.startswith("flags")
    )


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers; False where nobody says."""
    return sys.platform.startswith("linux") and bfloat16(Path("/proc/cpuinfo").read_text())


def threads() -> int:
    """The number of threads that paddle calculates with."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def physical_cores(cpuinfo: str, allowed: set[int]) -> int:
    """The number of distinct cores among the processors `allowed` to this process; each counts as one where nothing
    is said."""
    cores = set()
    for block in cpuinfo.strip().split("\n\n"):
        fields = {
            name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())
        }
        if fields.get("processor", "").isdigit() and int(fields["processor"]) in allowed:
            cores.add((fields.get("physical id"), fields.get("core id", fields["processor"])))
    return max(1, len(cores) or len(allowed))


def cpu_quota() -> float:
    """The container's limit in cores (cgroup v2); infinite where none is set."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return float("inf")


def before_paddle() -> dict[str, str]:
    """Set threads, MKL path, allocator and log level; what the user's environment says already stays. Returns what
    holds.

    Must run before paddle is imported: MKL and OpenMP read their settings once.
    """
    if "paddle" in sys.modules and not _SETTINGS:
        raise RuntimeError("distill.runtime.before_paddle() must run before paddle is imported")
    if _SETTINGS:
        return dict(_SETTINGS)
    linux = sys.platform.startswith("linux")
    cpuinfo = Path("/proc/cpuinfo").read_text() if linux else ""
    allowed = os.sched_getaffinity(0) if linux else set(range(os.cpu_count() or 1))
    # Ranks on one machine share its cores.
    local_ranks = int(os.environ.get("PADDLE_LOCAL_SIZE", "1"))
    threads = max(1, int(min(physical_cores(cpuinfo, allowed), cpu_quota())) // local_ranks)
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        "GLOG_minloglevel": "2",
        "FLAGS_call_stack_level": "0",
        "TOKENIZERS_PARALLELISM": "true",
    }
    path = mkl_path(cpuinfo)
    if path is not None:
        wanted["MKL_DEBUG_CPU_TYPE"] = path
    for name, value in wanted.items():
        _SETTINGS[name] = os.environ.setdefault(name, value)
    _SETTINGS["allocator"] = _keep_large_tensors() if linux else "as installed"
    return dict(_SETTINGS)


def _keep_large_tensors() -> str:
    """Tell glibc to keep freed memory instead of unmapping it; other C libraries and a user's own MALLOC_ settings
    stay."""
    if any(name.startswith("MALLOC_") for name in os.environ):
        return "MALLOC_* of the environment"
    if platform.libc_ver()[0] != "glibc":
        return "as installed"
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    done = [mallopt(trim_threshold, 2**31 - 1), mallopt(top_pad, 256 * 2**20), mallopt(mmap_threshold, 2**31 - 1)]
    return "mallopt" if all(done) else "as installed"


def command() -> str:
    """The command of this process, to be kept with what it makes: as it was given, but a script of the project that was
    started by its whole path has its path in the project, which is the same on every machine."""
    given, *words = sys.argv
    return shlex.join(["python", script() if Path(given).is_absolute() else given, *words])


def script() -> str:
    """The script of this process: its path in the project, from wherever it was started, or as it was given."""
    path, root = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parents[1]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else sys.argv[0]


def return_freed_memory() -> None:
    """Give the system back what glibc keeps of freed tensors, for long work whose batches differ in shape: the pieces
    that are kept fit the next shapes less and less, and the process would grow with the number of batches."""
    if _SETTINGS.get("allocator") == "mallopt":
        ctypes.CDLL(None).malloc_trim(0)


def start(device: str = "auto", amp: str = "none") -> str:
    """Import paddle, choose the device (`auto`, `cpu` or `gpu`) and join the other ranks if there are any. Returns
    `cpu` or `gpu`.

    Raises UserError when a GPU is asked for and there is none, naming the wheel to install, and for mixed precision
    on a CPU.
    """
    before_paddle()
    import logging
    import warnings

    warnings.filterwarnings(
        "ignore", category=UserWarning, module=r"(paddle|paddlenlp|_distutils_hack|setuptools|jieba).*"
    )
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    with contextlib.redirect_stderr(io.StringIO()):  # it prints that OMP_NUM_THREADS should be 1
        import paddle

    if threading.current_thread() is threading.main_thread():
        # Paddle has put a handler of its own in the place of the one that lets files be tidied up.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    logging.getLogger("PaddleNLP").setLevel(logging.ERROR)
    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if device == "gpu" and not gpus:
        why = "no GPU is visible" if paddle.device.is_compiled_with_cuda() else "this paddle is built for CPUs only"
        raise UserError(f"--device gpu: {why}; {GPU_WHEEL}; or run with --device cpu")
    chosen = "gpu" if gpus and device != "cpu" else "cpu"
    if amp != "none" and chosen == "cpu":
        raise UserError(f"--amp {amp}: mixed precision needs a GPU; leave it out on a CPU")
    paddle.set_device(chosen)
    if world_size() > 1:
        paddle.distributed.init_parallel_env()
    return chosen


def rank() -> int:
    """This process's rank under paddle.distributed.launch; 0 alone."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """The number of processes under paddle.distributed.launch; 1 alone."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def require_one_process() -> None:
    """Raises UserError for one of several ranks, of a script whose work they do not share."""
    if world_size() > 1:
        raise UserError(
            f"{world_size()} processes: this script works in one; start it without paddle.distributed.launch"
        )


def barrier() -> None:
    """Returns when every rank has come here."""
    if world_size() > 1:
        import paddle

        paddle.distributed.barrier()


def from_main(call: Callable[[], Any]) -> Any:
    """What `call` returns on rank 0, where alone it runs, for every rank; a UserError is raised on all."""
    value, refusal = None, None
    if is_main():
        try:
            value = call()
        except UserError as error:
            refusal = error
    if world_size() > 1:
        import paddle

        holder = [value, refusal and str(refusal)]
        paddle.distributed.broadcast_object_list(holder, src=0)
        value, refusal = holder[0], refusal or (UserError(holder[1]) if holder[1] else None)
    if refusal is not None:
        raise refusal
    return value


def is_main() -> bool:
    """True on rank 0, the one that writes and prints."""
    return rank() == 0


def log(message: str) -> None:
    """Print a line once, whatever the number of ranks."""
    if is_main():
        print(message, flush=True)


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and paddle."""
    import numpy
    import paddle

    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002 (paddlenlp and others draw from it)
    paddle.seed(seed)


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far, in bytes. Linux's own maximum (ru_maxrss) begins with the size
    of the process that started this one, so there the high-water mark is read."""
    if sys.platform.startswith("linux"):
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    names = (
        "paddlepaddle",
        "paddlenlp",
        "numpy",
        "tokenizers",
        "scikit-learn",
        "scipy",
        "jieba",
        "gensim",
        "safetensors",
        "onnxruntime",
        "paddle2onnx",
        "fastapi",
        "uvicorn",
    )
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "paddlepaddle":
                found["paddlepaddle-gpu"] = importlib.metadata.version("paddlepaddle-gpu")
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and settings of this machine, without its name or paths."""
    model = platform.processor() or platform.machine()
    memory = 0
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: dict[str, Any] = {
        "processor": model,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory,
        "ranks": world_size(),
        "settings": dict(_SETTINGS),
    }
    paddle = sys.modules.get("paddle")
    if paddle is not None and paddle.get_device().startswith("gpu"):
        found["gpu"] = paddle.device.cuda.get_device_name()
    return found
