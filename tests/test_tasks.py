"""The named problems: what they measure, at which size, and the parameters that they have."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffsplit import InputError, Problem
from diffsplit.channels import GaussianNoise, Logistic, OneBit, Quantized
from diffsplit.operators import GaussianMatrix, PixelMask, RandomizedTransform
from diffsplit.solvers import DCDP
from diffsplit.tasks import TASKS, problem

SHAPE = (3, 16, 16)


@pytest.mark.parametrize("shape", [SHAPE, (1, 16, 24)])
@pytest.mark.parametrize("name", TASKS)
def test_every_task_measures_color_and_gray_images_of_any_proportions(
    name: str, shape: tuple[int, ...]
) -> None:
    x = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = problem(name, shape)
    made.check(made.measure(x, generator=torch.Generator().manual_seed(1)))
    assert made.operator.config() == problem(name, shape).operator.config()


def test_restoration_tasks_at_256_are_those_of_the_paper() -> None:
    def config(task: str, side: int) -> dict[str, Any]:
        return problem(task, (3, side, side), seed=1).operator.config()

    assert config("inpaint-box", 256)["box"] == [78, 78, 100, 100]
    assert config("super-resolution", 256)["factor"] == 4
    blur, small = config("gaussian-deblur", 256), config("gaussian-deblur", 64)
    assert (blur["size"], blur["std"]) == (61, 3.0)
    assert (small["size"], small["std"]) == (15, 0.75)
    assert config("motion-deblur", 256)["size"] == 61
    assert config("motion-deblur", 128)["size"] == 31  # odd at every size
    shake = config("motion-deblur", 64)
    assert (shake["size"], shake["intensity"], shake["seed"]) == (15, 0.5, 1)


def test_the_noise_is_that_of_the_papers_unless_told_otherwise() -> None:
    assert problem("onebit-cs", SHAPE).channel == OneBit(0.5)
    assert problem("onebit-cs", SHAPE, sigma=0).channel == OneBit(0.0)
    assert problem("denoise", SHAPE).channel == GaussianNoise(0.1)
    assert problem("motion-deblur", SHAPE).channel == GaussianNoise(0.0)


def test_a_blur_is_as_wide_as_told() -> None:
    for std, size in ((0.75, 15), (1.5, 31), (10.0, 63)):
        blur = problem("gaussian-deblur", (3, 64, 64), std=std).operator.config()
        assert (blur["size"], blur["std"]) == (size, std)


def test_what_is_restored_may_be_measured_in_a_few_bits() -> None:
    for name in ("super-resolution", "inpaint-box", "inpaint-random", "motion-deblur"):
        plain = problem(name, SHAPE)
        for bits, sigma, channel in (
            (1, None, OneBit(0.5)),
            (1, 0.3, OneBit(0.3)),
            (4, None, Quantized(bits=4)),
            (2, 0.1, Quantized(bits=2, sigma=0.1)),
        ):
            made = problem(name, SHAPE, bits=bits, sigma=sigma)
            assert made.channel == channel
            assert made.operator.config() == plain.operator.config()
    assert problem("denoise", SHAPE, bits=3).channel == Quantized(bits=3, sigma=0.1)


def test_compressed_sensing_keeps_the_sums_of_one_bit_as_numbers() -> None:
    few, many = problem("onebit-cs", SHAPE), problem("compressed-sensing", SHAPE, sigma=0.1)
    assert few.operator.config() == many.operator.config()
    assert many.channel == GaussianNoise(0.1)
    assert problem("compressed-sensing", SHAPE).channel == GaussianNoise(0.0)


def test_rows_and_ratio_set_the_number_of_sums_and_fraction_that_of_pixels() -> None:
    assert problem("onebit-cs", SHAPE).operator.shape_out == (48,)
    assert problem("logistic", SHAPE, rows=5).operator.shape_out == (5,)
    assert problem("quantized", SHAPE, ratio=1 / 3).operator.shape_out == (256,)
    for made in (
        problem("inpaint-random", SHAPE, fraction=0.25),
        problem("onebit-inpainting", SHAPE, fraction=0.25),
        problem("onebit-cs", SHAPE, operator="mask", fraction=0.25),
    ):
        assert isinstance(made.operator, PixelMask)
        assert made.operator.size_out == 192


def test_a_matrix_is_the_default_up_to_64_and_a_transform_above() -> None:
    assert isinstance(problem("onebit-cs", (1, 64, 64), rows=3).operator, GaussianMatrix)
    assert isinstance(problem("onebit-cs", (1, 65, 64), rows=3).operator, RandomizedTransform)
    chosen = problem("onebit-cs", (1, 65, 64), rows=3, operator="gaussian")
    assert isinstance(chosen.operator, GaussianMatrix)


def test_few_bits_at_256_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (3, 256, 256)
    for name in ("onebit-cs", "logistic"):
        assert problem(name, shape).operator.shape_out == (12_288,)
    assert problem("onebit-cs", shape, sigma=1.5).channel == OneBit(1.5)
    assert problem("logistic", shape).channel == Logistic()
    mask = problem("onebit-inpainting", shape)
    assert (mask.operator.size_out, mask.channel) == (3 * 256 * 256 // 2, OneBit(0.5))
    built: list[tuple[Any, ...]] = []
    monkeypatch.setattr("diffsplit.tasks.GaussianMatrix", lambda *options: built.append(options))
    monkeypatch.setattr("diffsplit.tasks.Problem", lambda *parts: None)
    problem("onebit-cs", shape, operator="gaussian", seed=3)
    problem("onebit-cs", (3, 64, 64), seed=3)
    assert built == [(shape, 12_288, 3, torch.float16), ((3, 64, 64), 768, 3, torch.float32)]


def test_the_quantizer_is_scaled_so_that_the_codes_are_used() -> None:
    x = 0.2 * torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(0))

    def shares(made: Problem) -> torch.Tensor:
        y = made.measure(x, generator=torch.Generator().manual_seed(1))
        return torch.bincount(y.long().flatten(), minlength=4) / y.numel()

    fitted = problem("quantized", SHAPE, bits=2, ratio=1, images=x)
    assert shares(fitted).min() > 0.02
    assert shares(problem("quantized", SHAPE, bits=2, ratio=1)).min() < 0.02


def test_an_operator_that_is_there_already_serves_several_tasks() -> None:
    built = problem("onebit-cs", SHAPE, seed=3).operator
    for name in ("logistic", "quantized", "compressed-sensing"):
        assert problem(name, SHAPE, operator=built).operator is built
    with pytest.raises(InputError, match="without rows"):
        problem("logistic", SHAPE, operator=built, rows=3)
    with pytest.raises(InputError, match="for images of shape"):
        problem("logistic", (3, 8, 8), operator=built)


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("onebit", {}, "no task"),
        ("onebit-cs", {"rows": 5, "ratio": 0.1}, "rows and ratio"),
        ("onebit-cs", {"ratio": 0.0}, "positive"),
        ("onebit-cs", {"ratio": float("nan")}, "positive"),
        ("onebit-cs", {"fraction": 0.5}, "fraction"),
        ("onebit-cs", {"operator": "mask", "rows": 3}, "no rows"),
        ("onebit-cs", {"operator": "wavelet"}, "the operator is one of"),
        ("onebit-cs", {"bits": 4}, "has no bits"),
        ("logistic", {"sigma": 0.5}, "has no sigma"),
        ("onebit-inpainting", {"operator": "dct"}, "has no operator"),
        ("inpaint-box", {"fraction": 0.5}, "has no fraction"),
        ("super-resolution", {"rows": 3}, "has no rows, only sigma, bits"),
        ("motion-deblur", {"std": 2.0}, "has no std"),
        ("gaussian-deblur", {"std": 0.0}, "std, in pixels, lies above 0 and is at most 15"),
        ("gaussian-deblur", {"std": 16.0}, "at most 15"),
        ("inpaint-box", {"bits": 17}, "from 1 to 16"),
        ("inpaint-box", {"bits": True}, "from 1 to 16"),
        ("inpaint-box", {"bits": 1.0}, "from 1 to 16"),
    ],
)
def test_a_parameter_that_the_task_does_not_have_is_refused(
    name: str, parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        problem(name, SHAPE, **parameters)


def test_the_ending_of_the_paper_can_be_chosen_for_a_problem() -> None:
    noisy = problem("super-resolution", (3, 256, 256), sigma=0.05)
    paper = DCDP.for_problem(noisy, "super-resolution", ending="paper")
    assert paper == DCDP.preset("super-resolution", 256, noise=0.05, purifier="tweedie")
    assert paper.end == 250
    assert DCDP.for_problem(noisy, "super-resolution").end < 250
