"""One unit of work: a solver on a few images of one task with one seed, in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsplit import plots, tasks
from diffsplit.bench.config import Method, Row
from diffsplit.bench.features import features_of
from diffsplit.bench.fingerprint import hash_of_image
from diffsplit.bench.measures import FID, measures, unavailable
from diffsplit.bench.memory import peak_memory
from diffsplit.bench.methods import solver_of
from diffsplit.bench.store import Entry
from diffsplit.errors import DivergenceError, InputError
from diffsplit.io.images import from_uint8, to_uint8
from diffsplit.noise import seeded
from diffsplit.priors import ConsistencyModel, Denoiser, Prior, load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import Recovery, Solver
from diffsplit.uncertainty import calibrate

__all__ = ["WHITE_STD", "Done", "Unit", "Worker", "failed"]

_OF_SUMS = ("rows", "ratio", "operator", "fraction")
"""Parameters of a task that its random sums depend on."""
WHITE_STD = 0.4
"""The standard deviation that pictures of it show white, 51 gray levels: the same for all."""


@dataclass(frozen=True)
class Unit:
    """Work that one process does at once. It holds all that is needed, and can be sent.

    Attributes:
        row, method: what is run on what.
        seed: of the operator, the noise and the solver.
        prior: name of the prior, None if none is needed.
        names, hashes, keys: of each image: its name, its content hash, the key of its entry.
        pixels: bytes ``(B, 3, H, W)``.
        kept: whether the pictures of each image are kept.
        networks: metrics with networks that are wanted.
        half: whether the prior's networks compute in bfloat16.
        held_out: images on which the method is calibrated, bytes ``(n, 3, H, W)``.
    """

    row: Row
    method: Method
    seed: int
    prior: str | None
    names: tuple[str, ...]
    hashes: tuple[str, ...]
    keys: tuple[str, ...]
    pixels: NDArray[np.uint8]
    kept: tuple[bool, ...]
    networks: tuple[str, ...]
    half: bool = False
    held_out: NDArray[np.uint8] | None = None

    def part(self, indices: Sequence[int]) -> Unit:
        """Some of its images."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            hashes=tuple(self.hashes[i] for i in indices),
            keys=tuple(self.keys[i] for i in indices),
            pixels=self.pixels[list(indices)],
            kept=tuple(self.kept[i] for i in indices),
        )


@dataclass(frozen=True)
class Done:
    """What came of a unit.

    Attributes:
        entries: one for each image.
        pictures: of each entry by name, bytes ``(C, H, W)``.
        fitted: the most images at once that fitted the memory, if it was too small for all.
    """

    entries: list[Entry]
    pictures: list[dict[str, NDArray[np.uint8]]] = field(default_factory=list)
    fitted: int | None = None

    def __add__(self, other: Done) -> Done:
        fits = [done.fitted for done in (self, other) if done.fitted is not None]
        return Done(
            self.entries + other.entries,
            self.pictures + other.pictures,
            min(fits) if fits else None,
        )


def failed(unit: Unit, reason: str) -> Done:
    """A unit whose images all failed for a reason, a sentence."""
    entries = [_entry(unit, i, "failed", reason, {}) for i in range(len(unit.keys))]
    return Done(entries, [{} for _ in entries])


def _entry(unit: Unit, index: int, status: str, reason: str, values: dict[str, float]) -> Entry:
    return Entry(
        unit.keys[index],
        unit.row.label,
        unit.method.label,
        unit.names[index],
        unit.seed,
        status,
        reason,
        values,
    )


