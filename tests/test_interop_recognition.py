"""A stranger's map as the operator that it equals, and the range of images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from diffsplit import operators
from diffsplit.interop.recognition import recognized
from diffsplit.interop.unit_range import SCALE, from_unit, measurements_from_unit, to_unit
from diffsplit.operators import LinearOperator, from_function

SHAPE = (2, 12, 16)


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def kernel() -> Tensor:
    return torch.rand(3, 5, generator=seed(1))


def mask() -> Tensor:
    return torch.rand(SHAPE, generator=seed(2)) < 0.5


def blurred(mode: str) -> Callable[[Tensor], Tensor]:
    weights = kernel().flip(0, 1).expand(2, 1, 3, 5)
    return lambda x: conv2d(pad(x, (2, 2, 1, 1), mode), weights, groups=2)


EQUAL: dict[str, tuple[Callable[[Tensor], Tensor], LinearOperator]] = {
    "identity": (lambda x: 1 * x, operators.Identity(SHAPE)),
    "mask": (lambda x: x * mask(), operators.PixelMask.from_mask(mask())),
    "circular blur": (blurred("circular"), operators.Blur(SHAPE, kernel())),
    "reflecting blur": (blurred("reflect"), operators.Blur(SHAPE, kernel(), "reflect")),
    "shift": (
        lambda x: x.roll((2, 7), (-2, -1)),
        operators.from_function(lambda x: x.roll((2, 7), (-2, -1)), SHAPE),
    ),
    "average": (lambda x: avg_pool2d(x, 4), operators.Downsample(SHAPE, 4)),
    "bicubic": (
        operators.Downsample(SHAPE, 2, "bicubic").apply,
        operators.Downsample(SHAPE, 2, "bicubic"),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_a_map_is_recognized_as_the_operator_that_it_equals(name: str) -> None:
    function, ours = EQUAL[name]
    found, picked = recognized(from_function(function, SHAPE))
    expected = operators.Blur if name == "shift" else type(ours)
    assert type(found) is expected
    assert (picked is not None) == (name == "mask")
    x = torch.randn(2, *SHAPE, generator=seed())
    torch.testing.assert_close(found.apply(x), ours.apply(x), rtol=1e-4, atol=1e-5)
    y = ours.apply(x)
    torch.testing.assert_close(found.adjoint(y), ours.adjoint(y), rtol=1e-4, atol=1e-5)


NEARLY: dict[str, Callable[[Tensor], Tensor]] = {
    "a blur with one wrong edge": lambda x: torch.cat(
        [blurred("circular")(x)[..., :-1], x[..., -1:]], -1
    ),
    "a mask with a weight": lambda x: x * mask() * torch.where(torch.arange(16) == 3, 1.01, 1.0),
    "a blur that mixes channels": lambda x: blurred("circular")(x + 0.01 * x.flip(1)),
    "an average with a neighbor": (
        lambda x: avg_pool2d(x, 4) + 0.01 * x.roll(1, -2)[..., ::4, ::4]
    ),
}


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_only_near_an_operator_stays_what_it_is(name: str) -> None:
    found, _ = recognized(from_function(NEARLY[name], SHAPE))
    assert isinstance(found, operators.FunctionOperator | operators.Composed)
    assert (found.stride is not None) == (name == "an average with a neighbor")
    assert type(found.gram) is operators.Gram


def test_orthogonal_rows_and_shifts_are_found_where_no_operator_of_ours_is_equal() -> None:
    decimated, _ = recognized(from_function(lambda x: 3 * x[..., ::2, ::2], SHAPE))
    assert isinstance(decimated.gram, operators.ScaledIdentity)
    assert decimated.gram.mean == pytest.approx(9)
    assert decimated.stride == 2
    turned, _ = recognized(from_function(lambda x: torch.fft.rfft(x, norm="ortho").real, SHAPE))
    assert type(turned.gram) is operators.Gram


def test_measurements_that_are_always_zero_are_left_out() -> None:
    found, picked = recognized(
        from_function(lambda x: torch.where(mask(), x.roll(1, -1) + x, 0), SHAPE)
    )
    assert picked is not None
    assert found.size_out == int(mask().sum())
    x = torch.randn(2, *SHAPE, generator=seed())
    torch.testing.assert_close(found.apply(x), picked.apply(x.roll(1, -1) + x))


def test_the_range_is_converted_once_and_back() -> None:
    operator = operators.Blur(SHAPE, kernel())
    u = torch.rand(2, *SHAPE, generator=seed())
    torch.testing.assert_close(to_unit(from_unit(u)), u)
    ones = operator.apply(torch.ones(1, *SHAPE))
    noise = torch.randn(2, *SHAPE, generator=seed(1))
    found = measurements_from_unit(operator.apply(u) + 0.1 * noise, ones)
    expected = operator.apply(from_unit(u)) + SCALE * 0.1 * noise
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
