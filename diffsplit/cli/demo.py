"""``diffsplit demo``: eight cats measured and recovered, as a figure and a table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffsplit.cli.common import (
    PICTURES,
    Device,
    OperatorKind,
    check_outputs,
    device_named,
    generator,
)
from diffsplit.cli.demo_restoration import default_sigma, restore
from diffsplit.cli.gallery import Gallery
from diffsplit.cli.methods import Method, SolverName
from diffsplit.cli.report import report
from diffsplit.cli.tasks import Task, problem_for
from diffsplit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplit.problem import Problem

__all__ = ["demo"]

DEFAULT_TASK = Task.onebit_cs
ROWS = 768
LEAST_SIGMA = 1e-3
QUANTIZED_SIGMA = 0.5
"""Of --sigma, for few bits; without noise the Adam steps of DiffOneBit have no gradient."""


def demo(
    task: Annotated[
        Task, typer.Option(help="What is done to the cats, as in diffsplit measure.")
    ] = DEFAULT_TASK,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The figure to write (default diffsplit-demo.png, or diffsplit-demo-TASK.png with "
            "--task; under that name an older one is replaced without asking).",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"For few bits: measurements of each image (default {ROWS}; for "
            "onebit-inpainting half of all).",
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Noise, before quantization if there is any, for images on [-1, 1] (default: 0.5 "
            "for few bits, 0.1 for denoise, 0.05 for a blur, 0 otherwise).",
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=8, help="How many cats.")] = 8,
    samples: Annotated[
        int, typer.Option(min=2, max=100, help="Posterior samples of each image.")
    ] = 8,
    operator: Annotated[
        OperatorKind | None,
        typer.Option(
            help="For few bits: the linear operator (default gaussian); a mask keeps pixels, as "
            "many as --rows allow."
        ),
    ] = None,
    prior: Annotated[
        str, typer.Option(help="The diffusion model: a bundled name, a folder or a hub id.")
    ] = "cats-64",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all randomness.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing figure.")] = False,
) -> None:
    """Measure eight cats that the prior has never seen, one bit at a time, and recover them.

    With the defaults each 64×64 color image is reduced to 768 bits, 96 bytes. The figure shows the
    truth, the back-projection Aᵀy or the pixels measured, both solvers, a posterior sample, and
    where the samples differ.

    With the --task of a restoration it shows the measurement, a linear baseline, the versions of
    DCDP that a bundled prior exists for, and DiffEP.
    """
    suffix = "" if task is DEFAULT_TASK else f"-{task.value}"
    target = output or Path(f"diffsplit-demo{suffix}.png")
    check_outputs([(target, PICTURES)], [], force or output is None)

    from diffsplit.plots.figures import comparison
    from diffsplit.io.images import save_image
    from diffsplit.priors import load_prior

    place = device_named(device)
    model = load_prior(prior, device=place)
    Method(SolverName.diffep).check_prior(model, prior)
    shape = (model.shape[0], model.shape[1], model.shape[2])
    truth = _cats(images, shape)
    problem = _problem(truth, task, rows, sigma, operator, seed)
    y = problem.measure(truth, generator=generator(seed, "measure")).to(place)
    problem.operator.to(place)
    gallery = Gallery(truth, problem, y, model, seed)
    missing = []
    if task.restoration is None:
        _recover_bits(gallery, samples)
    else:
        missing = restore(gallery, task.restoration, samples)
    save_image(comparison(gallery.pictures, max(1, round(128 / shape[1]))), target)
    cats = "1 cat" if images == 1 else f"{images} cats"
    title = f"{cats} of {shape[1]}×{shape[2]} pixels, {_facts(problem, task)}"
    report(gallery.rows, title=title)
    if missing:
        print(f"left out, since no bundled prior fits: {', '.join(missing)}")
    print(f"figure: {target}")


def _cats(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Bundled cats at the size of a prior."""
    from torch.nn.functional import interpolate

    from diffsplit.io.images import example_cats

    cats = example_cats()[:count]
    if cats.shape[1:] == shape:
        return cats
    return interpolate(cats, shape[1:], mode="bicubic", antialias=True).clamp(-1, 1)


def _problem(
    truth: Tensor,
    task: Task,
    rows: int | None,
    sigma: float | None,
    kind: OperatorKind | None,
    seed: int,
) -> Problem:
    """`problem_for` with the demo's own defaults: fixed --rows, also for a mask, and more noise."""
    if task.restoration is not None:
        sigma = default_sigma(task.restoration) if sigma is None else sigma
        return problem_for(truth, task, seed, rows=rows, sigma=sigma, kind=kind)
    if sigma is not None and sigma < LEAST_SIGMA:
        raise InputError(
            f"with few bits DiffOneBit needs noise to descend on; give --sigma {LEAST_SIGMA:g} or "
            "more."
        )
    if sigma is None and task is Task.quantized:
        sigma = QUANTIZED_SIGMA
    inpainting = task is Task.onebit_inpainting
    if rows is None and not inpainting:
        rows = ROWS
    fraction = None
    if rows is not None and (inpainting or kind is OperatorKind.mask):
        fraction, rows = min(1.0, rows / math.prod(truth.shape[1:])), None
    return problem_for(truth, task, seed, rows=rows, sigma=sigma, kind=kind, fraction=fraction)


def _recover_bits(gallery: Gallery, samples: int) -> None:
    from diffsplit.plots.figures import measurement_pictures

    problem = gallery.problem
    gallery.show("truth", gallery.truth)
    gallery.show(*measurement_pictures(problem, gallery.y))
    gallery.recover(Method(SolverName.diff_onebit).solver(problem, None), "DiffOneBit")
    gallery.recover_samples(samples)


def _facts(problem: Problem, task: Task) -> str:
    """What the title says of the measurements."""
    sigma = getattr(problem.channel, "sigma", None)
    noise = [] if sigma is None else [f"σ = {sigma:g}"]
    outcomes = problem.channel.outcomes
    if outcomes is None:
        return ", ".join([task.value, *noise])
    bits = math.ceil(math.log2(outcomes))
    count = f"{problem.operator.size_out:,} "
    count += "bits each" if bits == 1 else f"measurements of {bits} bits each"
    return ", ".join([count, *(noise or [task.value])])
