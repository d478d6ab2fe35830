"""Your own channel: a detector of which one number in ten is far off.

A channel says how s = (A x)_i becomes a measurement. It needs three methods: a draw of y, the
evidence of y for s ~ N(p, τ), here a sum of two Gaussians, and its derivatives in p. DiffEP with
this channel is compared with DiffEP that takes the noise for Gaussian of the same variance.
Writes own-channel.png.
"""

import math

import torch

import diffsplit as ds
from diffsplit.channels import Channel
from diffsplit.noise import randn_like

SIGMA, WEIGHT = torch.tensor([0.1, 3.0]), torch.tensor([0.9, 0.1])


class FailingDetector(Channel):
    """y = s + σ n, where σ = 0.1 with probability 0.9, else 3."""

    convex = False

    def sample(self, s, generator):
        fails = torch.special.ndtr(randn_like(s, generator)) < WEIGHT[1]
        return s + SIGMA[fails.long()].to(s) * randn_like(s, generator)

    def _parts(self, p, y, tau):  # log w_k N(y; p, σ_k² + τ) and σ_k² + τ, each (…, 2)
        v = SIGMA.to(p).square() + (tau + torch.zeros_like(p)).unsqueeze(-1)
        away = (y - p).unsqueeze(-1)
        return (WEIGHT.to(p) / (2 * math.pi * v).sqrt()).log() - away.square() / (2 * v), v

    def evidence(self, p, y, tau):
        return self._parts(p, y, tau)[0].logsumexp(-1)

    def evidence_score(self, p, y, tau):  # g and h
        log, v = self._parts(p, y, tau)
        share, score = log.softmax(-1), (y - p).unsqueeze(-1) / v
        g = (share * score).sum(-1)
        return g, (share * (1 / v - score.square())).sum(-1) + g.square()


def main() -> None:
    x, prior = ds.images.example_cats()[:3], ds.load_prior("cats-64")
    operator = ds.operators.RandomizedTransform((3, 64, 64), rows=3072, seed=0)
    own, rows = FailingDetector(), [("truth", x)]
    y = ds.Problem(operator, own).measure(x, generator=torch.Generator().manual_seed(0))
    gaussian = ds.channels.GaussianNoise(float((WEIGHT * SIGMA.square()).sum().sqrt()))
    for name, channel in {"Gaussian": gaussian, "own": own}.items():
        result = ds.solvers.DiffEP()(ds.Problem(operator, channel), y, prior)
        psnr = ds.metrics.psnr(result.image, x).mean()
        rows.append((f"{name} channel\n{psnr:.2f} dB", result.image))
        print(f"{name} channel: PSNR {psnr:.2f} dB, {result.nfe} evaluations")
    ds.save_image(ds.plots.comparison(rows), "own-channel.png")


if __name__ == "__main__":
    main()
