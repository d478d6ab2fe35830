"""A linear map with its adjoint, and products, multiples and stacks of such maps.

They are in one file because an operator builds the others: ``A @ B``, ``c * A``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.arguments import brief
from diffsplit.counting import count_operator
from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.operators.checks import check_batch, real
from diffsplit.operators.fourier import FourierSpectrum
from diffsplit.operators.gram import Gram, ScaledIdentity
from diffsplit.operators.probes import fingerprint_of, lanczos_norm, mean_row_norm
from diffsplit.operators.spectrum import SelectedRows, Spectrum
from diffsplit.operators.tensors import Map, linear

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Composed", "LinearOperator", "PortableOperator", "Scaled", "Stacked"]

_CPU = torch.device("cpu")


class LinearOperator(ABC):
    """A, from images ``(B, *shape_in)`` to measurements ``(B, *shape_out)``.

    A subclass defines `_apply` and `_adjoint` and sets the attributes; `to` moves the tensors and
    operators among them. ``A @ B``, ``c * A`` and `operators.Stacked` build new operators.

    Attributes:
        shape_in: shape of one image; N is its size.
        shape_out: shape of one measurement; M is its size.
        gram: what is known of A Aᵀ, which decides how fast a data step can be.
        stride: k, if A maps each channel of ``(C, H, W)`` by itself to ``(H/k, W/k)`` and a
            circular shift of the image by k pixels shifts the measurement by one; else None. Such
            an operator has a spectrum.
    """

    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    gram: Gram
    stride: int | None = None
    _kind: str | None = None  # in `config`, beside the shape and what else was given
    _given: Mapping[str, Any] = MappingProxyType({})
    _norm: float | None = None
    _known_spectrum: tuple[torch.device | None, Spectrum] | None = None
    __array_ufunc__ = None  # a NumPy number times A is this class's matter

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """A x for ``x`` of the right shape."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y for ``y`` of the right shape."""

    def _apply_gram(self, y: Tensor) -> Tensor:
        """A Aᵀ y for ``y`` of the right shape."""
        return self._apply(self._adjoint(y))

    def apply(self, x: Tensor) -> Tensor:
        """A x, differentiable: its gradient is one application of Aᵀ, and keeps no memory.

        Args:
            x: images ``(B, *shape_in)`` on [-1, 1].

        Returns:
            ``(B, *shape_out)``, in the dtype of ``x``.

        Raises:
            InputError: ``x`` has another shape or device, or is not of floats.
        """
        check_batch(x, self.shape_in, "the operator takes images")
        return self._computed(x, self._apply, self._adjoint)

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y, from ``(B, *shape_out)`` to ``(B, *shape_in)``.

        Raises:
            InputError: ``y`` has another shape or device, or is not of floats.
        """
        check_batch(y, self.shape_out, "the adjoint takes measurements")
        return self._computed(y, self._adjoint, self._apply)

    __call__ = apply

    def apply_gram(self, y: Tensor) -> Tensor:
        """A Aᵀ y, from ``(B, *shape_out)`` to itself; for methods that apply it many times.

        Raises:
            InputError: ``y`` has another shape or device, or is not of floats.
        """
        check_batch(y, self.shape_out, "A Aᵀ takes measurements")
        return self._computed(y, self._apply_gram, self._apply_gram, products=2)

    def _computed(self, x: Tensor, forward: Map, backward: Map, products: int = 1) -> Tensor:
        count_operator(products * len(x))
        try:
            return linear(x, forward, backward)
        except RuntimeError as error:
            if self.device is None or self.device.type == x.device.type:
                raise
            raise InputError(
                f"the operator is on {self.device} and its input on {x.device}; move one of them "
                "with .to(device)."
            ) from error

    @property
    def size_in(self) -> int:
        """N, the number of unknowns."""
        return math.prod(self.shape_in)

    @property
    def size_out(self) -> int:
        """M, the number of measurements."""
        return math.prod(self.shape_out)

    @property
    def pixels(self) -> Tensor | None:
        """Which entries of the image A measures one by one: bool ``shape_in``, or None.

        It is given where A only picks entries, in their order, and multiplies all of them by one
        factor: then AᵀA = c·diag(pixels) with c = ``gram.mean``.
        """
        return None

    @property
    def has_spectrum(self) -> bool:
        """Whether `spectrum` has an answer."""
        known = self.pixels is not None or self.stride is not None
        return known or type(self)._make_spectrum is not LinearOperator._make_spectrum

    def _make_spectrum(self) -> Spectrum:
        """The decomposition, on the device of the operator, where there is one."""
        pixels = self.pixels
        if pixels is None:
            return FourierSpectrum(self._first_row(), self.shape_in, self.shape_out)
        ones = torch.ones(1, *self.shape_in, dtype=torch.float64, device=pixels.device)
        factor, rows = self._apply(ones).flatten()[0], pixels.flatten().nonzero().squeeze(1)
        return SelectedRows(self.shape_in, self.shape_out, rows, 1.0).scaled(float(factor))

    def _first_row(self) -> Tensor:
        """Aᵀe for the first pixel of every channel, ``(C, H, W)`` in float64.

        All other rows of an operator with a stride are shifts of it.
        """
        unit = torch.zeros(1, *self.shape_out, dtype=torch.float64, device=self.device)
        unit[..., 0, 0] = 1
        return self._adjoint(unit)[0]

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
        device = self.device
        if self._known_spectrum is None or self._known_spectrum[0] != device:
            with torch.inference_mode(False):
                self._known_spectrum = device, self._make_spectrum()
        return self._known_spectrum[1]

    def row_square_norms(self) -> Tensor:
        """‖a_i‖² of the rows, broadcastable to ``shape_out``, in float32 or float64.

        They are exact for a stored matrix, for orthogonal rows of one length, and for scaled and
        stacked operators whose parts know them; else all stand for their mean.
        """
        return torch.full((), self.gram.mean, device=self.device)

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
                gram = partial(LinearOperator._apply_gram, self)  # A and Aᵀ as they are applied
                self._norm = lanczos_norm(gram, self.shape_out, self.device or _CPU)
        return self._norm

    @property
    def device(self) -> torch.device | None:
        """Where images and measurements have to be; None if A follows them to any device.

        It is where the stored tensors are. A subclass that brings its tensors to the image in
        `_apply` says ``device = None``.
        """
        stored = [value.device for value in vars(self).values() if isinstance(value, Tensor)]
        places = stored + [place for part in self._parts() if (place := part.device)]
        return next((place for place in places if place != _CPU), _CPU if places else None)

    def _parts(self) -> list[LinearOperator]:
        """The operators among the attributes, alone or in tuples."""
        values = vars(self).values()
        parts = (part for value in values for part in (value if type(value) is tuple else [value]))
        return [part for part in parts if isinstance(part, LinearOperator)]

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move stored tensors, in place, and return the operator.

        Args:
            device: None to leave them where they are.
            dtype: of stored floats.

        Raises:
            InputError: there is no such device, or these are no floats.
        """
        place = None if device is None else checked_device(device)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputError(f"operators are stored in floats, as in float32, not {brief(dtype)}.")
        self._move(place, dtype)
        self._known_spectrum = self._norm = None  # what was kept may have been of another rounding
        return self

    def _move(self, device: torch.device | None, dtype: torch.dtype | None) -> None:
        """Move the tensors and operators among the attributes."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                kept = value.dtype if dtype is None or not value.is_floating_point() else dtype
                setattr(self, name, value.to(device=device, dtype=kept))
        for part in self._parts():
            part.to(device, dtype)

    def config(self) -> dict[str, Any]:
        """What `operators.from_config` needs to build this operator again: plain JSON values.

        Raises:
            InputError: the operator was built from a function or matrix and cannot be named.
        """
        if self._kind is None:
            raise InputError(
                f"{type(self).__name__} cannot be written to a file; "
                "use an operator that a seed or a mask describes."
            )
        return {"kind": self._kind, "shape": list(self.shape_in), **self._given}

    def fingerprint(self) -> list[float]:
        """Eight random sums of all measurements of a random image.

        Another machine's equal operator reproduces them to about 1e-4 of the largest, and another
        operator does not.
        """
        return fingerprint_of(self._apply, self.shape_in, self.device or _CPU)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape_in)} → {tuple(self.shape_out)})"

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composed(self, other)

    def __rmul__(self, factor: float) -> LinearOperator:
        return Scaled(self, factor)


class PortableOperator(LinearOperator):
    """An operator that works wherever its images are: it stores no tensor, or in `Constants`."""

    _place = _CPU

    def _move(self, device: torch.device | None, dtype: torch.dtype | None) -> None:
        """Note where images will live; what is stored follows them, in their precision."""
        self._place = device or self._place

    @property
    def device(self) -> torch.device | None:
        """Where `to` moved it; None if it was not, or to the CPU."""
        return None if self._place == _CPU else self._place


class Composed(LinearOperator):
    """``outer`` after ``inner``, also written ``outer @ inner``.

    Two operators with a stride, such as a reduction after a circular blur, have a spectrum, and so
    have two that pick pixels.

    Args:
        outer: takes what ``inner`` gives.
        inner: takes the images.

    Raises:
        InputError: the shapes do not match.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        self.outer, self.inner = _operator(outer), _operator(inner)
        if outer.shape_in != inner.shape_out:
            raise InputError(
                f"an operator on shape {outer.shape_in} cannot follow one that gives "
                f"{inner.shape_out}; the two must agree."
            )
        self.shape_in, self.shape_out = inner.shape_in, outer.shape_out
        if outer.stride is not None and inner.stride is not None:
            self.stride = outer.stride * inner.stride
        if isinstance(inner.gram, ScaledIdentity):  # then A Aᵀ = c · outer outerᵀ
            kind = ScaledIdentity if isinstance(outer.gram, ScaledIdentity) else Gram
            self.gram = kind(outer.gram.mean * inner.gram.mean)
        elif self.stride is not None:
            self.gram = Gram(float(self._first_row().square().sum()) / self.shape_in[0])
        else:
            self.gram = Gram(mean_row_norm(self._adjoint, self.shape_out, self.device or _CPU))

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _apply_gram(self, y: Tensor) -> Tensor:
        if isinstance(self.inner.gram, ScaledIdentity):
            return self.outer._apply_gram(y) * self.inner.gram.mean
        return super()._apply_gram(y)

    @property
    def pixels(self) -> Tensor | None:
        inner, outer = self.inner.pixels, self.outer.pixels
        if inner is None or outer is None:
            return None
        return torch.zeros_like(inner).masked_scatter(inner, outer.flatten())

    def config(self) -> dict[str, Any]:
        return {"kind": "composed", "outer": self.outer.config(), "inner": self.inner.config()}


