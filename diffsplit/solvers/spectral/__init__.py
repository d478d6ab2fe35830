"""Renoising: along the singular values of the operator, or with A and its adjoint alone."""
