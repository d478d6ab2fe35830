"""Every channel is the likelihood that it says it is: one conformance suite for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsplit.channels import (
    Channel,
    GaussianNoise,
    Logistic,
    OneBit,
    Quantized,
    from_config,
)
from diffsplit.channels.prox import distance_to_minimizer
from diffsplit.errors import InputError

SMOOTH: list[Channel] = [
    GaussianNoise(0.5),
    OneBit(0.5),
    OneBit(0.02, threshold=0.3),
    OneBit(0.3, threshold=-0.2, flip=0.05),
    OneBit(0.1, flip=1e-9),
    Quantized(bits=1, sigma=0.5),
    Quantized(bits=3, sigma=0.2),
    Quantized(bits=8, sigma=0.5),
    Quantized(edges=[-0.3, 0.1, 0.7], sigma=0.05),
    Logistic(),
    Logistic(0.1),
]
NOISELESS: list[Channel] = [
    GaussianNoise(0.0),
    OneBit(0.0, threshold=0.1),
    OneBit(0.0, flip=0.1),
    Quantized(bits=2),
    Quantized(edges=[-0.3, 0.1, 0.7]),
]
CHANNELS = SMOOTH + NOISELESS
QUANTIZED = [c for c in CHANNELS if c.outcomes]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scale_of(channel: Channel) -> float:
    """The length over which the channel changes its mind; 1 where it has none."""
    return getattr(channel, "scale", 0.0) or getattr(channel, "sigma", 0.0) or 1.0


def features_of(channel: Channel, y: Tensor | None = None) -> list[float]:
    """Where the channel, or its likelihood of y, changes."""
    if isinstance(channel, Quantized):
        edges = list(channel.inner_edges)
        return edges if y is None else edges[max(int(y) - 1, 0) : int(y) + 1]
    return [getattr(channel, "threshold", 0.0)]


def outcomes_of(channel: Channel, most: int = 4) -> Tensor:
    """Some measurements, the outermost among them."""
    if isinstance(channel, GaussianNoise):
        return torch.tensor([-0.4, 1.1], dtype=torch.float64)
    if isinstance(channel, Quantized):
        last = channel.outcomes - 1
        return torch.linspace(0, last, min(most, last + 1)).round().long()
    return torch.tensor([-1.0, 1.0], dtype=torch.float64)


def cases(channel: Channel, s: Tensor, most: int = 4) -> tuple[Tensor, Tensor]:
    """Every s with every outcome."""
    y = outcomes_of(channel, most)
    y = y.to(s) if y.is_floating_point() else y
    return s.repeat(len(y)), y.repeat_interleave(len(s))


def body(channel: Channel, reach: float = 3.0, count: int = 11) -> Tensor:
    middle = sum(features_of(channel)) / len(features_of(channel))
    return middle + reach * scale_of(channel) * torch.linspace(-1, 1, count, dtype=torch.float64)


def far_out(channel: Channel, dtype: torch.dtype = torch.float64) -> Tensor:
    steps = torch.tensor([1e3, 100.0, 20.0, 5.0, 2.0, 0.7, 1e-3], dtype=torch.float64)
    return (torch.cat([-steps, torch.zeros(1), steps]) * scale_of(channel)).to(dtype)


# --- likelihood


@pytest.mark.parametrize("channel", SMOOTH, ids=repr)
def test_gradient_and_curvature_are_the_derivatives_of_the_likelihood(channel: Channel) -> None:
    s, y = cases(channel, body(channel))
    s = (s / scale_of(channel)).requires_grad_()

    def nll(s: Tensor) -> Tensor:
        return channel.nll(s * scale_of(channel), y)

    assert torch.autograd.gradcheck(nll, s, eps=1e-5, atol=1e-6)
    assert torch.autograd.gradgradcheck(nll, s, eps=1e-5, atol=1e-5)
    x = (s.detach() * scale_of(channel)).requires_grad_()
    (first,) = torch.autograd.grad(channel.nll(x, y).sum(), x)
    assert torch.allclose(first, channel.grad(x.detach(), y), rtol=1e-13)
    (second,) = torch.autograd.grad(channel.grad(x, y).sum(), x)
    assert torch.allclose(second, channel.curvature(x.detach(), y), rtol=1e-13)


@pytest.mark.parametrize("channel", QUANTIZED, ids=repr)
def test_probabilities_of_all_outcomes_sum_to_one(channel: Channel) -> None:
    s = torch.cat([body(channel), far_out(channel)])
    y = outcomes_of(channel, most=1000)
    for log in (-channel.nll(s, y[:, None]), channel.evidence(s, y[:, None], 0.3)):
        assert torch.allclose(log.exp().sum(0), torch.ones_like(s), atol=1e-9)


@pytest.mark.parametrize("channel", QUANTIZED, ids=repr)
def test_samples_occur_as_often_as_the_likelihood_says(channel: Channel) -> None:
    count = 20_000
    for i, s in enumerate(body(channel, reach=1.5, count=3).tolist()):
        full = torch.full((count,), s, dtype=torch.float64)
        y = channel.sample(full, generator(i))
        channel.check(y)
        for outcome in outcomes_of(channel, most=8):
            expected = (-channel.nll(full[0], outcome)).exp().item()
            error = math.sqrt(expected * (1 - expected) / count)
            assert abs((y == outcome).double().mean().item() - expected) <= 5 * error + 1e-12


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_a_batch_is_measured_like_its_members_one_by_one(channel: Channel) -> None:
    s = torch.linspace(-1, 1, 30).reshape(3, 10)
    together = channel.sample(s, [generator(i) for i in range(3)])
    alone = torch.cat([channel.sample(s[i : i + 1], generator(i)) for i in range(3)])
    assert torch.equal(together, alone)
    assert together.dtype == (torch.int64 if isinstance(channel, Quantized) else torch.float32)


# --- proximal step


def bisect(derivative: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    for _ in range(200):
        middle = (low + high) / 2
        right = derivative(middle) < 0
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("channel", [c for c in SMOOTH if c.convex], ids=repr)
def test_prox_agrees_with_bisection(channel: Channel) -> None:
    z, y = cases(channel, far_out(channel))
    mu = torch.logspace(-18, 14, 65, dtype=torch.float64)[:, None] / scale_of(channel) ** 2
    found = channel.prox(z, y, mu)

    def derivative(s: Tensor) -> Tensor:
        return channel.grad(s, y) + mu * (s - z)

    reach = channel.grad(z, y).abs() / mu * 1.01 + 1e-300
    expected = bisect(derivative, z - reach, z + reach)
    # Rounding of s moves the derivative by its slope, which an optimizer cannot undo.
    slope = channel.curvature(expected, y) + mu
    rounding = 4e-14 * (channel.grad(expected, y).abs() / slope + expected.abs() + z.abs())
    assert torch.all((found - expected).abs() <= 1e-9 * scale_of(channel) + rounding)
    residual = derivative(found).abs()
    size = channel.grad(found, y).abs() + slope * (found.abs() + z.abs())
    assert torch.all(residual <= 1e-12 * size)


def test_distance_to_minimizer_finds_the_first_or_the_last_of_three_roots() -> None:
    def slopes(t: Tensor) -> tuple[Tensor, Tensor]:
        excess = (t - 1) * (t - 2) * (t - 3)  # μ t − m(t)
        slope = (t - 2) * (t - 3) + (t - 1) * (t - 3) + (t - 1) * (t - 2)
        return mu * t - excess, slope - mu

    mu = torch.full((50,), 3.0, dtype=torch.float64)
    part = torch.linspace(0, 1, 50, dtype=torch.float64)
    first = distance_to_minimizer(slopes, mu, 0.9 * part, 2 - 0.99 * part, 0 * mu, first=True)
    last = distance_to_minimizer(slopes, mu, 1.5 + part, 3.1 + part, 0 * mu)
    assert torch.allclose(first, torch.ones_like(first), rtol=1e-12)
    assert torch.allclose(last, 3 * torch.ones_like(last), rtol=1e-12)


@pytest.mark.parametrize("channel", SMOOTH, ids=repr)
def test_prox_of_a_number_does_not_depend_on_the_rest_of_the_batch(channel: Channel) -> None:
    z, y = cases(channel, far_out(channel, torch.float32))
    together = channel.prox(z, y, 0.3)
    alone = [channel.prox(z[i : i + 1], y[i : i + 1], 0.3) for i in range(len(z))]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("flip", [1e-12, 1e-3, 0.05, 0.3, 0.49])
def test_prox_with_flips_finds_the_global_minimum_of_a_grid(flip: float) -> None:
    sigma = 0.2
    channel = OneBit(sigma, threshold=0.1, flip=flip)
    z = torch.linspace(-12, 6, 73, dtype=torch.float64)[:, None, None] * sigma
    mu = torch.logspace(-6, 4, 41, dtype=torch.float64)[None, :, None] / sigma**2
    y = torch.ones(1, dtype=torch.float64)

    def objective(s: Tensor) -> Tensor:
        return channel.nll(s, y) + mu / 2 * (s - z).square()

    found = channel.prox(z, y, mu)
    grid = z + torch.linspace(0, 20, 1501, dtype=torch.float64) * sigma
    best = objective(grid).amin(-1, keepdim=True)
    assert torch.all(objective(found) <= best + 1e-12 * (1 + best))
    residual = channel.grad(found, y) + mu * (found - z)
    size = channel.grad(found, y).abs() + mu * (found.abs() + z.abs()) + 1 / sigma
    assert torch.all(residual.abs() <= 1e-9 * size)
    assert torch.allclose(channel.prox(0.2 - z, -y, mu), 0.2 - found, atol=1e-9)


def test_prox_without_noise_is_the_nearest_number_that_was_measured_so() -> None:
    z = torch.tensor([-2.0, -0.1, 0.1, 0.4, 3.0])
    for channel in (OneBit(0.0, threshold=0.1), Quantized(edges=[-0.3, 0.1, 0.7])):
        for y in outcomes_of(channel):
            s = channel.prox(z, y.to(z) if y.is_floating_point() else y, 2.0)
            assert torch.all(channel.nll(s, y) == 0)
            assert torch.all((s - z).abs() <= (z[:, None] - s).abs().amin(1) + 1e-6)
            kept = channel.sign_agreement(z, y) == 1
            assert torch.equal(s[kept], z[kept])
    assert torch.equal(GaussianNoise(0.0).prox(z, z.flip(0), 2.0), z.flip(0))


def test_prox_without_noise_believes_in_a_flip_when_the_threshold_is_far() -> None:
    channel = OneBit(0.0, flip=0.1)
    far = math.sqrt(2 * math.log(9) / 3.0)
    z = torch.tensor([-far * 1.01, -far * 0.99, 0.5], dtype=torch.float64)
    found = channel.prox(z, torch.tensor(1.0), 3.0)
    assert found.tolist() == [z[0].item(), 0.0, 0.5]


@pytest.mark.parametrize("channel", SMOOTH, ids=repr)
def test_prox_can_be_differentiated(channel: Channel) -> None:
    z, y = cases(channel, body(channel, reach=1.0, count=2))
    mu = 7.0 / scale_of(channel) ** 2
    assert torch.autograd.gradcheck(lambda z: channel.prox(z, y, mu), z.requires_grad_(), eps=1e-7)


# --- posterior moments


def posterior(channel: Channel, p: float, y: Tensor, tau: float) -> tuple[float, ...]:
    """Mode, mean − mode and variance of s, and log evidence, by quadrature where the mass is."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    unit = min(math.sqrt(tau), scale_of(channel)) * 1e-4
    points = sorted({p, *features_of(channel, y)})
    low, high = points[0] - 10 * math.sqrt(tau), points[-1] + 10 * math.sqrt(tau)
    mode = p
    for _ in range(5):
        offsets = np.concatenate([[0.0], np.geomspace(unit, high - low + unit, 40)])
        ends = np.concatenate([c + side * offsets for c in {*points, mode} for side in (-1, 1)])
        ends = np.unique(np.clip(np.append(ends, [low, high]), low, high))
        half = np.diff(ends)[:, None] / 2
        s = ((ends[:-1] + ends[1:])[:, None] / 2 + half * nodes).ravel()
        mass = (half * weights).ravel()
        log = (
            -channel.nll(torch.from_numpy(s), y).numpy() - (s - mode) * (s + mode - 2 * p) / 2 / tau
        )
        inside = np.flatnonzero(log > log.max() - 45)
        mode = float(s[log.argmax()])
        low = float(s[max(inside[0] - 1, 0)])
        high = float(s[min(inside[-1] + 1, len(s) - 1)])
        unit = min(unit, (high - low) * 1e-4)
    density = mass * np.exp(log - log.max())
    evidence = float(log.max() + np.log(density.sum())) - (mode - p) ** 2 / 2 / tau
    evidence -= 0.5 * math.log(2 * math.pi * tau)
    density /= density.sum()
    mean = float((density * (s - mode)).sum())
    return mode, mean, float((density * (s - mode - mean) ** 2).sum()), evidence


