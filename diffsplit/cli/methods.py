"""The algorithms on the command line: which options and priors they take, and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from diffsplit.errors import InputError

if TYPE_CHECKING:
    import torch

    from diffsplit.priors.base import Prior
    from diffsplit.problem import Problem
    from diffsplit.solvers.base import Solver

__all__ = ["IMAGES", "DataStep", "Method", "PurifierName", "SolverName"]


class SolverName(str, Enum):
    """Algorithms on the command line."""

    diffep = "diffep"
    diff_onebit = "diff-onebit"
    dcdp = "dcdp"
    dcdp_latent = "dcdp-latent"


class DataStep(str, Enum):
    """How DiffOneBit weighs the measurements against the prior."""

    adam = "adam"
    exact = "exact"


class PurifierName(str, Enum):
    """How DCDP purifies."""

    ddim = "ddim"
    tweedie = "tweedie"
    consistency = "consistency"


IMAGES = "diffusion model of images"
CONSISTENCY = "consistency model"
LATENT = "latent diffusion model"
DEFAULT_PRIORS = {IMAGES: "cats-64", CONSISTENCY: "cats-64-consistency", LATENT: "cats-64-latent"}
TAKEN_BY = {
    IMAGES: "--solver diffep",
    CONSISTENCY: "--solver dcdp --purifier consistency",
    LATENT: "--solver dcdp-latent",
}


@dataclass(frozen=True)
class Method:
    """An algorithm with the options that were given for it; None stands for its own default.

    Raises:
        InputError: an option belongs to another algorithm.
    """

    name: SolverName
    steps: int | None = None
    samples: int = 1
    data_step: DataStep | None = None
    lam: float | None = None
    purifier: PurifierName | None = None
    sampler: str | None = None

    def __post_init__(self) -> None:
        if self.samples > 1 and self.name is not SolverName.diffep:
            raise InputError("only --solver diffep draws samples; leave out --samples.")
        if self.sampler is not None and self.name is not SolverName.diffep:
            raise InputError("--sampler belongs to --solver diffep; leave it out.")
        if self.sampler is not None and self.samples == 1:
            raise InputError("--sampler draws the samples of --samples 2 or more; add that.")
        if self.name is not SolverName.diff_onebit and (self.data_step or self.lam is not None):
            raise InputError(
                "--data-step and --lam belong to --solver diff-onebit; leave them out or add that."
            )
        if self.purifier and self.name not in (SolverName.dcdp, SolverName.dcdp_latent):
            raise InputError(
                "--purifier belongs to --solver dcdp and dcdp-latent; leave it out or add one."
            )
        if self.name is SolverName.dcdp_latent and self.purifier is PurifierName.consistency:
            raise InputError(
                "--purifier consistency belongs to --solver dcdp; for dcdp-latent choose ddim or "
                "tweedie."
            )

    @property
    def needs(self) -> str:
        """The kind of prior that it works with."""
        if self.name is SolverName.dcdp_latent:
            return LATENT
        return CONSISTENCY if self.purifier is PurifierName.consistency else IMAGES

    @property
    def default_prior(self) -> str:
        """A bundled prior of that kind."""
        return DEFAULT_PRIORS[self.needs]

    def check_prior(self, model: Prior, name: str) -> None:
        """Raise InputError where a prior is of another kind.

        Args:
            model: the prior.
            name: what it was loaded by.
        """
        from diffsplit.priors import ConsistencyFunction, LatentPrior

        kind = IMAGES
        if isinstance(model, LatentPrior):
            kind = LATENT
        elif isinstance(model, ConsistencyFunction):
            kind = CONSISTENCY
        if kind != self.needs:
            raise InputError(
                f"the prior {name} is a {kind}, and {TAKEN_BY[kind]} takes it; --solver "
                f"{self.name.value}{' --purifier consistency' * (self.needs == CONSISTENCY)} "
                f"needs a {self.needs}, such as {self.default_prior}."
            )

    def solver(self, problem: Problem, task: object, device: str | torch.device = "cpu") -> Solver:
        """The algorithm with its settings for a problem.

        Args:
            task: its name, where it is one of `diffsplit measure`.
            device: where a sampler is loaded.
        """
        if self.name is SolverName.diffep:
            return self._diff_ep(problem, device)
        if self.name is SolverName.diff_onebit:
            return self._diff_onebit(problem)
        return self._dcdp(problem, task)

    def _diff_ep(self, problem: Problem, device: str | torch.device) -> Solver:
        from diffsplit.priors import ConsistencyFunction, load_prior
        from diffsplit.solvers import DiffEP
        from diffsplit.solvers.spectral.renoising import renoises

        chosen: dict[str, Any] = {"samples": self.samples}
        if self.steps is not None:
            chosen |= {"iterations": self.steps, "levels": self.steps}
        if self.sampler is not None:
            if renoises(problem):
                raise InputError(
                    "--sampler serves measurements in bits and orthogonal or random operators; "
                    "here samples need the diffusion model itself, so leave it out."
                )
            model = load_prior(self.sampler, device=device)
            if not isinstance(model, ConsistencyFunction):
                raise InputError(
                    f"--sampler takes a {CONSISTENCY}, such as {DEFAULT_PRIORS[CONSISTENCY]}, "
                    f"and {self.sampler} is none."
                )
            chosen["sampler"] = model
        return DiffEP(**chosen)

    def _diff_onebit(self, problem: Problem) -> Solver:
        from diffsplit.channels import GaussianNoise
        from diffsplit.operators import PixelMask
        from diffsplit.solvers import DiffOneBit

        lam = self.lam
        if lam is None:
            restores = isinstance(problem.channel, GaussianNoise)
            lam = 1.0 if restores or isinstance(problem.operator, PixelMask) else 0.02
        return DiffOneBit(
            steps=20 if self.steps is None else self.steps,
            lam=lam,
            data_step="exact" if self.data_step is DataStep.exact else "adam",
        )

    def _dcdp(self, problem: Problem, task: object) -> Solver:
        """The paper's settings for a task that they exist for, else the general ones."""
        from diffsplit.channels import GaussianNoise
        from diffsplit.solvers import DCDP, LatentDCDP
        from diffsplit.solvers.splitting.dcdp_presets import TASKS

        make = LatentDCDP if self.name is SolverName.dcdp_latent else DCDP
        # Version 2 unless asked: one evaluation a round, and the highest PSNR.
        purifier = self.purifier or PurifierName.tweedie
        chosen: dict[str, Any] = {"purifier": purifier.value}
        if self.steps is not None:
            chosen["rounds"] = self.steps
        channel = problem.channel
        if not isinstance(channel, GaussianNoise):
            return make(tau=20, **chosen)
        if not isinstance(task, str) or task not in TASKS:
            return make(**chosen)
        side = problem.operator.shape_in[-1]
        return make.preset(task, image_size=side, noise=channel.sigma, **chosen)
