"""A linear map with its adjoint."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from diffsplit.counting import count_operator
from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.checks import check_batch
from diffsplit.operators.differentiable import linear
from diffsplit.operators.gram import Gram, ScaledIdentity
from diffsplit.operators.spectrum import Spectrum

__all__ = ["LinearOperator"]


class LinearOperator(ABC):
    """A, from images ``(B, *shape_in)`` to measurements ``(B, *shape_out)``.

    A subclass defines `_apply`, `_adjoint` and sets the attributes. `A @ B`, `c * A` and
    `operators.Stacked` build new operators from old ones.

    Attributes:
        shape_in: shape of one image; N is its size.
        shape_out: shape of one measurement; M is its size.
        gram: what is known of A Aᵀ, which decides how fast a data step can be.
        stride: k, if A maps each channel of ``(C, H, W)`` by itself to ``(H/k, W/k)`` and a
            circular shift of the image by k pixels shifts the measurement by one; else None.
    """

    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    gram: Gram
    stride: int | None = None
    pixels: Tensor | None = None
    _norm: float | None = None
    _known_spectrum: tuple[torch.device, Spectrum] | None = None

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """A x for ``x`` of the right shape."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y for ``y`` of the right shape."""

    def apply(self, x: Tensor) -> Tensor:
        """A x, differentiable: its gradient is one application of Aᵀ, and keeps no memory.

        Args:
            x: images ``(B, *shape_in)`` on [-1, 1].

        Returns:
            ``(B, *shape_out)``, in the dtype of ``x``.

        Raises:
            InputError: ``x`` has another shape, or is not of floats.
        """
        check_batch(x, self.shape_in, "the operator takes images")
        count_operator(len(x))
        return linear(x, self._apply, self._adjoint)

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y, from ``(B, *shape_out)`` to ``(B, *shape_in)``.

        Raises:
            InputError: ``y`` has another shape, or is not of floats.
        """
        check_batch(y, self.shape_out, "the adjoint takes measurements")
        count_operator(len(y))
        return linear(y, self._adjoint, self._apply)

    __call__ = apply

    def apply_gram(self, y: Tensor) -> Tensor:
        """A Aᵀ y, from ``(B, *shape_out)`` to itself; for methods that apply it many times.

        Raises:
            InputError: ``y`` has another shape, or is not of floats.
        """
        return self.apply(self.adjoint(y))

    @property
    def size_in(self) -> int:
        """N, the number of unknowns."""
        return math.prod(self.shape_in)

    @property
    def size_out(self) -> int:
        """M, the number of measurements."""
        return math.prod(self.shape_out)

    @property
    def has_spectrum(self) -> bool:
        """Whether `spectrum` has an answer."""
        return type(self)._make_spectrum is not LinearOperator._make_spectrum

    def _make_spectrum(self) -> Spectrum:
        """The decomposition, on the device of the operator, where there is one."""
        raise NotImplementedError

    @torch.no_grad()
    def spectrum(self) -> Spectrum:
        """The singular value decomposition, built at the first call and kept.

        Raises:
            InputError: it is not cheap.
        """
        if not self.has_spectrum:
            raise InputError(
                f"{type(self).__name__} has no cheap singular value decomposition; use a solver "
                "that needs A and its adjoint alone, or from_matrix for a small operator."
            )
        device = self._device()
        if self._known_spectrum is None or self._known_spectrum[0] != device:
            with torch.inference_mode(False):
                self._known_spectrum = device, self._make_spectrum()
        return self._known_spectrum[1]

    def norm(self) -> float:
        """‖A‖, the largest singular value, found at the first call and kept.

        It is exact where the Gram or the spectrum is known, and otherwise a lower bound from an
        iteration with a fixed seed, usually right to 1e-4.
        """
        if self._norm is None:
            if isinstance(self.gram, ScaledIdentity):
                self._norm = math.sqrt(self.gram.mean)
            elif self.has_spectrum:
                self._norm = float(self.spectrum().singular_values.max())
            else:
                from diffsplit.operators.norm import lanczos_norm

                self._norm = lanczos_norm(self)
        return self._norm

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> LinearOperator:
        """Move stored tensors, in place, and return the operator."""
        return self

    def _forget(self) -> None:
        """What was found and kept may have been of another rounding: `to` calls this."""
        self._known_spectrum = None
        self._norm = None

    def config(self) -> dict[str, Any]:
        """What `operators.from_config` needs to build this operator again: plain JSON values.

        Raises:
            InputError: the operator was built from a function or matrix and cannot be named.
        """
        raise InputError(
            f"{type(self).__name__} cannot be written to a file; "
            "use an operator that a seed or a mask describes."
        )

    @torch.no_grad()
    def fingerprint(self) -> list[float]:
        """Eight random sums of all measurements of a random image.

        Another machine's equal operator reproduces them to about 1e-4 of the largest, and another
        operator does not. All that is random are small integers, drawn on the CPU, which are the
        same everywhere.
        """
        generator = seeded(0, "fingerprint")
        # In steps of 1/512, which even half precision holds exactly.
        probe = torch.randint(-512, 513, (1, self.size_in), generator=generator) / 512
        image = probe.reshape(1, *self.shape_in).to(self._device())
        values = self.apply(image).flatten().cpu().double()
        sums = []
        for _ in range(8):
            signs = torch.randint(2, values.shape, generator=generator, dtype=torch.int8)
            sums.append(values.dot((2 * signs - 1).double()).item() / math.sqrt(len(values)))
        return [float(f"{value:.9g}") for value in sums]

    def _device(self) -> torch.device:
        """Where the stored tensors are, its own or those of an operator inside; else the CPU."""
        cpu = torch.device("cpu")
        for value in vars(self).values():
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Tensor):
                    device = part.device
                else:
                    device = part._device() if isinstance(part, LinearOperator) else cpu
                if device != cpu:  # parts that follow their input state no place of their own
                    return device
        return cpu

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape_in)} → {tuple(self.shape_out)})"

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        from diffsplit.operators.algebra import Composed

        return Composed(self, other)

    def __rmul__(self, factor: float) -> LinearOperator:
        from diffsplit.operators.algebra import Scaled

        return Scaled(self, factor)
