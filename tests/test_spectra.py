"""One suite for every operator with a singular value decomposition, then norms and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from operator_cases import EVERY, SHAPE, dense, randn
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.operators import (
    Blur,
    Downsample,
    FunctionOperator,
    GaussianMatrix,
    Grayscale,
    Identity,
    LinearOperator,
    MatrixOperator,
    Stacked,
)
from diffsplit.operators.fourier import from_half, merge, split, to_half
from diffsplit.operators.probes import lanczos_norm

CASES = {name: build for name, build in EVERY.items() if build().has_spectrum}


def _iterated_norm(operator: LinearOperator) -> float:
    device = operator.device or torch.device("cpu")
    return lanczos_norm(operator.apply_gram, operator.shape_out, device)


@pytest.fixture(params=CASES, name="operator")
def _operator(request) -> LinearOperator:
    return CASES[request.param]()


def _close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_operator_is_u_times_singular_values_times_v_transposed(operator):
    assert operator.has_spectrum
    spectrum, x = operator.spectrum(), randn(3, *operator.shape_in)
    c = spectrum.analyze(x)
    assert c.shape == (3, *spectrum.shape)
    assert c.dtype == torch.float64
    _close(spectrum.synthesize_measurement(c * spectrum.singular_values), operator(x))


def test_v_is_a_square_orthonormal_matrix(operator):
    spectrum, n = operator.spectrum(), operator.size_in
    assert spectrum.size == n
    identity = torch.eye(n, dtype=torch.float64)
    v_transposed = spectrum.analyze(identity.reshape(n, *operator.shape_in)).flatten(1).T
    _close(v_transposed @ v_transposed.T, identity)
    v = spectrum.synthesize(identity.reshape(n, *spectrum.shape)).flatten(1).T
    _close(v, v_transposed.T)


def test_u_is_orthonormal_where_singular_values_are_positive_and_zero_elsewhere(operator):
    spectrum, m, n = operator.spectrum(), operator.size_out, operator.size_in
    units = torch.eye(m, dtype=torch.float64).reshape(m, *operator.shape_out)
    u = spectrum.analyze_measurement(units).flatten(1)  # row i is Uᵀ e_i: this is U itself
    seen = (spectrum.singular_values > 0).expand(spectrum.shape).flatten().double()
    _close(u.T @ u, seen.diag())
    units = torch.eye(n, dtype=torch.float64).reshape(n, *spectrum.shape)
    _close(spectrum.synthesize_measurement(units).flatten(1).T, u)


def test_singular_values_are_those_of_the_dense_matrix_with_exact_zeros(operator):
    spectrum, matrix = operator.spectrum(), dense(operator)
    s = spectrum.singular_values
    assert s.dtype == torch.float64
    assert s.ndim == len(spectrum.shape)
    values = s.expand(spectrum.shape).flatten().sort(descending=True).values
    expected = torch.linalg.svdvals(matrix)
    _close(values[: len(expected)], expected)
    assert (values >= 0).all()
    assert (values > 0).sum() == torch.linalg.matrix_rank(matrix)


def test_measurements_of_a_separable_spectrum_are_single_coefficients(operator):
    spectrum, y = operator.spectrum(), randn(2, *operator.shape_out)
    units = torch.eye(operator.size_out, dtype=torch.float64).reshape(-1, *operator.shape_out)
    u = spectrum.analyze_measurement(units).flatten(1)
    one_to_one = bool(((u == 0) | (u == 1)).all() and (u.sum(1) == 1).all())
    assert spectrum.separable == one_to_one
    if spectrum.separable:  # also for a negative multiple, whose sign is in V
        variances = spectrum.synthesize_measurement(spectrum.analyze_measurement(y.square()))
        assert torch.equal(variances, y.square())


@pytest.mark.parametrize(
    ("name", "separable"),
    [
        ("mask-scaled", True),
        ("mask-of-multiple", True),
        ("identity-twice", True),
        ("hadamard", True),
        ("scaled", True),
        ("average", True),
        ("grayscale", True),
        ("channel-rotation", True),
        ("matrix-orthogonal", True),
        ("blur", False),
        ("bicubic", False),
        ("average-of-blur", False),
        ("channel-mix", False),
        ("matrix", False),
    ],
)
def test_spectra_say_whether_they_are_separable(name, separable):
    assert EVERY[name]().spectrum().separable is separable


def test_filters_give_the_normal_matrix_the_adjoint_and_the_pseudo_inverse(operator):
    spectrum, s = operator.spectrum(), operator.spectrum().singular_values
    x, y = randn(2, *operator.shape_in), randn(2, *operator.shape_out)
    _close(spectrum.filter(x, s.square()), operator.adjoint(operator(x)))
    _close(spectrum.filter_measurement(y, s), operator.adjoint(y))
    inverse = torch.where(s > 0, 1 / s, 0)
    matrix = torch.linalg.pinv(dense(operator), rtol=1e-11)
    pseudo = (y.flatten(1) @ matrix.T).reshape(x.shape)
    torch.testing.assert_close(spectrum.filter_measurement(y, inverse), pseudo)


def test_gains_of_each_image_are_its_own(operator):
    spectrum, s = operator.spectrum(), operator.spectrum().singular_values
    x, y = randn(2, *operator.shape_in), randn(2, *operator.shape_out)
    gains = torch.stack([s.square(), (-s).exp()])
    apart = torch.cat([spectrum.filter(x[i : i + 1], gains[i]) for i in (0, 1)])
    _close(spectrum.filter(x, gains), apart)
    apart = torch.cat([spectrum.filter_measurement(y[i : i + 1], gains[i]) for i in (0, 1)])
    _close(spectrum.filter_measurement(y, gains), apart)


def test_precision_of_the_image_is_kept_and_float32_is_accurate(operator):
    spectrum, x = operator.spectrum(), randn(2, *operator.shape_in).float()
    gains = spectrum.singular_values.square()
    exact, result = spectrum.filter(x.double(), gains), spectrum.filter(x, gains)
    assert result.dtype == torch.float32
    assert (result - exact).norm() < 2e-6 * exact.norm()
    rough = spectrum.filter(x.half(), gains)
    assert rough.dtype == torch.float16
    assert (rough - exact).norm() < 1e-2 * exact.norm()


def test_norm_is_the_largest_singular_value(operator):
    largest = torch.linalg.svdvals(dense(operator))[0].item()
    assert operator.norm() == pytest.approx(largest, rel=1e-10)
    assert _iterated_norm(operator) == pytest.approx(largest, rel=1e-3)


def test_wrong_shapes_are_refused(operator):
    spectrum = operator.spectrum()
    for call, shape in (
        (spectrum.analyze, spectrum.shape_in),
        (spectrum.synthesize, spectrum.shape),
        (spectrum.analyze_measurement, spectrum.shape_out),
        (spectrum.synthesize_measurement, spectrum.shape),
    ):
        with pytest.raises(InputError, match="of shape"):
            call(torch.zeros(2, *shape, 2))
        with pytest.raises(InputError, match="floats"):
            call(torch.zeros(2, *shape, dtype=torch.int64))


def test_spectrum_is_built_once_and_meets_gradients_after_inference(operator):
    with torch.inference_mode():
        spectrum = operator.spectrum()
        spectrum.filter(randn(1, *operator.shape_in).float(), spectrum.singular_values)
    assert operator.spectrum() is spectrum
    x = randn(1, *operator.shape_in).float().requires_grad_()
    s = spectrum.singular_values
    (gradient,) = torch.autograd.grad(spectrum.filter(x, s).square().sum() / 2, x)
    expected = spectrum.filter(x.detach(), s.square())
    assert (gradient - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(
    "build",
    [
        lambda: GaussianMatrix(SHAPE, 5, 0),
        lambda: Blur(SHAPE, randn(3, 3), "reflect"),
        lambda: Downsample(SHAPE, 2) @ Blur(SHAPE, randn(3, 3), "reflect"),
        lambda: Stacked(Identity(SHAPE), Identity(SHAPE)),
        lambda: FunctionOperator(lambda x: 2 * x, SHAPE),
        lambda: 2.0 * GaussianMatrix(SHAPE, 5, 0),
        lambda: Grayscale(SHAPE) @ Identity(SHAPE),
        lambda: MatrixOperator(torch.ones(1, 4097)),
    ],
)
def test_operators_without_a_cheap_decomposition_say_so(build):
    operator = build()
    assert not operator.has_spectrum
    with pytest.raises(InputError, match="no cheap singular value decomposition"):
        operator.spectrum()


@pytest.mark.parametrize(
    "build",
    [
        lambda: GaussianMatrix(SHAPE, 100, 0, torch.float64),
        lambda: Blur(SHAPE, randn(5, 5), "reflect"),
        lambda: Blur.gaussian(SHAPE, 7, 2.0, "reflect"),
        lambda: Stacked(Identity(SHAPE), 2.0 * Downsample(SHAPE, 2)),
        lambda: FunctionOperator(lambda x: x[:, :1] * 3, SHAPE),
        lambda: GaussianMatrix(SHAPE, 1, 0),
    ],
)
def test_norm_of_unknown_operators_is_found_by_iteration(build):
    operator = build()
    largest = torch.linalg.svdvals(dense(operator))[0].item()
    assert operator.norm() == pytest.approx(largest, rel=1e-3)
    assert build().norm() == operator.norm()


def test_norm_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    GaussianMatrix(SHAPE, 100, 0).norm()
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (5, 7), (6, 5), (3, 2)])
def test_hartley_coefficients_keep_the_norm_and_come_back(height, width):
    x = randn(2, height, width)
    c = from_half(torch.fft.rfft2(x, norm="ortho"), width)
    full = torch.fft.fft2(x, norm="ortho")
    _close(c, full.real - full.imag)
    _close(c.square().sum(), x.square().sum())
    _close(torch.fft.irfft2(to_half(c), (height, width), norm="ortho"), x)


def test_polyphase_components_are_the_interleaved_images():
    x = randn(2, 3, 6, 9)
    parts = split(x, 3)
    assert torch.equal(parts[:, :, 5], x[..., 1::3, 2::3])
    assert torch.equal(merge(parts, 3), x)


def test_basis_is_orthonormal_where_a_polyphase_component_is_zero_but_for_rounding():
    # Means of pairs of rows: of every other pair the same, so that its transform is one number and
    # 96 zeros, whose phases are rounding. The length is one at which rounding is not symmetric.
    weights = torch.randint(1, 64, (97,), generator=torch.Generator().manual_seed(1)) / 64
    kernel = torch.stack([weights, 1 - weights], 1).reshape(194, 1).roll(1, 0)
    spectrum = (Downsample((1, 194, 2), 2) @ Blur((1, 194, 2), kernel)).spectrum()
    c = randn(2, *spectrum.shape)
    _close(spectrum.analyze(spectrum.synthesize(c)), c)


def test_white_noise_stays_white_in_every_coefficient():
    operator = CASES["bicubic-of-blur"]()
    c = operator.spectrum().analyze(randn(4000, *operator.shape_in))
    deviation = (c.square().mean(0) - 1).abs().max().item()
    assert deviation < 6 * math.sqrt(2 / 4000)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_spectra_on_a_gpu_agree_with_the_cpu(name):
    here, there = CASES[name](), CASES[name]().to("cuda")
    x, y = randn(2, *here.shape_in), randn(2, *here.shape_out)
    expected, result = here.spectrum(), there.spectrum()
    s = result.singular_values
    assert s.device.type == "cuda"
    _close(s.cpu(), expected.singular_values)
    gains = s.square()
    _close(result.filter(x.cuda(), gains).cpu(), here.adjoint(here(x)))
    _close(result.filter_measurement(y.cuda(), s).cpu(), here.adjoint(y))
    assert there.norm() == pytest.approx(here.norm(), rel=1e-10)
    assert _iterated_norm(there) == pytest.approx(here.norm(), rel=1e-3)
