"""What the doctor says of a sound environment and of broken ones, on recorded facts and in processes of its own."""

import os
import re
import subprocess
import sys
import types

import pytest

from distill import runtime
from distill.options import TeacherOptions
from tools import doctor

CONSTRAINTS = "paddlepaddle==3.3.1\npaddlenlp==3.0.0b4\nnumpy==1.26.4\naistudio-sdk==0.2.6\nPyYAML==6.0.3\n"
REQUIREMENTS = "paddlepaddle==3.3.1\npaddlenlp==3.0.0b4\nnumpy\nPyYAML\n"
SOUND = {
    "paddlepaddle": "3.3.1",
    "paddlenlp": "3.0.0b4",
    "numpy": "1.26.4",
    "aistudio-sdk": "0.2.6",
    "pyyaml": "6.0.3",
    "more": "1.0",
}


def doctors(tmp_path, *words, **environment):
    """Run it in a fresh process, away from the project; packages in tmp_path come first."""
    own = runtime.before_paddle()  # this process has set them
    clean = {name: value for name, value in os.environ.items() if name not in own and not name.startswith("MALLOC_")}
    return subprocess.run(
        [sys.executable, doctor.__file__, *words],
        cwd=tmp_path, env=clean | {"PYTHONPATH": str(tmp_path)} | environment, capture_output=True, text=True,
    )  # fmt: skip


def package(folder, name, source):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)


STAND_IN = """
class Sum(float):
    def matmul(self, other): return self
    def sum(self): return 512.0
def ones(shape): return Sum()
class device:
    is_compiled_with_cuda = staticmethod(lambda: {cuda})
    class cuda:
        device_count = staticmethod(lambda: {gpus})
"""


def test_a_sound_environment(tmp_path):
    done = doctors(tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"python        {sys.version_info[0]}.{sys.version_info[1]}")
    assert lines[-1] == "all is well" and not done.stderr
    for expected in (
        r"paddlepaddle  3\.3\.1  \(constraints\.txt: 3\.3\.1\)",
        r"paddlenlp     3\.0\.0b4  ",
        r"packages      ",
        r"processor     \S.* \(",
        r"cores         \d+ for this process, of \d+ processors",
        r"MKL path      (5|7|as MKL chooses) ",
        r"disk          \d+\.\d GB free for \S+/models \(--output_dir\)",
        r"cache         \d+\.\d\d GB of 10 \(--cache_limit_gb\)",
        r"set before paddle is imported:",
        r"  OMP_NUM_THREADS=1  \(yours\)",
        r"  GLOG_minloglevel=2$",
        r"  allocator=(mallopt|as installed)$",
        r"import paddle     \d+\.\d s",
        r"import paddlenlp  \d+\.\d s",
        r"import visualdl   \d+\.\d s",
        r"GPU           this paddle is built for CPUs; for a GPU install the GPU wheel of paddle 3\.3\.1",
    ):
        assert re.search(f"^{expected}", done.stdout, re.MULTILINE), expected


def last_two(done):
    assert done.returncode == 1 and not done.stderr and "Traceback" not in done.stdout
    return done.stdout.splitlines()[-2:]


def test_paddle_that_cannot_be_imported(tmp_path):
    package(tmp_path, "paddle", "raise ImportError('libz.so.1: version not found')")
    said, mend = last_two(doctors(tmp_path))
    assert said == "broken: paddle cannot be used: ImportError: libz.so.1: version not found"
    assert mend == f"mend it: cd {doctor.ROOT} && python -m pip install -c constraints.txt -e ."


