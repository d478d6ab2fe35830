"""From the columns of a benchmark to solvers: which there are, and what prior each needs."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from diffsplit.bench.config import BASELINE, Method, Priors, Row
from diffsplit.errors import InputError
from diffsplit.priors import ConsistencyModel, Denoiser, LatentModel, Prior
from diffsplit.problem import Problem
from diffsplit.solvers import SOLVERS, Solver, linear_baseline

__all__ = ["KINDS", "missing_solver", "prior_of", "solver_of"]

KINDS: dict[type[Prior], str] = {
    Denoiser: "denoiser",
    ConsistencyModel: "consistency",
    LatentModel: "latent",
}
"""Under which name `Priors` has each kind."""


def missing_solver(method: Method) -> str:
    """Why a method's solver is not there, in a sentence; "" if it is."""
    if method.solver in SOLVERS or method.solver == BASELINE:
        return ""
    near = get_close_matches(method.solver, [*SOLVERS, BASELINE], 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"This version of diffsplit has no solver {method.solver!r}{hint}"


def prior_of(method: Method, priors: Priors) -> str | None:
    """The name of the prior that a method needs; None if it needs none.

    Raises:
        InputError: no prior of that kind is set, or a setting of the solver is wrong.
    """
    if method.solver == BASELINE:
        return None
    kind: Any = SOLVERS[method.solver]
    # Of the settings only the purifier chooses the kind; others may need the preset of a task.
    chosen = {k: v for k, v in method.all_settings.items() if k == "purifier"}
    needed = kind(**chosen).requires
    if needed is None:
        return None
    if method.prior is not None:
        return method.prior
    name = next((name for known, name in KINDS.items() if issubclass(needed, known)), None)
    found: str | None = None if name is None else getattr(priors, name)
    if found is None:
        raise InputError(
            f"{method.label} needs a {needed.kind}; set priors.{name}, for example to "
            f"{needed.example}."
        )
    return found


def solver_of(method: Method, row: Row, problem: Problem, load: Callable[[str], Prior]) -> Solver:
    """The solver of a method with the settings that suit a problem.

    Args:
        load: gives a consistency model that the settings name as the sampler.

    Raises:
        InputError: a setting is wrong, or does not go with the task.
    """
    if method.solver == BASELINE:
        return linear_baseline(problem)
    settings = dict(method.all_settings)
    if isinstance(settings.get("sampler"), str):
        settings["sampler"] = load(settings["sampler"])
    try:
        return SOLVERS[method.solver].for_problem(problem, method.preset or row.task, **settings)
    except TypeError as error:
        raise InputError(
            f"{method.label}: the settings {', '.join(settings)} do not go with the task "
            f"{row.task} ({error})."
        ) from error
