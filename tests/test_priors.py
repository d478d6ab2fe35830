"""Priors: closed forms against linear algebra, wrappers against the models' own formulas."""

import json
import logging
import math
import sys

import pytest
import torch

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors import (
    DiffusersPrior,
    EDMPrior,
    ErrorCurve,
    GaussianMixturePrior,
    GaussianPrior,
    from_callable,
    load_prior,
    log_grid,
    measure_error,
)
from diffsplit.priors.edm import build_unet


@pytest.fixture(scope="module")
def tiny_unet():
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()


@pytest.fixture
def edm():
    torch.manual_seed(1)
    unet = build_unet(16, 2, (16, 32)).eval().requires_grad_(False)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    curve = ErrorCurve((0.01, 1.0, 100.0), (1e-4, 0.05, 0.25))
    return EDMPrior(unet, sigma_data=0.5, patch=2, curve=curve, facts={"name": "tiny"})


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
def test_sigma_space_ddim_equals_a_plain_ddim_loop_of_the_wrapped_model(tiny_unet, prediction):
    from diffusers import DDIMScheduler

    from diffsplit.solvers import reverse_diffusion

    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=True, clip_sample_range=1.0)
    scheduler.set_timesteps(10)
    prior = DiffusersPrior(tiny_unet, scheduler.alphas_cumprod, prediction)
    start = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    x = start
    alphas = scheduler.alphas_cumprod
    with torch.no_grad():
        for t in scheduler.timesteps:
            noise = tiny_unet(x, t).sample
            x = scheduler.step(noise, t, x, use_clipped_model_output=True).prev_sample
        first = scheduler.timesteps[0]
        sigmas = [float(((1 - alphas[t]) / alphas[t]).sqrt()) for t in scheduler.timesteps]
        ours = reverse_diffusion(
            prior, start / alphas[first].sqrt(), [*sigmas, 0.0], torch.Generator(), eta=0.0
        )
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)


def test_timesteps_of_the_models_own_noise_levels_are_integers(tiny_unet):
    from diffusers import DDPMScheduler

    alphas = DDPMScheduler().alphas_cumprod
    prior = DiffusersPrior(tiny_unet, alphas)
    sigmas = ((1 - alphas.double()) / alphas.double()).sqrt()
    t = prior.timestep(sigmas)
    assert (t - torch.arange(1000)).abs().max() < 1e-3
    assert prior.sigma_max == pytest.approx(157.4, abs=0.1)


def test_learned_variance_channels_are_dropped(tiny_unet):
    from diffusers import DDPMScheduler, UNet2DModel

    config = {**tiny_unet.config, "out_channels": 6}
    wide = UNet2DModel.from_config(config).eval()
    prior = DiffusersPrior(wide, DDPMScheduler().alphas_cumprod)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = x - 2.0 * wide(x / 5**0.5, prior.timestep(torch.tensor([2.0]))).sample[:, :3]
        torch.testing.assert_close(prior.denoise(x, 2.0), expected)