class Scaled(LinearOperator):
    """``factor`` · A, also written ``factor * A``.

    Args:
        operator: A.
        factor: a number other than 0, of magnitude between 1e-18 and 1e18.

    Raises:
        InputError: no operator, or another factor.
    """

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        self.operator = _operator(operator)
        self.factor = real(factor, "the factor of an operator")
        if not 1e-18 < abs(self.factor) < 1e18:  # so that its square fits float32
            raise InputError(
                f"the factor of an operator has a magnitude between 1e-18 and 1e18, "
                f"not {self.factor}; rescale the images or the noise level instead."
            )
        self.shape_in, self.shape_out = operator.shape_in, operator.shape_out
        self.gram = operator.gram.scaled(self.factor)
        self.stride = operator.stride

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator._apply(x) * self.factor

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y) * self.factor

    def _apply_gram(self, y: Tensor) -> Tensor:
        return self.operator._apply_gram(y) * self.factor**2

    def row_square_norms(self) -> Tensor:
        return self.operator.row_square_norms() * self.factor**2

    @property
    def pixels(self) -> Tensor | None:
        return self.operator.pixels

    @property
    def has_spectrum(self) -> bool:
        return self.operator.has_spectrum

    def _make_spectrum(self) -> Spectrum:
        return self.operator.spectrum().scaled(self.factor)

    def config(self) -> dict[str, Any]:
        return {"kind": "scaled", "operator": self.operator.config(), "factor": self.factor}


