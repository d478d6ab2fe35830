"""The command line. Exit codes: 0, 2 for bad input, 1 for a fault of ours, 130 when interrupted."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches

import typer

from diffsplit.cli.common import say
from diffsplit.cli.main import app
from diffsplit.errors import DivergenceError, InputError

__all__ = ["main"]

INTERRUPTED = 130
UsageError = typer.BadParameter.__mro__[1]
"""What all complaints about options are, in every version of typer and click."""
WORDS = {
    r"(?:ds\.)?load_prior\('([^']*)'\)": r"\1",
    r"\bclass_label\b": "--class-label",
    r"\bleave prompt out\b": "leave --prompt out",
    r"use solvers\.linear_baseline\b.*": "choose another --solver (diffsplit solvers lists them).",
}
"""What messages for Python code say, and what the command line says instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the only place that catches errors.

    Args:
        argv: what follows ``diffsplit`` on the command line; by default that of this process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv or os.environ.get("DIFFSPLIT_DEBUG", "0") not in ("", "0")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without σ and Aᵀ is no reason to die
    try:
        code = app(
            args=[a for a in argv if a != "--debug"], prog_name="diffsplit", standalone_mode=False
        )
        if code == INTERRUPTED:  # newer typers turn the exception into this code
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _say("Interrupted.", INTERRUPTED)
    except InputError as error:
        message = str(error)
        for pattern, words in WORDS.items():
            message = re.sub(pattern, words, message)
        return _say(f"Error: {message}", 2, debug)
    except DivergenceError as error:
        return _say(f"Error: {error}", 1, debug)
    except OSError as error:
        reason = error.strerror or str(error)
        return _say(f"Error: {error.filename or 'system'}: {reason}.", 1, debug)
    except Exception as error:
        if isinstance(error, UsageError):
            return _say(f"Error: {_usage(error)}", 2)
        hint = "" if debug else " Run again with --debug for the details and please report them."
        return _say(
            f"Error: diffsplit failed unexpectedly ({type(error).__name__}: {error}).{hint}",
            1,
            debug,
        )


def _usage(error: Exception) -> str:
    command = getattr(getattr(error, "ctx", None), "command_path", "diffsplit")
    message = getattr(error, "format_message", lambda: str(error))()
    message = message.replace("Value error, ", "").rstrip(".")
    choice = re.search("'([^']*)' is not one of (.*)", message, re.DOTALL)
    near = get_close_matches(choice[1], re.findall("'([^']*)'", choice[2]), 1) if choice else []
    end = f"; did you mean '{near[0]}'?" if near else "."
    return f"{message}{end} Help: {command} --help"


def _say(message: str, code: int, trace: bool = False) -> int:
    """One line on stderr, after the traceback if that is wanted."""
    if trace:
        traceback.print_exc()
    say(message)
    return code
