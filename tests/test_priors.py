"""Priors: closed forms against linear algebra, networks against their models' own formulas."""

import gc
import math
import weakref

import pytest
import torch
from tiny_networks import tiny_edm, tiny_unet

from diffsplit.counting import counting
from diffsplit.errors import InputError
from diffsplit.priors import (
    ConsistencyPrior,
    DiffusersPrior,
    ErrorCurve,
    GaussianConsistency,
    GaussianMixturePrior,
    GaussianPrior,
    from_callable,
    log_grid,
    measure_error,
)


@pytest.fixture(scope="module")
def unet():
    return tiny_unet(3, 16)


@pytest.fixture
def edm():
    return tiny_edm()


def _randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _diffusers(prediction):
    from diffusers import DDPMScheduler

    network = tiny_unet(3, 16).double()
    return DiffusersPrior(network, DDPMScheduler().alphas_cumprod, prediction)


def _edm():
    prior = tiny_edm()
    prior.unet.double()
    return prior


DENOISERS = {
    "gaussian": lambda: GaussianPrior((12,), 0.2, _covariance(12)),
    "white gaussian": lambda: GaussianPrior((3, 4, 4), 0.2, 0.3),
    "mixture": lambda: GaussianMixturePrior(_randn(30, 2, 5), [0.05] * 30),
    "callable": lambda: from_callable(lambda x, s: x.tanh() / (1 + s.view(-1, 1)), (6,)),
    "edm": _edm,
    "epsilon": lambda: _diffusers("epsilon"),
    "v_prediction": lambda: _diffusers("v_prediction"),
}


def _covariance(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    return root @ root.T + 0.01 * torch.eye(size, dtype=torch.float64)


def test_gaussian_denoiser_is_the_regression_of_the_signal_on_the_noisy_signal():
    cov, mean = _covariance(12), torch.linspace(-1, 1, 12, dtype=torch.float64)
    prior = GaussianPrior((12,), mean, cov)
    x = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.01, 0.1, 1.0, 10.0, 1000.0], dtype=torch.float64)
    for i, s in enumerate(sigma):
        noisy = cov + s**2 * torch.eye(12, dtype=torch.float64)
        expected = mean + cov @ torch.linalg.solve(noisy, x[i] - mean)
        torch.testing.assert_close(prior.denoise(x, sigma)[i], expected, rtol=1e-9, atol=1e-9)
        error = torch.trace(cov - cov @ torch.linalg.solve(noisy, cov)) / 12
        torch.testing.assert_close(prior.error(s), error, rtol=1e-7, atol=1e-12)


def test_gaussian_prior_samples_have_its_mean_and_covariance():
    cov = _covariance(6)
    draws = GaussianPrior((6,), 0.3, cov).sample(40_000, torch.Generator().manual_seed(0)).double()
    assert (draws.mean(0) - 0.3).abs().max() < 0.02
    assert (torch.cov(draws.T) - cov).abs().max() < 0.03


def test_mixture_denoiser_is_the_posterior_mean_by_quadrature():
    prior = GaussianMixturePrior(torch.tensor([[-1.0], [0.7]]), [0.04, 0.3], [1.0, 2.0])
    grid = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = sum(
        w * torch.exp(-((grid - m) ** 2) / (2 * v)) / math.sqrt(v)
        for w, m, v in ((1, -1.0, 0.04), (2, 0.7, 0.3))
    )
    for sigma in (0.05, 0.5, 3.0):
        for x in (-2.0, 0.1, 1.5):
            weight = density * torch.exp(-((x - grid) ** 2) / (2 * sigma**2))
            expected = (weight * grid).sum() / weight.sum()
            got = prior.denoise(torch.tensor([[x]], dtype=torch.float64), sigma)
            assert abs(got.item() - expected.item()) < 1e-7


