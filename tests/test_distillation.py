"""Distillation: trajectories lead where the exact ones do, and a student learns their ends."""

import math
from dataclasses import replace

import pytest
import torch
from folders import contents
from tiny_training import SHORT, TINY, accelerator

from diffsplit import load_prior
from diffsplit.errors import InputError
from diffsplit.priors import (
    ConsistencyPrior,
    GaussianConsistency,
    GaussianPrior,
    GaussianSpectrum,
    ResidualConsistency,
    ResidualPrior,
)
from diffsplit.priors.patched import build_unet
from diffsplit.solvers.consistency_samples import draw_from_noisy, multistep
from diffsplit.training import train
from diffsplit.training.distill import ConsistencyRun, distill
from diffsplit.training.trajectories import Trajectories, trajectory_end

pytest.importorskip("accelerate")
pytestmark = pytest.mark.usefixtures("short_comparisons")


@pytest.fixture(scope="module")
def finished(short_comparisons, trained, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "fast"
    distill(trained, out, SHORT, data=pictures, cpu=True, facts={"license": "mine"})
    return out


def gaussian(variance=0.25, n=4):
    return GaussianPrior((3, n, n), 0.1, variance)


def test_a_trajectory_ends_where_the_exact_one_of_a_gaussian_prior_does():
    prior = gaussian()
    prior.sigma_min = 0.01
    generator = torch.Generator().manual_seed(0)
    for sigma in (0.5, 3.0, 40.0):
        x = 0.1 + sigma * torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
        exact = GaussianConsistency(prior).consistency(x, sigma)
        end = trajectory_end(prior, x, sigma, 0.01, 60)
        assert (end - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("images", [True, False])
def test_training_pairs_are_points_of_trajectories_and_their_ends(images):
    prior = gaussian()
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (5, 3, 4, 4), generator=generator, dtype=torch.uint8)
    pairs = Trajectories(prior, data if images else None, 20, 0.01, 20.0, seed=0)
    x, sigma, end = pairs.draw(200)
    exact = GaussianConsistency(prior).consistency(x, sigma)
    assert (end - exact).square().mean().sqrt() < 0.02
    assert sigma.min() < 0.1
    assert 10 < sigma.max() <= 20.0001


def test_pairs_go_on_where_they_were_saved():
    pairs = Trajectories(gaussian(), None, 3, 0.01, 20.0, seed=0)
    for _ in range(50):  # well into the second filling
        pairs.draw(7)
    again = Trajectories(gaussian(), None, 3, 0.01, 20.0, seed=5)
    again.load_state_dict(pairs.state_dict())
    for _ in range(50):
        for a, b in zip(pairs.draw(7), again.draw(7), strict=True):
            assert torch.equal(a, b)
            assert len(a) == 7


def test_a_student_comes_nearer_to_the_ends_of_a_gaussian_teachers_trajectories():
    held_out = torch.full((4, 3, 8, 8), 0.1)
    teacher = GaussianPrior((3, 8, 8), 0.1, 0.05)
    config = replace(SHORT, batch=16, channels=(16, 32), images=16 * 120, ema=0.5)
    run = ConsistencyRun(config, teacher, None, held_out, accelerator())
    before = run.errors()
    for _ in range(120):
        run.update()
    after = run.errors()
    assert math.prod(after) < 0.3 * math.prod(before)


def residual_teacher() -> ResidualPrior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = build_unet(16, 2, (16, 32), inputs=2)
        torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    frequency = torch.arange(16)
    variances = (2.0 / (1 + frequency[:, None] + frequency) ** 2).expand(3, 16, 16)
    gaussian = GaussianSpectrum(variances, 0.1, sigma_min=0.01)
    return ResidualPrior(unet.eval().requires_grad_(False), gaussian, 0.5, 2)


def test_the_student_of_a_residual_teacher_starts_as_its_euler_step_and_ends_in_the_image():
    teacher = residual_teacher()
    student = ConsistencyPrior.untrained(teacher, (16,), 4, 80.0)
    assert isinstance(student, ResidualConsistency)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for sigma in (0.05, 1.0, 30.0):
        slope = (x - teacher.denoise(x, sigma)) / sigma
        step = x + (teacher.sigma_min - sigma) * slope
        torch.testing.assert_close(student.consistency(x, sigma), step, rtol=1e-4, atol=1e-4)
    assert torch.equal(student.consistency(x, student.sigma_min), x)
    with torch.no_grad():
        student.unet.conv_out.weight.add_(1)
    assert not torch.equal(student.unet.conv_out.weight, teacher.unet.conv_out.weight)


def test_a_residual_teacher_is_distilled_from_its_folder_and_resumed(tmp_path, pictures):
    residual_teacher().save(tmp_path / "teacher")
    out = tmp_path / "fast"
    model = distill(tmp_path / "teacher", out, SHORT, data=pictures, cpu=True)
    loaded = load_prior(out)
    assert isinstance(loaded, ResidualConsistency)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.consistency(x, 1.0), model.consistency(x, 1.0))
    assert torch.equal(loaded.consistency(x, loaded.sigma_min), x)
    longer = replace(SHORT, images=16, channels=(16, 32))
    distill(tmp_path / "teacher", out, longer, data=pictures, cpu=True, resume=True)
    assert not torch.equal(load_prior(out).consistency(x, 1.0), loaded.consistency(x, 1.0))


