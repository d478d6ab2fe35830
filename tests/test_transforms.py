"""The fast transforms against scipy and their definitions, in float64."""

from __future__ import annotations

import pytest
import torch

from diffsplit.errors import InputError
from diffsplit.operators.transforms import dct, hadamard, idct


def _batch(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 8, 64, 128, 2048])
def test_hadamard_is_the_matrix_of_scipy_made_orthonormal(n):
    linalg = pytest.importorskip("scipy.linalg")
    expected = torch.from_numpy(linalg.hadamard(n)).double() / n**0.5
    torch.testing.assert_close(hadamard(torch.eye(n).double()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2**13, 2**16])
def test_hadamard_of_three_stages_is_its_own_inverse_and_keeps_norms(n):
    x = _batch(2, 3, n)
    y = hadamard(x)
    torch.testing.assert_close(hadamard(y), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(y, x)


def test_hadamard_of_three_stages_agrees_with_the_sign_rule():
    n, row = 2**13, 0b1011010011101
    parity = torch.tensor([bin(row & column).count("1") % 2 for column in range(n)])
    unit = torch.zeros(1, n, dtype=torch.float64)
    unit[0, row] = 1
    expected = (1 - 2 * parity.double()) / n**0.5
    torch.testing.assert_close(hadamard(unit)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [0, 3, 12, 100])
def test_hadamard_refuses_other_lengths_than_powers_of_two(n):
    with pytest.raises(InputError, match="power of two"):
        hadamard(torch.zeros(2, n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 12, 31, 48, 192, 1000])
def test_dct_agrees_with_scipy_at_even_and_odd_lengths(n):
    fft = pytest.importorskip("scipy.fft")
    x = _batch(2, 3, n)
    forward = torch.from_numpy(fft.dct(x.numpy(), norm="ortho"))
    backward = torch.from_numpy(fft.idct(x.numpy(), norm="ortho"))
    torch.testing.assert_close(dct(x), forward, rtol=0, atol=1e-12)
    torch.testing.assert_close(idct(x), backward, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", [dct, idct, hadamard])
@pytest.mark.parametrize(
    ("dtype", "accuracy"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
def test_lower_precisions_keep_their_dtype_and_their_accuracy(transform, dtype, accuracy):
    x = _batch(2, 4096).to(dtype)
    y = transform(x)
    exact = transform(x.double())
    assert y.dtype == dtype
    assert (y.double() - exact).norm() < accuracy * exact.norm()


@pytest.mark.parametrize("transform", [dct, idct, hadamard])
def test_transforms_pass_gradcheck(transform):
    assert torch.autograd.gradcheck(transform, (_batch(2, 8).requires_grad_(),))