@pytest.mark.parametrize("tau", [1e-4, 0.3, 1e3])
@pytest.mark.parametrize("channel", SMOOTH + NOISELESS[1:], ids=repr)
def test_moments_and_evidence_agree_with_dense_quadrature(channel: Channel, tau: float) -> None:
    deviations = torch.tensor([-1e3, -30, -3, 0.2, 4, 1e3], dtype=torch.float64)
    p, y = cases(channel, deviations * math.sqrt(tau), most=3)
    if isinstance(channel, GaussianNoise):
        y = y + p
    mean, variance = channel.moments(p, y, tau)
    g, h = channel.evidence_score(p, y, tau)
    evidence = channel.evidence(p, y, tau)
    for i in range(len(p)):
        mode, offset, spread, log = posterior(channel, p[i].item(), y[i], tau)
        rounding = 1e-13 * abs(p[i].item())
        assert abs(mean[i].item() - mode - offset) < 1e-6 * math.sqrt(spread) + rounding
        assert variance[i].item() == pytest.approx(spread, rel=1e-6)
        direct = (mode - p[i].item() + offset) / tau
        assert abs(g[i].item() - direct) * math.sqrt(tau) < 1e-6 + rounding / math.sqrt(tau)
        assert h[i].item() * tau == pytest.approx(1 - spread / tau, abs=1e-6)
        assert evidence[i].item() == pytest.approx(log, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_score_holds_the_derivatives_of_the_evidence(channel: Channel) -> None:
    tau = (0.8 * scale_of(channel)) ** 2
    p, y = cases(
        channel, torch.cat([body(channel), 30 * scale_of(channel) * torch.tensor([-1, 1])])
    )
    g, h = channel.evidence_score(p, y, tau)
    step = 1e-4 * math.sqrt(tau)
    unit = math.sqrt(tau)
    low, high = (channel.evidence(p + k * step, y, tau) for k in (-1, 1))
    assert torch.allclose(g * unit, (high - low) / 2e-4, rtol=1e-6, atol=1e-8)
    low, high = (channel.evidence_score(p + k * step, y, tau)[0] for k in (-1, 1))
    assert torch.allclose(h * tau, (low - high) * unit / 2e-4, rtol=1e-6, atol=1e-7)
    low, high = (channel.evidence(p, y, tau * (1 + k * 1e-4)) for k in (-1, 1))
    assert torch.allclose((g.square() - h) * tau / 2, (high - low) / 2e-4, rtol=1e-6, atol=1e-8)


def test_exact_measurements_are_gaussian_noise_without_variance() -> None:
    assert [c.gaussian_sigma for c in CHANNELS if not c.outcomes] == [0.5, 0.0]
    assert all(c.gaussian_sigma is None for c in QUANTIZED)
    p, y = torch.tensor([0.3, -2.0]), torch.tensor([0.5, 0.5])
    mean, variance = GaussianNoise(0.0).moments(p, y, 0.2)
    assert torch.equal(mean, y)
    assert torch.equal(variance, torch.zeros(2))


# --- every dtype, shape and device


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_float32_is_finite_and_right_a_thousand_deviations_out(channel: Channel) -> None:
    s, y = cases(channel, far_out(channel, torch.float32))
    wide = s.double()
    if channel.smooth:
        for name in ("nll", "grad", "curvature"):
            found, expected = getattr(channel, name)(s, y), getattr(channel, name)(wide, y)
            assert torch.all(found.isfinite()), name
            assert torch.allclose(found.double(), expected, rtol=1e-3, atol=1e-6), name
    for kappa in (1e-18, 1e-8, 1.0, 1e14):
        mu = kappa / scale_of(channel) ** 2
        found, expected = channel.prox(s, y, mu), channel.prox(wide, y, mu)
        assert torch.all(found.isfinite())
        error = (found.double() - expected).abs()
        if channel.convex:
            assert torch.all(
                error <= 1e-3 * scale_of(channel) + 1e-5 * (expected.abs() + wide.abs())
            )
    for tau in (1e-4, 0.3, 1e3):
        p = s / scale_of(channel) * math.sqrt(tau)
        found, expected = channel.moments(p, y, tau), channel.moments(p.double(), y, tau)
        assert torch.all(found.mean.isfinite())
        assert torch.all(found.variance >= 0)
        error = (found.mean.double() - expected.mean).abs()
        assert torch.all(error <= 1e-3 * expected.variance.sqrt() + 1e-6 * (p.abs() + 1))
        assert torch.allclose(found.variance.double(), expected.variance, rtol=0.02)
        for part in (*channel.evidence_score(p, y, tau), channel.evidence(p, y, tau)):
            assert part.dtype == torch.float32
            assert torch.all(part.isfinite())


def calls(channel: Channel, s: Tensor, y: Tensor, level: float | Tensor) -> Iterator[Tensor]:
    yield channel.nll(s, y)
    if channel.smooth:
        yield channel.grad(s, y)
        yield channel.curvature(s, y)
    yield channel.prox(s, y, level)
    yield channel.misfit(s, y)
    yield channel.evidence(s, y, level)
    yield from channel.evidence_score(s, y, level)
    yield from channel.moments(s, y, level)
    agreement = channel.sign_agreement(s, y)
    if agreement is not None:
        yield agreement


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_arguments_broadcast(channel: Channel) -> None:
    s = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
    y, level = outcomes_of(channel)[-1], torch.tensor([[0.1], [1.0], [5.0]], dtype=torch.float64)
    full = calls(channel, s, y.repeat(3, 4), level.repeat(1, 4))
    for small, large in zip(calls(channel, s, y, level), full, strict=True):
        assert small.shape == (3, 4)
        assert torch.allclose(small, large, rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_nothing_looks_at_the_values_on_the_device(channel: Channel) -> None:
    """A meta tensor has no values, so reading one on the host would fail."""
    s = torch.empty(2, 5, device="meta")
    y = torch.empty(2, 5, device="meta").to(outcomes_of(channel).dtype)
    for result in calls(channel, s, y, torch.empty(2, 1, device="meta")):
        assert result.shape == (2, 5)
        assert result.device.type == "meta"


# --- facts about single channels


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_one_bit_is_a_quantizer_with_one_edge(sigma: float) -> None:
    bit, bins = OneBit(sigma, threshold=0.3), Quantized(edges=[0.3], sigma=sigma)
    s = torch.cat([body(bit), far_out(bit)])
    for code, sign in ((0, -1.0), (1, 1.0)):
        y, k = torch.full_like(s, sign), torch.full_like(s, code).long()
        pairs = [(bit.nll(s, y), bins.nll(s, k)), (bit.prox(s, y, 3.0), bins.prox(s, k, 3.0))]
        pairs += [(bit.grad(s, y), bins.grad(s, k)), (bit.curvature(s, y), bins.curvature(s, k))]
        pairs += zip(bit.evidence_score(s, y, 0.2), bins.evidence_score(s, k, 0.2), strict=True)
        pairs += zip(bit.moments(s, y, 0.2), bins.moments(s, k, 0.2), strict=True)
        pairs += [(bit.sign_agreement(s, y), bins.sign_agreement(s, k))]
        for one, other in pairs:
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-13)
    draws = bit.sample(s, generator()), bins.sample(s, generator())
    assert torch.equal(draws[0], 2.0 * draws[1] - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prox_reaches_a_bin_that_is_narrower_than_the_rounding_of_its_distance(
    dtype: torch.dtype,
) -> None:
    channel = Quantized(bits=11, sigma=1.0, limit=0.02)
    z = torch.tensor([-3e3, -735.0, 0.0, 735.0, 3e3], dtype=dtype)
    found = channel.prox(z, torch.tensor(259), 1e-8)
    middle = channel.value(torch.tensor(259)).item()
    assert found.tolist() == pytest.approx([middle] * 5, abs=2e-4 + 1e-7 * 3e3)


def test_a_number_on_an_edge_belongs_above_it() -> None:
    s = torch.tensor([0.25])
    assert OneBit(0.0, threshold=0.25).sample(s, generator()).item() == 1
    assert Quantized(edges=[0.0, 0.25, 0.5]).sample(s, generator()).item() == 2


def test_noiseless_likelihood_is_a_verdict() -> None:
    s, y = torch.tensor([0.2, -0.2]), torch.tensor([1.0, 1.0])
    assert OneBit(0.0).nll(s, y).tolist() == [0, math.inf]
    flipped = OneBit(0.0, flip=0.1).nll(s, y).tolist()
    assert flipped == pytest.approx([-math.log(0.9), -math.log(0.1)])
    assert Quantized(bits=1).nll(s, y.long()).tolist() == [0, math.inf]
    assert GaussianNoise(0.0).nll(s, s).tolist() == [0, 0]
    assert not any(channel.smooth for channel in NOISELESS)
    with pytest.raises(InputError, match="no gradient"):
        GaussianNoise(0.0).grad(s, y)


def test_sign_agreement_compares_with_a_noiseless_measurement() -> None:
    s = torch.tensor([-0.5, 0.05, 0.6])
    assert OneBit(3.0, threshold=0.1).sign_agreement(s, torch.ones(3)).tolist() == [0, 0, 1]
    assert Logistic().sign_agreement(s, torch.ones(3)).tolist() == [0, 1, 1]
    codes = torch.tensor([1, 2, 2])
    assert Quantized(bits=2, sigma=1.0).sign_agreement(s, codes).tolist() == [1, 1, 0]
    assert GaussianNoise(1.0).sign_agreement(s, s) is None


def test_misfit_is_finite_and_is_half_the_squared_residual_of_exact_numbers() -> None:
    s, y = torch.tensor([0.5, -3.0]), torch.tensor([1.0, 1.0])
    assert GaussianNoise(0.0).misfit(s, y).tolist() == [0.125, 8]
    assert OneBit(0.0).misfit(s, y).tolist() == [0, 4.5]
    assert Quantized(edges=[0.0, 1.0]).misfit(s, y.long()).tolist() == [0, 4.5]
    for channel in (*SMOOTH, OneBit(0.0, flip=0.1)):
        s, y = cases(channel, far_out(channel))
        assert torch.equal(channel.misfit(s, y), channel.nll(s, y))
    for channel in CHANNELS:
        s, y = cases(channel, far_out(channel))
        assert torch.all(channel.misfit(s, y).isfinite())


def test_values_are_signs_or_middles_of_bins() -> None:
    y = torch.tensor([-1.0, 1.0])
    assert torch.equal(OneBit(1.0).value(y), y)
    assert torch.equal(Logistic().value(y), y)
    assert torch.equal(GaussianNoise(1.0).value(y), y)
    codes = torch.arange(4)
    assert Quantized(bits=2).value(codes).tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert Quantized(bits=1, limit=2.0).value(codes[:2]).tolist() == [-1, 1]
    uneven = Quantized(edges=[0.0, 1.0, 3.0]).value(codes).tolist()
    assert uneven == [-0.5, 0.5, 2, 4]


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_config_builds_the_same_channel_again(channel: Channel) -> None:
    again = from_config(channel.config())
    assert again == channel
    assert again.config() == channel.config()
    assert hash(again) == hash(channel)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "dictionary"),
        ({"kind": "poisson"}, "no kind"),
        ({"kind": "one-bit"}, "needs sigma"),
        ({"kind": "one-bit", "sigma": 1, "bits": 2}, "no parameter 'bits'"),
        ({"kind": "one-bit", "sigma": 1, "flip": 0.5}, "flip"),
        ({"kind": "quantized"}, "exactly one"),
        ({"kind": "quantized", "bits": 17}, "bits"),
        ({"kind": "quantized", "edges": "abc"}, "edges"),
        ({"kind": "quantized", "edges": [0.0, 0.0]}, "increasing"),
    ],
)
def test_a_bad_description_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_config(config)


