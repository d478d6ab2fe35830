"""DeepInverse and diffsplit side by side: one physics, an algorithm of each, one call for both.

A physics of DeepInverse measures the image, on [0, 1] as there. `to_deepinv` makes a solver with
its prior a reconstructor that is called as ``model(y, physics)``, and `denoiser_to_deepinv` gives
the same network to DeepInverse's DiffPIR, here in its default settings. Writes
deepinv-side-by-side.png; needs deepinv.
"""

import deepinv
import torch

import diffsplit as ds
from diffsplit.interop import denoiser_to_deepinv, to_deepinv


def main() -> None:
    torch.manual_seed(0)  # DeepInverse draws from the global generator
    x, prior = ds.images.example_cats()[:2], ds.load_prior("cats-64")
    physics = deepinv.physics.Inpainting(
        (3, 64, 64), mask=0.3, noise_model=deepinv.physics.GaussianNoise(0.025)
    )
    y = physics((x + 1) / 2)
    models = {
        "DiffEP": to_deepinv(ds.solvers.DiffEP(), prior),
        "DCDP": to_deepinv(ds.solvers.DCDP(purifier="tweedie"), prior),
        "DiffPIR of DeepInverse": deepinv.sampling.DiffPIR(
            denoiser_to_deepinv(prior), deepinv.optim.data_fidelity.L2(), sigma=0.025
        ),
    }
    rows = [("truth", x), ("measured", 2 * y - 1)]
    for name, model in models.items():
        with torch.no_grad():
            answer = 2 * model(y, physics) - 1
        psnr = ds.metrics.psnr(answer, x).mean()
        rows.append((f"{name}\n{psnr:.2f} dB", answer))
        print(f"{name}: PSNR {psnr:.2f} dB")
    figure = ds.plots.comparison(rows, label_width=190)
    ds.save_image(figure, "deepinv-side-by-side.png")


if __name__ == "__main__":
    main()
