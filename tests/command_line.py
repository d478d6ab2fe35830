"""Running commands in tests, and what a refusal has to look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import contents

from diffsplit import cli

__all__ = ["SIZE", "refused", "run", "spelled", "with_reasons"]

SIZE = 16
"""Of the images, in pixels."""


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object, code: int = 2
) -> str:
    """Run a command that must fail with one line on stderr and leave the folder as it was."""
    before = contents(folder)
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("Error: ")
    assert contents(folder) == before
    return captured.err


def spelled(options: object) -> str | None:
    """Options of a command as the name of a test case."""
    return " ".join(map(str, options)) or "defaults" if isinstance(options, tuple) else None


def with_reasons(*cases: tuple[tuple[object, ...], str]) -> pytest.MarkDecorator:
    """Parametrize a test over options to refuse, and a part of what it should say of each."""
    return pytest.mark.parametrize(("options", "reason"), cases, ids=spelled)
