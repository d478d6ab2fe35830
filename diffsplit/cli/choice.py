"""The solver that a user chose, and which of the options it has: its own parameters say that."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from diffsplit.errors import InputError
from diffsplit.solvers import SOLVERS, Solver

__all__ = ["solver_with"]


def solver_with(name: str, steps: int | None, **given: Any) -> tuple[type[Solver], dict[str, Any]]:
    """A solver of `SOLVERS` and the parameters for it, or an InputError if it has no such ones.

    Args:
        steps: of ``--steps``; None leaves the solver its default, and so everywhere.
        given: the other options, each named as the parameter that it sets.
    """
    settings = {field: value for field, value in given.items() if value is not None}
    for option in (*settings, *(() if steps is None else ("steps",))):
        takers = [taker for taker, kind in SOLVERS.items() if option in _options(kind)]
        if name not in takers:
            raise InputError(
                f"--{option.replace('_', '-')} belongs to --solver {' or '.join(takers)}; leave it "
                "out, or choose such a solver."
            )
    kind = SOLVERS[name]
    if steps is not None:
        settings.update(dict.fromkeys(kind.step_fields, steps))
    return kind, settings


def _options(kind: type[Solver]) -> set[str]:
    names: list[str] = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    return {*names, *(["steps"] if kind.step_fields else [])}