def test_mixture_error_agrees_with_fresh_samples():
    means = torch.randn(4, 30, generator=torch.Generator().manual_seed(2))
    prior = GaussianMixturePrior(means, [0.05] * 4)
    generator = torch.Generator().manual_seed(9)
    x = prior.sample(5000, generator)
    for sigma in (0.3, 1.0, 5.0):
        noisy = x + sigma * torch.randn(x.shape, generator=generator)
        true = (prior.denoise(noisy, sigma) - x).square().mean()
        assert abs(prior.error(sigma).item() / true.item() - 1) < 0.05


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_sigma_space_ddim_equals_a_plain_ddim_loop_of_the_wrapped_model(unet, prediction):
    from diffusers import DDIMScheduler

    from diffsplit.solvers.reverse import clipped, reverse_diffusion

    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=True, clip_sample_range=1.0)
    scheduler.set_timesteps(10)
    prior = DiffusersPrior(unet, scheduler.alphas_cumprod, prediction)
    start = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    x = start
    alphas = scheduler.alphas_cumprod
    with torch.no_grad():
        for t in scheduler.timesteps:
            noise = unet(x, t).sample
            x = scheduler.step(noise, t, x, use_clipped_model_output=True).prev_sample
        first = scheduler.timesteps[0]
        sigmas = [float(((1 - alphas[t]) / alphas[t]).sqrt()) for t in scheduler.timesteps]
        ours = reverse_diffusion(
            clipped(prior), start / alphas[first].sqrt(), [*sigmas, 0.0], torch.Generator(), eta=0.0
        )
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)


def test_timesteps_of_the_models_own_noise_levels_are_integers(unet):
    from diffusers import DDPMScheduler

    alphas = DDPMScheduler().alphas_cumprod
    prior = DiffusersPrior(unet, alphas)
    sigmas = ((1 - alphas.double()) / alphas.double()).sqrt()
    t = prior.timestep(sigmas)
    assert (t - torch.arange(1000)).abs().max() < 1e-3
    assert prior.sigma_max == pytest.approx(157.4, abs=0.1)


def test_learned_variance_channels_are_dropped(unet):
    from diffusers import DDPMScheduler, UNet2DModel

    config = {**unet.config, "out_channels": 6}
    wide = UNet2DModel.from_config(config).eval()
    prior = DiffusersPrior(wide, DDPMScheduler().alphas_cumprod)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = x - 2.0 * wide(x / 5**0.5, prior.timestep(torch.tensor([2.0]))).sample[:, :3]
        torch.testing.assert_close(prior.denoise(x, 2.0), expected)


def test_edm_preconditioning_hands_the_network_unit_variance_and_skips_at_low_noise(edm):
    x = 0.5 * torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = []
    hook = edm.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].std().item()))
    for sigma in (0.01, 0.5, 100.0):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        edm.denoise(x + sigma * noise, sigma)
    hook.remove()
    assert all(abs(std - 1) < 0.02 for std in seen)
    assert (edm.denoise(x, 0.01) - x).abs().max() < 0.05


@pytest.mark.parametrize("sigma", [0.7, torch.tensor(0.7), torch.full((3,), 0.7)])
def test_sigma_may_be_a_float_a_scalar_tensor_or_one_per_image(sigma):
    prior = GaussianPrior((4,))
    x = torch.ones(3, 4)
    torch.testing.assert_close(prior.denoise(x, sigma), torch.full((3, 4), 0.25 / (0.25 + 0.49)))


def test_levels_outside_the_range_are_moved_to_its_ends():
    prior = from_callable(lambda x, s: x * 0 + s.view(-1, 1), (4,), sigma_min=0.1, sigma_max=2.0)
    assert prior.denoise(torch.zeros(2, 4), torch.tensor([1e-9, 1e9])).tolist() == [
        pytest.approx([0.1] * 4),
        pytest.approx([2.0] * 4),
    ]


def test_wrong_shapes_are_refused_with_the_expected_shape():
    prior = GaussianPrior((3, 8, 8))
    with pytest.raises(InputError, match=r"shape \(B, 3, 8, 8\)"):
        prior.denoise(torch.zeros(2, 3, 8, 9), 1.0)
    with pytest.raises(InputError, match="one per image"):
        prior.denoise(torch.zeros(2, 3, 8, 8), torch.ones(3))


def test_the_error_curve_is_exact_at_its_knots_and_log_linear_between_them():
    curve = ErrorCurve((0.1, 1.0, 10.0), (1e-3, 1e-1, 0.2))
    torch.testing.assert_close(
        curve(torch.tensor([0.1, 1.0, 10.0])), torch.tensor([1e-3, 0.1, 0.2])
    )
    assert curve(10**-0.5).item() == pytest.approx(1e-2, rel=1e-5)
    assert curve(1e-9).item() == pytest.approx(1e-3)
    assert curve(1e9).item() == pytest.approx(0.2)
    with pytest.raises(InputError):
        ErrorCurve((1.0, 0.1), (0.1, 0.1))


