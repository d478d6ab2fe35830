"""How DCDP converges, and what the decaying schedule is for: the DCDP paper's Figures 8 and 9.

    python studies/dcdp_schedules.py --data val.zip --images 16

Writes two pictures to ``studies/figures/``, or to ``--out``, and prints their numbers:

    schedules.png   PSNR, SSIM and data misfit over the gradient steps, noiseless, of the data steps
                    alone and of purification at a large, a small and a falling strength. A curve
                    has x_k and then v_k at the end of round k: it jumps where purification acts.
    iterates.png    x_k and v_k of one cat, from noisy super-resolution (σ_y = 0.05).

The paper plots LPIPS, which needs another network. PSNR is what Version 2 is after, which is
therefore the purifier here; ``--purifier ddim`` takes Version 1. Without noise a circular motion
blur can be inverted, and there the data steps alone come closest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from common import SHAPE, add_image_options, chosen_images, parser, streams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import diffsplit as ds
from diffsplit.data_steps import CollapsedMomentum
from diffsplit.devices import machine
from diffsplit.io.images import to_uint8
from diffsplit.metrics import psnr, ssim
from diffsplit.solvers import DCDP, Step

TASKS = {
    "super-resolution": "super-resolution ×4, bicubic",
    "inpaint-box": "inpainting, 25×25 box",
    "gaussian-deblur": "Gaussian blur, std 3",
    "motion-deblur": "motion blur 15×15",
}
"""Of `diffsplit.tasks`; the paper's Gaussian blur, reduced to 64×64, could be inverted."""
WIDE = 3.0
"""Its standard deviation in pixels."""
SMALL = 50
"""T of the weak purification; the strong one stays where the task's schedule starts."""
NOISE = 0.05
"""Of the iterates."""
COLORS = {"data alone": "C1", "constant, large": "C2", "constant, small": "C3", "linear": "C0"}


class Curve:
    """PSNR (dB), SSIM and ½‖A x − y‖² of x_1, v_1, x_2, v_2, …, means over the images."""

    def __init__(self, problem: ds.Problem, y: Tensor, truth: Tensor) -> None:
        self.problem, self.y, self.truth = problem, y, truth
        self.psnr: list[float] = []
        self.ssim: list[float] = []
        self.misfit: list[float] = []

    def add(self, x: Tensor) -> None:
        """One iterate, clipped as an answer would be."""
        x = x.clamp(-1, 1)
        self.psnr.append(psnr(x, self.truth).mean().item())
        self.ssim.append(ssim(x, self.truth).mean().item())
        residual = (self.problem.operator.apply(x) - self.y).flatten(1)
        self.misfit.append(0.5 * residual.square().sum(1).mean().item())

    def watch(self, step: Step) -> None:
        """A solver's callback."""
        assert step.consistent is not None
        self.add(step.consistent)
        self.add(step.image)

    def show(self, title: str) -> None:
        """Print it."""
        print(f"\n{title}")
        print("  PSNR of x  " + " ".join(f"{value:5.2f}" for value in self.psnr[0::2]))
        print("  PSNR of v  " + " ".join(f"{value:5.2f}" for value in self.psnr[1::2]))
        last = zip("xv", self.ssim[-2:], self.misfit[-2:], strict=True)
        ends = (f"{name}: SSIM {value:.3f}, misfit {misfit:.3g}" for name, value, misfit in last)
        print("  at the end " + "; ".join(ends), flush=True)


@torch.no_grad()
def data_alone(curve: Curve, solver: DCDP) -> None:
    """The same rounds of gradient steps, and nothing between them."""
    assert solver.step_size is not None
    step = CollapsedMomentum(curve.problem, curve.y, solver.tau, solver.step_size, solver.momentum)
    x = torch.zeros_like(curve.truth)
    for _ in range(solver.rounds):
        x = step(x)
        curve.add(x)
        curve.add(x)