@pytest.mark.parametrize(
    "sigma", ["0.5", True, None, torch.tensor(0.5), math.nan, math.inf, -1, 1j, 10**400, [0.5]]
)
def test_a_noise_level_is_a_finite_number_of_at_least_zero(sigma: object) -> None:
    for kind in ({"kind": "gaussian"}, {"kind": "one-bit"}, {"kind": "quantized", "bits": 2}):
        with pytest.raises(InputError, match="sigma is"):
            from_config({**kind, "sigma": sigma})
    with pytest.raises(InputError, match="scale is"):
        Logistic(sigma)  # type: ignore[arg-type]


def test_check_refuses_what_a_channel_cannot_have_measured() -> None:
    for bit in (OneBit(0.5), Logistic()):
        bit.check(torch.tensor([1.0, -1.0]))
        with pytest.raises(InputError, match="−1 or"):
            bit.check(torch.tensor([1.0, 0.0]))
    channel = Quantized(bits=2)
    channel.check(torch.tensor([0, 3]))
    Quantized(bits=8).check(torch.tensor([0, 255], dtype=torch.uint8))
    for bad in (torch.tensor([4]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor(math.nan)):
        with pytest.raises(InputError, match="from 0 to 3"):
            channel.check(bad)
        assert channel.value(bad).isnan().all()
        assert Quantized(bits=2, sigma=1.0).nll(torch.zeros(1), bad).isnan().all()


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_wrong_arguments_are_refused_in_a_sentence(channel: Channel) -> None:
    s, y, g = torch.zeros(3, 4), outcomes_of(channel)[:1], generator()
    wrong: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        *((channel.sample, (bad, g)) for bad in (None, "s", g, s.int(), s[0, 0])),
        *((channel.sample, (s, bad)) for bad in (None, 0, [g, g], s)),
        *((channel.nll, (s, bad)) for bad in (None, 1.0, s > 0, torch.ones(5))),
        (channel.nll, (s.long(), s)),
        *((channel.prox, (s, y, bad)) for bad in (None, "1", True, -1.0, 0, math.nan)),
        *((channel.evidence_score, (s, y, bad)) for bad in (None, -1.0, torch.ones(5))),
        *((channel.value, (bad,)) for bad in (None, [1.0], "y")),
    ]
    for call, arguments in wrong:
        with pytest.raises(InputError):
            call(*arguments)


@pytest.mark.parametrize("channel", QUANTIZED, ids=repr)
def test_nan_becomes_no_outcome(channel: Channel) -> None:
    s = torch.tensor([0.1, math.nan])
    with pytest.raises(InputError, match="NaN"):
        channel.sample(s, generator())
    agreement = channel.sign_agreement(s, outcomes_of(channel)[:1])
    assert agreement is not None
    assert agreement.isnan().tolist() == [False, True]