def test_a_measured_error_curve_agrees_with_the_closed_form():
    prior = GaussianPrior((64,), 0.0, torch.linspace(0.01, 1, 64))
    images = prior.sample(2000, torch.Generator().manual_seed(0))
    curve = measure_error(prior, images, log_grid(0.1, 10, 5), torch.Generator().manual_seed(1))
    for sigma, mse in zip(curve.sigma, curve.mse, strict=True):
        assert mse == pytest.approx(prior.error(sigma).item(), rel=0.03)


def test_a_curve_copies_its_table_once_and_serves_every_dtype_and_gradients(monkeypatch):
    curve = ErrorCurve((0.1, 1.0, 10.0), (1e-3, 1e-1, 0.2))
    with torch.inference_mode():
        curve(torch.tensor([0.3, 3.0]))
    sigma = torch.tensor([0.3, 3.0], requires_grad=True)
    curve(sigma).sum().backward()
    assert sigma.grad is not None
    made = []
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: (made.append(a), tensor(*a, **k))[1])
    curve(sigma)
    assert not made
    assert curve(sigma.double()).dtype == torch.float64
    assert curve == ErrorCurve((0.1, 1.0, 10.0), (1e-3, 1e-1, 0.2))


def test_float64_images_are_denoised_in_the_precision_of_the_network(edm):
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    answer = edm.denoise(x, 0.8)
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer.float(), edm.denoise(x.float(), 0.8))


def test_schedules_that_do_not_fall_are_refused(unet):
    for alphas in ([], [0.5], [0.5, 0.5], [0.4, 0.5], [1.0, 0.5], [0.5, 0.0], [[0.5, 0.4]]):
        with pytest.raises(InputError, match="schedule does not fall"):
            DiffusersPrior(unet, torch.tensor(alphas))


