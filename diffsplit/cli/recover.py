"""``diffsplit recover``: a measurement file becomes a picture."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffsplit.cli.common import (
    PICTURES,
    Device,
    check_outputs,
    device_named,
    generator,
    progress,
)
from diffsplit.cli.report import Row, report
from diffsplit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplit.problem import Problem
    from diffsplit.solvers.base import Solver
    from diffsplit.solvers.recovery import Recovery

__all__ = ["SolverName", "recover"]


class SolverName(str, Enum):
    """Algorithms on the command line."""

    diffep = "diffep"
    diff_onebit = "diff-onebit"
    dcdp = "dcdp"


class DataStep(str, Enum):
    """How DiffOneBit weighs the measurements against the prior."""

    adam = "adam"
    exact = "exact"


def recover(
    file: Annotated[Path, typer.Argument(help="A file from `diffsplit measure`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")],
    solver: Annotated[
        SolverName,
        typer.Option(
            help="diffep: message passing, a few network evaluations; diff-onebit: the splitting "
            "method of its paper, slower; dcdp: rounds of gradient steps and purification, for the "
            "tasks whose measurements are real numbers."
        ),
    ] = SolverName.diffep,
    prior: Annotated[
        str,
        typer.Option(help="The diffusion model: a bundled name, a folder or a hub id."),
    ] = "cats-64",
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="The most steps (default 8 for diffep, 20 for diff-onebit, and for dcdp the 10 "
            "or 20 of its paper).",
        ),
    ] = None,
    data_step: Annotated[
        DataStep | None,
        typer.Option(
            help="For diff-onebit: adam, the paper's 100 steps (default), or exact, the minimum."
        ),
    ] = None,
    lam: Annotated[
        float | None,
        typer.Option(
            help="For diff-onebit: λ > 0, the weight of the prior (default, as in the paper: 1 for "
            "a mask and 0.02 otherwise)."
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="From 2 on: draw that many pictures that fit the measurements, and show how much "
            "they differ (in --figure). The output is their mean, as without.",
        ),
    ] = 1,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all randomness.")] = 0,
    truth: Annotated[
        Path | None, typer.Option(help="The true image, to print how close the picture came.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also write a side-by-side comparison to this picture.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Also write the numbers of every step to this CSV file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Recover the image behind a measurement file."""
    outputs: list[tuple[Path, tuple[str, ...]]] = [(output, PICTURES)]
    outputs += [(figure, PICTURES)] if figure else []
    outputs += [(trace, (".csv",))] if trace else []
    check_outputs(outputs, [file, *([truth] if truth else [])], force)
    if samples > 1 and solver is not SolverName.diffep:
        raise InputError("only --solver diffep draws samples; leave out --samples.")
    if solver is not SolverName.diff_onebit and not (data_step is None and lam is None):
        raise InputError(
            "--data-step and --lam belong to --solver diff-onebit; leave them out or add that."
        )

    from diffsplit.figures import image_grid
    from diffsplit.images import save_image
    from diffsplit.measurement_file import load
    from diffsplit.priors import load_prior

    place = device_named(device)
    measurement = load(file)
    problem, y = measurement.problem, measurement.y
    expected = _truth(truth, problem, len(y))
    model = load_prior(prior, device=place)
    problem.operator.to(place)
    y = y.to(place)
    if solver is SolverName.diffep:
        method: Solver = _diff_ep(steps, samples)
    elif solver is SolverName.diff_onebit:
        method = _diff_onebit(problem, steps, data_step, lam)
    else:
        method = _dcdp(problem, measurement.facts.get("task"), steps)
    with progress("recovering") as advance:
        result = method(problem, y, model, generator=generator(seed, "recover"), callback=advance)
    save_image(image_grid(result.image, columns=min(len(y), 8)), output)
    if figure is not None:
        save_image(_figure(problem, y, result, expected), figure)
    if trace is not None:
        result.trace.write_csv(trace)
    row = Row.of(solver.value, problem, y, result.image, expected, result.nfe, result.seconds)
    report([row], title=str(output))


def _diff_ep(steps: int | None, samples: int) -> Solver:
    from diffsplit.solvers import DiffEP

    return DiffEP(samples=samples) if steps is None else DiffEP(iterations=steps, samples=samples)


def _diff_onebit(
    problem: Problem, steps: int | None, data_step: DataStep | None, lam: float | None
) -> Solver:
    from diffsplit.operators import PixelMask
    from diffsplit.solvers import DiffOneBit

    if lam is None:
        lam = 1.0 if isinstance(problem.operator, PixelMask) else 0.02
    exact = data_step is DataStep.exact
    return DiffOneBit(
        steps=20 if steps is None else steps, lam=lam, data_step="exact" if exact else "adam"
    )


def _dcdp(problem: Problem, task: object, steps: int | None) -> Solver:
    """The paper's settings for a task that they exist for, else the general ones."""
    from diffsplit.channels import GaussianNoise
    from diffsplit.solvers import DCDP
    from diffsplit.solvers.dcdp_presets import TASKS

    rounds: dict[str, Any] = {} if steps is None else {"rounds": steps}
    shape, channel = problem.operator.shape_in, problem.channel
    # Version 2: one evaluation a round, and the highest PSNR.
    if not isinstance(channel, GaussianNoise):  # bits are soon overfitted, see `DCDP`
        return DCDP(purifier="tweedie", tau=5, end=100, **rounds)
    if not isinstance(task, str) or task not in TASKS:
        return DCDP(purifier="tweedie", **rounds)
    return DCDP.preset(
        task, image_size=shape[-1], noise=channel.sigma, purifier="tweedie", **rounds
    )


def _truth(path: Path | None, problem: Problem, batch: int) -> Tensor | None:
    """The true image at the size of the measured one, if it is given and can be compared."""
    from diffsplit.images import load_image

    if path is None:
        return None
    shape = problem.operator.shape_in
    if batch != 1 or len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise InputError(
            f"--truth compares one square RGB image; the file holds {batch} of shape {shape}."
        )
    return load_image(path, shape[1])


def _figure(problem: Problem, y: Tensor, result: Recovery, truth: Tensor | None) -> Tensor:
    from diffsplit.figures import comparison, side_by_side, std_map, stretch

    rows = [] if truth is None else [("truth", truth)]
    rows += [("A^T y", stretch(problem.backprojection(y)).cpu()), ("recovery", result.image.cpu())]
    if result.samples is not None and result.std is not None:
        rows += [("one sample", result.samples[0].cpu()), ("std", std_map(result.std).cpu())]
    scale = max(1, round(192 / result.image.shape[-1]))
    if len(y) == 1:
        return side_by_side([(label, images[0]) for label, images in rows], scale)
    return comparison(rows, scale)
