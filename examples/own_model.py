"""Your own model as the prior: any function of noisy images, or a network of PyTorch.

First a function without training, which shrinks small DCT coefficients; then a network that
predicts the noise, as most diffusion models do, here the one inside cats-64 for want of yours. A
prior has to answer E[x0 | x0 + σ n], which is x − σ times the noise. Writes own-model.png.
"""

import torch
from torch import Tensor, nn

import diffsplit as ds
from diffsplit.operators.transforms import dct, idct

SHAPE = (3, 64, 64)


def shrink(x: Tensor, sigma: Tensor) -> Tensor:
    """Empirical Wiener shrinkage, coefficient by coefficient, in the DCT of the whole image."""
    coefficients = dct(dct(x).mT)
    noise = sigma.view(-1, 1, 1, 1).square()
    around = nn.functional.avg_pool2d(coefficients.square(), 5, 1, 2)  # signal and noise
    gain = (1 - noise / around).clamp(min=0)
    return idct(idct(gain * coefficients).mT)


class NoisePredictor(nn.Module):
    """Your network: n from x0 + σ n, with σ of shape ``(B,)``."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ds.load_prior("cats-64")
        self.networks = nn.ModuleList(self.model.networks)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return (x - self.model.denoise(x, sigma)) / sigma.view(-1, 1, 1, 1)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x, network = ds.images.example_cats()[:3], NoisePredictor().eval()
    priors = {
        "DCT shrinkage": ds.priors.from_callable(shrink, SHAPE),
        "network": ds.priors.from_callable(
            lambda z, sigma: z - sigma.view(-1, 1, 1, 1) * network(z, sigma), SHAPE
        ),
    }
    operator = ds.operators.RandomizedTransform(SHAPE, rows=4096, seed=0)
    problem = ds.Problem(operator, ds.channels.Quantized(bits=4, sigma=0.05))
    y, rows = problem.measure(x, generator=generator), [("truth", x)]
    for name, prior in priors.items():
        result = ds.solvers.DiffEP()(problem, y, prior, generator=generator)
        psnr = ds.metrics.psnr(result.image, x).mean()
        rows.append((f"{name}\n{psnr:.2f} dB", result.image))
        print(f"{name}: PSNR {psnr:.2f} dB, {result.nfe} evaluations")
    ds.save_image(ds.plots.comparison(rows), "own-model.png")


if __name__ == "__main__":
    main()
