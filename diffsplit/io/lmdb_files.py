"""The images of an LMDB database, as LSUN is distributed: a file of an image under each key."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from diffsplit.errors import InputError, MissingDependencyError

__all__ = ["is_lmdb", "lmdb_files"]


def is_lmdb(path: Path) -> bool:
    """Whether a folder is an LMDB database."""
    return (path / "data.mdb").is_file()


def lmdb_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of a database with their keys as names, in the order of the keys.

    Raises:
        InputError: the database cannot be read.
        MissingDependencyError: lmdb is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: is an LMDB database, which needs lmdb: pip install 'diffsplit[lsun]'."
        ) from error
    try:
        with (
            lmdb.open(str(path), readonly=True, lock=False, readahead=False) as database,
            database.begin() as transaction,
        ):
            for key, content in transaction.cursor():
                yield f"{path}:{key.decode('ascii', 'backslashreplace')}", io.BytesIO(content)
    except lmdb.Error as error:
        raise InputError(
            f"{path}: cannot be read as an LMDB database ({error}); unpack it again."
        ) from error