def test_a_noise_level_is_filled_in_without_a_copy(monkeypatch):
    from diffsplit.priors.base import per_image

    monkeypatch.setattr(torch, "as_tensor", None)
    x = torch.zeros(3, 4, dtype=torch.float64)
    assert torch.equal(per_image(0.7, 3, x), torch.full((3,), 0.7, dtype=torch.float64))
    assert torch.equal(per_image(torch.ones(3), 3, x), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", DENOISERS)
def test_a_batch_with_a_level_for_each_image_is_denoised_as_its_images_are(kind):
    prior = DENOISERS[kind]()
    x, sigma = _randn(3, *prior.shape), torch.tensor([0.05, 0.8, 20.0], dtype=torch.float64)
    together = prior.denoise(x, sigma)
    for i in range(3):
        alone = prior.denoise(x[i : i + 1], sigma[i].item())
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["network", "gaussian"])
def test_a_batch_of_consistency_answers_is_what_single_ones_are(kind):
    prior = GaussianConsistency(GaussianPrior((3, 16, 16), 0.1, 0.2))
    if kind == "network":
        prior = ConsistencyPrior(tiny_unet(3, 16).double())
    x, sigma = _randn(3, 3, 16, 16), torch.tensor([0.05, 0.8, 20.0], dtype=torch.float64)
    together = prior.consistency(x, sigma)
    for i in range(3):
        alone = prior.consistency(x[i : i + 1], sigma[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", DENOISERS)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_pullback_is_the_transpose_of_the_directional_derivative(kind, context):
    prior, step = DENOISERS[kind](), 1e-5
    with context():
        x, v, u = (_randn(2, *prior.shape, seed=seed) for seed in range(3))
        sigma = torch.tensor([0.3, 2.0], dtype=torch.float64)
        clean, pullback = prior.vjp(x, sigma)
        gradient = pullback(u)
        torch.testing.assert_close(clean, prior.denoise(x, sigma))
        ahead, behind = prior.denoise(x + step * v, sigma), prior.denoise(x - step * v, sigma)
        expected = (u * (ahead - behind) / (2 * step)).flatten(1).sum(1)
        torch.testing.assert_close((gradient * v).flatten(1).sum(1), expected, rtol=1e-5, atol=1e-7)
    assert not clean.requires_grad


def test_a_pullback_frees_its_graph_and_leaves_no_gradient_in_the_weights(edm):
    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor

    alive = weakref.WeakSet()

    def pack(tensor):
        alive.add(saved := Saved(tensor))
        return saved

    edm.unet.requires_grad_(True)
    x = _randn(2, 3, 16, 16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        _, pullback = edm.vjp(x, 0.5)
    assert alive
    pullback(x)
    gc.collect()
    assert not alive
    assert all(p.grad is None for p in edm.unet.parameters())
    with pytest.raises(InputError, match="called once"):
        pullback(x)


def test_a_denoiser_without_a_gradient_is_refused_where_one_is_needed():
    prior = from_callable(torch.no_grad()(lambda x, s: 0.5 * x), (4,))
    with pytest.raises(InputError, match="without a gradient"):
        prior.vjp(torch.ones(1, 4), 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_denoised_as_exactly_as_they_are_given(dtype):
    prior = GaussianPrior((4,), 0.1, 0.3)
    x = torch.tensor([[1.0, -0.5, 30.0, 0.25]]).to(dtype)
    for sigma in (1e-4, 0.5, 5e3):
        answer = prior.denoise(x, sigma)
        assert answer.dtype == dtype
        assert torch.equal(answer, prior.denoise(x.double(), sigma).to(dtype))


def test_evaluations_are_counted_by_image_and_those_of_an_error_curve_are_not():
    prior = GaussianMixturePrior(_randn(2, 5), [0.1, 0.2])
    with counting() as count:
        prior.denoise(torch.zeros(3, 5), 1.0)
        GaussianConsistency(GaussianPrior((5,))).consistency(torch.zeros(2, 5), 1.0)
        prior.error(0.5)
    assert count.network == 5


WRONG_CALLABLES = {
    "swapped": (((3, 8, 8), abs), {}, "with the denoiser first"),
    "no callable": ((3, (3, 8, 8)), {}, "cannot be called"),
    "no shape": ((abs, 8), {}, "positive sizes"),
    "shape in words": ((abs, "388"), {}, "positive sizes"),
    "shape of fractions": ((abs, (3, 8.5, 8)), {}, "positive sizes"),
    "empty shape": ((abs, ()), {}, "positive sizes"),
    "levels": ((abs, (4,)), {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min < sigma_max"),
    "no level": ((abs, (4,)), {"sigma_min": None}, "sigma_min is a number"),
    "NaN level": ((abs, (4,)), {"sigma_max": math.nan}, "sigma_max is a number"),
    "mean square": ((abs, (4,)), {"mean_square": -0.25}, "mean_square"),
    "bounds": ((abs, (4,)), {"bounds": (1.0, -1.0)}, "low < high"),
    "one bound": ((abs, (4,)), {"bounds": 1.0}, r"bounds are \(low, high\)"),
    "bounds in words": ((abs, (4,)), {"bounds": "ab"}, r"bounds are \(low, high\)"),
    "error": ((abs, (4,)), {"error": 0.1}, "error is a function"),
    "device": ((abs, (4,)), {"device": "nowhere"}, "is no device"),
}


@pytest.mark.parametrize("case", WRONG_CALLABLES)
def test_what_cannot_be_a_prior_is_refused_when_it_is_made(case):
    arguments, options, words = WRONG_CALLABLES[case]
    with pytest.raises(InputError, match=words):
        from_callable(*arguments, **options)


@pytest.mark.parametrize(
    ("answer", "got"),
    [(lambda x, s: x[:, :1], r"\(2, 1, 8, 8\)"), (lambda x, s: x.numpy(), "ndarray")],
)
def test_a_callable_that_answers_with_something_else_is_refused(answer, got):
    with pytest.raises(InputError, match=got):
        from_callable(answer, (3, 8, 8)).denoise(torch.zeros(2, 3, 8, 8), 1.0)


def test_the_networks_of_a_prior_move_with_it(edm):
    own = from_callable(torch.nn.Bilinear(4, 1, 4), (4,))
    for prior in (edm, own, DiffusersPrior(tiny_unet(3, 16), torch.linspace(0.9, 0.1, 10))):
        assert prior.to("meta") is prior
        assert prior.device.type == "meta"


WRONG_GAUSSIANS = {
    "mean of another shape": (((4,), torch.zeros(3)), "broadcast to"),
    "NaN mean": (((4,), math.nan), "not finite"),
    "mean in words": (((4,), "zero"), "made of numbers"),
    "negative": (((4,), 0.0, -1.0), "no negative eigenvalue"),
    "not symmetric": (((2,), 0.0, torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
}


@pytest.mark.parametrize("case", WRONG_GAUSSIANS)
def test_what_is_no_gaussian_is_refused(case):
    arguments, words = WRONG_GAUSSIANS[case]
    with pytest.raises(InputError, match=words):
        GaussianPrior(*arguments)
