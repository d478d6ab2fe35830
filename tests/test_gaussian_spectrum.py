"""The Gaussian in the cosine domain: against dense matrices, against its own draws, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors import GaussianPrior, GaussianSpectrum, load_prior
from diffsplit.priors.cosine import cosine_matrix, dct2, idct2

SHAPE = (3, 8, 6)


def gaussian(shape: tuple[int, int, int] = SHAPE, **options: object) -> GaussianSpectrum:
    """Variances that fall with the frequency, over six orders of magnitude; rotated colors."""
    generator = torch.Generator().manual_seed(0)
    channels, height, width = shape
    down, across = torch.arange(height), torch.arange(width)
    falling = 3.0 * torch.exp(-(down[:, None] + across) * (14 / (height + width)))
    strength = torch.tensor([1.0, 0.1, 0.01])[:channels, None, None]
    colors = torch.linalg.qr(torch.randn(channels, channels, generator=generator).double())[0]
    mean = 0.3 * torch.randn(shape, generator=generator)
    return GaussianSpectrum(strength * falling, mean, colors, **options)  # type: ignore[arg-type]


def dense(prior: GaussianSpectrum) -> GaussianPrior:
    """The same Gaussian with its covariance as a matrix, built from one basis image at a time."""
    size = prior.variances.numel()
    basis = prior.from_spectrum(torch.eye(size, dtype=torch.float64).view(size, *prior.shape))
    rows = basis.flatten(1)
    return GaussianPrior(prior.shape, prior.mean, rows.T @ (prior.variances.view(-1, 1) * rows))


def noise(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_the_cosine_matrix_is_the_orthonormal_dct_ii(n: int) -> None:
    fft = pytest.importorskip("scipy.fft")
    matrix = cosine_matrix(n, torch.float64, torch.device("cpu"))
    expected = torch.from_numpy(fft.dct(torch.eye(n).double().numpy(), norm="ortho", axis=0))
    torch.testing.assert_close(matrix, expected, rtol=1e-12, atol=1e-12)
    x = noise(2, 3, n, 5)
    torch.testing.assert_close(idct2(dct2(x)), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [SHAPE, (1, 8, 8), (3, 8, 8)])
def test_the_denoiser_is_the_posterior_mean_of_the_dense_gaussian(
    shape: tuple[int, int, int],
) -> None:
    prior = gaussian(shape)
    reference = dense(prior)
    sigma = torch.tensor([0.001, 0.03, 0.5, 4.0, 100.0], dtype=torch.float64)
    x = reference.mean.view(shape) + sigma.view(-1, 1, 1, 1) * noise(5, *shape)
    expected = reference.denoise(x, sigma)
    for got, wanted, origin in zip(prior.denoise(x, sigma), expected, x, strict=True):
        assert (got - wanted).norm() < 1e-10 * origin.norm()
    torch.testing.assert_close(prior.error(sigma), reference.error(sigma), rtol=1e-9, atol=1e-12)
    assert prior.mean_square == pytest.approx(reference.mean_square, rel=1e-9)


def test_the_posterior_variance_is_the_diagonal_of_the_dense_posterior_covariance() -> None:
    prior = gaussian()
    reference = dense(prior)
    assert reference.basis is not None
    sigma = torch.tensor([0.03, 0.5], dtype=torch.float64)
    for got, level in zip(prior.posterior_variance(sigma), sigma, strict=True):
        spread = reference.eigenvalues * level**2 / (reference.eigenvalues + level**2)
        expected = (reference.basis.square() * spread).sum(1).view(SHAPE)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(prior.posterior_variance(level), got)
        torch.testing.assert_close(got.mean(), prior.error(level))


def test_the_predicted_error_is_the_error_on_draws_of_the_prior() -> None:
    prior = gaussian()
    x = prior.sample(4000, torch.Generator().manual_seed(2)).double()
    for sigma in (0.02, 0.3, 5.0):
        noisy = x + sigma * noise(*x.shape, seed=3)
        error = (prior.denoise(noisy, sigma) - x).square().mean()
        assert error.item() == pytest.approx(prior.error(sigma).item(), rel=0.02)


def test_posterior_draws_have_the_posterior_mean_and_variance() -> None:
    prior, sigma = gaussian(), 0.4
    x = noise(1, *SHAPE).expand(4000, *SHAPE)
    draws = prior.posterior_sample(x, sigma, torch.Generator().manual_seed(4))
    variance = prior.posterior_variance(sigma)
    off = (draws.mean(0) - prior.denoise(x[:1], sigma)[0]).abs()
    assert (off < 5 * (variance / len(draws)).sqrt()).all()
    torch.testing.assert_close(draws.var(0).float(), variance, rtol=0.15, atol=0)


def test_fitting_recovers_the_gaussian_that_the_images_were_drawn_from() -> None:
    made = gaussian((3, 8, 8))
    mirrored = (made.mean + made.mean.flip(-1)) / 2  # of mirror images, the mean is this one
    prior = GaussianSpectrum(made.variances, mirrored, made.colors)
    images = prior.sample(8000, torch.Generator().manual_seed(5)).double()
    fitted = GaussianSpectrum.fit(images)
    assert (fitted.variances / prior.variances - 1).abs().max() < 0.1
    assert (fitted.mean - prior.mean).square().mean() < 2 * prior.variances.mean() / 8000
    # Of the colors the sign is free.
    overlap = (fitted.colors @ prior.colors.T).abs()
    torch.testing.assert_close(overlap, torch.eye(3).double(), rtol=0, atol=0.02)
    batches = GaussianSpectrum.fit(part for part in torch.split(images, 999))
    torch.testing.assert_close(batches.variances, fitted.variances, rtol=1e-9, atol=0)


def test_fitting_counts_the_mirror_images() -> None:
    images = gaussian((1, 6, 7)).sample(40, torch.Generator().manual_seed(6)) + 0.2
    once = GaussianSpectrum.fit(images)
    torch.testing.assert_close(once.mean, once.mean.flip(-1), rtol=1e-6, atol=1e-6)
    twice = GaussianSpectrum.fit(torch.cat([images, images.flip(-1)]))
    torch.testing.assert_close(twice.mean, once.mean, rtol=1e-5, atol=1e-6)
    odd = once.variances[..., 1::2]
    torch.testing.assert_close(twice.variances[..., 1::2], odd, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_with_any_number_of_channels_are_fitted(channels: int) -> None:
    images = noise(50, channels, 4, 6).float()
    prior = GaussianSpectrum.fit(images)
    assert prior.shape == (channels, 4, 6)
    torch.testing.assert_close(prior.from_spectrum(prior.to_spectrum(images)), images)


@pytest.mark.parametrize("half", [True, False])
def test_a_saved_gaussian_comes_back(half: bool, tmp_path: Path) -> None:
    prior = gaussian((3, 16, 16), sigma_min=0.02, bounds=None, facts={"license": "mine"})
    prior.save(tmp_path / "once", half)
    loaded = load_prior(tmp_path / "once")
    assert isinstance(loaded, GaussianSpectrum)
    assert (loaded.sigma_min, loaded.bounds, loaded.facts) == (0.02, None, {"license": "mine"})
    x = noise(2, 3, 16, 16)
    if not half:
        assert torch.equal(loaded.denoise(x, 0.3), prior.denoise(x, 0.3))
    for sigma in (0.03, 0.3, 3.0):  # the true error of the rounded filter, in closed form
        gain, noisy = loaded.variances / (loaded.variances + sigma**2), prior.variances + sigma**2
        best = prior.variances / noisy
        excess = ((gain - best).square() * noisy).mean()
        assert excess < 2e-5 * prior.error(sigma)
    loaded.save(tmp_path / "twice", half)
    again = load_prior(tmp_path / "twice")
    assert torch.equal(again.denoise(x, 0.3), loaded.denoise(x, 0.3))
    files = [tmp_path / name / "spectrum.safetensors" for name in ("once", "twice")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("generators", ["one", "each"])
def test_a_batch_is_what_its_images_are_alone(generators: str) -> None:
    prior, x = gaussian(), noise(3, *SHAPE)
    sigma = torch.tensor([0.05, 0.8, 20.0], dtype=torch.float64)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = prior.denoise(x, sigma)
    drawn = prior.posterior_sample(x, sigma, seeds)
    for i in range(3):
        alone = x[i : i + 1], sigma[i : i + 1]
        torch.testing.assert_close(together[i : i + 1], prior.denoise(*alone), rtol=1e-12, atol=0)
        single = prior.posterior_sample(*alone, torch.Generator().manual_seed(i))
        torch.testing.assert_close(drawn[i : i + 1], single, rtol=1e-12, atol=1e-14)


def test_low_noise_is_not_rounded_away_under_autocast() -> None:
    prior, x = gaussian(), noise(2, *SHAPE).float()
    plain = prior.denoise(x, 0.01)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(prior.denoise(x, 0.01), plain)


def test_the_gaussian_moves_to_a_device() -> None:
    prior = gaussian()
    assert prior.to("meta") is prior
    assert prior.device.type == "meta"


def test_a_gradient_goes_through_after_inference_mode() -> None:
    prior, x = gaussian((3, 5, 4)), noise(1, 3, 5, 4)
    with torch.inference_mode():
        prior.denoise(x, 0.5)
    clean, pullback = prior.vjp(x, 0.5)
    # The filter is symmetric and linear around its mean.
    torch.testing.assert_close(pullback(x - prior.mean), clean - prior.mean)


WRONG = {
    "one image": (lambda: GaussianSpectrum.fit(noise(1, *SHAPE)), "two images or more"),
    "no image": (lambda: GaussianSpectrum.fit([]), "two images or more"),
    "bytes": (lambda: GaussianSpectrum.fit(noise(3, *SHAPE).byte()), "from_uint8"),
    "one shape": (lambda: GaussianSpectrum.fit([noise(2, 3, 4, 4), noise(2, 3, 8, 8)]), "3, 4, 4"),
    "no batch": (lambda: GaussianSpectrum.fit(noise(*SHAPE)), r"\(n, C, H, W\)"),
    "alike": (lambda: GaussianSpectrum.fit(torch.ones(4, 3, 4, 4)), "all alike"),
    "nan": (lambda: GaussianSpectrum.fit(torch.full((4, 3, 4, 4), torch.nan)), "not finite"),
    "number": (lambda: GaussianSpectrum.fit(3), "batches"),  # type: ignore[arg-type]
    "shape": (lambda: GaussianSpectrum(torch.ones(4, 4)), r"\(C, H, W\)"),
    "negative": (lambda: GaussianSpectrum(-torch.ones(1, 4, 4)), "not negative"),
    "mean": (lambda: GaussianSpectrum(torch.ones(1, 4, 4), torch.ones(3)), "broadcast"),
    "colors": (lambda: GaussianSpectrum(torch.ones(2, 4, 4), 0, torch.ones(2, 2)), "orthonormal"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_gaussian_is_refused(case: str) -> None:
    make, words = WRONG[case]
    with pytest.raises(InputError, match=words):
        make()


def test_a_folder_without_its_tensors_is_refused(tmp_path: Path) -> None:
    gaussian().save(tmp_path)
    (tmp_path / "spectrum.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not readable"):
        load_prior(tmp_path)
