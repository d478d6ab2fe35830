"""What a demo collects: pictures for its figure, and rows for its table."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from diffsplit.cli.common import generator, progress
from diffsplit.cli.report import Row
from diffsplit.plots import measurement_pictures, std_map
from diffsplit.priors import Denoiser, Prior, bundled_priors, load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import SOLVERS, DiffEP, Recovery, Solver, linear_baseline

__all__ = ["Gallery"]

VERSIONS: dict[str, tuple[str, dict[str, str]]] = {
    "DCDP (V1)": ("dcdp", {"purifier": "ddim"}),
    "DCDP (V2)": ("dcdp", {"purifier": "tweedie"}),
    "DCDP (CM)": ("dcdp", {"purifier": "consistency"}),
    # The other approach goes a thousand times through the decoder and back.
    "DCDP, latent": ("dcdp-latent", {"consistency": "pixel"}),
}


@dataclass
class Gallery:
    """One batch of images, measured once and recovered in many ways.

    Attributes:
        truth: the images ``(B, C, H, W)`` on [-1, 1].
        y: their measurements, on the device that computes.
        prior: the diffusion model of the methods that do not bring their own.
        pictures: label and images ``(B, C, H, W)`` on the CPU, from top to bottom.
        rows: of the table.
    """

    truth: Tensor
    problem: Problem
    y: Tensor
    prior: Prior
    seed: int
    pictures: list[tuple[str, Tensor]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.show("truth", self.truth)
        self.show(*measurement_pictures(self.problem, self.y))

    def show(self, label: str, images: Tensor) -> None:
        """Add a line of pictures."""
        self.pictures.append((label, images.cpu()))

    def note(self, method: str, images: Tensor, result: Recovery) -> None:
        """Add a row to the table, a mean over ``images`` ``(B or S·B, C, H, W)``."""
        times = len(images) // len(self.y)  # samples follow each other, each a batch
        truth = self.truth.repeat(times, 1, 1, 1)
        y = self.y.repeat(times, *(1,) * (self.y.ndim - 1))
        self.rows.append(Row.of(method, self.problem, y, images, truth, result))

    def solve(self, solver: Solver, label: str, prior: Prior | None = None) -> Recovery:
        """Run a method, with a progress bar and the same random numbers each time."""
        g = generator(self.seed, "recover")
        with progress(label) as advance:
            return solver(self.problem, self.y, prior or self.prior, generator=g, callback=advance)

    def recover(self, solver: Solver, label: str, prior: Prior | None = None) -> None:
        """Run a method, show its pictures and note how good they are."""
        result = self.solve(solver, label, prior)
        self.show(label, result.image)
        self.note(label, result.image, result)

    def restore(self, task: str) -> list[str]:
        """A linear estimate, and DCDP in its versions; returns those that no bundled prior fits."""
        linear = linear_baseline(self.problem)
        self.recover(linear, next(n for n, kind in SOLVERS.items() if kind is type(linear)))
        missing = []
        for label, (name, settings) in VERSIONS.items():
            solver = SOLVERS[name].for_problem(self.problem, task, **settings)
            prior = self._prior_for(solver)
            if prior is None:
                missing.append(label)
            else:
                self.recover(solver, label, prior)
        return missing

    def _prior_for(self, solver: Solver) -> Prior | None:
        """The demo's own prior, or the bundled one of another kind if it fits these images."""
        needed = solver.requires
        if needed is None or isinstance(self.prior, needed):
            return self.prior
        ending = needed.example.removeprefix(Denoiser.example)  # such as "-consistency"
        for name in bundled_priors():
            if name.endswith(ending):
                prior = load_prior(name, device=self.y.device)
                if tuple(prior.shape) == tuple(self.prior.shape):
                    return prior
        return None

    def sample(self, samples: int) -> None:
        """DiffEP: its mean, one of ``samples`` posterior samples, and where they differ."""
        self.recover(DiffEP(), "DiffEP, mean")
        label = f"DiffEP, {samples} samples"
        drawn = self.solve(DiffEP(samples=samples), label)
        assert drawn.samples is not None
        assert drawn.std is not None
        self.show("DiffEP, sample", drawn.samples[0])
        self.show(f"std of\n{samples} samples", std_map(drawn.std))
        self.note(label, drawn.samples.flatten(0, 1), drawn)
