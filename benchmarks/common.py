"""What the benchmarks share: images, priors, interleaved timing, and a line that says where."""

from __future__ import annotations

import argparse
import datetime
import functools
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

import diffsplit as ds
from diffsplit.io.images import example_cats, from_uint8, load_images
from diffsplit.noise import seeded
from diffsplit.solvers import DCDP, DiffEP, LatentDCDP, Solver

__all__ = [
    "SHAPE",
    "TASKS",
    "Answer",
    "Ending",
    "add_image_options",
    "cats",
    "chosen_images",
    "held_out",
    "interleave",
    "load_priors",
    "look",
    "machine",
    "one_bit",
    "parser",
    "preset",
    "prior_for",
    "recover",
    "restoration",
    "restoration_methods",
    "spread",
    "streams",
]

SHAPE = (3, 64, 64)

BATCH = 16
"""Images that are recovered at once."""

Ending = Literal["paper", "adapted"]
"""Of DCDP's purification of noisy measurements, see `DCDP.preset`."""


class Answer(NamedTuple):
    """Recovered images and what they cost.

    Attributes:
        image: ``(n, C, H, W)``.
        nfe: network evaluations per image.
        seconds: for all of them.
        predicted_error: the solver's own estimate of the squared error ``(n,)``, if it has one.
    """

    image: Tensor
    nfe: int
    seconds: float
    predicted_error: Tensor | None


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a benchmark's options; ``--help`` shows its docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def machine() -> str:
    """Machine and date; the figures below it hold for it alone, the ratios travel better."""
    return (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}, {datetime.date.today()}"
    )


