"""Whole recoveries of the solvers in latents against their networks alone.

For each: how often it goes through the denoiser, the encoder and the decoder, forward or forward
and back; seconds of a whole run; and these over the seconds of just those passes, which the
method's definition asks for. Two cats, the bundled prior; steps are few, since the ratios do not
depend on them. ReSample has its loop of AdamW in latents, and its pixels at once or, as in the
paper, by up to 2,000 steps of AdamW, which no network has a part in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from common import SHAPE, cats, interleave, machine, parser
from torch import Tensor

import diffsplit as ds
from diffsplit import solvers
from diffsplit.data_steps.derivative import differentiated
from diffsplit.noise import seeded
from diffsplit.priors import from_callable

IMAGES = 2
CASES: dict[str, tuple[str, solvers.Solver]] = {
    "latent DCDP, V2, steps in pixels": (
        "blur",
        solvers.LatentDCDP.preset("gaussian-deblur", 64, purifier="tweedie"),
    ),
    "latent DCDP, V2, steps in latents": (
        "×4",
        solvers.LatentDCDP.preset(
            "super-resolution", 64, purifier="tweedie", consistency="latent", tau=10
        ),
    ),
    "Latent-DPS": ("blur", solvers.LatentDPS(steps=20)),
    "PSLD": ("blur", solvers.PSLD(steps=20)),
    "ReSample": ("blur", solvers.ReSample(steps=20, latent_steps=20)),
    "ReSample, AdamW in pixels": (
        "blur",
        solvers.ReSample(steps=20, latent_steps=20, pixels="adamw"),
    ),
}


class Counted(ds.LatentModel):
    """A latent model that counts its passes by network and direction."""

    def __init__(self, model: ds.LatentModel) -> None:
        self.model, self.shape, self.bounds = model, model.shape, model.bounds
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.passes: Counter[tuple[str, bool]] = Counter()
        self.latent = from_callable(
            lambda z, sigma: self._noted("denoiser", z, model.latent.denoise(z, sigma)),
            model.latent.shape,
            sigma_min=model.latent.sigma_min,
            sigma_max=model.latent.sigma_max,
            bounds=None,
        )

    def _noted(self, network: str, given: Tensor, answer: Tensor) -> Tensor:
        self.passes[network, given.requires_grad] += 1
        return answer

    def encode(self, x: Tensor) -> Tensor:
        return self._noted("encoder", x, self.model.encode(x))

    def decode(self, z: Tensor) -> Tensor:
        return self._noted("decoder", z, self.model.decode(z))


def alone(model: ds.LatentModel, passes: Counter[tuple[str, bool]], x: Tensor) -> None:
    """Just those passes."""
    with torch.no_grad():
        z = model.encode(x)
    functions: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "denoiser": (lambda z: model.latent.denoise(z, 1.0), z),
        "encoder": (model.encode, x),
        "decoder": (model.decode, z),
    }
    for (network, back), count in passes.items():
        function, given = functions[network]
        for _ in range(count):
            if back:
                answer, pullback = differentiated(function, given)
                pullback(answer)
            else:
                with torch.no_grad():
                    function(given)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3, help="of each timing (default 3)")
    repeats = options.parse_args().repeats
    prior, x = ds.load_prior("cats-64-latent"), cats()[:IMAGES]
    assert isinstance(prior, ds.LatentModel)
    named = {
        "blur": ds.tasks.problem("gaussian-deblur", SHAPE, sigma=0.05),
        "×4": ds.tasks.problem("super-resolution", SHAPE),
    }
    print(f"{machine()}; {len(x)} cats\n")
    print("| solver | denoiser | encoder | decoder | seconds | × its networks |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: |")
    for label, (task, solver) in CASES.items():
        problem = named[task]
        y = problem.measure(x, generator=seeded(0, "y"))
        counted = Counted(prior)
        solver(problem, y, counted, generator=seeded(0, "run"))

        def whole(solver: Any = solver, problem: ds.Problem = problem, y: Tensor = y) -> None:
            solver(problem, y, prior, generator=seeded(0, "run"))

        def bare(passes: Counter[tuple[str, bool]] = counted.passes) -> None:
            alone(prior, passes, x)

        seconds = interleave({"whole": whole, "bare": bare}, repeats)
        cells = []
        for network in ("denoiser", "encoder", "decoder"):
            there, back = counted.passes[network, False], counted.passes[network, True]
            cells.append(f"{there} + {back} back" if back else f"{there}")
        print(
            f"| {label} | {' | '.join(cells)} | {seconds['whole']:.2f} | "
            f"{seconds['whole'] / seconds['bare']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
