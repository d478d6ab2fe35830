"""SciPy's operators as ours and ours as SciPy's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from optional_libraries import library

from diffsplit import Problem, channels, operators, solvers
from diffsplit.errors import InputError
from diffsplit.priors import GaussianPrior

scipy = library("scipy")
from scipy import sparse  # noqa: E402
from scipy.sparse import linalg  # noqa: E402

from diffsplit.interop import from_scipy, to_scipy  # noqa: E402

SHAPE = (1, 6, 8)
SIZE = 48


def matrix(rows: int = 20) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, SIZE)) / 5


KINDS = {
    "dense": matrix,
    "sparse": lambda: sparse.csr_matrix(np.where(np.abs(matrix()) > 0.2, matrix(), 0)),
    "sparse array": lambda: sparse.coo_array(matrix()),
    "linear operator": lambda: linalg.aslinearoperator(matrix()),
    "pair of functions": lambda: linalg.LinearOperator(
        (20, SIZE), matvec=lambda x: matrix() @ x, rmatvec=lambda y: matrix().T @ y
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_scipy(kind: str) -> None:
    given = KINDS[kind]()
    operator = from_scipy(given, SHAPE)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = np.stack([given @ image for image in x.flatten(1).numpy()])
    assert operator.apply(x).numpy() == pytest.approx(y, rel=1e-6, abs=1e-6)
    back = np.stack([given.T @ row for row in y])
    found = operator.adjoint(torch.from_numpy(y)).flatten(1).numpy()
    assert found == pytest.approx(back, rel=1e-6, abs=1e-6)


def test_orthogonal_rows_are_recognized_and_others_are_not() -> None:
    rows = sparse.eye_array(SIZE, format="csr")[::2] * 3.0
    assert from_scipy(rows, SHAPE).gram == operators.ScaledIdentity(pytest.approx(9.0))
    assert type(from_scipy(KINDS["sparse"](), SHAPE).gram) is operators.Gram


OURS = {
    "blur": operators.Blur.gaussian(SHAPE, size=3, std=1.0),
    "mask": operators.PixelMask(SHAPE, 0.5, seed=0),
    "reduction": operators.Downsample(SHAPE, 2, "bicubic"),
    "matrix": operators.GaussianMatrix(SHAPE, rows=20, seed=0),
}


@pytest.mark.parametrize("name", OURS)
def test_scipy_sees_our_operator_and_its_adjoint(name: str) -> None:
    ours = OURS[name]
    theirs = to_scipy(ours)
    dense = theirs @ np.eye(SIZE)
    eye = torch.eye(SIZE, dtype=torch.float64).view(SIZE, *SHAPE)
    assert dense == pytest.approx(ours.apply(eye).flatten(1).numpy().T, abs=1e-12)
    assert theirs.rmatmat(np.eye(len(dense))) == pytest.approx(dense.T, abs=1e-6)
    assert theirs @ np.arange(SIZE) == pytest.approx(dense @ np.arange(SIZE))
    assert theirs.rmatvec(dense[:, 0]) == pytest.approx(dense.T @ dense[:, 0], abs=1e-6)


def test_lsmr_of_scipy_inverts_our_operator() -> None:
    operator = operators.Blur.gaussian(SHAPE, size=3, std=0.5)
    x = np.random.default_rng(1).standard_normal(SIZE)
    found = linalg.lsmr(to_scipy(operator), to_scipy(operator) @ x, atol=1e-12, btol=1e-12)[0]
    assert found == pytest.approx(x, abs=1e-5)


def test_there_and_back_is_the_same_operator_to_a_solver() -> None:
    operator, prior = OURS["mask"], GaussianPrior(SHAPE)
    back = from_scipy(to_scipy(operator), SHAPE)
    problem = Problem(operator, channels.GaussianNoise(0.1))
    y = problem.measure(
        prior.sample(1, torch.Generator().manual_seed(0)),
        generator=torch.Generator().manual_seed(1),
    )
    expected = solvers.DiffEP()(problem, y, prior).image
    found = solvers.DiffEP()(Problem(back, problem.channel), y, prior).image
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_what_is_no_operator_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="takes an operator of diffsplit, not ndarray"):
        to_scipy(matrix())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rmatvec"):
        from_scipy(linalg.LinearOperator((20, SIZE), matvec=lambda x: matrix() @ x), SHAPE)
    with pytest.raises(InputError, match="real matrix"):
        from_scipy(sparse.csr_matrix(1j * matrix()), SHAPE)


LAZY = """
import sys, diffsplit
from diffsplit import interop
assert "from_deepinv" in dir(interop) and "from_deepinv" in interop.__all__
loaded = {"deepinv", "azula", "scipy", "torchvision"} & set(sys.modules)
files = [n for n in sys.modules if n.startswith("diffsplit.interop.")]
assert not loaded and not files, (loaded, files)
"""


def test_importing_diffsplit_imports_none_of_these_libraries() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True)


MISSING = """
import sys
sys.modules["{library}"] = None
from diffsplit import interop
from diffsplit.errors import MissingDependencyError
try:
    interop.{name}
except MissingDependencyError as error:
    assert "diffsplit[{library}]" in str(error), error
else:
    raise SystemExit("no error")
"""


@pytest.mark.parametrize(
    ("library", "name"),
    [("deepinv", "from_deepinv"), ("azula", "prior_from_azula"), ("scipy", "to_scipy")],
)
def test_a_missing_library_is_named_with_its_extra(library: str, name: str) -> None:
    subprocess.run([sys.executable, "-c", MISSING.format(library=library, name=name)], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    from diffsplit import interop

    with pytest.raises(AttributeError, match="no attribute 'from_jax'"):
        _ = interop.from_jax
