"""The errors that a user can do something about."""

__all__ = ["DivergenceError", "InputError", "MissingDependencyError"]


class InputError(ValueError):
    """Bad input: the message says what was wrong, what was expected and what to do.

    The message is one line, whatever the values that it quotes look like. The command line prints
    it alone and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class MissingDependencyError(InputError, ImportError):
    """An optional library is needed and not installed; the message names the extra."""


class DivergenceError(ArithmeticError):
    """A computation left the finite numbers; the message says where and what to change."""
