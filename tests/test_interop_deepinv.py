"""deepinv: its physics, reconstructors and denoisers against ours, in the installed library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from optional_libraries import library
from torch import Tensor

from diffsplit import Problem, operators, solvers
from diffsplit.channels import GaussianNoise
from diffsplit.errors import InputError
from diffsplit.io.images import example_cats
from diffsplit.metrics import psnr
from diffsplit.operators import LinearOperator
from diffsplit.priors import Denoiser, GaussianPrior, GaussianSpectrum

dinv = library("deepinv")
from diffsplit.interop import (  # noqa: E402
    denoiser_to_deepinv,
    from_deepinv,
    prior_from_deepinv,
    to_deepinv,
)

SHAPE = (3, 16, 16)
SIGMA = 0.05


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def images() -> Tensor:
    """Two small cats on [-1, 1]."""
    return operators.Downsample((3, 64, 64), 4).apply(example_cats()[:2])


@pytest.fixture(scope="module")
def spectrum_prior() -> Denoiser:
    return GaussianSpectrum.fit(operators.Downsample((3, 64, 64), 4).apply(example_cats()))


def mask() -> Tensor:
    return torch.rand(16, 16, generator=seed(1)) < 0.6


def kernel(size: int = 5) -> Tensor:
    """Without any symmetry, so that a flip shows."""
    drawn = torch.rand(size, size, generator=seed(2))
    return drawn / drawn.sum()


def noise() -> Any:
    return dinv.physics.GaussianNoise(SIGMA, rng=seed(3))


def blur(padding: str, size: int = 5) -> Any:
    return dinv.physics.Blur(kernel(size)[None, None], padding=padding, noise_model=noise())


def reduction(**kind: Any) -> Any:
    return dinv.physics.Downsampling(img_size=SHAPE, factor=2, noise_model=noise(), **kind)


def compressed_sensing() -> Any:
    return dinv.physics.CompressedSensing(m=200, img_size=SHAPE, rng=seed(4), noise_model=noise())


def ours_blur(boundary: str, size: int = 5) -> LinearOperator:
    return operators.Blur(SHAPE, kernel(size), boundary)


EQUAL: dict[str, tuple[Callable[[], Any], Callable[[], LinearOperator]]] = {
    "denoising": (
        lambda: dinv.physics.Denoising(noise_model=noise()),
        lambda: operators.Identity(SHAPE),
    ),
    "inpainting": (
        lambda: dinv.physics.Inpainting(SHAPE, mask().float(), noise_model=noise()),
        lambda: operators.PixelMask.from_mask(mask(), SHAPE),
    ),
    "demosaicing": (
        lambda: dinv.physics.Demosaicing(SHAPE, noise_model=noise()),
        lambda: operators.PixelMask.from_mask(dinv.physics.Demosaicing(SHAPE).mask[0] > 0),
    ),
    "blur, circular": (lambda: blur("circular"), lambda: ours_blur("circular")),
    "blur, circular, even": (lambda: blur("circular", 4), lambda: ours_blur("circular", 4)),
    "blur, reflect": (lambda: blur("reflect"), lambda: ours_blur("reflect")),
    "blur by FFT": (
        lambda: dinv.physics.BlurFFT(SHAPE, kernel()[None, None], noise_model=noise()),
        lambda: ours_blur("circular"),
    ),
    "block average": (
        lambda: reduction(
            filter=torch.nn.functional.pad(torch.full((1, 1, 2, 2), 0.25), (0, 1, 0, 1))
        ),
        lambda: operators.Downsample(SHAPE, 2),
    ),
    "compressed sensing": (
        compressed_sensing,
        lambda: operators.from_matrix(compressed_sensing()._A, SHAPE, rows="iid"),
    ),
}
"""Physics of deepinv beside the operator of ours that each equals."""

GENERIC: dict[str, Callable[[], Any]] = {
    "Gaussian reduction": lambda: reduction(filter="gaussian"),
    "bicubic reduction": lambda: reduction(filter="bicubic"),
    "decimation": lambda: reduction(filter=None),
    "blur, valid": lambda: blur("valid"),
    "blur, replicate": lambda: blur("replicate"),
    "gray": lambda: dinv.physics.Decolorize(noise_model=noise()),
    "single pixel": lambda: dinv.physics.SinglePixelCamera(
        m=100, img_size=SHAPE, noise_model=noise()
    ),
    "structured random": lambda: dinv.physics.StructuredRandom(
        img_size=SHAPE, output_size=(3, 12, 12), rng=seed(4), noise_model=noise()
    ),
    "tomography": lambda: dinv.physics.Tomography(
        angles=12, img_width=16, circle=False, normalize=True, noise_model=noise()
    ),
    "MRI": lambda: dinv.physics.MRI(mask=mask().float(), img_size=(2, 16, 16), noise_model=noise()),
    "own functions": lambda: dinv.physics.LinearPhysics(
        A=lambda u, **_: u[..., ::2] + u[..., 1::2],
        A_adjoint=lambda y, **_: y.repeat_interleave(2, -1),
        noise_model=noise(),
    ),
}
"""Physics that equal no operator of ours."""


def shape_of(name: str) -> tuple[int, ...]:
    return (2, 16, 16) if name == "MRI" else SHAPE


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= 1e-5 * b.norm())


@pytest.mark.parametrize("name", EQUAL)
def test_a_physics_becomes_the_operator_of_ours_that_it_equals(name: str) -> None:
    theirs, ours = (make() for make in EQUAL[name])
    problem = from_deepinv(theirs, SHAPE)
    assert type(problem.operator) is type(ours)
    assert type(problem.operator.gram) is type(ours.gram)
    x = torch.randn(2, *SHAPE, generator=seed())
    assert close(problem.operator.apply(x), ours.apply(x))
    y = ours.apply(x)
    assert close(problem.operator.adjoint(y), ours.adjoint(y))


@pytest.mark.parametrize("name", [*EQUAL, *GENERIC])
def test_products_noise_and_range_agree_with_the_physics(name: str) -> None:
    physics = EQUAL[name][0]() if name in EQUAL else GENERIC[name]()
    shape = shape_of(name)
    problem = from_deepinv(physics, shape)
    u = torch.rand(2, *shape, generator=seed())
    clean = problem.measurements(physics.A(u))
    assert close(problem.operator.apply(2 * u - 1), clean)
    v = physics.A(torch.randn(2, *shape, generator=seed(5)))
    kept = v if problem.mask is None else problem.mask.apply(v)
    assert close(problem.operator.adjoint(kept), physics.A_adjoint(v))
    assert problem.channel.gaussian_sigma == pytest.approx(2 * SIGMA, rel=1e-6)
    many = problem.measurements(physics(u.repeat(200, 1, 1, 1))) - clean.repeat(
        200, *(1,) * (clean.ndim - 1)
    )
    assert many.std().item() == pytest.approx(2 * SIGMA, rel=0.02)


def test_what_commutes_with_shifts_keeps_its_spectrum_and_orthogonal_rows_their_gram() -> None:
    for name in ("Gaussian reduction", "bicubic reduction"):
        operator = from_deepinv(GENERIC[name](), SHAPE).operator
        assert operator.stride == 2
        x = torch.randn(1, *SHAPE, generator=seed())
        spectrum = operator.spectrum()
        through = spectrum.synthesize_measurement(
            spectrum.singular_values.to(x) * spectrum.analyze(x)
        )
        assert close(through, operator.apply(x))
    for name, c in (
        ("decimation", 1.0),
        ("structured random", 1.0),
        ("MRI", 1.0),
        ("gray", 0.4473),
    ):
        gram = from_deepinv(GENERIC[name](), shape_of(name)).operator.gram
        assert isinstance(gram, operators.ScaledIdentity), name
        assert gram.mean == pytest.approx(c, abs=1e-3), name


SOLVERS: dict[str, solvers.Solver] = {
    "DiffEP": solvers.DiffEP(levels=10),
    "DCDP": solvers.DCDP(rounds=4, tau=20, purifier="tweedie"),
    "Diff-OneBit": solvers.DiffOneBit(steps=6, adam_steps=20),
    "Wiener": solvers.Wiener(),
    "back-projection": solvers.BackProjection(),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", EQUAL)
def test_a_recovery_has_the_psnr_of_our_own_operator(
    name: str, solver: str, spectrum_prior: Denoiser
) -> None:
    make, ours = EQUAL[name]
    physics, method = make(), SOLVERS[solver]
    prior = None if method.requires is None else spectrum_prior
    u = (images() + 1) / 2
    y = physics(u)
    problem = Problem(ours(), GaussianNoise(2 * SIGMA))
    given = 2 * y - physics.A(torch.ones_like(u))
    if isinstance(problem.operator, operators.PixelMask):
        given = problem.operator.apply(given)
    try:
        expected = method(problem, given, prior, generator=seed(6))
    except InputError:
        with pytest.raises(InputError):
            to_deepinv(method, prior)(y, physics)
        assert solver == "Wiener"
        return
    found = 2 * to_deepinv(method, prior)(y, physics, generator=seed(6)) - 1
    difference = psnr(found, images()) - psnr(expected.image, images())
    assert difference.abs().max() < 0.01


@pytest.mark.parametrize("name", [name for name in GENERIC if name != "MRI"])
def test_every_physics_is_recovered_better_than_by_its_backprojection(
    name: str, spectrum_prior: Denoiser
) -> None:
    physics = GENERIC[name]()
    y = physics((images() + 1) / 2)
    plain = 2 * to_deepinv(solvers.BackProjection())(y, physics) - 1
    for solver in (solvers.DiffEP(), solvers.DCDP(purifier="tweedie")):
        found = 2 * to_deepinv(solver, spectrum_prior)(y, physics, generator=seed()) - 1
        assert (psnr(found, images()) > psnr(plain, images())).all()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: dinv.physics.PoissonNoise(), "PoissonNoise has no counterpart"),
        (lambda: dinv.physics.UniformGaussianNoise(), "UniformGaussianNoise has no"),
        (lambda: dinv.physics.GaussianNoise(torch.tensor([0.1, 0.2])), "from image to image"),
    ],
)
def test_noise_that_is_not_of_one_known_gaussian_level_is_refused(
    model: Callable[[], Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        from_deepinv(dinv.physics.Denoising(noise_model=model()), SHAPE)


def test_a_physics_without_noise_is_a_problem_without_noise() -> None:
    physics = dinv.physics.Inpainting(SHAPE, mask().float())
    assert from_deepinv(physics).channel.gaussian_sigma == 0


def test_what_is_no_linear_problem_is_refused_in_a_sentence() -> None:
    physics = dinv.physics
    with pytest.raises(InputError, match="linear physics of deepinv was expected, not Haze"):
        from_deepinv(physics.Haze(), SHAPE)
    with pytest.raises(InputError, match="sensor model"):
        from_deepinv(physics.LinearPhysics(sensor_model=torch.sign), SHAPE)
    with pytest.raises(InputError, match="list of measurements"):
        from_deepinv(physics.Denoising().stack(physics.Denoising()), SHAPE)
    with pytest.raises(InputError, match="how large its images are"):
        from_deepinv(blur("circular"))
    with pytest.raises(InputError, match=r"shape \(B, 3, 16, 16\)"):
        from_deepinv(blur("circular"), SHAPE).measurements(torch.zeros(1, 3, 8, 8))


def test_a_wrong_adjoint_is_found_out() -> None:
    physics = dinv.physics.LinearPhysics(A=lambda u, **_: 2 * u, A_adjoint=lambda y, **_: y)
    with pytest.raises(InputError, match="adjoint does not belong"):
        from_deepinv(physics, SHAPE)


def test_a_physics_that_was_updated_is_seen_by_the_next_call(spectrum_prior: Denoiser) -> None:
    model = to_deepinv(solvers.DiffEP(levels=4), spectrum_prior)
    physics = dinv.physics.Inpainting(SHAPE, torch.ones(1, 16, 16), noise_model=noise())
    y = physics((images() + 1) / 2)
    physics.update(sigma=torch.tensor(0.3), mask=mask().float()[None, None])
    problem = from_deepinv(physics)
    assert problem.channel.gaussian_sigma == pytest.approx(0.6)
    assert problem.operator.size_out == 3 * int(mask().sum())
    assert model.recover(y, physics).image.shape == (2, *SHAPE)


def test_a_denoiser_of_deepinv_denoises_as_a_prior_does_with_twice_the_noise() -> None:
    given = GaussianPrior(SHAPE, 0.2, 0.3)
    prior = prior_from_deepinv(denoiser_to_deepinv(given), SHAPE, sigma_max=10.0)
    x, sigma = torch.randn(2, *SHAPE, generator=seed()), torch.tensor([0.4, 1.5])
    torch.testing.assert_close(prior.denoise(x, sigma), given.denoise(x, sigma))


@pytest.mark.parametrize(
    "sigma", [0.2, torch.tensor(0.2), torch.tensor([0.2, 0.2]), torch.full((2, 1, 1, 1), 0.2)]
)
def test_our_denoiser_takes_noise_levels_as_deepinv_gives_them(sigma: float | Tensor) -> None:
    given = GaussianPrior(SHAPE, 0.2, 0.3)
    u = torch.rand(2, *SHAPE, generator=seed())
    clean = denoiser_to_deepinv(given)(u, sigma)
    torch.testing.assert_close(2 * clean - 1, given.denoise(2 * u - 1, 0.4))


def test_a_median_filter_of_deepinv_serves_a_solver() -> None:
    prior = prior_from_deepinv(dinv.models.MedianFilter(3), SHAPE, sigma_max=2.0)
    problem = Problem(operators.Identity(SHAPE), GaussianNoise(0.2))
    y = problem.measure(images(), generator=seed())
    found = solvers.DiffEP()(problem, y, prior, generator=seed())
    assert (psnr(found.image, images()) > psnr(y, images())).all()


def test_wrong_models_are_refused_in_a_sentence(spectrum_prior: Denoiser) -> None:
    with pytest.raises(InputError, match=r"deepinv\.models\.Denoiser was expected"):
        prior_from_deepinv(torch.nn.Identity(), SHAPE, sigma_max=1.0)
    with pytest.raises(InputError, match="diffusion model is needed"):
        denoiser_to_deepinv(object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes a solver"):
        to_deepinv(spectrum_prior)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes a prior, not NoneType"):
        to_deepinv(solvers.DiffEP())


def test_their_trainer_tests_our_solver(spectrum_prior: Denoiser) -> None:
    """As deepinv evaluates any model, with its data loader, its physics and its metric."""
    u = (images() + 1) / 2
    loader = torch.utils.data.DataLoader([u[0], u[1]], batch_size=2)
    physics = EQUAL["blur by FFT"][0]()
    results = dinv.test(
        to_deepinv(solvers.DiffEP(levels=10), spectrum_prior),
        loader,
        physics,
        metrics=[dinv.metric.PSNR()],
        online_measurements=True,
        compare_no_learning=True,
        verbose=False,
        show_progress_bar=False,
    )
    assert results["PSNR"] > results["PSNR no learning"] + 3


@pytest.mark.slow
def test_their_example_of_inpainting_with_ddrm_with_our_model_and_our_solver() -> None:
    """deepinv's examples/sampling/demo_ddrm.py, with a bundled model and a bundled picture."""
    import numpy as np

    from diffsplit import load_prior

    prior = load_prior("cats-64")
    assert isinstance(prior, Denoiser)
    u = (example_cats()[:1] + 1) / 2
    physics = dinv.physics.Inpainting(
        mask=0.5, img_size=u.shape[1:], noise_model=dinv.physics.GaussianNoise(0.1), rng=seed()
    )
    torch.manual_seed(0)
    y = physics(u)
    ddrm = dinv.sampling.DDRM(
        denoiser=denoiser_to_deepinv(prior), etab=1.0, sigmas=np.linspace(1, 0, 20)
    )
    theirs = dinv.metric.PSNR()(ddrm(y, physics), u)
    ours = dinv.metric.PSNR()(to_deepinv(solvers.DiffEP(), prior)(y, physics), u)
    assert ours > theirs > dinv.metric.PSNR()(y, u) + 5
