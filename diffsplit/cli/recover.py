"""``diffsplit recover``: a measurement file becomes a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from diffsplit.cli.choice import solver_with
from diffsplit.cli.common import (
    PICTURES,
    Device,
    Seed,
    check_outputs,
    device_named,
    generator,
    one_of,
    progress,
    say,
)
from diffsplit.cli.report import Row, report
from diffsplit.errors import InputError
from diffsplit.io.images import load_image, save_image
from diffsplit.io.measurements import load, read_facts
from diffsplit.plausibility import DOUBTFUL, contradiction
from diffsplit.plots import comparison, image_grid, measurement_pictures, side_by_side, std_map
from diffsplit.priors import Prior, load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import SOLVERS, Recovery, Solver

__all__ = ["recover"]


def recover(
    file: Annotated[Path, typer.Argument(help="A file from `diffsplit measure`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")],
    solver: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            callback=one_of(SOLVERS),
            help=f"The algorithm: {', '.join(SOLVERS)}. The command diffsplit solvers explains "
            "them.",
        ),
    ] = "diffep",
    prior: Annotated[
        str | None,
        typer.Option(
            help="The model of images: a bundled name, a folder or a hub id (default: the bundled "
            "one of the kind that the solver needs)."
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
        str | None,
        typer.Option(
            metavar="NAME",
            help="For diff-onebit: adam, the paper's 100 steps (default), or exact, the minimum.",
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
        str | None,
        typer.Option(
            metavar="NAME",
            help="For dcdp: tweedie, one evaluation a round (default); ddim, up to 20, sharper; or "
            "consistency, one of a consistency model. For dcdp-latent one of the first two.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="For diffep, from 2 on: draw that many pictures that fit the measurements, and "
            "show how much they differ (in --figure). The output is their mean, as without.",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="A consistency model that draws each of the samples in 2 evaluations instead of "
            "10: cats-64-consistency, a folder or a hub id."
        ),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    truth: Annotated[
        Path | None, typer.Option(help="The true image, to print how close the picture came.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also write a side-by-side comparison to this picture.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Also write the numbers of every step of the estimate to this CSV file."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Recover the image behind a measurement file.

    A warning says if the picture that was found does not explain the measurements.
    """
    outputs: list[tuple[Path, tuple[str, ...]]] = [(output, PICTURES)]
    outputs += [(figure, PICTURES)] if figure else []
    outputs += [(trace, (".csv",))] if trace else []
    check_outputs(outputs, [file, *([truth] if truth else [])], force)
    kind, settings = solver_with(
        solver,
        steps,
        data_step=data_step,
        lam=lam,
        purifier=purifier,
        samples=samples,
        sampler=sampler,
    )
    # Names and sizes are compared before an operator is built, which may take minutes.
    place, sampling = device_named(device), settings.pop("sampler", None)
    plain, facts = kind(**settings), read_facts(file)
    shape = tuple(facts["image_shape"])
    expected = None if truth is None else _truth(truth, shape, facts["shape"][0])
    model = _prior(plain, prior, shape, place)
    if sampling is not None:
        settings["sampler"] = load_prior(sampling, device=place)

    measurement = load(file)
    problem, y = measurement.problem, measurement.y.to(place)
    problem.operator.to(place)
    task = measurement.facts.get("task")
    algorithm = kind.for_problem(problem, task if isinstance(task, str) else None, **settings)
    with progress("recovering") as advance:
        result = algorithm(
            problem, y, model, generator=generator(seed, "recover"), callback=advance
        )
    save_image(image_grid(result.image, columns=min(len(y), 8)), output)
    if figure is not None:
        save_image(_figure(problem, y, result, expected), figure)
    if trace is not None:
        result.trace.write_csv(trace)
    row = Row.of(solver, problem, y, result.image, expected, result.nfe, result.seconds)
    report([row], title=str(output))
    for doubt in _doubts(problem, y, result, seed):
        say(f"Warning: {doubt}")


def _prior(
    solver: Solver, name: str | None, shape: tuple[int, ...], device: torch.device
) -> Prior | None:
    """The prior of that name, or the bundled one of the kind that the solver needs."""
    if solver.requires is None:
        if name is not None:
            raise InputError("this solver needs no prior; leave out --prior.")
        return None
    model = load_prior(solver.requires.example if name is None else name, device=device)
    solver.check_prior(model, shape)
    return model


def _truth(path: Path, shape: tuple[int, ...], batch: int) -> Tensor:
    """The true image at the size of the measured one, if it can be compared."""
    if batch != 1 or len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise InputError(
            f"--truth compares one square image, in color or gray; the file holds {batch} of shape "
            f"{shape}."
        )
    return load_image(path, shape[1], channels=shape[0])


def _figure(problem: Problem, y: Tensor, result: Recovery, truth: Tensor | None) -> Tensor:
    rows = [] if truth is None else [("truth", truth)]
    label, measured = measurement_pictures(problem, y)
    rows += [(label, measured.cpu()), ("recovery", result.image.cpu())]
    if result.samples is not None and result.std is not None:
        rows += [("one sample", result.samples[0].cpu()), ("std", std_map(result.std).cpu())]
    scale = max(1, round(192 / result.image.shape[-1]))
    if len(y) == 1:
        return side_by_side([(label, images[0]) for label, images in rows], scale)
    return comparison(rows, scale)


def _doubts(problem: Problem, y: Tensor, result: Recovery, seed: int) -> Iterator[str]:
    """What speaks against a result, a sentence each."""
    if result.converged is not None and not bool(result.converged.all()):
        yield result.reason or "the solver did not reach its fixed point."
    score = contradiction(problem, result.image, y, generator(seed, "check")).max().item()
    if score > DOUBTFUL:
        yield (
            f"the picture found does not explain the measurements (z = {score:.0f}): they may be "
            "of something that the prior does not know, or of another noise level."
        )
