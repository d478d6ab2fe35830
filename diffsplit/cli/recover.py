"""``diffsplit recover``: a measurement file becomes a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffsplit.cli.common import (
    PICTURES,
    Device,
    check_outputs,
    device_named,
    generator,
    progress,
)
from diffsplit.cli.methods import DataStep, Method, PurifierName, SolverName
from diffsplit.cli.report import Row, report
from diffsplit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplit.problem import Problem
    from diffsplit.solvers.recovery import Recovery

__all__ = ["recover"]


def recover(
    file: Annotated[Path, typer.Argument(help="A file from `diffsplit measure`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")],
    solver: Annotated[
        SolverName,
        typer.Option(
            help="diffep: message passing, a few network evaluations; diff-onebit: the splitting "
            "method of its paper, slower; dcdp: rounds of gradient steps and purification, meant "
            "for blurs, holes and small pictures; dcdp-latent: the same with a latent diffusion "
            "model."
        ),
    ] = SolverName.diffep,
    prior: Annotated[
        str | None,
        typer.Option(
            help="The diffusion model: a bundled name, a folder or a hub id (default cats-64; "
            "cats-64-latent for dcdp-latent, cats-64-consistency with --purifier consistency)."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="The most steps (default for diffep 8, or 20 if it renoises, for diff-onebit 20, "
            "and for dcdp the rounds of its paper, 4 to 20).",
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
            "a mask and 0.02 for other bits; 1 for blurs and small pictures, too)."
        ),
    ] = None,
    purifier: Annotated[
        PurifierName | None,
        typer.Option(
            help="For dcdp: tweedie, one evaluation a round (default); ddim, up to 20, sharper; or "
            "consistency, one of a consistency model. For dcdp-latent one of the first two."
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
    sampler: Annotated[
        str | None,
        typer.Option(
            help="A consistency model that draws each of the samples in 2 evaluations instead of "
            "10: cats-64-consistency, a folder or a hub id."
        ),
    ] = None,
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
    method = Method(solver, steps, samples, data_step, lam, purifier, sampler)

    from diffsplit.plots.figures import image_grid
    from diffsplit.io.images import save_image
    from diffsplit.io.measurements import load
    from diffsplit.priors import load_prior

    place = device_named(device)
    measurement = load(file)
    problem, y = measurement.problem, measurement.y
    expected = _truth(truth, problem, len(y))
    name = method.default_prior if prior is None else prior
    model = load_prior(name, device=place)
    method.check_prior(model, name)
    algorithm = method.solver(problem, measurement.facts.get("task"), place)
    problem.operator.to(place)
    y = y.to(place)
    with progress("recovering") as advance:
        result = algorithm(
            problem, y, model, generator=generator(seed, "recover"), callback=advance
        )
    save_image(image_grid(result.image, columns=min(len(y), 8)), output)
    if figure is not None:
        save_image(_figure(problem, y, result, expected), figure)
    if trace is not None:
        result.trace.write_csv(trace)
    row = Row.of(solver.value, problem, y, result.image, expected, result.nfe, result.seconds)
    report([row], title=str(output))


def _truth(path: Path | None, problem: Problem, batch: int) -> Tensor | None:
    """The true image at the size of the measured one, if it is given and can be compared."""
    from diffsplit.io.images import load_image

    if path is None:
        return None
    shape = problem.operator.shape_in
    if batch != 1 or len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise InputError(
            f"--truth compares one square RGB image; the file holds {batch} of shape {shape}."
        )
    return load_image(path, shape[1])


def _figure(problem: Problem, y: Tensor, result: Recovery, truth: Tensor | None) -> Tensor:
    from diffsplit.plots.figures import comparison, measurement_pictures, side_by_side, std_map

    rows = [] if truth is None else [("truth", truth)]
    label, measured = measurement_pictures(problem, y)
    rows += [(label, measured.cpu()), ("recovery", result.image.cpu())]
    if result.samples is not None and result.std is not None:
        rows += [("one sample", result.samples[0].cpu()), ("std", std_map(result.std).cpu())]
    scale = max(1, round(192 / result.image.shape[-1]))
    if len(y) == 1:
        return side_by_side([(label, images[0]) for label, images in rows], scale)
    return comparison(rows, scale)
