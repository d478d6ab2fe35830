"""Writing files so that an interrupted run leaves the old contents or the new, never a half."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffsplit.errors import InputError

__all__ = ["atomic_folder", "atomic_write", "path_of"]

PREFIX = ".diffsplit-"
"""Of temporary names: short and fixed, so that any name that a file may have leaves room for it."""


def path_of(path: str | os.PathLike[str]) -> Path:
    """The path of that name, or an InputError if it is no text and no path."""
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise InputError(f"a path is text such as 'cat.png', not {type(path).__name__}.")
    return Path(path)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` when all went well.

    The temporary name has the suffix of ``path``. An InputError says that the folder does not exist
    or cannot be written to, or that ``path`` is a folder, a device or a pipe.
    """
    path = path_of(path)
    suffix = path.suffix if len(path.suffix) <= 16 else ""
    try:
        if not path.parent.is_dir():
            raise InputError(f"{path.parent}: no such folder; create it or choose another one.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: exists and is no plain file; choose another output path.")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PREFIX, suffix=suffix)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be created ({error.strerror}); choose another output path."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _usual_mode(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | os.PathLike[str], last: str) -> Iterator[Path]:
    """Yield a temporary folder; when all went well, rename its files into ``folder`` one by one.

    Other files of ``folder``, which is created if need be, stay. The temporary folder is inside it,
    and so on the same file system. The file named ``last``, in the folder itself, comes last and
    says that all are there. An InputError says that ``folder`` is a file.
    """
    folder = path_of(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give the name of a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=PREFIX))
    try:
        yield temporary
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        for file in sorted(files, key=(temporary / last).__eq__):
            target = folder / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            _usual_mode(file)
            os.replace(file, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _usual_mode(path: Path) -> None:
    """Give a file that was created for its owner alone the permissions of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
