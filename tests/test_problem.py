from __future__ import annotations

from typing import Any

import pytest
import torch

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, Logistic, OneBit, Quantized
from diffsplit.errors import InputError
from diffsplit.operators import (
    Blur,
    GaussianMatrix,
    Identity,
    LinearOperator,
    PixelMask,
    RandomizedTransform,
    Stacked,
    from_function,
    from_matrix,
)

SHAPE = (1, 2, 3)


@pytest.mark.parametrize(
    "y",
    [
        None,
        [[[1.0]]],
        torch.ones(1, *SHAPE).numpy(),
        torch.ones(1, *SHAPE, dtype=torch.bool),
        torch.ones(1, *SHAPE, dtype=torch.float16),
        torch.ones(1, *SHAPE, dtype=torch.bfloat16),
        torch.ones(1, *SHAPE, dtype=torch.complex64),
    ],
    ids=["None", "list", "array", "bool", "half", "bfloat16", "complex"],
)
@pytest.mark.parametrize("channel", [GaussianNoise(0.1), OneBit(0.5)], ids=["real", "bits"])
def test_measurements_of_another_type_are_refused_in_one_sentence(channel: Any, y: Any) -> None:
    with pytest.raises(InputError, match=r"float32, float64 or integers, not .*; convert"):
        Problem(Identity(SHAPE), channel).check(y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_floats_and_integers_that_a_channel_can_give_are_accepted(dtype: torch.dtype) -> None:
    y = torch.ones(1, *SHAPE, dtype=dtype)
    Problem(Identity(SHAPE), Quantized(bits=2, sigma=0.1, limit=1.0)).check(y)
    Problem(Identity(SHAPE), GaussianNoise(0.1)).check(y)


def test_measurements_on_another_device_than_the_operator_are_refused() -> None:
    operator = Identity(SHAPE).to("meta")
    with pytest.raises(InputError, match="on cpu and the operator is on meta"):
        Problem(operator, GaussianNoise(0.1)).check(torch.ones(1, *SHAPE))


@pytest.mark.parametrize(
    "operator",
    [
        PixelMask(SHAPE, fraction=0.5, seed=0),
        GaussianMatrix(SHAPE, rows=4, seed=0),
        RandomizedTransform(SHAPE, rows=4, seed=0),
        from_matrix(torch.eye(6), SHAPE),
        2.0 * PixelMask(SHAPE, fraction=0.5, seed=0),
        PixelMask(SHAPE, fraction=0.5, seed=0) @ Identity(SHAPE),
        Stacked(Identity(SHAPE), GaussianMatrix(SHAPE, rows=4, seed=0)),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_measurements_elsewhere_than_the_tensors_of_an_operator_are_refused(
    operator: LinearOperator,
) -> None:
    y = torch.ones(1, *operator.shape_out, device="meta")
    with pytest.raises(InputError, match=r"on meta and the operator is on cpu; move .*\.to\("):
        Problem(operator, GaussianNoise(0.1)).check(y)
    Problem(operator, GaussianNoise(0.1)).check(torch.ones(1, *operator.shape_out))


@pytest.mark.parametrize(
    "operator",
    [
        Blur.gaussian(SHAPE, 1, 1.0),
        Identity(SHAPE),
        from_function(lambda x: 2 * x, SHAPE),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_operators_that_follow_their_input_take_measurements_from_anywhere(
    operator: LinearOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = torch.ones(1, *operator.shape_out, device="meta")
    monkeypatch.setattr("torch.isfinite", lambda _: torch.ones(1))  # "meta" has no values to test
    Problem(operator, GaussianNoise(0.1)).check(y)


def test_a_batch_with_one_generator_per_image_repeats_single_measurements() -> None:
    problem = Problem(Identity(SHAPE), GaussianNoise(0.1))
    x = torch.zeros(2, *SHAPE)
    both = problem.measure(x, generator=[torch.Generator().manual_seed(s) for s in (4, 5)])
    for image, seed in enumerate((4, 5)):
        alone = problem.measure(x[:1], generator=torch.Generator().manual_seed(seed))
        assert torch.equal(both[image], alone[0])


@pytest.mark.parametrize("generator", [0, 1.5, None, "seed", [0], [torch.Generator(), 1]], ids=repr)
@pytest.mark.parametrize("channel", [GaussianNoise(0.1), Logistic()], ids=["normal", "uniform"])
def test_what_is_no_generator_is_refused_with_one_to_write_instead(
    channel: Any, generator: Any
) -> None:
    problem = Problem(Identity(SHAPE), channel)
    with pytest.raises(InputError, match=r"give torch\.Generator\(\)\.manual_seed\(0\), not "):
        problem.measure(torch.zeros(2, *SHAPE), generator=generator)


def test_too_few_generators_for_a_batch_are_refused() -> None:
    problem = Problem(Identity(SHAPE), GaussianNoise(0.1))
    with pytest.raises(InputError, match="1 generators for a batch of 2"):
        problem.measure(torch.zeros(2, *SHAPE), generator=[torch.Generator()])


@pytest.mark.parametrize(
    "parts",
    [(OneBit(0.5), Identity(SHAPE)), ("identity", "one-bit"), (Identity(SHAPE), OneBit)],
    ids=["swapped", "names", "class"],
)
def test_a_problem_of_anything_but_an_operator_and_then_a_channel_is_refused(parts: Any) -> None:
    with pytest.raises(InputError, match="an operator and a channel, in this order"):
        Problem(*parts)


def test_a_problem_shows_shapes_and_parameters() -> None:
    problem = Problem(GaussianMatrix(SHAPE, rows=4, seed=0), OneBit(sigma=0.5))
    assert repr(problem).startswith(
        "Problem(operator=GaussianMatrix((1, 2, 3) → (4,)), channel=OneBit(sigma=0.5"
    )


@pytest.mark.parametrize("channel", [OneBit(0.5), OneBit(0.0), GaussianNoise(0.1), Logistic()])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "NaN or infinity"),
        (float("inf"), "NaN or infinity"),
        (255.0, r"images reach 255, .* ds\.images\.from_uint8"),
    ],
)
def test_images_that_are_none_are_not_measured(channel: Any, value: float, sentence: str) -> None:
    x = torch.zeros(2, *SHAPE)
    x[1, 0, 0, 0] = value
    with pytest.raises(InputError, match=sentence):
        Problem(Identity(SHAPE), channel).measure(x, generator=torch.Generator())


def test_a_signal_that_is_no_image_may_have_any_scale() -> None:
    problem = Problem(from_matrix(torch.eye(3)), GaussianNoise(0.1))
    assert problem.measure(torch.full((1, 3), 1e3), generator=torch.Generator()).min() > 900


@pytest.mark.parametrize(
    ("channel", "least_squares"),
    [(GaussianNoise(0.0), True), (GaussianNoise(0.3), True), (Logistic(), False)],
    ids=["exact", "noise", "logistic"],
)
def test_the_residual_is_the_slope_of_the_misfit(channel: Any, least_squares: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    problem = Problem(Blur.gaussian((1, 4, 4), 3, 0.7), channel)
    x = torch.rand((2, 1, 4, 4), generator=generator, dtype=torch.float64).requires_grad_()
    y = problem.measure(x.detach(), generator=generator)
    z = torch.zeros_like(x).requires_grad_()
    half = 0.5 * (problem.operator.apply(z) - y).square().sum()
    misfit = half if least_squares else problem.nll(z, y).sum()
    (slope,) = torch.autograd.grad(misfit, z)
    residual = problem.residual(z.detach(), y)
    torch.testing.assert_close(problem.operator.adjoint(residual), slope)
    if channel == GaussianNoise(0.0):
        torch.testing.assert_close(problem.misfit(z, y).sum(), half)
    else:
        torch.testing.assert_close(problem.misfit(z, y), problem.nll(z, y))