def test_paddle_that_ends_the_process(tmp_path):
    package(tmp_path, "paddle", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert last_two(doctors(tmp_path))[0] == "broken: paddle cannot be used: it ended with status -11"


def test_paddle_that_calculates_wrongly(tmp_path):
    package(tmp_path, "paddle", STAND_IN.format(cuda=False, gpus=0).replace("512.0", "511.0"))
    assert "AssertionError: a product of matrices gives 511.0, not 512" in last_two(doctors(tmp_path))[0]


def test_paddlenlp_that_cannot_be_imported(tmp_path):
    package(tmp_path, "paddle", STAND_IN.format(cuda=True, gpus=2))
    package(tmp_path, "paddlenlp", "raise ImportError('no module named moon')")
    done = doctors(tmp_path)
    said, mend = last_two(done)
    assert said == "broken: paddlenlp cannot be used: ImportError: no module named moon"
    assert mend.endswith("pip install -c constraints.txt -e .")
    assert "import paddle     " in done.stdout and "GPU           2 visible\n" in done.stdout


def version(folder, name, number):
    (folder / f"{name}-{number}.dist-info").mkdir()
    (folder / f"{name}-{number}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {number}\n")


def test_a_known_break_is_named_once_with_the_packages_to_go_back_to(tmp_path):
    """Those that were not seen to work are named by their versions."""
    package(tmp_path, "paddle", STAND_IN.format(cuda=False, gpus=0))
    package(tmp_path, "paddlenlp", "raise ImportError(\"cannot import name 'download' from 'aistudio_sdk.hub'\")")
    version(tmp_path, "aistudio_sdk", "0.3.8")
    version(tmp_path, "protobuf", "7.34.0")
    done = doctors(tmp_path)
    assert "packages      aistudio-sdk 0.3.8, not 0.2.6; protobuf 7.34.0, not 6.33.6\n" in done.stdout
    words = "known to break paddlenlp (cannot import name 'download' from 'aistudio_sdk.hub')"
    assert done.returncode == 1 and done.stdout.splitlines()[-4:] == [
        f"broken: aistudio-sdk 0.3.8, {words}",
        f"mend it: cd {doctor.ROOT} && python -m pip install -c constraints.txt aistudio-sdk",
        "broken: protobuf 7.34.0, known to break visualdl (Expected an int, got a boolean)",
        f"mend it: cd {doctor.ROOT} && python -m pip install -c constraints.txt protobuf",
    ]


def test_a_python_without_anything(tmp_path):
    """-S -E: no site-packages, so not even this project is installed."""
    done = subprocess.run([sys.executable, "-S", "-E", doctor.__file__], cwd=tmp_path, capture_output=True, text=True)
    said, _ = last_two(done)
    assert said.startswith("broken: not installed: paddlepaddle, paddlenlp, jieba") and "Traceback" not in done.stderr
    assert "processor " in done.stdout and "  allocator=" in done.stdout


def packages(here):
    return doctor.packages(CONSTRAINTS, REQUIREMENTS, here, "the wheel")


def test_versions_beside_the_constraints():
    lines, problems = packages(SOUND)
    assert problems == [] and lines == [
        "paddlepaddle  3.3.1  (constraints.txt: 3.3.1)",
        "paddlenlp     3.0.0b4  (constraints.txt: 3.0.0b4)",
        "packages      the others are as in constraints.txt",
    ]
    other = SOUND | {"numpy": "2.1.0", "aistudio-sdk": "0.3.8", "paddlenlp": "2.8"}
    lines, problems = packages(other)
    assert problems == [] and lines[1] == "paddlenlp     2.8  (constraints.txt: 3.0.0b4)"
    assert lines[2:] == [
        "packages      numpy 2.1.0, not 1.26.4; aistudio-sdk 0.3.8, not 0.2.6",
        f"              for the versions that were tested: {doctor.install()}",
    ]


def test_missing_and_doubled_packages():
    without = {name: version for name, version in SOUND.items() if name not in ("paddlepaddle", "pyyaml")}
    lines, [(what, mend)] = packages(without)
    assert lines[0].startswith("paddlepaddle  not installed") and what == "not installed: paddlepaddle, pyyaml"
    assert mend == doctor.install()
    gpu = SOUND | {"paddlepaddle-gpu": "3.3.1"}
    lines, [(what, mend)] = packages(gpu)
    assert "both installed" in what and mend.startswith("python -m pip uninstall -y paddlepaddle paddlepaddle-gpu")
    del gpu["paddlepaddle"]
    assert packages(gpu)[1] == []
    _, [(what, mend)] = packages(gpu | {"paddlepaddle-gpu": "2.6.2"})
    assert what == "paddlepaddle-gpu 2.6.2 is too old for paddlenlp 3.0.0b4" and mend == "the wheel"


@pytest.mark.parametrize(
    ("here", "victim", "bad"),
    [
        ({"aistudio-sdk": "0.3.0"}, "paddlenlp", "aistudio-sdk"),
        ({"pyarrow": "21.0.0", "datasets": "3.6.0"}, "paddlenlp", "pyarrow"),
        ({"pyarrow": "26.0.1", "datasets": "4.0.0"}, "paddlenlp", "pyarrow datasets"),
        ({"huggingface-hub": "1.0.0rc1", "tokenizers": "0.22.1"}, "paddlenlp", "huggingface-hub tokenizers"),
        ({"protobuf": "7.0.0"}, "visualdl", "protobuf"),
    ],
)
def test_the_known_breaks(here, victim, bad):
    [(what, mend)] = doctor.clashes(SOUND | here, ["paddle"])
    assert f"known to break {victim} (" in what and all(f"{name} {here[name]}" in what for name in bad.split())
    assert mend == doctor.install(bad) and mend.endswith(f"-c constraints.txt {bad}")
    assert doctor.clashes(SOUND | here, ["paddle", "paddlenlp", "visualdl"]) == []


def test_the_versions_of_the_constraints_are_none_of_the_known_breaks():
    lines = (doctor.ROOT / "constraints.txt").read_text().split()
    here = {doctor.plain(line.split("==")[0]): line.split("==")[1] for line in lines}
    assert {name for first, *_ in doctor.BREAKS for name in first} <= set(here)
    assert doctor.clashes(here, []) == []


def test_what_comes_first_in_the_path_counts(tmp_path, monkeypatch):
    version(tmp_path, "Aistudio_SDK", "0.3.8")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.installed()["aistudio-sdk"] == "0.3.8"


# Room


def test_room_for_runs_and_the_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    lines, problems = doctor.room(tmp_path / "models", cache)
    assert problems == [] and not cache.exists()
    assert re.fullmatch(r"disk          \d+\.\d GB free for .*/models \(--output_dir\)", lines[0])
    assert lines[2] == "cache         0.00 GB of 10 (--cache_limit_gb)"
    (cache / "a").mkdir(parents=True)
    with open(cache / "a" / "segment", "wb") as handle:
        handle.truncate(3 * 10**9)  # takes no room
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=5 * 10**8))
    lines, problems = doctor.room(tmp_path / "models", cache)
    assert lines[2].startswith("cache         3.00 GB of 10")
    assert [what for what, _ in problems] == [
        f"0.5 GB are free for {place}, and a checkpoint may have 1.4" for place in (tmp_path / "models", cache)
    ]
    assert [mend.split(" (")[0] for _, mend in problems] == [f"rm -r {cache}"] * 2
    assert problems[0][1].endswith("by --output_dir") and problems[1][1].endswith("by --cache_dir")
    (cache / "a" / "segment").unlink()
    assert doctor.room(tmp_path / "models", cache)[1][1][1] == "name a folder on another disk by --cache_dir"


