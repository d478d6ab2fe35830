"""Methods that work along the singular values of the operator."""
