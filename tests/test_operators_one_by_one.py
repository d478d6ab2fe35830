"""What is particular to each operator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matrix_cases import DENSE, THIN, check_matrix
from operator_cases import SHAPE, columns, columns_adjoint, dense, randn
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.operators import (
    Blur,
    ChannelMix,
    Composed,
    Downsample,
    FunctionOperator,
    GaussianMatrix,
    Grayscale,
    Identity,
    IIDRows,
    MatrixOperator,
    PixelMask,
    RandomizedTransform,
    Scaled,
    ScaledIdentity,
    Stacked,
    from_function,
    from_matrix,
)
from diffsplit.operators import dense as dense_module
from diffsplit.operators.probes import mean_row_norm

# Gaussian matrix


def test_storing_a_gaussian_matrix_in_half_precision_hardly_changes_it():
    full = GaussianMatrix(SHAPE, 100, 3)
    x = randn(4, *SHAPE)
    for dtype, accuracy in ((torch.float16, 5e-4), (torch.bfloat16, 4e-3)):
        half = GaussianMatrix(SHAPE, 100, 3, dtype)
        assert half.matrix.dtype == dtype
        assert (half(x) - full(x)).norm() < accuracy * full(x).norm()
        narrowed = GaussianMatrix(SHAPE, 100, 3).to(dtype=dtype)
        assert torch.equal(narrowed.matrix, half.matrix)
        assert narrowed.to(dtype=torch.float32).matrix.dtype == dtype


@pytest.mark.parametrize(
    "build", [lambda: GaussianMatrix(SHAPE, 40, 0), lambda: MatrixOperator(randn(9, 20).float())]
)
@pytest.mark.parametrize(
    "change",
    [
        lambda operator: operator.to(dtype=torch.bfloat16),
        lambda operator: operator.matrix.mul_(3),
        lambda operator: setattr(operator, "matrix", operator.matrix.roll(1)),
    ],
    ids=["rounded", "written to", "replaced"],
)
def test_a_matrix_that_changes_gets_another_gram(build, change):
    operator = build()
    y = randn(2, *operator.shape_out).float()
    before = operator.apply_gram(y)
    change(operator)
    after = operator.apply_gram(y)
    assert not after.equal(before)
    torch.testing.assert_close(after, operator.apply(operator.adjoint(y)), rtol=1e-4, atol=1e-3)


def test_the_gram_of_a_half_precision_matrix_is_added_up_in_blocks(monkeypatch):
    operator = GaussianMatrix(SHAPE, 40, 0, torch.float16)
    monkeypatch.setitem(dense_module._BLOCK, "cpu", 40 * 7)
    y = randn(2, 40)
    expected = operator.apply(operator.adjoint(y))
    torch.testing.assert_close(operator.apply_gram(y), expected, rtol=1e-12, atol=1e-12)


def test_only_a_gram_of_few_rows_is_kept(monkeypatch):
    operator, wide = GaussianMatrix(SHAPE, 40, 0), MatrixOperator(randn(30, 20))
    operator.apply_gram(randn(1, 40))
    wide.apply_gram(randn(1, 30))
    assert operator._known_gram is not None
    assert wide._known_gram is None
    monkeypatch.setattr(dense_module, "_GRAM_ROWS", 39)
    operator = GaussianMatrix(SHAPE, 40, 0)
    operator.apply_gram(randn(1, 40))
    assert operator._known_gram is None


def test_a_gram_found_in_inference_mode_or_under_autocast_serves_gradients_and_full_precision():
    for mode in (torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        operator = GaussianMatrix(SHAPE, 20, 0, torch.float64)
        with mode:
            operator.apply_gram(randn(1, 20))
        kept = operator._known_gram
        y = randn(2, 20).requires_grad_()
        assert torch.autograd.gradcheck(operator.apply_gram, y)
        torch.testing.assert_close(operator.apply_gram(y), operator.apply(operator.adjoint(y)))
        assert operator._known_gram is kept


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_products_in_blocks_equal_the_product_with_the_whole_matrix(monkeypatch, dtype):
    operator = GaussianMatrix(SHAPE, 41, 3, dtype)
    monkeypatch.setattr("diffsplit.operators.dense._BLOCK", {"cpu": 7 * 192 + 5})
    matrix = operator.matrix.double()
    x, y = randn(2, *SHAPE), randn(2, 41)
    torch.testing.assert_close(operator(x), x.flatten(1) @ matrix.T)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y @ matrix)


def test_no_whole_copy_of_a_half_precision_matrix_is_made_even_for_gradients(monkeypatch):
    operator = GaussianMatrix(SHAPE, 400, 3, torch.float16)
    monkeypatch.setattr("diffsplit.operators.dense._BLOCK", {"cpu": 10 * 192})
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x = randn(1, *SHAPE).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        operator(x).sum().backward()
    assert kept == []
    ones = torch.ones(1, 400, dtype=torch.float64)
    torch.testing.assert_close(x.grad, operator.adjoint(ones))


def test_more_gaussian_rows_start_with_the_rows_of_fewer():
    few, many = GaussianMatrix(SHAPE, 10, 0), GaussianMatrix(SHAPE, 40, 0)
    torch.testing.assert_close(many.matrix[:10] * 2, few.matrix)


def test_gaussian_entries_are_normal_and_rows_independent():
    matrix = GaussianMatrix((1, 64, 64), 64, 0, torch.float64).matrix * 8
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert (matrix**power).mean() == pytest.approx(moment, abs=0.06)
    correlation = (matrix @ matrix.T / 4096).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / 64


# Randomized transform


@pytest.mark.parametrize("transform", ["hadamard", "dct"])
@pytest.mark.parametrize("shape", [(12,), (48,), (3, 5, 7), (97,), (1, 1, 1)])
def test_randomized_transform_with_all_rows_is_orthonormal_for_every_length(shape, transform):
    matrix = dense(RandomizedTransform(shape, math.prod(shape), 4, transform))
    identity = torch.eye(math.prod(shape), dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", ["hadamard", "dct"])
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 96, 80)])
def test_large_randomized_transform_has_a_scaled_identity_as_gram(shape, transform):
    operator = RandomizedTransform(shape, 768, 4, transform)
    y = randn(2, 768)
    assert isinstance(operator.gram, ScaledIdentity)
    assert operator.gram.mean == math.prod(shape) / 768
    torch.testing.assert_close(operator(operator.adjoint(y)), operator.gram.mean * y)


def test_fewer_rows_of_a_randomized_transform_are_among_more_rows():
    few, many = RandomizedTransform(SHAPE, 48, 0), RandomizedTransform(SHAPE, 192, 0)
    small, large = dense(few) / 2, dense(many)
    nearest = (small[:, None] - large[None]).norm(dim=-1).min(dim=1).values
    assert nearest.max() < 1e-12


def test_randomized_measurements_of_an_uneven_image_are_uncorrelated_and_normal():
    x = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    x[..., :16] = 1
    samples = torch.cat([RandomizedTransform((3, 32, 32), 3072, seed)(x) for seed in range(64)])
    samples = samples / x.norm() * 3072**0.5
    assert samples.var() == pytest.approx(1, abs=0.02)
    assert (samples**4).mean() == pytest.approx(3, abs=0.25)
    # Half the image apart: without the permutation this correlation is ±1.
    pairs = samples[:, :1024] * samples[:, torch.arange(1024) ^ 16]
    assert abs(pairs.mean()) < 0.05


def test_hadamard_measurements_weigh_all_pixels_alike_at_powers_of_two():
    matrix = dense(RandomizedTransform((1, 8, 8), 16, 0))
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, 1 / 16**0.5))
    assert abs(matrix.mean()) < 0.05


def test_every_row_of_a_randomized_transform_sees_every_channel():
    rows = dense(RandomizedTransform((3, 16, 16), 768, 0)).reshape(768, 3, 256)
    energy = rows.square().sum(-1)
    assert energy.min() > 0.15


# Pixel mask


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.777, 1])
def test_mask_keeps_exactly_its_share_of_whole_pixels(fraction):
    operator = PixelMask((3, 20, 10), fraction=fraction, seed=0)
    kept = round(fraction * 200)
    assert operator.mask.shape == (3, 20, 10)
    assert operator.mask.dtype == torch.bool
    assert (operator.mask.sum((1, 2)) == kept).all()
    assert (operator.mask == operator.mask[:1]).all()
    assert operator.shape_out == (3 * kept,)
    apart = PixelMask((3, 20, 10), fraction, 0, channels_apart=True)
    assert apart.mask.sum() == round(fraction * 600)
    assert fraction == 1 or not (apart.mask == apart.mask[:1]).all()


def test_mask_measures_the_kept_entries_and_its_adjoint_puts_them_back():
    operator, x = PixelMask.box(SHAPE, 1, 2, 5, 3), randn(2, *SHAPE)
    expected = torch.ones(SHAPE, dtype=torch.bool)
    expected[:, 1:6, 2:5] = False
    assert torch.equal(operator.mask, expected)
    assert torch.equal(operator(x), x[:, expected])
    assert torch.equal(operator.adjoint(operator(x)), x * expected)


def test_mask_from_a_tensor_is_that_tensor():
    flat = randn(8, 8) > 0
    assert torch.equal(PixelMask.from_mask(flat).mask, flat[None])
    assert torch.equal(PixelMask.from_mask(flat.numpy()).mask, flat[None])
    assert torch.equal(PixelMask.from_mask(flat, SHAPE).mask, flat.expand(SHAPE))


# Algebra


def test_operators_combine_as_their_matrices_do():
    inner, outer = GaussianMatrix(SHAPE, 30, 0), RandomizedTransform((30,), 12, 1)
    torch.testing.assert_close(dense(outer @ inner), dense(outer) @ dense(inner))
    torch.testing.assert_close(dense(0.5 * inner), 0.5 * dense(inner))
    other = PixelMask(SHAPE, 0.3, 2)
    both = torch.cat([dense(inner), dense(other)])
    torch.testing.assert_close(dense(Stacked(inner, other)), both)


def test_hutchinson_estimates_the_mean_squared_row_norm():
    device = torch.device("cpu")
    rows = MatrixOperator(torch.linspace(0.1, 3, 300)[:, None] * randn(300, 400))
    answers = [mean_row_norm(rows.adjoint, (300,), device) for _ in range(2)]
    assert answers[0] == pytest.approx(rows.gram.mean, rel=0.1)
    assert answers[0] == answers[1]
    few = MatrixOperator(randn(16, 40))
    assert mean_row_norm(few.adjoint, (16,), device) == pytest.approx(few.gram.mean, rel=1e-6)


def test_algebra_refuses_what_does_not_fit():
    mask, other = PixelMask(SHAPE, 0.5, 0), PixelMask((1, 8, 8), 0.5, 0)
    with pytest.raises(InputError, match="cannot follow"):
        Composed(mask, other)
    with pytest.raises(InputError, match="one shape"):
        Stacked(mask, other)
    with pytest.raises(InputError, match="at least one"):
        Stacked()
    for factor in (0, math.nan, math.inf, True, "2", 1e-200, 1e200, None, np.ones(2)):
        with pytest.raises(InputError, match="factor"):
            factor * mask
    for build in (
        lambda: mask @ 2.0,
        lambda: mask @ torch.zeros(1, *SHAPE),
        lambda: Composed(torch.eye(3), mask),
        lambda: Scaled(2.0, mask),
        lambda: Stacked(mask, "mask"),
        lambda: Stacked([mask, mask]),
    ):
        with pytest.raises(InputError, match="combined with others"):
            build()


@pytest.mark.parametrize("factor", [2, np.float32(2), np.float64(2), torch.tensor(2.0)], ids=repr)
def test_numbers_of_every_library_multiply_an_operator(factor):
    operator = factor * PixelMask(SHAPE, 0.3, 2)
    assert isinstance(operator, Scaled)
    assert operator.factor == 2.0


# Functions and matrices


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.square, "not linear"),
        (torch.relu, "not linear"),
        (lambda x: x + 0.1, "not linear"),
        (lambda x: x.clamp(-10, 10), "not linear"),
        (lambda x: x.round(), "not linear"),
        (lambda x: x - x.mean(), "another result alone"),
        (lambda x: x.sum(), "one measurement for each"),
        (lambda x: torch.cat([x, x]), "one measurement for each"),
        (lambda x: x.long(), "one measurement for each"),
        (lambda x: x / 0, "NaN or infinity"),
        (lambda x: x * 0, "zero everywhere"),
        (lambda x: x @ torch.ones(5, 5), "failed"),
        (lambda x: torch.from_numpy(2 * x.numpy()), "adjoint="),
        (lambda x: x.detach() * 2, "adjoint="),
        (lambda x: x.astype(float), "lambda x: f"),
        (lambda x: np.fft.fft2(x), "real floats"),
        (lambda x: 2 * np.asarray(x), "adjoint="),
        ("columns", "failed"),
        (None, "failed"),
    ],
)
def test_functions_that_are_no_operators_are_refused_with_the_reason(function, message):
    with pytest.raises(InputError, match=message):
        FunctionOperator(function, SHAPE)


@pytest.mark.parametrize(
    "adjoint", [lambda y: y, lambda y: 1.1 * columns_adjoint(y), lambda y: columns(y)]
)
def test_an_adjoint_that_does_not_belong_to_its_function_is_refused(adjoint):
    with pytest.raises(InputError, match="adjoint"):
        FunctionOperator(columns, SHAPE, adjoint=adjoint)


@pytest.mark.parametrize(
    "double",
    [lambda x: torch.from_numpy(2 * x.numpy()), lambda x: 2 * np.asarray(x)[..., ::-1]],
    ids=["tensors", "arrays with a negative step"],
)
def test_functions_of_numpy_work_with_their_adjoint(double):
    operator = from_function(double, SHAPE, adjoint=double)
    x = randn(1, *SHAPE).requires_grad_()
    operator(x).sum().backward()
    assert (x.grad == 2).all()
    assert operator(x.float()).dtype == torch.float32
    torch.testing.assert_close(operator.adjoint(operator(x)), 4 * x)


def test_announced_output_shape_is_held_against_the_trial():
    assert FunctionOperator(columns, SHAPE, (3, 8, 7)).shape_out == (3, 8, 7)
    with pytest.raises(InputError, match="as announced"):
        FunctionOperator(columns, SHAPE, (3, 8, 8))
    with pytest.raises(InputError, match="the shape of one image"):
        FunctionOperator(columns, SHAPE, 168)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_automatic_adjoint_works_where_gradients_are_off(mode):
    operator = FunctionOperator(columns, SHAPE)
    with mode():
        y = randn(2, *operator.shape_out)
        torch.testing.assert_close(operator.adjoint(y), columns_adjoint(y))


def test_function_transforms_of_pytorch_see_the_matrix():
    operator = GaussianMatrix((4,), 3, 0, torch.float16)
    x = randn(1, 4)
    jacobian = torch.func.jacrev(operator)(x)[0, :, 0]
    torch.testing.assert_close(jacobian, operator.matrix.double())
    value, tangent = torch.func.jvp(operator, (x,), (2 * x,))
    torch.testing.assert_close(tangent, 2 * value)


MATRICES = {
    "tensor": (torch.from_numpy(DENSE), DENSE),
    "array": (DENSE, DENSE),
    "rows": (DENSE.tolist(), DENSE),
    "array read backwards": (DENSE[::-1], DENSE[::-1]),
    "array of another byte order": (DENSE.astype(">f8"), DENSE),
    "array that is read only": (np.broadcast_to(DENSE[:1], (5, 12)), DENSE[:1].repeat(5, 0)),
    "sparse tensor": (torch.from_numpy(THIN).to_sparse(), THIN),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.filterwarnings("error")
def test_matrices_of_every_library_are_the_operators_that_they_describe(name):
    check_matrix(*MATRICES[name])


@pytest.mark.parametrize(
    "matrix",
    [
        torch.zeros(3, 4),
        torch.ones(3, 4, dtype=torch.int64),
        torch.ones(3, 5),
        torch.ones(4),
        torch.full((3, 4), math.nan),
        torch.ones(0, 4),
        1j * torch.ones(3, 4),
        1j * np.ones((3, 4)),
        np.ones((3, 4), dtype=object),
        np.ones((1, 3, 4)),
        [[1.0, 2.0], [1.0]],
        "matrix",
        None,
    ],
    ids=lambda matrix: f"{type(matrix).__name__} {getattr(matrix, 'dtype', '')}",
)
def test_matrices_that_are_no_operators_are_refused_in_a_sentence(matrix):
    with pytest.raises(InputError) as caught:
        from_matrix(matrix, (1, 2, 2))
    assert 20 < len(str(caught.value)) < 400
    assert str(caught.value).endswith(".")


def test_a_matrix_can_be_told_what_its_rows_are():
    iid = MatrixOperator(randn(40, 192) / 3, SHAPE, rows="iid")
    assert isinstance(iid.gram, IIDRows)
    rows = torch.linalg.qr(randn(192, 40)).Q.T * 1.5
    orthogonal = MatrixOperator(rows, SHAPE, rows="orthogonal")
    assert isinstance(orthogonal.gram, ScaledIdentity)
    assert orthogonal.gram.mean == pytest.approx(2.25)
    with pytest.raises(InputError, match="not orthogonal"):
        MatrixOperator(randn(40, 192), SHAPE, rows="orthogonal")
    with pytest.raises(InputError, match="random"):
        MatrixOperator(randn(40, 192), SHAPE, rows="random")


# Wrong arguments

WRONG = (
    None,
    True,
    -1,
    0,
    2.5,
    math.nan,
    10**30,
    "388",
    (3, 8),
    (3, 8, -8),
    [3, 8, 8.0],
    np.array([1.0, 2.0]),
    torch.zeros(2),
    1j,
    {},
    object(),
)
"""No shape, kernel, matrix, function or word; some of them are numbers."""

GOOD = {
    GaussianMatrix: [SHAPE, 4, 0, torch.float32],
    RandomizedTransform: [SHAPE, 4, 0, "dct"],
    PixelMask: [SHAPE, 0.5, 0, True],
    PixelMask.box: [SHAPE, 1, 2, 3, 4],
    PixelMask.from_mask: [randn(8, 8) > 0, SHAPE],
    Identity: [SHAPE],
    Downsample: [SHAPE, 2, "bicubic"],
    Blur: [SHAPE, randn(3, 3), "reflect"],
    Blur.gaussian: [SHAPE, 5, 1.0, "reflect"],
    Blur.motion: [SHAPE, 5, 0.5, 0, "reflect"],
    Grayscale: [SHAPE],
    ChannelMix: [SHAPE, randn(2, 3)],
    from_matrix: [randn(5, 192), SHAPE, "iid"],
    from_function: [columns, SHAPE, (3, 8, 7), columns_adjoint],
}


@pytest.mark.parametrize("build", GOOD, ids=lambda build: build.__qualname__)
def test_wrong_and_swapped_arguments_give_a_sentence_or_an_operator(build):
    good = GOOD[build]
    assert build(*good).size_out > 0
    attempts = [[*good[:i], wrong, *good[i + 1 :]] for i in range(len(good)) for wrong in WRONG]
    for i in range(len(good)):
        for j in range(i):
            swapped = list(good)
            swapped[i], swapped[j] = good[j], good[i]
            attempts.append(swapped)
    messages = []
    for arguments in attempts:
        try:
            operator = build(*arguments)
        except InputError as error:
            messages.append(str(error))
        else:
            operator(torch.zeros(1, *operator.shape_in))
    assert len(messages) > len(attempts) / 2
    assert all(20 < len(message) < 400 for message in messages)