def test_a_distilled_folder_holds_a_consistency_model_a_card_and_pictures(finished):
    prior = load_prior(finished)
    assert isinstance(prior, ConsistencyPrior)
    assert prior.facts["license"] == "mine"
    assert prior.facts["distilled_from"] == "prior"
    for name in ("samples.png", "training/samples.png", "training/loss.png"):
        assert (finished / name).stat().st_size > 0
    card = (finished / "README.md").read_text("utf-8")
    assert "| σ | distance |" in card
    assert "Distilled from a denoiser" in card


def test_a_students_first_answer_is_its_teachers_where_noise_is_large(trained):
    model = load_prior(trained)
    run = ConsistencyRun(SHORT, model, None, torch.zeros(2, 3, 16, 16), accelerator())
    x = 50 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(run.prior.consistency(x, 50.0), model.denoise(x, 50.0), atol=5e-3)


def test_what_cannot_be_distilled_is_refused_and_nothing_is_written(finished, tmp_path):
    with pytest.raises(InputError, match=r"is a consistency model .* is needed"):
        distill(finished, tmp_path / "out", SHORT, cpu=True)
    assert not (tmp_path / "out").exists()
    before = contents(finished)
    with pytest.raises(InputError, match="--resume"):
        distill("cats-64", finished, SHORT, cpu=True)
    with pytest.raises(InputError, match="steps is 5, but the run was started with 4"):
        distill("cats-64", finished, replace(SHORT, steps=5), cpu=True, resume=True)
    assert contents(finished) == before


@pytest.mark.usefixtures("few_sampling_steps")
def test_another_teacher_is_refused_on_resuming(trained, pictures, tmp_path):
    out = tmp_path / "fast"
    distill(trained, out, replace(SHORT, images=4), data=pictures, cpu=True)
    other = tmp_path / "other"
    train(pictures, other, replace(TINY, images=8, seed=1), cpu=True)
    with pytest.raises(InputError, match="another teacher"):
        distill(other, out, replace(SHORT, images=8), data=pictures, cpu=True, resume=True)


def test_the_recipe_names_the_network_of_the_teacher(trained, tmp_path):
    config = replace(SHORT, images=4, channels=(64, 64, 64), patch=4)
    prior = distill(trained, tmp_path / "fast", config, cpu=True)
    assert prior.facts["recipe"]["channels"] == list(TINY.channels)
    assert prior.facts["recipe"]["patch"] == TINY.patch


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("variance", [1.0, 30.0])
def test_consistency_draws_have_the_mean_and_spread_of_a_gaussian_posterior(steps, variance):
    prior = GaussianConsistency(gaussian(variance, n=8))
    sigma, generator = 0.5, torch.Generator().manual_seed(0)
    r = 0.1 + torch.randn(1, 3, 8, 8, generator=generator, dtype=torch.float64)
    many, levels = r.repeat(400, 1, 1, 1), torch.full((400,), sigma, dtype=r.dtype)
    draws = draw_from_noisy(prior, many, levels, steps, generator).unsqueeze(1)
    gain = variance / (variance + sigma**2)
    expected_std = math.sqrt(gain) * sigma
    # Exact as variance / σ² grows; at 4 the evaluations' own approximation is a few per cent.
    room = 0.03 if variance > 10 else 0.13
    assert (draws.std(0).mean() / expected_std).item() == pytest.approx(1, abs=room)
    slope = ((draws.mean(0) - 0.1) * (r - 0.1)).sum() / (r - 0.1).square().sum()
    assert slope.item() == pytest.approx(gain, abs=0.05)


def test_one_evaluation_a_level_from_noise_gives_samples_of_a_gaussian_prior():
    prior = GaussianConsistency(gaussian(0.3, n=16))
    generator = torch.Generator().manual_seed(0)
    x = 50 * torch.randn(50, 3, 16, 16, generator=generator, dtype=torch.float64)
    for levels in ([50.0], [50.0, 1.0]):
        draws = multistep(prior, x, levels, generator)
        assert draws.var().item() == pytest.approx(0.3, rel=0.03)


def test_a_batch_of_draws_is_what_single_draws_are():
    prior = GaussianConsistency(gaussian())
    r = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 1.0])

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (1, 2)]

    both = draw_from_noisy(prior, r, sigma, 2, generators())
    for i, generator in enumerate(generators()):
        alone = draw_from_noisy(prior, r[i : i + 1], sigma[i : i + 1], 2, [generator])
        assert torch.equal(both[i : i + 1], alone)
