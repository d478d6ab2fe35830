"""``diffsplit recover``: a measurement file becomes a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn.functional import pad

from diffsplit import plots
from diffsplit.cli.choice import solver_with
from diffsplit.cli.common import (
    PICTURES,
    Device,
    Half,
    Seed,
    check_outputs,
    device_named,
    generator,
    one_of,
    precision,
    progress,
    say,
)
from diffsplit.cli.report import Row, report
from diffsplit.errors import InputError
from diffsplit.io.images import load_image, save_image
from diffsplit.io.measurements import load, read_facts
from diffsplit.plausibility import DOUBTFUL, contradiction
from diffsplit.plots.lettering import FONT_SIZE
from diffsplit.priors import Prior, load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import SOLVERS, Recovery, Solver
from diffsplit.solvers.intervals import check_level
from diffsplit.solvers.linear.base import LinearEstimate
from diffsplit.solvers.sampling import SamplingSolver

__all__ = ["recover"]

SAMPLES = 8
"""Drawn for intervals unless told otherwise."""
_ALGORITHMS = f"The algorithm: {', '.join(SOLVERS)}. The command diffsplit solvers explains them."


def recover(
    file: Annotated[Path, typer.Argument()],
    output: Annotated[Path, typer.Option("--output", "-o")],
    solver: Annotated[str, one_of(SOLVERS, _ALGORITHMS)] = "diffep",
    prior: Annotated[str | None, typer.Option()] = None,
    class_label: Annotated[int | None, typer.Option(min=0)] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000)] = None,
    data_step: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    lam: Annotated[float | None, typer.Option()] = None,
    purifier: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    ending: Annotated[str | None, one_of(("paper", "adapted"))] = None,
    samples: Annotated[int | None, typer.Option(min=1, max=1000)] = None,
    sampler: Annotated[str | None, typer.Option()] = None,
    interval: Annotated[float | None, typer.Option(metavar="LEVEL")] = None,
    half: Half = False,
    device: Device = "auto",
    seed: Seed = 0,
    truth: Annotated[Path | None, typer.Option()] = None,
    figure: Annotated[Path | None, typer.Option()] = None,
    trace: Annotated[Path | None, typer.Option()] = None,
    force: Annotated[bool, typer.Option("--force")] = False,
) -> None:
    """Recover the image behind a measurement file.

    A warning says if the picture that was found does not explain the measurements.

    Args:
        file: A file from `diffsplit measure`.
        output: The picture to write.
        prior: The model of images: a name of `diffsplit priors list`, a folder, a checkpoint or a
            hub id (default: the bundled one of the kind that the solver needs).
        class_label: The index of the class, for a prior that knows classes.
        prompt: What the picture shows, for a prior with a text encoder (default: nothing said).
        steps: The most steps (default for diffep 10, or 20 if it renoises, for diff-onebit 20, and
            for dcdp the rounds of its paper, 4 to 20).
        data_step: For diff-onebit: adam, the paper's 100 steps (default), or exact, the minimum.
        lam: For diff-onebit: λ > 0, the weight of the prior (default, as in the paper: 1 for a mask
            and 0.02 for other bits; 1 for blurs and small pictures, too).
        purifier: For dcdp: tweedie, one evaluation a round (default); ddim, up to 20, sharper; or
            consistency, one of a consistency model. For dcdp-latent one of the first two.
        ending: For dcdp and dcdp-latent of noisy measurements: paper, the last levels that its
            authors chose at 256×256 for σ_y = 0.1, or adapted to noise and size (default).
        samples: For diffep, from 2 on: draw that many pictures that fit the measurements, and show
            how much they differ (in --figure). The output is their mean, as without.
        sampler: A consistency model that draws each of the samples in 2 evaluations instead of 10:
            cats-64-consistency, a folder or a hub id.
        interval: For diffep, such as 0.9: also write bounds that hold that share of the pixels,
            OUTPUT-low and OUTPUT-high, and a figure of both with the standard deviation,
            OUTPUT-interval. Draws 8 samples unless --samples says otherwise.
        truth: The true image, to print how close the picture came.
        figure: Also write a side-by-side comparison to this picture.
        trace: Also write the numbers of every step of the estimate to this CSV file.
        force: Replace existing files.

    Examples:
        diffsplit recover cat.safetensors -o recovered.png
        diffsplit recover cat.safetensors -o recovered.png --truth cat.jpg --figure compare.png
        diffsplit recover cat.safetensors -o recovered.png --samples 8 --figure samples.png
        diffsplit recover cat.safetensors -o recovered.png --solver diff-onebit --trace steps.csv
        diffsplit recover cat.safetensors -o recovered.png --solver dcdp --purifier ddim
        diffsplit recover cat.safetensors -o recovered.png --solver dcdp-latent
    """
    names = () if interval is None else ("low", "high", "interval")
    parts = [output.with_name(f"{output.stem}-{name}{output.suffix}") for name in names]
    pictures = [(path, PICTURES) for path in parts]
    outputs = [(output, PICTURES), (figure, PICTURES), (trace, (".csv",)), *pictures]
    check_outputs(outputs, [file, truth], force)
    if interval is not None:
        samples = _samples(solver, interval, samples)
    if ending is not None and not solver.startswith("dcdp"):
        raise InputError("--ending belongs to --solver dcdp or dcdp-latent; leave it out.")
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
    told = {"class_label": class_label, "prompt": prompt}
    model = _prior(plain, prior, told, shape, place, half)
    if ending is not None:
        settings["ending"] = ending
    if sampling is not None:
        settings["sampler"] = load_prior(sampling, device=place)

    measurement = load(file)
    problem, y = measurement.problem, measurement.y.to(place)
    problem.operator.to(place)
    task = measurement.facts.get("task")
    algorithm = kind.for_problem(problem, task if isinstance(task, str) else None, **settings)
    with progress("recovering") as advance:
        g = generator(seed, "recover")
        result = algorithm(problem, y, model, generator=g, callback=advance)
    save_image(plots.image_grid(result.image, columns=min(len(y), 8)), output)
    if figure is not None:
        save_image(_figure(problem, y, result, expected), figure)
    if interval is not None:
        for path, bound in zip(parts, result.interval(interval), strict=False):
            save_image(plots.image_grid(bound, columns=min(len(y), 8)), path)
        save_image(_interval_figure(result, interval), parts[-1])
    if trace is not None:
        result.trace.write_csv(trace)
    report([Row.of(solver, problem, y, result.image, expected, result)], title=str(output))
    if result.predicted_error is not None:
        found = (10 * (4 / result.predicted_error).log10()).tolist()
        least, most = f"{min(found):.1f}", f"{max(found):.1f}"
        span = least if least == most else f"{least} to {most}"
        print(f"PSNR by the solver's own estimate of its error: {span} dB.")
    if parts:
        print("bounds: {}, {}; figure: {}".format(*parts))
    if not isinstance(algorithm, LinearEstimate):  # which does not claim to explain y
        for doubt in _doubts(problem, y, result, seed):
            say(f"Warning: {doubt}")


def _prior(
    solver: Solver,
    name: str | None,
    told: dict[str, Any],
    shape: tuple[int, ...],
    device: torch.device,
    half: bool,
) -> Prior | None:
    """The prior of that name, or the bundled one of the kind that the solver needs.

    Args:
        told: arguments of `load_prior` by their names; None for what is not given.
    """
    if solver.requires is None:
        for option, value in {"prior": name, **told, "half": half or None}.items():
            if value is not None:
                words = option.replace("_", "-")
                raise InputError(f"this solver needs no prior; leave out --{words}.")
        return None
    name = solver.requires.example if name is None else name
    model = load_prior(name, device=device, shape=shape, dtype=precision(half), **told)
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
    label, measured = plots.measurement_pictures(problem, y)
    rows += [(label, measured), ("recovery", result.image)]
    if result.samples is not None and result.std is not None:
        rows += [("one sample", result.samples[0]), ("std", plots.std_map(result.std))]
    return _labeled(rows)


def _interval_figure(result: Recovery, level: float) -> Tensor:
    """The recovery and its bounds in rows, and below them the standard deviation with its scale."""
    low, high = result.interval(level)
    assert result.std is not None  # there is an interval
    rows = [("recovery", result.image), (f"low, {level:.3g}", low), (f"high, {level:.3g}", high)]
    figure, maps = _labeled(rows), plots.std_figure(result.std.cpu(), scale=_scale(low))
    if len(low) > 1:
        return _joined(figure, maps, dim=1)
    room = FONT_SIZE // 2 + 1  # above the map, for the first label of its scale
    return _joined(pad(figure, (0, 0, room, 0), value=1.0), maps, dim=2)


def _labeled(rows: Sequence[tuple[str, Tensor]]) -> Tensor:
    """A row for each label and its images ``(B, C, H, W)``; one image a label all in one row."""
    rows, scale = [(label, images.cpu()) for label, images in rows], _scale(rows[0][1])
    if len(rows[0][1]) == 1:
        return plots.side_by_side([(label, images[0]) for label, images in rows], scale)
    return plots.comparison(rows, scale)


def _scale(images: Tensor) -> int:
    """How much a figure enlarges images."""
    return max(1, round(192 / images.shape[-1]))


def _joined(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Two figures ``(3, H, W)`` beside (2) or below (1) each other, on white."""
    across = 3 - dim
    size = max(first.shape[across], second.shape[across])
    parts = []
    for figure, gap in ((first, 16), (second, 0)):
        missing = size - figure.shape[across]
        right, below = (gap, missing) if dim == 2 else (missing, gap)
        parts.append(pad(figure, (0, right, 0, below), value=1.0))
    return torch.cat(parts, dim)


def _doubts(problem: Problem, y: Tensor, result: Recovery, seed: int) -> Iterator[str]:
    """What speaks against a result, a sentence each."""
    if result.note:
        yield result.note
    if result.converged is not None and not bool(result.converged.all()):
        yield result.reason or "the solver did not reach its fixed point."
    score = contradiction(problem, result.image, y, generator(seed, "check")).max().item()
    if score > DOUBTFUL:
        yield (
            f"the picture found does not explain the measurements (z = {score:.0f}): they may be "
            "of something that the prior does not know, or of another noise level."
        )
