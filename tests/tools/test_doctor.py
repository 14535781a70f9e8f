"""What the doctor says of a sound environment and of broken ones, on recorded facts and in processes of its own."""

import os
import re
import subprocess
import sys

from distill import runtime
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
        r"set before paddle is imported:",
        r"  OMP_NUM_THREADS=1  \(yours\)",
        r"  GLOG_minloglevel=2$",
        r"  allocator=(mallopt|as installed)$",
        r"import paddle     \d+\.\d s",
        r"import paddlenlp  \d+\.\d s",
        r"GPU           this paddle is built for CPUs; for a GPU install the GPU wheel of paddle 3\.3\.1",
    ):
        assert re.search(f"^{expected}", done.stdout, re.MULTILINE), expected


def last_two(done):
    assert done.returncode == 1 and not done.stderr and "Traceback" not in done.stdout
    return done.stdout.splitlines()[-2:]


def test_paddle_that_cannot_be_imported(tmp_path):
    package(tmp_path, "paddle", "raise ImportError('libz.so.1: version not found')")
    said, mend = last_two(doctors(tmp_path))
    assert said == "broken: paddle cannot be imported: ImportError: libz.so.1: version not found"
    assert mend == f"mend it: cd {doctor.ROOT} && python -m pip install -c constraints.txt -e ."


def test_paddle_that_ends_the_process(tmp_path):
    package(tmp_path, "paddle", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert last_two(doctors(tmp_path))[0] == "broken: paddle cannot be imported: it ended with status -11"


def test_paddle_that_calculates_wrongly(tmp_path):
    package(tmp_path, "paddle", STAND_IN.format(cuda=False, gpus=0).replace("512.0", "511.0"))
    assert "AssertionError: a product of matrices gives 511.0, not 512" in last_two(doctors(tmp_path))[0]


def test_paddlenlp_that_cannot_be_imported(tmp_path):
    package(tmp_path, "paddle", STAND_IN.format(cuda=True, gpus=2))
    package(tmp_path, "paddlenlp", "raise ImportError(\"cannot import name 'download' from 'aistudio_sdk.hub'\")")
    done = doctors(tmp_path)
    said, mend = last_two(done)
    assert "paddlenlp cannot be imported: ImportError: cannot import name 'download' from 'aistudio_sdk.hub'" in said
    assert mend.endswith("pip install -c constraints.txt -e .")
    assert "import paddle     " in done.stdout and "GPU           2 visible\n" in done.stdout


def test_a_python_without_anything(tmp_path):
    """-S -E: no site-packages, so not even this project is installed."""
    done = subprocess.run([sys.executable, "-S", "-E", doctor.__file__], cwd=tmp_path, capture_output=True, text=True)
    said, _ = last_two(done)
    assert said.startswith("broken: not installed: paddlepaddle, paddlenlp, jieba")
    assert "processor " in done.stdout and "  allocator=" in done.stdout


def test_versions_beside_the_constraints():
    lines, problem = doctor.packages(CONSTRAINTS, REQUIREMENTS, SOUND)
    assert problem is None and lines == [
        "paddlepaddle  3.3.1  (constraints.txt: 3.3.1)",
        "paddlenlp     3.0.0b4  (constraints.txt: 3.0.0b4)",
        "packages      the others are as in constraints.txt",
    ]
    other = SOUND | {"numpy": "2.1.0", "aistudio-sdk": "0.3.8", "paddlenlp": "2.8"}
    lines, problem = doctor.packages(CONSTRAINTS, REQUIREMENTS, other)
    assert problem is None and lines[1] == "paddlenlp     2.8  (constraints.txt: 3.0.0b4)"
    assert lines[2] == "packages      numpy 2.1.0, not 1.26.4; aistudio-sdk 0.3.8, not 0.2.6"


def test_missing_and_doubled_packages():
    without = {name: version for name, version in SOUND.items() if name not in ("paddlepaddle", "pyyaml")}
    lines, (what, mend) = doctor.packages(CONSTRAINTS, REQUIREMENTS, without)
    assert lines[0].startswith("paddlepaddle  not installed") and what == "not installed: paddlepaddle, pyyaml"
    assert mend == doctor.install()
    gpu = SOUND | {"paddlepaddle-gpu": "3.3.1"}
    lines, (what, mend) = doctor.packages(CONSTRAINTS, REQUIREMENTS, gpu)
    assert "both installed" in what and mend.startswith("python -m pip uninstall -y paddlepaddle paddlepaddle-gpu")
    assert doctor.packages(CONSTRAINTS, REQUIREMENTS, {n: v for n, v in gpu.items() if n != "paddlepaddle"})[1] is None


def test_pythons():
    assert doctor.python_problem((3, 11)) is doctor.python_problem((3, 12)) is None
    what, mend = doctor.python_problem((3, 13))
    assert what == "Python 3.13, where 3.11 or 3.12 is needed" and mend.startswith(f"cd {doctor.ROOT} && make venv")


def test_the_line_that_installs(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.install().endswith("pip install -c constraints.txt -e .")  # the tests run in an environment
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert doctor.install() == f"cd {tmp_path} && make venv && source .venv/bin/activate"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    assert doctor.install() == f"source {tmp_path}/.venv/bin/activate"


def test_what_the_user_set_is_marked():
    lines = doctor.settings({"OMP_NUM_THREADS": "3", "A": "1", "allocator": "MALLOC_* of the environment"}, {"A": "1"})
    assert lines[1:] == ["  OMP_NUM_THREADS=3", "  A=1  (yours)", "  allocator=MALLOC_* of the environment  (yours)"]


def test_flags(tmp_path):
    done = doctors(tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python tools/doctor.py")
    done = doctors(tmp_path, "more")
    assert done.returncode == 2 and done.stderr == "error: more: unknown flag (--help lists all)\n"