class Worker:
    """Runs units, and keeps what the next may need again: priors and the last problem."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self._priors: dict[tuple[str, bool], Prior] = {}
        self._problem: tuple[str, Problem] | None = None
        self._sums = ""
        self._calibrated: tuple[str, Solver | Exception] | None = None

    def run(self, unit: Unit) -> Done:
        """Recover the images of a unit. What goes wrong is in the entries, and never raised.

        A batch that does not fit the memory, or in which one image fails, is divided.
        """
        try:
            return self._recover(unit)
        except (InputError, DivergenceError) as error:
            return self._halves(unit) if len(unit.keys) > 1 else failed(unit, str(error))
        except Exception as error:  # whatever is wrong with one solver, the others go on
            if _is_out_of_memory(error):
                if len(unit.keys) == 1:
                    return failed(unit, "One image does not fit the memory of the device.")
                error.__traceback__ = None  # which keeps the tensors of its frames
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                done = self._halves(unit)
                return replace(done, fitted=min(done.fitted or 10**9, -(-len(unit.keys) // 2)))
            name = type(error).__name__
            return failed(unit, f"{unit.method.label} failed unexpectedly ({name}: {error}).")

    def _halves(self, unit: Unit) -> Done:
        count = len(unit.keys)
        middle = -(-count // 2)
        return self.run(unit.part(range(middle))) + self.run(unit.part(range(middle, count)))

    def _recover(self, unit: Unit) -> Done:
        x = from_uint8(torch.tensor(unit.pixels)).to(self.device)
        problem = self._problem_of(unit, tuple(x.shape[1:]))
        prior = None if unit.prior is None else self._prior_of(unit.prior, unit.half)
        solver = self._solver_of(unit, problem, prior)
        y = problem.measure(x, generator=_streams(unit.hashes, unit.seed, "measure"))
        streams = _streams(unit.hashes, unit.seed, "recover")
        with peak_memory(self.device) as peak:
            result = solver(problem, y, prior, generator=streams)
        numbers = measures(problem, y, x, result, unit.networks)
        if peak.bytes is not None:
            numbers = [{**values, "peak_memory": peak.bytes / 1e6} for values in numbers]
        entries = [_entry(unit, i, "done", "", values) for i, values in enumerate(numbers)]
        pictures = _pictures(unit, problem, y, result)
        if FID in unit.networks and not unavailable(FID):
            for kept, found in zip(pictures, features_of(result.image, x), strict=True):
                kept |= found
        return Done(entries, pictures)

    @staticmethod
    def _name_of(unit: Unit) -> str:
        """What the problem of a unit depends on."""
        parameters = sorted(unit.row.parameters.items())
        return f"{unit.row.task} {parameters} {unit.pixels.shape[1:]} {unit.seed}"

    def _problem_of(self, unit: Unit, shape: tuple[int, ...]) -> Problem:
        name = self._name_of(unit)
        if self._problem is None or self._problem[0] != name:
            given, sums = unit.row.parameters, self._sums_of(unit)
            last, self._problem = self._problem, None
            if sums and self._sums == sums and last is not None:
                own = {key: value for key, value in given.items() if key not in _OF_SUMS}
                made = tasks.problem(unit.row.task, shape, operator=last[1].operator, **own)
            else:
                last = None  # a matrix may fill the memory; the next is built without it
                made = tasks.problem(unit.row.task, shape, seed=unit.seed, **given)
                made.operator.to(self.device)
            self._problem, self._sums = (name, made), sums
        return self._problem[1]

    @staticmethod
    def _sums_of(unit: Unit) -> str:
        """What the random sums of a unit depend on, which several tasks measure; "" of others."""
        if "operator" not in tasks.TASKS[unit.row.task].parameters:
            return ""
        given = {key: unit.row.parameters.get(key) for key in _OF_SUMS}
        return f"{given} {unit.pixels.shape[1:]} {unit.seed}"

    def _solver_of(self, unit: Unit, problem: Problem, prior: Prior | None) -> Solver:
        """The solver of a method, calibrated if the method says so; the last of these is kept."""
        load = partial(self._prior_of, half=unit.half)
        solver = solver_of(unit.method, unit.row, problem, load)
        chosen = unit.method.calibration
        if chosen is None or unit.held_out is None:
            return solver
        images = torch.tensor(unit.held_out)
        contents = [*map(hash_of_image, images)]
        prior_name = f"{unit.prior} {unit.half}"
        name = f"{self._name_of(unit)} {unit.method.model_dump_json()} {prior_name} {contents}"
        if self._calibrated is None or self._calibrated[0] != name:
            found: Solver | Exception
            try:
                found = calibrate(
                    solver,  # type: ignore[type-var]  # which sees to it that it draws samples
                    problem,
                    prior,  # type: ignore[arg-type]
                    from_uint8(images).to(self.device),
                    level=chosen.level,
                    delta=chosen.delta,
                    groups=chosen.groups,
                    generator=_streams(contents, unit.seed, "calibrate"),
                    batch=len(unit.keys),
                )
            except (InputError, DivergenceError) as error:  # which it would raise each time
                found = error
            self._calibrated = name, found
        if isinstance(self._calibrated[1], Exception):
            raise self._calibrated[1]
        return self._calibrated[1]

    def _prior_of(self, name: str, half: bool) -> Prior:
        if (name, half) not in self._priors:
            prior = load_prior(name, device=self.device)
            if half and prior.networks:
                prior = load_prior(prior, dtype=torch.bfloat16)
            # The first evaluation is slower than the others, and no solver's fault.
            zero = torch.zeros((1, *prior.shape), device=self.device)
            with torch.no_grad():
                if isinstance(prior, Denoiser):
                    prior.denoise(zero, 1.0)
                elif isinstance(prior, ConsistencyModel):
                    prior.consistency(zero, 1.0)
            self._priors[name, half] = prior
        return self._priors[name, half]


def _streams(contents: Sequence[str], seed: int, purpose: str) -> list[torch.Generator]:
    """A generator for each image, from its hash and the seed: its batch does not matter."""
    return [
        seeded(int(content[:8], 16) ^ seed, f"diffsplit bench {purpose}") for content in contents
    ]


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


def _pictures(
    unit: Unit, problem: Problem, y: Tensor, result: Recovery
) -> list[dict[str, NDArray[np.uint8]]]:
    """What is kept of each image to look at; nothing of those that are not."""
    rows = [i for i, kept in enumerate(unit.kept) if kept]
    found: list[dict[str, NDArray[np.uint8]]] = [{} for _ in unit.keys]
    if not rows:
        return found
    chosen = torch.tensor(rows, device=y.device)
    _, measured = plots.measurement_pictures(problem, y[chosen])
    parts: dict[str, Any] = {
        "measurement": to_uint8(measured.clamp(-1, 1)).cpu().numpy(),
        "answer": to_uint8(result.image[chosen].clamp(-1, 1)).cpu().numpy(),
    }
    if result.std is not None:
        parts["std"] = to_uint8(plots.std_map(result.std[chosen], WHITE_STD)).cpu().numpy()[:, :1]
    for place, i in enumerate(rows):
        found[i] = {"truth": unit.pixels[i], **{k: v[place] for k, v in parts.items()}}
    return found
