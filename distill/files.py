"""Files are written beside and renamed: a reader never sees half a file, and what was there is lost only when the new
one is whole."""

import contextlib
import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from distill.errors import UserError

if TYPE_CHECKING:
    import numpy as np


_UNWRITABLE = (errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EISDIR)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; when the block ends well it is flushed to disk and renamed to `path`.

    Raises UserError, naming `path`, when the disk is full, the folder cannot be written or `path` is there and no file;
    the temporary file is removed and `path` keeps its former content.
    """
    target = Path(path)
    if _is_special(target):  # root could rename a file over /dev/null
        raise UserError(f"{path}: is there and no file; choose another path")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def _is_special(path: str | Path) -> bool:
    """Whether what is there is no file: a device, a pipe, a folder."""
    return os.path.exists(path) and not os.path.isfile(path)


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one line that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{path}: the disk is full; free some space or choose another folder, then run the same command"
            ) from error
        if error.errno in _UNWRITABLE:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        raise


def require_writable(folder: Path) -> None:
    """Make `folder` and try a file in it. Raises UserError where that fails, before the work whose result it is for."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def text_output(path: str | Path | None, printed: TextIO) -> Iterator[TextIO]:
    """What text is written to: `printed`, such as sys.stdout, or a file that is there whole when the block ends well
    (where `path` is a symbolic link, what it points to), or a device or pipe, which gets the text as it comes.

    A reader of `printed` or of a pipe that has enough, as `head` does, ends the block without an error.
    """
    if path is not None and str(path) in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        path = None  # a file behind it is not ours to replace
    if path is not None and _is_special(path):
        with contextlib.suppress(BrokenPipeError), disk_errors(path), open(path, "w", encoding="utf-8") as out:
            yield out
        return
    if path is not None:
        with atomic_path(os.path.realpath(path)) as temporary, open(temporary, "w", encoding="utf-8") as out:
            yield out
            out.flush()
        return
    if isinstance(printed, io.TextIOWrapper):
        printed.reconfigure(encoding="utf-8")  # whatever the locale, as a file is
    try:
        yield printed
        printed.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), printed.fileno())


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def save_array(path: Path, array: "np.ndarray") -> None:
    """As np.save, whose own writing loses the operating system's reason when the disk is full; not atomic."""
    import numpy as np  # most callers of this module must answer before it is imported

    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(array))
        handle.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; UserError with the file and row when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None


def read_settings(path: str | Path) -> dict[str, Any]:
    """As `read_json`, of a file that holds an object; UserError when it holds something else."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f'{path}: not a JSON object such as {{"name": "value"}}')
    return found


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