def test_a_full_cache_is_no_break_but_said(tmp_path):
    for size, full in ((9 * 10**9, False), (10**10, True)):
        with open(tmp_path / "segment", "wb") as handle:
            handle.truncate(size)  # takes no room
        lines, problems = doctor.room(tmp_path / "models", tmp_path)
        assert problems == [] and ("full" in lines[2]) == full
    assert lines[2].endswith(f"asked again each time: rm -r {tmp_path}, or raise the limit")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: path != tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    _, [(what, mend)] = doctor.room(tmp_path / "models", tmp_path / "cache")
    assert what == f"{tmp_path}/cache cannot be written"
    assert mend == f'sudo chown -R "$(id -un)" {tmp_path}/cache, or name another folder by --cache_dir'


def test_the_cache_is_that_of_the_recipes():
    assert TeacherOptions.cache_dir == doctor.CACHE and TeacherOptions.cache_limit_gb == doctor.CACHE_LIMIT


def test_pythons():
    assert doctor.python_problem((3, 11)) is doctor.python_problem((3, 12)) is None
    what, mend = doctor.python_problem((3, 13))
    assert what == "Python 3.13, where 3.11 or 3.12 is needed" and mend.startswith(f"cd {doctor.ROOT} && make venv")


def test_the_line_that_installs(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("paddlepaddle==3.3.1\npaddlenlp==3\njieba\n")
    assert doctor.install().endswith("pip install -c constraints.txt -e .")  # the tests run in an environment
    with monkeypatch.context() as patch:  # beside a GPU wheel nothing may bring that for CPUs
        patch.setattr(doctor, "installed", lambda: {"paddlepaddle-gpu": "3.3.1"})
        assert doctor.install().endswith("pip install -c constraints.txt paddlenlp jieba")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert doctor.install() == f"cd {tmp_path} && make venv && source .venv/bin/activate"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    assert doctor.install() == f"source {tmp_path}/.venv/bin/activate"


def test_what_the_user_set_is_marked():
    values = {"OMP_NUM_THREADS": "3", "A": "1", "allocator": "MALLOC_* of the environment"}
    lines = doctor.settings(values, {"A": "1"}, None)
    assert lines[1:] == ["  OMP_NUM_THREADS=3", "  A=1  (yours)", "  allocator=MALLOC_* of the environment  (yours)"]


def test_a_slow_mkl_path_is_named():
    lines = doctor.settings({"MKL_DEBUG_CPU_TYPE": "4"}, {"MKL_DEBUG_CPU_TYPE": "4"}, "7")
    assert lines[1] == "  MKL_DEBUG_CPU_TYPE=4  (yours; for this processor 7 is faster: unset MKL_DEBUG_CPU_TYPE)"
    assert doctor.settings({"MKL_DEBUG_CPU_TYPE": "7"}, {}, "7")[1] == "  MKL_DEBUG_CPU_TYPE=7"


def test_flags(tmp_path):
    done = doctors(tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python tools/doctor.py")
    done = doctors(tmp_path, "more")
    assert done.returncode == 2 and done.stderr == "error: more: unknown flag (--help lists all)\n"
