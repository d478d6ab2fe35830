"""DPS, DDRM and DiffPIR beside those of DeepInverse: the same network, measurements and settings.

Prints the mean PSNR of both, for half of the pixels, a box and a circular blur of standard
deviation 1.5, all with noise of 0.05 on [-1, 1]; and behind the blur the seconds of both, in turn.
Levels and weights are translated to the units of DeepInverse, whose images are on [0, 1]. Its DPS
puts the gradient of the misfit into the score, so that a step of DDPM multiplies it by β_t; "same
ζ" gives it a weight that undoes that. Its DDRM divides all noise by √2, which is right for the two
parts of a complex coefficient of a blur and not for pixels; "full noise" multiplies its draws by
that. Needs deepinv.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import deepinv
import torch
from common import cats, interleave, machine, parser
from deepinv.sampling.noisy_datafidelity import DPSDataFidelity
from torch import Tensor

import diffsplit as ds
from diffsplit.interop import denoiser_to_deepinv, from_deepinv
from diffsplit.noise import seeded
from diffsplit.priors import Denoiser
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers import DDRM, DPS, DiffPIR

SIGMA = 0.025
"""Of the noise, on [0, 1]."""
STEPS, LEVELS = 100, 20
TIMED_STEPS = 30
"""Of DPS and DiffPIR where they are timed."""


class SameStep(DPSDataFidelity):  # type: ignore[misc]
    """DPS with the ζ of its paper, which is that of 1000 steps: K of them take 1000/K times it."""

    def __init__(self, zeta: float, steps: int) -> None:
        super().__init__(clip=(0.0, 1.0))
        self.zeta, self.levels = 1000 * zeta / steps, ddpm_grid(steps)

    def grad(
        self, x: Tensor, y: Tensor, physics: object, sigma: Tensor, **options: object
    ) -> object:
        gradient, clean = super().grad(x, y, physics, sigma, **options)
        at = min(range(len(self.levels) - 1), key=lambda k: abs(self.levels[k] - 2 * float(sigma)))
        high, low = self.levels[at], self.levels[at + 1]
        gain = high**2 / (1 + high**2) ** 0.5 / (1 + low**2) ** 0.5 * (1 - low**2 / high**2)
        return 2 * self.zeta / gain * gradient, clean


class FullNoise(deepinv.sampling.DDRM):  # type: ignore[misc]
    """DDRM with the noise of its paper."""

    def forward(self, y: Tensor, physics: object, seed: int | None = None) -> Tensor:
        draw = torch.randn_like
        with patch("torch.randn_like", lambda like: 2**0.5 * draw(like)):
            answer: Tensor = super().forward(y, physics, seed)
        return answer


def their_dps(
    denoiser: torch.nn.Module, zeta: float | None, steps: int = STEPS
) -> Callable[..., Tensor]:
    """With the default weight, or with the step of the paper."""
    model = deepinv.sampling.DPS(denoiser, num_steps=steps + 1)
    if zeta is not None:
        model.data_fidelity = SameStep(zeta, steps)
        model.data_fidelity.denoiser = denoiser
    sampler: Callable[..., Tensor] = model
    return sampler


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--seeds", type=int, default=3, help="draws of each method (default 3); 0 times alone"
    )
    options.add_argument("--repeats", type=int, default=5, help="of each timing (default 5)")
    chosen = options.parse_args()
    seeds = chosen.seeds
    torch.manual_seed(0)  # DeepInverse draws from the global generator
    x, prior = cats(), ds.load_prior("cats-64")
    noise = deepinv.physics.GaussianNoise(SIGMA)
    half = (torch.rand(1, 64, 64, generator=seeded(1, "half")) < 0.5).float().repeat(3, 1, 1)
    box = torch.ones(3, 64, 64)
    box[:, 20:45, 20:45] = 0
    kernel = deepinv.physics.functional.gaussian_blur(sigma=1.5)
    physics = {
        "half of the pixels": deepinv.physics.Inpainting((3, 64, 64), half, noise_model=noise),
        "box": deepinv.physics.Inpainting((3, 64, 64), box, noise_model=noise),
        "blur": deepinv.physics.BlurFFT((3, 64, 64), kernel, noise_model=noise),
    }
    assert isinstance(prior, Denoiser)
    denoiser = denoiser_to_deepinv(prior)
    levels = [sigma / 2 for sigma in ddpm_grid(LEVELS, spacing="leading")[:-1]]
    print(f"# {machine()}; {len(x)} cats, PSNR in dB; {seeds} draws")
    print(f"{'':20} {'method':10} {'ours':>12} {'DeepInverse':>12}")
    for name, blind in physics.items():
        y = blind((x + 1) / 2)
        problem = from_deepinv(blind)
        measured = problem.measurements(y)
        zeta, restart = (0.3, 0.1) if name == "blur" else (0.5, 1.0)
        lam = 1.75 if name == "blur" else 0.25
        pir = deepinv.sampling.DiffPIR(
            denoiser, deepinv.optim.data_fidelity.L2(), lambda_=4 * lam, zeta=restart
        )
        pairs: list[tuple[str, ds.solvers.Solver, Callable[..., Tensor]]] = [
            ("DPS", DPS(steps=STEPS, zeta=zeta), their_dps(denoiser, None)),
            ("same ζ", DPS(steps=STEPS, zeta=zeta), their_dps(denoiser, zeta)),
            ("DDRM", DDRM(steps=LEVELS), deepinv.sampling.DDRM(denoiser, levels)),
            ("DiffPIR", DiffPIR(lam=lam, zeta=restart), pir),
        ]
        if name != "blur":
            pairs.append(("full noise", DDRM(steps=LEVELS), FullNoise(denoiser, levels)))
        for method, ours, theirs in pairs if seeds else ():
            rows = []
            for seed in range(seeds):
                result = ours(problem, measured, prior, generator=seeded(seed, method))
                answer = 2 * theirs(y, blind).float().detach() - 1
                both = [ds.metrics.psnr(image, x).mean() for image in (result.image, answer)]
                rows.append(both)
            mine, other = torch.tensor(rows).mean(0).tolist()
            print(f"{name:20} {method:10} {mine:12.2f} {other:12.2f}", flush=True)
    print("\nseconds behind the blur")
    lam, zeta, restart = 1.75, 0.3, 0.1
    same = deepinv.optim.data_fidelity.L2()
    timed: dict[str, tuple[ds.solvers.Solver, Callable[..., Tensor]]] = {
        "DPS": (DPS(steps=TIMED_STEPS, zeta=zeta), their_dps(denoiser, zeta, TIMED_STEPS)),
        "DDRM": (DDRM(steps=LEVELS), deepinv.sampling.DDRM(denoiser, levels)),
        "DiffPIR": (
            DiffPIR(steps=TIMED_STEPS, lam=lam, zeta=restart),
            deepinv.sampling.DiffPIR(
                denoiser, same, lambda_=4 * lam, zeta=restart, max_iter=TIMED_STEPS
            ),
        ),
    }
    for method, (solver, sampler) in timed.items():
        runs: dict[str, Callable[[], object]] = {
            "ours": partial(solver, problem, measured, prior, generator=seeded(0, method)),
            "theirs": partial(sampler, y, blind),
        }
        seconds = interleave(runs, chosen.repeats)
        print(f"{method:10} {seconds['ours']:7.2f} {seconds['theirs']:7.2f}", flush=True)


if __name__ == "__main__":
    main()
