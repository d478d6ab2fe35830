"""The errors that a user can do something about."""

__all__ = ["DivergenceError", "InputError", "MissingDependencyError"]


class InputError(ValueError):
    """Bad input: the message says what was wrong, what was expected and what to do.

    The command line prints the message alone and exits with code 2.
    """


class MissingDependencyError(InputError, ImportError):
    """An optional library is needed and not installed; the message names the extra."""


class DivergenceError(ArithmeticError):
    """A computation left the finite numbers; the message says where and what to change."""
