"""``diffsplit recover``: a measurement file becomes a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn.functional import pad

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
from diffsplit.plots import (
    comparison,
    image_grid,
    measurement_pictures,
    side_by_side,
    std_figure,
    std_map,
)
from diffsplit.plots.grids import FONT_SIZE
from diffsplit.priors import Prior, load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import SOLVERS, Recovery, Solver
from diffsplit.solvers.intervals import check_level
from diffsplit.solvers.linear.base import LinearEstimate
from diffsplit.solvers.sampling import SamplingSolver

__all__ = ["recover"]

SAMPLES = 8
"""Drawn for intervals unless told otherwise."""


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
            help="The most steps (default for diffep 10, or 20 if it renoises, for diff-onebit 20, "
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
    interval: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL",
            help="For diffep, such as 0.9: also write bounds that hold that share of the pixels, "
            "OUTPUT-low and OUTPUT-high, and a figure of both with the standard deviation, "
            f"OUTPUT-interval. Draws {SAMPLES} samples unless --samples says otherwise.",
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
    parts = {} if interval is None else _parts(output)
    outputs += [(path, PICTURES) for path in parts.values()]
    check_outputs(outputs, [file, *([truth] if truth else [])], force)
    if interval is not None:
        samples = _samples(solver, interval, samples)
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
    if interval is not None:
        low, high = result.interval(interval)
        for part, images in (("low", low), ("high", high)):
            save_image(image_grid(images, columns=min(len(y), 8)), parts[part])
        save_image(_interval_figure(result, interval), parts["interval"])
    if trace is not None:
        result.trace.write_csv(trace)
    row = Row.of(solver, problem, y, result.image, expected, result.nfe, result.seconds)
    report([row], title=str(output))
    if parts:
        print(f"bounds: {parts['low']}, {parts['high']}; figure: {parts['interval']}")
    if not isinstance(algorithm, LinearEstimate):  # which does not claim to explain y
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
    name = solver.requires.example if name is None else name
    model = load_prior(name, device=device, shape=shape)
    solver.check_prior(model, shape)
    return model


def _samples(solver: str, level: float, samples: int | None) -> int:
    """How many samples the intervals are made of, if the solver can draw them."""
    takers = [name for name, kind in SOLVERS.items() if issubclass(kind, SamplingSolver)]
    if solver not in takers:
        raise InputError(
            f"--interval is made of posterior samples, and {solver} draws none; leave it out, or "
            f"choose --solver {' or '.join(takers)}."
        )
    check_level(level)
    if samples is not None and samples < 2:
        raise InputError(
            f"--interval takes two samples or more; leave out --samples to draw {SAMPLES}."
        )
    return SAMPLES if samples is None else samples


def _parts(output: Path) -> dict[str, Path]:
    """Where the bounds and their figure go, beside the recovery."""
    return {
        part: output.with_name(f"{output.stem}-{part}{output.suffix}")
        for part in ("low", "high", "interval")
    }


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


def _interval_figure(result: Recovery, level: float) -> Tensor:
    """The recovery and its bounds in rows, and below them the standard deviation with its scale."""
    low, high = result.interval(level)
    assert result.std is not None  # there is an interval
    scale = max(1, round(192 / result.image.shape[-1]))
    rows = [("recovery", result.image), (f"low, {level:.3g}", low), (f"high, {level:.3g}", high)]
    maps = std_figure(result.std.cpu(), scale=scale)
    if len(low) == 1:
        panels = side_by_side([(label, images[0].cpu()) for label, images in rows], scale)
        room = FONT_SIZE // 2 + 1  # above the map, for the first label of its scale
        return _joined(pad(panels, (0, 0, room, 0), value=1.0), maps, dim=2)
    return _joined(
        comparison([(label, images.cpu()) for label, images in rows], scale), maps, dim=1
    )


def _joined(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Two figures ``(3, H, W)`` beside (2) or below (1) each other, on white."""
    across = 3 - dim
    size = max(first.shape[across], second.shape[across])
    gap = 16
    parts = []
    for figure, room in ((first, gap), (second, 0)):
        missing = (0, size - figure.shape[across])
        padding = (0, room, *missing) if dim == 2 else (*missing, 0, room)
        parts.append(pad(figure, padding, value=1.0))
    return torch.cat(parts, dim)


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