def interleave(runs: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each run, taken in turn after one warm-up, so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def cats() -> Tensor:
    """The eight bundled held-out cats ``(8, 3, 64, 64)``."""
    return example_cats()


def add_image_options(parser: argparse.ArgumentParser, images: int) -> None:
    """``--images`` and ``--data``, for `chosen_images`."""
    parser.add_argument("--images", type=int, default=images, help=f"how many (default {images})")
    parser.add_argument(
        "--data", type=Path, help="folder or zip of held-out images (default: the eight bundled)"
    )


def held_out(options: argparse.Namespace) -> Tensor:
    """All images of ``--data`` ``(n, 3, 64, 64)``."""
    if options.images < 1:
        raise SystemExit("--images is at least 1.")
    return cats() if options.data is None else from_uint8(load_images(options.data, SHAPE[1]))


def spread(x: Tensor, count: int) -> Tensor:
    """``count`` images, evenly spread over a batch."""
    return x[:: max(1, len(x) // count)][:count]


def chosen_images(options: argparse.Namespace) -> Tensor:
    """``(n, 3, 64, 64)``: ``--images`` of ``--data``, evenly spread over it."""
    return spread(held_out(options), options.images)


def look(x: Tensor, truth: Tensor) -> str:
    """Mean LPIPS (AlexNet) for a table, or a dash where torchvision or its weights are missing."""
    return f"{ds.metrics.lpips(x, truth).mean():.3f}" if _has_lpips() else "–"


@functools.cache
def _has_lpips() -> bool:
    gray = torch.zeros(1, *SHAPE)
    try:
        return ds.metrics.lpips(gray, gray).numel() == 1
    except ds.InputError as error:
        print(f"Without LPIPS: {error}", file=sys.stderr)
        return False


def streams(count: int, purpose: str) -> list[torch.Generator]:
    """A generator an image, so that the batch an image is in does not matter."""
    return [seeded(i, purpose) for i in range(count)]


def load_priors(names: list[str]) -> list[ds.Prior]:
    """Those that can be loaded; for each of the others a line of why not."""
    priors = []
    for name in names:
        try:
            priors.append(ds.load_prior(name))
        except ds.InputError as error:
            print(f"Without {name}: {error}", file=sys.stderr)
    return priors


def prior_for(solver: Solver, priors: list[ds.Prior]) -> ds.Prior | None:
    """The first prior of the kind that a solver needs; None if there is none, or none is needed."""
    needed = solver.requires
    return next((p for p in priors if needed is not None and isinstance(p, needed)), None)


def recover(
    solver: Solver, problem: ds.Problem, y: Tensor, prior: ds.Prior | None, batch: int = BATCH
) -> Answer:
    """All images, ``batch`` at once."""
    sources = streams(len(y), "recover")
    results = [
        solver(problem, y[i : i + batch], prior, generator=sources[i : i + batch])
        for i in range(0, len(y), batch)
    ]
    image = torch.cat([result.image for result in results])
    predicted = [result.predicted_error for result in results]
    known = [error for error in predicted if error is not None]
    error = torch.cat(known) if len(known) == len(results) else None
    return Answer(image, results[0].nfe, sum(result.seconds for result in results), error)


TASKS = {
    "super-resolution": "super-resolution ×4, bicubic",
    "inpaint-box": "inpainting, 25×25 box",
    "inpaint-random": "inpainting, 50 % of the pixels",
    "gaussian-deblur": "Gaussian blur 15×15, std 0.75",
    "gaussian-deblur-wide": "Gaussian blur 15×15, std 1.5",
    "gaussian-deblur-widest": "Gaussian blur 61×61, std 3",
    "motion-deblur": "motion blur 15×15",
    "denoise": "denoising",
}
"""Tasks of `diffsplit.tasks`, which scales the DCDP paper's to 64×64, and what they are there.

The paper's Gaussian blur, so scaled, is mild enough to be inverted without noise; wider ones are
not. The widest has the paper's kernel."""
WIDER = {"gaussian-deblur-wide": (15, 1.5), "gaussian-deblur-widest": (61, 3.0)}


def restoration(task: str, noise: float) -> ds.Problem:
    """One of `TASKS` with Gaussian noise of that level; pixels and camera shake of seed 0."""
    if task not in WIDER:
        return ds.tasks.problem(task, SHAPE, sigma=noise)
    blur = ds.operators.Blur.gaussian(SHAPE, *WIDER[task])
    return ds.Problem(blur, ds.channels.GaussianNoise(sigma=noise))


def preset(task: str) -> str:
    """The name under which `DCDP.preset` has the settings for one of `TASKS`."""
    return "gaussian-deblur" if task in WIDER else task


def restoration_methods(
    task: str, size: int, noise: float, ending: Ending = "adapted"
) -> dict[str, Solver]:
    """DCDP in its versions and DiffEP, by name.

    DCDP answers with x_K, as its authors advise, where measurements are noiseless, and with v_K
    elsewhere.

    Args:
        task: one for which `DCDP.preset` has settings.
        size: side of the images.
        noise: σ_y.
        ending: where the purification of noisy measurements ends.
    """

    def settings(solver: type[DCDP] | type[LatentDCDP], purifier: str, **changes: str) -> Solver:
        return solver.preset(
            task,
            size,
            noise=noise,
            ending=ending,
            purifier=purifier,
            return_="purified" if noise > 0 else "consistent",
            **changes,
        )

    return {
        "DCDP, V1": settings(DCDP, "ddim"),
        "DCDP, V2": settings(DCDP, "tweedie"),
        "DCDP, CM": settings(DCDP, "consistency"),
        "latent DCDP, V1": settings(LatentDCDP, "ddim", consistency="pixel"),
        "latent DCDP, V2": settings(LatentDCDP, "tweedie", consistency="pixel"),
        "DiffEP": DiffEP(),
        "DiffEP, one sample": DiffEP(output="sample"),
    }


def one_bit(rows: int, operator: str) -> ds.Problem:
    """1-bit compressed sensing of a 64×64 picture, σ = 0.5."""
    return ds.tasks.problem("onebit-cs", SHAPE, rows=rows, operator=operator)
