"""What a fresh clone needs: every requirement pinned, one version everywhere, two READMEs that say the same."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(path: Path) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def pins() -> dict[str, str]:
    found = {}
    for requirement in requirements(ROOT / "constraints.txt"):
        versions = [s.version for s in requirement.specifier if s.operator == "=="]
        assert len(versions) == 1, f"constraints.txt: {requirement} is not pinned to one version"
        found[canonicalize_name(requirement.name)] = versions[0]
    return found


def test_every_requirement_is_pinned_and_the_pin_fits() -> None:
    pinned = pins()
    for requirement in requirements(ROOT / "requirements.txt"):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{requirement} has no pin in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} does not admit the pin {pinned[name]}"


def test_development_tools_are_pinned() -> None:
    pinned = pins()
    for text in PROJECT["project"]["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert canonicalize_name(requirement.name) in pinned or str(requirement.specifier).startswith("=="), text


def test_python_versions_agree_everywhere() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.13"
    assert "in ((3, 11), (3, 12))" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert (3, 11) <= sys.version_info[:2] < (3, 13)


def test_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_every_package_is_installed() -> None:
    """A folder of modules at the root is either named in pyproject.toml or no package."""
    include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages and packages <= set(include)


def test_make_help_lists_every_command_without_an_environment(tmp_path: Path) -> None:
    out = subprocess.run(
        ["make", "-s", "help", f"VENV={tmp_path}/none"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    commands = [line.split()[0] for line in out.splitlines()]
    assert commands == ["help", "venv", "teacher", "demo", "dashboard", "test", "lint", "results"]


def test_make_venv_refuses_another_python_with_one_line(tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12"):  # all that is found reports Python 3.10
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    result = subprocess.run(
        ["make", "-s", "venv", f"VENV={tmp_path}/venv"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "3.11 or 3.12" in errors[0]
    assert not (tmp_path / "venv").exists()


def blocks(text: str) -> tuple[list[str], list[str]]:
    """The levels of the headings and the code blocks of a Markdown text (headings inside code are no headings)."""
    fence = re.compile(r"^```[^\n]*\n.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
    levels = [match.group() for match in re.finditer(r"^#+(?= )", fence.sub("", text), re.MULTILINE)]
    return levels, fence.findall(text)


def test_the_two_readmes_say_the_same() -> None:
    """The same headings, level by level (their words are translated), and the same code blocks, byte by byte."""
    english, chinese = (ROOT / name for name in ("README.md", "README_zh.md"))
    levels, code = blocks(english.read_text(encoding="utf-8"))
    levels_zh, code_zh = blocks(chinese.read_text(encoding="utf-8"))
    assert levels and levels == levels_zh
    assert code and code == code_zh


def test_blocks() -> None:
    assert blocks("# A\n```bash\n# no heading\n```\n## B\n") == (["#", "##"], ["```bash\n# no heading\n```"])


@pytest.mark.parametrize("name", [".ci/run"])
def test_scripts_are_executable_and_stop_at_the_first_error(name: str) -> None:
    path = ROOT / name
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
