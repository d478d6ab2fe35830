"""Whole recoveries of every solver in pixels against what they cannot do without.

For each: seconds of a whole run over its bare network evaluations (with a backward pass each where
the method has one), and over these with its applications of A and Aᵀ, which is the arithmetic that
its definition asks for. Eight cats, the bundled prior, one draw each; steps are few, since the
ratios do not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from common import SHAPE, cats, interleave, machine, parser

import diffsplit as ds
from diffsplit import channels, operators, solvers
from diffsplit.noise import seeded
from diffsplit.solvers.guidance.gradient import clipped_vjp


class Case(NamedTuple):
    """A solver, one of the problems, and whether each evaluation is also propagated back."""

    solver: ds.solvers.Solver
    problem: str = "blur"
    backward: bool = False


CASES = {
    "DiffEP": Case(solvers.DiffEP()),
    "DiffEP, bits": Case(solvers.DiffEP(), "bits"),
    "Diff-OneBit, exact": Case(solvers.DiffOneBit(data_step="exact"), "bits"),
    "Diff-OneBit, Adam": Case(solvers.DiffOneBit(), "bits"),
    "DCDP, V2": Case(solvers.DCDP(purifier="tweedie")),
    "DCDP, V1": Case(solvers.DCDP(purifier="ddim")),
    "DDRM": Case(solvers.DDRM()),
    "DDNM+": Case(solvers.DDNMPlus(steps=20)),
    "DiffPIR": Case(solvers.DiffPIR(steps=20)),
    "ADMM-PnP": Case(solvers.PnPADMM()),
    "ADMM-PnP, bits": Case(solvers.PnPADMM(), "bits"),
    "SIM-DMIS": Case(solvers.SIMDMIS(steps=30), "bits"),
    "DPS": Case(solvers.DPS(steps=20), backward=True),
    "MCG": Case(solvers.MCG(steps=20), backward=True),
    "ΠGDM": Case(solvers.PiGDM(steps=20), backward=True),
    "RED-diff": Case(solvers.RedDiff(steps=20)),
    "DAPS": Case(solvers.DAPS(levels=5)),
    "DAPS, no spectrum": Case(solvers.DAPS(levels=5), "function"),
    "DAPS, matrix": Case(solvers.DAPS(levels=5), "bits of a matrix"),
    "QCS-SGM": Case(solvers.QCSSGM(levels=5, step=0.2), "bits"),
    "QCS-SGM, matrix": Case(solvers.QCSSGM(levels=5, step=0.2), "bits of a matrix"),
}


def problems() -> dict[str, ds.Problem]:
    """Of the operators that the cases name."""
    blur = ds.tasks.problem("gaussian-deblur", SHAPE, sigma=0.05)
    own = operators.from_function(blur.operator.apply, SHAPE, adjoint=blur.operator.adjoint)
    bits = channels.OneBit(0.5)
    return {
        "blur": blur,
        "function": ds.Problem(own, blur.channel),
        "bits": ds.Problem(operators.RandomizedTransform(SHAPE, 768, seed=0), bits),
        "bits of a matrix": ds.Problem(operators.GaussianMatrix(SHAPE, 768, seed=0), bits),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3, help="of each timing (default 3)")
    repeats = options.parse_args().repeats
    prior, x, named = ds.load_prior("cats-64"), cats(), problems()
    assert isinstance(prior, ds.Denoiser)
    print(f"{machine()}; {len(x)} cats\n")
    print("| solver | evaluations | A, Aᵀ | seconds | × evaluations | × these and A, Aᵀ |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: |")
    for label, case in CASES.items():
        problem = named[case.problem]
        y = problem.measure(x, generator=seeded(0, "y"))
        result = case.solver(problem, y, prior, generator=seeded(0, label))
        operator = problem.operator
        measured = operator.apply(x)

        def whole(case: Case = case, problem: ds.Problem = problem, y: torch.Tensor = y) -> None:
            case.solver(problem, y, prior, generator=seeded(0, "run"))

        @torch.no_grad()
        def forward(count: int = result.nfe) -> None:
            for _ in range(count):
                prior.denoise(x, 1.0)

        def both_ways(count: int = result.nfe) -> None:
            for _ in range(count):
                clean, pullback = clipped_vjp(prior, x, 1.0)
                pullback(clean)

        @torch.no_grad()
        def applied(
            count: int = result.operator_calls,
            operator: operators.LinearOperator = operator,
            measured: torch.Tensor = measured,
        ) -> None:
            for _ in range((count + 1) // 2):
                operator.apply(x)
                operator.adjoint(measured)

        runs: dict[str, Callable[[], object]] = {"whole": whole, "A": applied}
        runs["bare"] = both_ways if case.backward else forward
        seconds = interleave(runs, repeats)
        least = seconds["bare"] + seconds["A"]
        print(
            f"| {label} | {result.nfe} | {result.operator_calls} | {seconds['whole']:.2f} | "
            f"{seconds['whole'] / seconds['bare']:.2f} | {seconds['whole'] / least:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
