"""Matrices of SciPy as operators: sparse ones, and its linear operators."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matrix_cases import DENSE, THIN, check_matrix

from diffsplit.errors import InputError
from diffsplit.operators import from_matrix

sparse = pytest.importorskip("scipy.sparse")
linalg = pytest.importorskip("scipy.sparse.linalg")

MATRICES = {
    "sparse matrix": (sparse.csr_matrix(THIN), THIN),
    "sparse array": (sparse.coo_array(THIN), THIN),
    "sparse bools": (sparse.csc_array(THIN != 0), 1.0 * (THIN != 0)),
    "linear operator": (linalg.aslinearoperator(DENSE), DENSE),
    "linear operator of a sparse matrix": (
        2 * linalg.aslinearoperator(sparse.csr_array(THIN)),
        2 * THIN,
    ),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.filterwarnings("error")
def test_matrices_of_scipy_are_the_operators_that_they_describe(name):
    check_matrix(*MATRICES[name])


@pytest.mark.parametrize(
    "matrix",
    [
        sparse.csr_array((3, 4)),
        sparse.csr_array(np.full((3, 4), math.inf)),
        sparse.csr_array(1j * np.ones((3, 4))),
        sparse.csr_array(np.ones((3, 5))),
        sparse.coo_array(np.ones(4)),
        linalg.aslinearoperator(1j * np.ones((3, 4))),
        linalg.aslinearoperator(np.ones((3, 5))),
        linalg.LinearOperator((3, 4), matvec=lambda x: x[:3]),
    ],
    ids=lambda matrix: f"{type(matrix).__name__} {getattr(matrix, 'dtype', '')}",
)
def test_matrices_of_scipy_that_are_no_operators_are_refused_in_a_sentence(matrix):
    with pytest.raises(InputError) as caught:
        from_matrix(matrix, (1, 2, 2))
    assert 20 < len(str(caught.value)) < 400
    assert str(caught.value).endswith(".")


def test_rows_are_announced_of_a_dense_matrix_alone():
    with pytest.raises(InputError, match="dense"):
        from_matrix(sparse.csr_array(THIN), rows="iid")