def test_a_saved_diffusers_pipeline_and_a_bare_model_folder_load(tiny_unet, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    scheduler = DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
    DDPMPipeline(tiny_unet, scheduler).save_pretrained(tmp_path / "pipeline")
    tiny_unet.save_pretrained(tmp_path / "model")
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pipeline = load_prior(tmp_path / "pipeline")
        expected = DiffusersPrior(tiny_unet, scheduler.alphas_cumprod, "v_prediction")
        torch.testing.assert_close(pipeline.denoise(x, 0.7), expected.denoise(x, 0.7))
        plain = DiffusersPrior(tiny_unet, DDPMScheduler().alphas_cumprod)
        bare = load_prior(tmp_path / "model")
        torch.testing.assert_close(bare.denoise(x, 0.7), plain.denoise(x, 0.7))


def test_an_unreachable_hub_an_unknown_name_and_a_broken_folder_are_explained(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no such prior; give one of the bundled"):
        load_prior("dogs-9000")
    with pytest.raises(InputError, match="hub did not give it"):
        load_prior("some-organization/some-model-that-is-not-there")
    with pytest.raises(InputError, match="no readable diffusers model"):
        load_prior(tmp_path)
    (tmp_path / "prior.json").write_text("{}")
    with pytest.raises(InputError, match="this version reads"):
        load_prior(tmp_path)
    (tmp_path / "prior.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="not a readable prior description"):
        load_prior(tmp_path)


def test_a_saved_edm_prior_comes_back_the_same_to_half_precision(edm, tmp_path):
    edm.save(tmp_path / "prior", half=True)
    loaded = load_prior(tmp_path / "prior")
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.denoise(x, 0.8), edm.denoise(x, 0.8), rtol=1e-2, atol=1e-2)
    assert loaded.curve == edm.curve
    assert loaded.facts == {"name": "tiny"}
    from diffusers import UNet2DModel

    assert UNet2DModel.from_pretrained(tmp_path / "prior" / "unet").config.in_channels == 12


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


def test_a_prior_shows_its_shape_and_noise_levels(edm):
    assert repr(edm) == f"EDMPrior((3, 16, 16), σ {edm.sigma_min:g} … {edm.sigma_max:g})"
    callable_prior = from_callable(lambda x, s: x, (4,), sigma_min=1 / 3, sigma_max=2.0)
    assert repr(callable_prior) == "CallablePrior((4,), σ 0.333 … 2)"


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


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_curves_of_impossible_numbers_are_refused(value):
    with pytest.raises(InputError, match="error curve"):
        ErrorCurve((0.1, 1.0), (0.1, value))


def test_float64_images_are_denoised_in_the_precision_of_the_network(edm):
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    answer = edm.denoise(x, 0.8)
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer.float(), edm.denoise(x.float(), 0.8))


def test_a_folder_comes_before_a_bundled_prior_of_its_name(edm, tmp_path, monkeypatch):
    assert load_prior("cats-64").shape == (3, 64, 64)
    edm.save(tmp_path / "cats-64")
    monkeypatch.chdir(tmp_path)
    assert load_prior("cats-64").shape == (3, 16, 16)
    (tmp_path / "cats-64" / "prior.json").unlink()
    assert load_prior("cats-64").shape == (3, 64, 64)


MALFORMED = {
    "number": "5",
    "list": "[1]",
    "pairs": '[["format", "diffsplit-edm"]]',
    "null": "null",
    "nothing": "",
    "deep": "[" * 100_000,
    "deep format": {"format": [[[]]]},
    "long format": {"format": "x" * 10_000},
    "no patch": {"patch": 0},
    "negative patch": {"patch": -2},
    "patch of another network": {"patch": 3},
    "patch of words": {"patch": "two"},
    "infinite patch": {"patch": math.inf},
    "levels in the wrong order": {"sigma_min": 3.0, "sigma_max": 1.0},
    "equal levels": {"sigma_min": 1.0, "sigma_max": 1.0},
    "no noise": {"sigma_min": 0.0},
    "NaN level": {"sigma_max": math.nan},
    "endless level": {"sigma_max": 10**400},
    "level of none": {"sigma_max": None},
    "NaN": {"mean_square": math.nan},
    "negative": {"mean_square": -0.25},
    "negative data": {"sigma_data": -0.5},
    "facts": {"facts": 3},
    "curve": {"error_curve": 3},
    "empty curve": {"error_curve": {}},
    "curve of words": {"error_curve": {"sigma": ["a", "b"], "mse": [1, 2]}},
    "endless curve": {"error_curve": {"sigma": [1, 2], "mse": [1, 10**400]}},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_description_of_a_prior_is_refused(edm, tmp_path, case):
    edm.save(tmp_path)
    file, change = tmp_path / "prior.json", MALFORMED[case]
    if isinstance(change, dict):
        change = json.dumps(json.loads(file.read_text()) | change)
    file.write_text(change)
    with pytest.raises(InputError, match=tmp_path.name) as caught:
        load_prior(tmp_path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        "5",
        "[" * 100_000,
        {"sample_size": None},
        {"sample_size": [16]},
        {"sample_size": "16"},
        {"sample_size": 0},
        {"block_out_channels": [16]},
        {"block_out_channels": None},
        {"norm_num_groups": 0},
        {"down_block_types": ["NoSuchBlock", "DownBlock2D"]},
        {"in_channels": 3},
    ],
    ids=lambda change: json.dumps(change)[:30],
)
@pytest.mark.parametrize("kind", ["ours", "diffusers"])
def test_a_malformed_network_is_refused(edm, tmp_path, kind, change):
    edm.save(tmp_path)
    if kind == "diffusers":
        (tmp_path / "prior.json").unlink()
        (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    file = tmp_path / "unet" / "config.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(file.read_text()) | change)
    file.write_text(change)
    with pytest.raises(InputError, match=tmp_path.name):
        load_prior(tmp_path)


def test_schedules_that_do_not_fall_are_refused(tiny_unet):
    for alphas in ([], [0.5], [0.5, 0.5], [0.4, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, math.nan]):
        with pytest.raises(InputError, match="schedule does not fall"):
            DiffusersPrior(tiny_unet, torch.tensor(alphas))


def test_loading_says_nothing_and_saving_forgets_where_the_weights_came_from(edm, tmp_path, caplog):
    import diffusers

    edm.save(tmp_path / "secret")
    diffusers.utils.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            loaded = load_prior(tmp_path / "secret")
    finally:
        diffusers.utils.logging.disable_propagation()
    assert not caplog.records
    loaded.save(tmp_path / "copy")
    assert "secret" not in (tmp_path / "copy" / "unet" / "config.json").read_text()


def test_a_save_that_fails_leaves_the_earlier_prior(edm, tmp_path, monkeypatch):
    edm.save(tmp_path)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    torch.nn.init.ones_(edm.unet.conv_out.weight)

    def broken(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("diffusers.EDMEulerScheduler.save_pretrained", broken)
    with pytest.raises(OSError, match="full"):
        edm.save(tmp_path)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


def test_a_noise_level_is_filled_in_without_a_copy(monkeypatch):
    from diffsplit.priors.base import per_image

    monkeypatch.setattr(torch, "as_tensor", None)
    x = torch.zeros(3, 4, dtype=torch.float64)
    assert torch.equal(per_image(0.7, 3, x), torch.full((3,), 0.7, dtype=torch.float64))
    assert torch.equal(per_image(torch.ones(3), 3, x), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda x, sigma: x[:, :1], r"\(2, 1, 8, 8\)"),
        (lambda x, sigma: x[..., ::2], r"\(2, 3, 8, 4\)"),
        (lambda x, sigma: x.numpy(), "ndarray"),
    ],
)
def test_a_callable_that_answers_with_something_else_is_refused(answer, got):
    prior = from_callable(answer, (3, 8, 8))
    with pytest.raises(InputError, match=got):
        prior.denoise(torch.zeros(2, 3, 8, 8), 1.0)


@pytest.mark.parametrize("name", ["./nothing", "nothing/", "/no/where", "a/b/c", "-x/y"])
def test_a_path_that_is_not_there_is_no_hub_id(name):
    with pytest.raises(InputError, match="no such prior"):
        load_prior(name)


def test_a_torchvision_that_does_not_fit_pytorch_is_named_instead_of_the_prior(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("look up:\noperator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "diffusers", Broken())
    with pytest.raises(MissingDependencyError, match=r"nms does not exist.*uninstall torchvision"):
        load_prior("cats-64")
