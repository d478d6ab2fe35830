"""What a folder holds, to see whether anything in it was touched."""

from __future__ import annotations

from pathlib import Path

__all__ = ["contents"]


def contents(folder: Path) -> dict[Path, bytes]:
    """The bytes of each file below the folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
