"""Intervals from posterior samples, and the factor that makes them cover with a guarantee."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsplit import InputError, Problem, channels, operators
from diffsplit.noise import randn_like
from diffsplit.priors import GaussianPrior
from diffsplit.solvers import DiffEP, Recovery, State
from diffsplit.solvers.intervals import (
    StepFactor,
    calibrated_std,
    factor_at,
    student_quantile,
)
from diffsplit.solvers.recovery import Trace
from diffsplit.solvers.sampling import SamplingSolver
from diffsplit.uncertainty import _controlled, _images_needed, calibrate, coverage

ENTRIES, PRIOR_VARIANCE, NOISE = 400, 0.25, 0.5
PRIOR = GaussianPrior((ENTRIES,), 0.0, PRIOR_VARIANCE)
PROBLEM = Problem(operators.Identity((ENTRIES,)), channels.GaussianNoise(NOISE))
HIDDEN, SEEN = slice(300, 400), slice(0, 300)
HIDDEN_VARIANCE = 16.0
POSTERIOR = PRIOR_VARIANCE * NOISE**2 / (PRIOR_VARIANCE + NOISE**2)


@dataclass(frozen=True)
class Exact(SamplingSolver):
    """The posterior of `PROBLEM`, with samples that vary ``spread`` times as much."""

    spread: float = 1.0
    knows_error: bool = False

    def _solve(self, problem: Problem, y: Tensor, prior: Any, generator: Any) -> Any:
        mean = PRIOR_VARIANCE / (PRIOR_VARIANCE + NOISE**2) * y
        std = self.spread * math.sqrt(POSTERIOR)
        samples = [mean + std * randn_like(mean, generator) for _ in range(self.draws)]
        yield State(1.0, mean)
        error = mean.new_full((len(mean),), POSTERIOR) if self.knows_error else None
        return self.answer(mean, torch.stack(samples), error)


@dataclass(frozen=True)
class HalfBlind(SamplingSolver):
    """Ignores the last quarter of the measurements, and samples vary half as much there."""

    def _solve(self, problem: Problem, y: Tensor, prior: Any, generator: Any) -> Any:
        gain = torch.full((ENTRIES,), PRIOR_VARIANCE / (PRIOR_VARIANCE + NOISE**2))
        std = torch.full((ENTRIES,), math.sqrt(POSTERIOR))
        gain[HIDDEN], std[HIDDEN] = 0.0, 0.5 * math.sqrt(HIDDEN_VARIANCE)
        samples = [gain * y + std * randn_like(y, generator) for _ in range(self.draws)]
        yield State(1.0, gain * y)
        return self.answer(gain * y, torch.stack(samples), None)


def drawn(count: int, seed: int) -> Tensor:
    noise = torch.randn(count, ENTRIES, generator=torch.Generator().manual_seed(seed))
    return math.sqrt(PRIOR_VARIANCE) * noise


def recovered(solver: SamplingSolver, images: Tensor) -> Recovery:
    generator = torch.Generator().manual_seed(9)
    y = PROBLEM.measure(images, generator=generator)
    return solver(PROBLEM, y, PRIOR, generator=generator)


def recovery_of(samples: Tensor, error: float, bounds: tuple[float, float] | None) -> Recovery:
    std = calibrated_std(samples, torch.full((samples.shape[1],), error))
    return Recovery(samples.mean(0), 1, 1, 0.0, Trace(), samples, std, bounds=bounds)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 8, 31, 999])
def test_the_quantile_of_students_distribution_is_that_of_scipy(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for level in (0.01, 0.5, 0.9, 0.99, 0.9999):
        expected = stats.t.ppf((1 + level) / 2, freedom)
        assert student_quantile(level, freedom) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("solver", "level"),
    [
        (Exact(samples=2), 0.9),
        (Exact(samples=8), 0.5),
        (Exact(samples=8), 0.9),
        (Exact(samples=8, spread=0.3, knows_error=True), 0.9),
        (Exact(samples=8, output="sample"), 0.9),
    ],
    ids=repr,
)
def test_intervals_of_exact_samples_cover_at_their_level(
    solver: SamplingSolver, level: float
) -> None:
    images = drawn(100, 0)
    result = recovered(solver, images)
    low, high = result.interval(level)
    inside = ((low <= images) & (images <= high)).float().mean().item()
    # In the last case the sample is the center, and one of those that say how wide to be.
    assert inside == pytest.approx(level, abs=0.02 if solver.output == "sample" else 0.008)


def test_the_mean_square_of_the_deviation_is_the_predicted_error_of_each_image() -> None:
    samples = torch.randn(8, 3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    error = torch.tensor([0.1, 0.02, 0.5])
    std = calibrated_std(samples, error)
    assert std.square().flatten(1).mean(1).tolist() == pytest.approx(error.tolist(), rel=1e-5)
    raw = calibrated_std(samples[..., 0], None)  # no images, so that nothing is averaged
    torch.testing.assert_close(raw, samples[..., 0].std(0))


def test_averaging_calms_the_deviation_and_leaves_measured_pixels_and_even_maps_alone() -> None:
    samples = torch.randn(8, 1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    samples[..., :10] *= 1e-4
    std = calibrated_std(samples, None, least=1 / 255)
    torch.testing.assert_close(std[..., :10], samples[..., :10].std(0))
    assert std[..., 10:].std() < 0.5 * samples[..., 10:].std(0).std()
    assert std[..., 10].mean() == pytest.approx(1, abs=0.1)  # beside pixels without a deviation
    even = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 1, 3, 5, 5)
    torch.testing.assert_close(calibrated_std(even, None), even.std(0))


def test_an_interval_lies_in_the_bounds_and_is_no_narrower_than_a_gray_level() -> None:
    samples = 0.5 * torch.randn(4, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wide = recovery_of(samples, 4.0, (-1.0, 1.0))
    low, high = wide.interval(0.9)
    assert low.min() == -1
    assert high.max() == 1
    assert bool((low <= wide.image).all() & (wide.image <= high).all())
    low, high = recovery_of(samples, 1e-12, (-1.0, 1.0)).interval(0.9)
    torch.testing.assert_close(high - low, torch.full_like(low, 2 / 255))
    low, high = recovery_of(samples, 1e-12, None).interval(0.9)
    assert (high - low).max() < 1e-4


@pytest.mark.parametrize("sigma", [0.1, None], ids=["renoising", "message passing"])
def test_a_recovery_carries_the_factor_of_its_solver(sigma: float | None) -> None:
    shape = (1, 8, 8)
    channel = channels.OneBit(sigma=0.5) if sigma is None else channels.GaussianNoise(sigma)
    operator = operators.PixelMask(shape, fraction=0.5, seed=0)
    problem, prior = Problem(operator, channel), GaussianPrior(shape, 0.0, 0.01)
    y = problem.measure(torch.zeros(2, *shape), generator=torch.Generator().manual_seed(0))
    widths = []
    for factor in (1.0, 2.0):
        solver = DiffEP(levels=4, iterations=3, samples=3, interval_factor=factor)
        result = solver(problem, y, prior)
        assert result.interval_factor == factor
        low, high = result.interval(0.8)
        widths.append(high - low)
    torch.testing.assert_close(widths[1], 2 * widths[0])
    with pytest.raises(InputError, match="interval_factor is a number above 0"):
        replace(solver, interval_factor=0.0)(problem, y, prior)


def test_an_interval_needs_two_samples_and_a_level_inside_0_and_1() -> None:
    few = recovered(Exact(samples=1, output="sample"), drawn(2, 0))
    with pytest.raises(InputError, match="draw samples=8"):
        few.interval()
    result = recovered(Exact(samples=2), drawn(2, 0))
    for level in (0, 1.0, -0.1, math.nan, 90, "0.9", True):
        with pytest.raises(InputError, match="a level lies between 0 and 1"):
            result.interval(level)  # type: ignore[arg-type]


def test_calibration_widens_samples_that_vary_too_little_as_much_as_needed() -> None:
    solver = Exact(samples=8, spread=0.5)
    done: list[tuple[int, int]] = []
    fitted = calibrate(
        *(solver, PROBLEM, PRIOR, drawn(100, 1)),
        batch=30,
        callback=lambda *numbers: done.append(numbers),
    )
    assert done == [(30, 100), (60, 100), (90, 100), (100, 100)]
    assert fitted == replace(solver, interval_factor=fitted.interval_factor)
    assert 2 <= fitted.interval_factor < 2.2
    fresh = drawn(200, 2)
    assert coverage(recovered(solver, fresh), fresh).mean() < 0.7
    assert 0.9 <= coverage(recovered(fitted, fresh), fresh).mean() < 0.92
    # A factor that a solver has already is not multiplied by another.
    again = calibrate(fitted, PROBLEM, PRIOR, drawn(100, 1), batch=30)
    assert again == fitted


def test_groups_cover_what_is_hidden_as_well_as_what_is_seen() -> None:
    def images(count: int, seed: int) -> Tensor:
        x = drawn(count, seed)
        x[:, HIDDEN] *= math.sqrt(HIDDEN_VARIANCE / PRIOR_VARIANCE)
        return x

    fresh = images(200, 2)

    def covered(solver: SamplingSolver) -> list[float]:
        low, high = recovered(solver, fresh).interval(0.9)
        inside = ((low <= fresh) & (fresh <= high)).float()
        return [inside[:, HIDDEN].mean().item(), inside[:, SEEN].mean().item()]

    one = calibrate(HalfBlind(samples=8), PROBLEM, PRIOR, images(60, 1))
    hidden, seen = covered(one)
    assert hidden < 0.8 < 0.9 < seen
    many = calibrate(HalfBlind(samples=8), PROBLEM, PRIOR, images(60, 1), groups=4)
    assert isinstance(many.interval_factor, StepFactor)
    for share in covered(many):
        assert 0.89 <= share < 0.93
    result = recovered(many, fresh)
    low, high = result.interval(0.9)
    inside = ((low <= fresh) & (fresh <= high)).double().mean(1)
    torch.testing.assert_close(coverage(result, fresh), inside)


def test_a_factor_by_standard_deviation_has_a_factor_for_each_range() -> None:
    factor = StepFactor((0.1, 0.2), (1.0, 2.0, 3.0))
    std = torch.tensor([0.05, 0.15, 0.5])
    assert torch.as_tensor(factor_at(factor, std)).tolist() == [1.0, 2.0, 3.0]
    assert factor_at(2.5, std) == 2.5
    for edges, factors in (((0.2, 0.1), (1.0, 1.0, 1.0)), ((0.1,), (1.0,)), ((0.1,), (1.0, 0.0))):
        with pytest.raises(InputError, match="one factor above 0 more than edges"):
            StepFactor(edges, factors)
    with pytest.raises(InputError, match="groups is a whole number from 1 up"):
        calibrate(Exact(samples=3), PROBLEM, PRIOR, drawn(20, 1), groups=0)


def test_images_with_generators_of_their_own_are_calibrated_alike_in_every_batch() -> None:
    factors = {
        calibrate(
            *(Exact(samples=3), PROBLEM, PRIOR, drawn(20, 1)),
            generator=[torch.Generator().manual_seed(i) for i in range(20)],
            batch=batch,
        ).interval_factor
        for batch in (3, 20)
    }
    assert len(factors) == 1


@pytest.mark.parametrize("factor", [0.01, 2.5])
def test_coverage_counts_what_lies_in_the_interval_and_leaves_out_what_was_measured(
    factor: float,
) -> None:
    samples = 0.3 * torch.randn(8, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    truth = (2 * samples[0]).clamp(-1, 1)
    result = replace(recovery_of(samples[1:], 0.01, (-1.0, 1.0)), interval_factor=factor)
    truth[..., ::2] = result.image[..., ::2] + 0.9 / 255  # in the narrowest interval
    low, high = result.interval(0.8)
    inside = ((low <= truth) & (truth <= high)).float()
    assert coverage(result, truth, 0.8).tolist() == pytest.approx(
        inside.flatten(1).mean(1).tolist()
    )
    assert result.std is not None
    measured = replace(result, std=result.std.clone())
    assert measured.std is not None
    measured.std[..., 4:] = 1e-4
    expected = inside[..., :4].flatten(1).mean(1).tolist()
    assert coverage(measured, truth, 0.8).tolist() == pytest.approx(expected)


def risks(kind: str, mean: float, n: int, repeats: int) -> Tensor:
    """Risks ``(n, repeats)`` of a known mean, of different distributions."""
    uniform = torch.rand(n, repeats, generator=torch.Generator().manual_seed(0))
    if kind == "alike":
        return mean + 0.06 * (uniform - 0.5)
    if kind == "broad":
        return 2 * mean * uniform
    if kind == "rare":  # most images nearly perfect, some as bad as counts
        return torch.where(uniform < mean / 0.3, 0.3, 0.0)
    return torch.where(uniform < 0.02, 1.0, (mean - 0.02) / 0.98)  # a failure in fifty


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("kind", ["alike", "broad", "rare", "failures"])
def test_a_mean_risk_above_the_allowed_passes_in_at_most_delta_of_many_repetitions(
    kind: str, n: int
) -> None:
    repeats, largest = 4000, 1.0 if kind == "failures" else 0.3
    for delta in (0.1, 0.02):
        passed = _controlled(risks(kind, 0.1001, n, repeats), 0.1, delta, largest)
        room = 3 * math.sqrt(delta * (1 - delta) / repeats)
        assert passed.float().mean().item() <= delta + room


@pytest.mark.parametrize("n", [10, 40])
@pytest.mark.parametrize("kind", ["alike", "broad", "rare"])
def test_on_average_over_sets_of_images_the_next_image_has_at_most_the_allowed_risk(
    kind: str, n: int
) -> None:
    """Risks fall by half as a factor doubles; the chosen one is judged on one more image."""
    shape = 0.5 ** torch.arange(0, 6, 0.05, dtype=torch.float64)
    drawn_risks = risks(kind, 0.2, n + 1, 2000).double().T
    left = []
    for image_risks in drawn_risks:
        table = image_risks[:, None] * shape
        safe = _controlled(table[:-1], 0.1, None, 0.3)
        assert bool(safe[-1])
        left.append(table[-1, int(safe.long().argmax())])
    mean, spread = torch.stack(left).mean(), torch.stack(left).std() / len(left) ** 0.5
    assert mean <= 0.1 + 3 * spread
    assert mean > 0.5 * 0.1


@pytest.mark.parametrize(("n", "safe"), [(40, 0.08), (100, 0.09), (400, 0.095)])
def test_a_mean_risk_a_little_below_the_allowed_is_recognized(n: int, safe: float) -> None:
    assert _controlled(risks("alike", safe, n, 1000), 0.1, 0.1, 0.3).float().mean() > 0.8


@pytest.mark.parametrize(("level", "largest"), [(0.9, 0.3), (0.9, 1.0), (0.99, 0.03), (0.5, 1.0)])
def test_as_many_images_are_needed_as_could_guarantee_anything(
    level: float, largest: float
) -> None:
    assert _images_needed(level, None, largest) == max(1, math.ceil(largest / (1 - level) - 1.001))
    n = _images_needed(level, 0.1, largest)
    assert n >= math.log(0.1) / math.log((largest - 1 + level) / largest)
    for count, enough in ((n, True), (n - 1, False)):
        assert bool(_controlled(torch.zeros(count, 1), 1 - level, 0.1, largest)) is enough


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": drawn(5, 0), "delta": 0.1}, "takes 8 images or more, and 5 were given"),
        ({"images": drawn(1, 0)}, "takes 2 images or more, and 1 was given"),
        ({"images": drawn(20, 0), "delta": 0.1, "largest_risk": 1.0}, "takes 29 images or more"),
        ({"images": "cats"}, "a batch of true images"),
        ({"solver": Exact(samples=1)}, "draw two samples or more"),
        ({"solver": Exact(samples=2, spread=1e-6)}, "no factor up to 32"),
        ({"level": 1.0}, "a level lies between"),
        ({"delta": 0.0}, "delta is None or lies between"),
        ({"largest_risk": 0.05}, "largest_risk lies above"),
        ({"batch": 0}, "batch is a whole number"),
    ],
)
def test_calibration_says_in_a_sentence_what_is_missing(
    changes: dict[str, Any], reason: str
) -> None:
    given = {"solver": Exact(samples=3), "images": drawn(40, 0), **changes}
    with pytest.raises(InputError, match=reason):
        calibrate(problem=PROBLEM, prior=PRIOR, **given)
