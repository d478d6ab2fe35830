"""What the bundled prior must show on cats that it has never seen."""

import os
from pathlib import Path

import pytest
import torch

import diffsplit as ds
from diffsplit.images import example_cats, from_uint8, load_images
from diffsplit.metrics import psnr

SHAPE = (3, 64, 64)
ARCHIVE = Path(
    os.environ.get(
        "DIFFSPLIT_HELD_OUT",
        Path(__file__).parents[2] / "shared" / "data" / "afhq-cat-128" / "val.zip",
    )
)


@pytest.fixture(scope="module")
def prior():
    return ds.load_prior("cats-64")


def _problem(kind, rows=768, sigma=0.5):
    if kind == "gaussian":
        operator = ds.operators.GaussianMatrix(SHAPE, rows=rows, seed=0)
    elif kind == "mask":
        operator = ds.operators.PixelMask(SHAPE, fraction=0.5, seed=0)
    else:
        operator = ds.operators.RandomizedTransform(SHAPE, rows=rows, seed=0, transform=kind)
    return ds.Problem(operator, ds.channels.OneBit(sigma=sigma))


class _Spy(ds.Prior):
    """A prior that notes how noisy its inputs are, against the truth."""

    def __init__(self, prior, truth):
        self.prior, self.truth, self.ratios = prior, truth, []
        for name in ("shape", "sigma_min", "sigma_max", "mean_square", "bounds"):
            setattr(self, name, getattr(prior, name))

    def _denoise(self, x, sigma):
        true = (x - self.truth).square().mean().sqrt()
        self.ratios.append(float(true / sigma.square().mean().sqrt()))
        return self.prior.denoise(x, sigma)

    def error(self, sigma):
        return self.prior.error(sigma)


@pytest.mark.parametrize("kind", ["gaussian", "hadamard", "dct", "mask"])
def test_the_noise_that_diffep_predicts_is_within_five_percent_of_the_true_one(prior, kind):
    x = example_cats()
    problem = _problem(kind)
    y = problem.measure(x, generator=torch.Generator().manual_seed(0))
    spy = _Spy(prior, x)
    result = ds.solvers.DiffEP()(problem, y, spy)
    assert result.nfe <= 8
    assert abs(spy.ratios[-1] - 1) < 0.05
    assert sum(abs(r - 1) for r in spy.ratios) / len(spy.ratios) < 0.05


def test_the_demo_cats_come_back_from_768_bits(prior):
    x, problem = example_cats(), _problem("gaussian")
    y = problem.measure(x, generator=torch.Generator().manual_seed(0))
    result = ds.solvers.DiffEP()(problem, y, prior)
    assert psnr(result.image, x).mean() > 19.4
    assert problem.sign_consistency(result.image, y).mean() > 0.95


def test_the_stored_error_curve_is_the_error_there_is(prior):
    x = example_cats()
    generator = torch.Generator().manual_seed(0)
    for sigma in (0.1, 0.5, 2.0):
        noisy = x + sigma * torch.randn(x.shape, generator=generator)
        true = (prior.clip(prior.denoise(noisy, sigma)) - x).square().mean().item()
        assert prior.error(sigma).item() == pytest.approx(true, rel=0.2)


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs the held-out cats, see DIFFSPLIT_HELD_OUT")
def test_all_held_out_cats_come_back_as_well_as_promised(prior):
    x = from_uint8(load_images(ARCHIVE, 64))
    for rows, bound in ((768, 19.7), (4096, 22.1)):
        problem = _problem("gaussian", rows)
        y = problem.measure(x, generator=torch.Generator().manual_seed(0))
        result = ds.solvers.DiffEP()(problem, y, prior)
        assert result.nfe <= 8
        assert psnr(result.image, x).mean() >= bound


NOT_YET = pytest.mark.xfail(
    strict=True, reason="0.3 % and 2.4 % short: cats-64 wants more training"
)


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs the held-out cats, see DIFFSPLIT_HELD_OUT")
@pytest.mark.parametrize(
    ("sigma", "bound"),
    [
        (0.317, 0.0099),
        (0.552, 0.0168),
        (0.959, 0.0269),
        pytest.param(1.668, 0.0407, marks=NOT_YET),
        pytest.param(2.899, 0.0608, marks=NOT_YET),
    ],
)
def test_the_prior_is_as_accurate_as_promised(prior, sigma, bound):
    x = from_uint8(load_images(ARCHIVE, 64))
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    draws = [ds.priors.measure_error(prior, x, (sigma, 9.0), g).mse[0] for g in generators]
    assert sum(draws) / 3 <= bound