def curves(task: str, x: Tensor, prior: ds.Prior, linear: DCDP) -> dict[str, Curve]:
    """All schedules on one task, printed as they come."""
    std = WIDE if task == "gaussian-deblur" else None
    problem = ds.tasks.problem(task, SHAPE, sigma=0.0, std=std)
    y = problem.measure(x, generator=streams(len(x), "measure"))
    found = {"data alone": Curve(problem, y, x)}
    data_alone(found["data alone"], linear)
    found["data alone"].show(f"{TASKS[task]}; {linear.rounds} × {linear.tau} steps, data alone")
    solvers = {
        "constant, large": replace(linear, schedule="constant"),
        "constant, small": replace(linear, schedule="constant", start=SMALL),
        "linear": linear,
    }
    for name, solver in solvers.items():
        found[name] = Curve(problem, y, x)
        generator = streams(len(x), "recover")
        solver(problem, y, prior, generator=generator, callback=found[name].watch)
        levels = solver.levels
        found[name].show(f"{TASKS[task]}; {name}, T {levels[0]:.0f} → {levels[-1]:.0f}")
    return found


def draw_curves(found: dict[str, dict[str, Curve]], solvers: dict[str, DCDP], path: Path) -> None:
    """A column a task, a row a number."""
    figure = Figure(figsize=(3.6 * len(found), 8), layout="constrained")
    axes = figure.subplots(3, len(found), sharex="col", squeeze=False)
    for column, (task, by_name) in enumerate(found.items()):
        axes[0, column].set_title(TASKS[task], fontsize=10)
        for name, curve in by_name.items():
            steps = [solvers[task].tau * (i // 2 + 1) for i in range(len(curve.psnr))]
            for row, values in enumerate((curve.psnr, curve.ssim, curve.misfit)):
                axes[row, column].plot(steps, values, color=COLORS[name], label=name, lw=1.2)
        axes[2, column].set(yscale="log", xlabel="gradient steps")
        axes[2, column].set_ylim(bottom=max(axes[2, column].get_ylim()[0], 1e-6))
    for row, label in enumerate(("PSNR (dB)", "SSIM", "½‖A x − y‖²")):
        axes[row, 0].set_ylabel(label)
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=len(labels))
    figure.savefig(path, dpi=110)


def draw_iterates(x: Tensor, prior: ds.Prior, solver: DCDP, path: Path) -> None:
    """x_k above v_k of one cat, after what was measured and the truth."""
    problem = ds.tasks.problem("super-resolution", SHAPE, sigma=NOISE)
    y = problem.measure(x, generator=streams(1, "measure"))
    steps: list[Step] = []
    solver(problem, y, prior, generator=streams(1, "recover"), callback=steps.append)
    curve = Curve(problem, y, x)
    figure = Figure(figsize=(1.25 * (len(steps) + 1), 3.1), layout="constrained")
    axes = figure.subplots(2, len(steps) + 1)
    _show(axes[0, 0], y, "measured")
    _show(axes[1, 0], x, "truth")
    for k, step in enumerate(steps, 1):
        curve.watch(step)
        assert step.consistent is not None
        _show(axes[0, k], step.consistent, f"$x_{{{k}}}$  {curve.psnr[-2]:.1f} dB")
        _show(axes[1, k], step.image, f"$v_{{{k}}}$  {curve.psnr[-1]:.1f} dB")
    figure.savefig(path, dpi=160)
    levels = solver.levels
    title = f"{TASKS['super-resolution']}, σ_y = {NOISE}, one cat; linear"
    curve.show(f"{title}, T {levels[0]:.0f} → {levels[-1]:.0f}")


def _show(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(to_uint8(image[0]).permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()


def main() -> None:
    options_of = parser(__doc__)
    add_image_options(options_of, images=8)
    options_of.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "figures", help="folder of the pictures"
    )
    options_of.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    options_of.add_argument("--purifier", choices=("ddim", "tweedie"), default="tweedie")
    options_of.add_argument("--rounds", type=int, help="instead of the paper's 10 or 20")
    options = options_of.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    overrides = {"purifier": options.purifier}
    if options.rounds is not None:
        overrides["rounds"] = options.rounds
    x, prior = chosen_images(options), ds.load_prior("cats-64")
    print(f"{machine()}; {len(x)} images, noiseless, purifier {options.purifier}; PSNR in dB")
    solvers = {task: DCDP.preset(task, SHAPE[1], **overrides) for task in options.tasks}
    found = {task: curves(task, x, prior, solver) for task, solver in solvers.items()}
    draw_curves(found, solvers, options.out / "schedules.png")
    noisy = DCDP.preset("super-resolution", SHAPE[1], noise=NOISE, ending="adapted", **overrides)
    draw_iterates(x[:1], prior, noisy, options.out / "iterates.png")
    print(f"\npictures: {options.out / 'schedules.png'}, {options.out / 'iterates.png'}")


if __name__ == "__main__":
    main()
