"""The cut normal distribution against sixty-digit arithmetic."""

from __future__ import annotations

import mpmath as mp
import pytest
import torch
from torch import Tensor

from diffsplit.channels.normal import HalfLine, Interval, inverse_mills, unit_nodes

DTYPES = [(torch.float64, 1e-12), (torch.float32, 2e-5)]
U = [-1e3, -300.0, -50.0, -12.0, -5.0, -2.0, -0.5, -1e-3, 0.0, 0.1, 1.0, 3.0, 6.0, 12.0]


def cut(a: float, width: float) -> list[mp.mpf]:
    """log P, mean, variance and 1 − variance of X ~ N(0, 1) given a < X < a + width."""
    with mp.workdps(60):
        a, b = mp.mpf(a), mp.mpf(a) + mp.mpf(width)
        mass = (mp.erfc(a / mp.sqrt(2)) - mp.erfc(b / mp.sqrt(2))) / 2
        top = mp.mpf(0) if mp.isinf(b) else b * mp.npdf(b)
        mean = (mp.npdf(a) - mp.npdf(b)) / mass
        shrink = mean**2 - (a * mp.npdf(a) - top) / mass
        return [mp.log(mass), mean, 1 - shrink, shrink]


def relative(found: Tensor, expected: mp.mpf) -> float:
    with mp.workdps(60):
        return float(abs(mp.mpf(found.item()) - expected) / abs(expected))


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_half_line_has_every_digit_from_a_thousand_deviations_on_the_wrong_side(
    dtype: torch.dtype, tolerance: float
) -> None:
    half = HalfLine(torch.tensor(U, dtype=dtype))
    found = (half.mean, half.excess, half.variance, half.shrink)
    for i, u in enumerate(torch.tensor(U, dtype=dtype).tolist()):
        _, mean, variance, shrink = cut(-u, float("inf"))
        excess = mean + mp.mpf(u)
        for value, expected in zip(found, (mean, excess, variance, shrink), strict=True):
            assert relative(value[i], expected) < tolerance, (u, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_mills_ratio_has_its_two_limits(dtype: torch.dtype) -> None:
    low, high = inverse_mills(torch.tensor([-1e3, 1e3], dtype=dtype)).tolist()
    assert low == pytest.approx(1000.000999998, rel=1e-6)
    assert high == 0
    steep = HalfLine(torch.tensor(-1e3, dtype=dtype)).shrink.item()
    assert steep == pytest.approx(1 - 1e-6 + 6e-12, rel=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("width", [1e-6, 1e-3, 0.1, 1.0, 1.9, 3.5, 8.0, 100.0])
def test_interval_has_every_digit_however_far_or_narrow(
    dtype: torch.dtype, tolerance: float, width: float
) -> None:
    low = torch.tensor([-5, -2, -1.2, -0.5, -0.01, 0, 0.3, 1, 2, 5, 8, 20, 1000], dtype=dtype)
    wide = torch.tensor(width, dtype=dtype)
    found = Interval(low, low + wide, wide.expand_as(low))
    for i, a in enumerate(low.tolist()):
        expected = cut(a, wide.item())
        parts = (found.log_mass, found.mean, found.variance, found.shrink)
        for value, right in zip(parts, expected, strict=True):
            if abs(right) < torch.finfo(dtype).tiny:
                continue
            # A mean near 0 is a difference of what lies on both sides.
            slack = max(1.0, abs(a) / abs(float(right))) if value is found.mean else 1.0
            assert relative(value[i], right) < tolerance * slack, (a, right)


def test_interval_is_symmetric_under_reflection() -> None:
    a = torch.tensor([-torch.inf, -3.0, 0.2, 40.0], dtype=torch.float64)
    b = torch.tensor([-2.0, 0.5, 0.3, 41.0], dtype=torch.float64)
    right, left = Interval(a, b, b - a), Interval(-b, -a, b - a)
    assert torch.equal(right.mean, -left.mean)
    assert torch.equal(right.log_mass, left.log_mass)
    assert torch.equal(right.variance, left.variance)


def test_gauss_legendre_nodes_integrate_a_polynomial_of_high_degree() -> None:
    total = sum(weight * node**31 for node, weight in unit_nodes(16))
    assert total == pytest.approx(1 / 32, rel=1e-13)