class Stacked(LinearOperator):
    """Several looks at one image: the measurements of each, flattened, one after the other.

    Args:
        operators: one or more, for images of one shape.

    Raises:
        InputError: none given, or their images differ in shape.
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise InputError("a stack needs at least one operator.")
        self.operators = tuple(_operator(operator) for operator in operators)
        shapes = {operator.shape_in for operator in operators}
        if len(shapes) > 1:
            raise InputError(f"stacked operators take images of one shape, not of {shapes}.")
        self._sizes = [operator.size_out for operator in operators]
        self.shape_in, self.shape_out = operators[0].shape_in, (sum(self._sizes),)
        # Traces add, whatever the angle between the rows of two operators.
        trace = sum(operator.size_out * operator.gram.mean for operator in operators)
        self.gram = operators[0].gram if len(operators) == 1 else Gram(trace / self.size_out)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.cat([operator._apply(x).flatten(1) for operator in self.operators], 1)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = zip(self.operators, torch.split(y, self._sizes, 1), strict=True)
        images = [part._adjoint(values.reshape(-1, *part.shape_out)) for part, values in parts]
        return torch.stack(images).sum(0)

    def row_square_norms(self) -> Tensor:
        parts = [(part.row_square_norms(), part.shape_out) for part in self.operators]
        return torch.cat([norms.expand(shape).flatten() for norms, shape in parts])

    def config(self) -> dict[str, Any]:
        return {"kind": "stacked", "operators": [operator.config() for operator in self.operators]}


def _operator(value: Any) -> LinearOperator:
    if not isinstance(value, LinearOperator):
        raise InputError(
            f"an operator is combined with others, not with {brief(value)}; write c * A with a "
            "number, A @ B and Stacked(A, B) with operators, A.apply(x) with images."
        )
    return value
