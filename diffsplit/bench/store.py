"""The results of a benchmark in one SQLite file, which an interruption cannot spoil.

``DIR/results.sqlite`` is in WAL mode: one process writes, others may read meanwhile. An entry and
its pictures are added in one transaction, so that a killed writer leaves all of it or nothing.
Pictures are compressed, and one that several entries share, such as the truth, is kept once.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from diffsplit.errors import InputError

__all__ = ["STORE_NAME", "Entry", "Label", "Store"]

STORE_NAME = "results.sqlite"

_VERSION = 1
"""Of the tables, kept in SQLite's user_version."""
_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, row TEXT NOT NULL, solver TEXT NOT NULL, image TEXT NOT NULL,
    seed INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, numbers TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS plan (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL, row TEXT NOT NULL, solver TEXT NOT NULL,
    image TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS pictures (
    key TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (key, name)
);
CREATE TABLE IF NOT EXISTS blobs (
    hash TEXT PRIMARY KEY, channels INTEGER, height INTEGER, width INTEGER, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Entry:
    """One solver on one image of one task with one seed.

    Attributes:
        key: content hash of all that determines it.
        row: label of the task, a row of the table.
        solver: label of the method, a column.
        image: name of the image.
        seed: of the noise and the solver.
        status: "done", "failed" (``reason`` says why) or "missing" (there is no such solver yet).
        reason: a sentence, "" if done.
        values: numbers by name: "psnr", "ssim", "seconds" (per image), "nfe", ….
    """

    key: str
    row: str
    solver: str
    image: str
    seed: int
    status: str
    reason: str
    values: dict[str, float]


@dataclass(frozen=True)
class Label:
    """Under which labels the entry of a key is shown, see `Entry`."""

    key: str
    row: str
    solver: str
    image: str


class Store:
    """The entries, pictures and facts of one run. It is a context manager that closes itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, folder: Path, *, write: bool = False) -> Store:
        """The store of a folder.

        Args:
            write: create the folder and the store if need be. One process may write at a time.

        Raises:
            InputError: there is no store and ``write`` is False, or it is none of ours.
        """
        path = Path(folder) / STORE_NAME
        if not write and not path.is_file():
            raise InputError(
                f"{folder}: holds no results ({STORE_NAME}); give the folder that diffsplit bench "
                "wrote."
            )
        try:
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise InputError(
                    f"{path}: was written by another version of diffsplit; choose a new folder."
                )
            if write:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(_TABLES)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"{path}: cannot be used as a store of results ({error}); choose another folder."
            ) from error
        return cls(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._connection.close()

    def entries(self) -> list[Entry]:
        """What is there of the run that was planned last, in its order; without a plan, all."""
        planned = self._rows(
            "SELECT entries.key, plan.row, plan.solver, plan.image, seed, status, reason, numbers "
            "FROM plan JOIN entries ON entries.key = plan.key ORDER BY position"
        )
        if not planned and not self._rows("SELECT 1 FROM plan LIMIT 1"):
            planned = self._rows(
                "SELECT key, row, solver, image, seed, status, reason, numbers FROM entries "
                "ORDER BY rowid"
            )
        return [_entry(*row) for row in planned]

    def keys(self) -> set[str]:
        """Of all entries that are there, planned or not, except those that miss a solver."""
        return {row[0] for row in self._rows("SELECT key FROM entries WHERE status != 'missing'")}

    def pictures(self, key: str) -> dict[str, Tensor]:
        """The pictures that were kept of an entry, by name: uint8 ``(C, H, W)``."""
        rows = self._rows(
            "SELECT name, channels, height, width, data FROM pictures JOIN blobs "
            "ON blobs.hash = pictures.hash WHERE key = ?",
            (key,),
        )
        return {name: _unpacked(data, shape) for name, *shape, data in rows}

    def facts(self) -> dict[str, Any]:
        """What the run was: "title", "machine", "rows", "solvers", "metrics", "printed", …."""
        return {name: json.loads(value) for name, value in self._rows("SELECT * FROM facts")}

    def add(self, entry: Entry, pictures: Mapping[str, Tensor] | None = None) -> None:
        """Add an entry with its pictures, in one transaction; one of its key is replaced.

        Args:
            pictures: by name, uint8 ``(C, H, W)``.
        """
        self.add_all([(entry, pictures or {})])

    def add_all(self, added: Iterable[tuple[Entry, Mapping[str, Tensor]]]) -> None:
        """`add` for several, in one transaction."""
        packed = [
            (entry, [(name, *_packed(picture)) for name, picture in pictures.items()])
            for entry, pictures in added
        ]
        with self._connection as db, closing(db.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            for entry, blobs in packed:
                cursor.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        entry.key,
                        entry.row,
                        entry.solver,
                        entry.image,
                        entry.seed,
                        entry.status,
                        entry.reason,
                        json.dumps(entry.values),
                    ),
                )
                cursor.execute("DELETE FROM pictures WHERE key = ?", (entry.key,))
                for name, digest, shape, data in blobs:
                    cursor.execute(
                        "INSERT OR IGNORE INTO blobs VALUES (?, ?, ?, ?, ?)", (digest, *shape, data)
                    )
                    cursor.execute(
                        "INSERT INTO pictures VALUES (?, ?, ?)", (entry.key, name, digest)
                    )

    def plan(self, labels: Iterable[Label], facts: Mapping[str, Any]) -> None:
        """Say which entries a run will have, and what it is; those of an earlier run stay.

        Args:
            labels: in the order in which `entries` shall list them.
            facts: for `facts`; all earlier ones are replaced.
        """
        with self._connection as db, closing(db.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("DELETE FROM plan")
            cursor.executemany(
                "INSERT INTO plan VALUES (?, ?, ?, ?, ?)",
                [(i, x.key, x.row, x.solver, x.image) for i, x in enumerate(labels)],
            )
            cursor.execute("DELETE FROM facts")
            cursor.executemany(
                "INSERT INTO facts VALUES (?, ?)",
                [(name, json.dumps(value, ensure_ascii=False)) for name, value in facts.items()],
            )

    def note(self, name: str, value: Any) -> None:
        """Set one fact."""
        self._connection.execute(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)",
            (name, json.dumps(value, ensure_ascii=False)),
        )

    def _rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise InputError(
                f"the store of results cannot be read ({error}); run the benchmark again, or give "
                "another folder."
            ) from error


def _entry(
    key: str, row: str, solver: str, image: str, seed: int, status: str, reason: str, numbers: str
) -> Entry:
    return Entry(key, row, solver, image, seed, status, reason, json.loads(numbers))


def _packed(picture: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """Hash, shape and compressed bytes of a picture."""
    if picture.dtype != torch.uint8 or picture.ndim != 3:
        raise InputError(
            "pictures are kept as bytes (C, H, W); convert floats with ds.images.to_uint8."
        )
    shape, content = tuple(picture.shape), picture.cpu().contiguous().numpy().tobytes()
    digest = hashlib.blake2b(repr(shape).encode() + content, digest_size=16).hexdigest()
    return digest, shape, zlib.compress(content, 6)


def _unpacked(data: bytes, shape: list[int]) -> Tensor:
    values = np.frombuffer(bytearray(zlib.decompress(data)), np.uint8)
    return torch.from_numpy(values).reshape(shape)
