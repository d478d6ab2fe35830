"""``diffsplit demo``: eight cats measured and recovered, as a figure and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffsplit.cli.common import (
    PICTURES,
    Device,
    OperatorKind,
    build_operator,
    check_outputs,
    device_named,
    generator,
    progress,
)
from diffsplit.cli.report import Row, report

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplit.solvers.recovery import Recovery

__all__ = ["demo"]

DEFAULT_OUTPUT = Path("diffsplit-demo.png")


def demo(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"The figure to write (default {DEFAULT_OUTPUT})."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="One-bit measurements of each image.")] = 768,
    sigma: Annotated[
        float,
        typer.Option(min=1e-3, help="Noise before the sign is taken, for images on [-1, 1]."),
    ] = 0.5,
    images: Annotated[int, typer.Option(min=1, max=8, help="How many cats.")] = 8,
    samples: Annotated[
        int, typer.Option(min=2, max=100, help="Posterior samples of each image.")
    ] = 8,
    operator: Annotated[
        OperatorKind,
        typer.Option(help="The linear operator; a mask keeps pixels, as many as --rows allow."),
    ] = OperatorKind.gaussian,
    prior: Annotated[
        str, typer.Option(help="The diffusion model: a bundled name, a folder or a hub id.")
    ] = "cats-64",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all randomness.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing figure.")] = False,
) -> None:
    """Measure eight cats that the prior has never seen, one bit at a time, and recover them.

    With the defaults each 64×64 color image is reduced to 768 bits, 96 bytes. The figure shows the
    truth, the back-projection Aᵀy, both solvers, a posterior sample, and where the samples differ.
    """
    target = output or DEFAULT_OUTPUT
    check_outputs([(target, PICTURES)], [], force or output is None)

    from torch.nn.functional import interpolate

    from diffsplit.channels import OneBit
    from diffsplit.figures import comparison, std_map, stretch
    from diffsplit.images import example_cats, save_image
    from diffsplit.priors import load_prior
    from diffsplit.problem import Problem
    from diffsplit.solvers import DiffEP, DiffOneBit

    place = device_named(device)
    model = load_prior(prior, device=place)
    shape = (model.shape[0], model.shape[1], model.shape[2])
    truth = example_cats()[:images]
    if truth.shape[1:] != shape:
        truth = interpolate(truth, shape[1:], mode="bicubic", antialias=True).clamp(-1, 1)
    fraction = min(1.0, rows / (shape[0] * shape[1] * shape[2]))
    problem = Problem(build_operator(operator, shape, rows, fraction, seed), OneBit(sigma=sigma))
    y = problem.measure(truth, generator=generator(seed, "measure")).to(place)
    problem.operator.to(place)

    def solve(solver: DiffEP | DiffOneBit, label: str) -> Recovery:
        with progress(label) as advance:
            return solver(problem, y, model, generator=generator(seed, "recover"), callback=advance)

    def row(method: str, images: Tensor, result: Recovery) -> Row:
        times = len(images) // len(y)  # samples follow each other, each a batch
        shown, bits = truth.repeat(times, 1, 1, 1), y.repeat(times, *(1,) * (y.ndim - 1))
        return Row.of(method, problem, bits, images, shown, result.nfe, result.seconds)

    paper = solve(DiffOneBit(), "DiffOneBit")
    mean = solve(DiffEP(), "DiffEP")
    drawn = solve(DiffEP(samples=samples), f"DiffEP, {samples} samples")
    assert drawn.samples is not None
    assert drawn.std is not None
    figure = [
        ("truth", truth),
        ("A^T y", stretch(problem.backprojection(y)).cpu()),
        ("DiffOneBit", paper.image.cpu()),
        ("DiffEP mean", mean.image.cpu()),
        ("DiffEP sample", drawn.samples[0].cpu()),
        (f"std of\n{samples} samples", std_map(drawn.std).cpu()),
    ]
    save_image(comparison(figure, max(1, round(128 / shape[1]))), target)
    count = y[0].numel()
    report(
        [
            row("DiffOneBit", paper.image, paper),
            row("DiffEP, mean", mean.image, mean),
            row(f"DiffEP, {samples} samples", drawn.samples.flatten(0, 1), drawn),
        ],
        title=f"{images} cats of {shape[1]}×{shape[2]} pixels, {count:,} bits each, σ = {sigma:g}",
    )
    print(f"figure: {target}")
