"""From a configuration to cells: every row, column, image and seed with its content hash."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffsplit.bench import data
from diffsplit.bench.compute import Unit
from diffsplit.bench.config import Calibration, Config, Method, Row
from diffsplit.bench.data import Images
from diffsplit.bench.fingerprint import hash_of_code, hash_of_image, hash_of_prior, key_of, version
from diffsplit.bench.measures import NETWORKS, unavailable
from diffsplit.bench.methods import missing_solver, prior_of
from diffsplit.bench.store import Entry, Label
from diffsplit.devices import machine, memory_of
from diffsplit.errors import InputError
from diffsplit.priors.batches import SHARE, SURELY

__all__ = ["Plan", "expand", "place_of_batches"]

NOWHERE = "–"
"""The name of the image where a row has none."""
_MOST = {"cpu": 16, "cuda": 64}
"""Images at once, unless a configuration says otherwise: more are no faster."""


@dataclass
class Plan:
    """What a run consists of.

    Attributes:
        labels: of all entries, in the order of the table.
        units: what has to be computed for them, in the order of computing.
        known: entries that need no computing: a solver or images that are not there, or a setting
            that is wrong.
        facts: for `Store.facts`.
    """

    labels: list[Label] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    known: list[Entry] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def expand(
    config: Config,
    device: str = "cpu",
    root: Path | None = None,
    fitted: Mapping[str, int] | None = None,
) -> Plan:
    """All cells of a configuration.

    Args:
        device: where they will be computed.
        root: folder of data sets, see `data.find`.
        fitted: the most images at once that fitted the memory before, by `place_of_batches`.

    Raises:
        InputError: no row has images, or an image cannot be read.
    """
    wanted = tuple(name for name in NETWORKS if name in config.metrics)
    networks = tuple(name for name in wanted if not unavailable(name))
    plan, words, faults = Plan(), [], []
    load = cache(partial(data.load, root=root))
    for row in config.rows:
        source, side = row.data or config.data, row.size or config.size
        try:
            shown = load(source, config.images, side, config.choose, skip=config.skip)
            words.append(shown.words)
        except InputError as error:
            faults.append(str(error))
            shown = None
        for method in (method for method in config.solvers if method.serves(row.label)):
            held_out, fault = None, faults[-1] if shown is None else ""
            if method.calibration is not None:
                try:
                    held_out = _held_out(method.calibration, row, config, load, shown)
                except InputError as error:
                    fault = fault or str(error)
            cells = _Cells(config, row, method, device, networks, held_out)
            cells.add(plan, shown, fault, (fitted or {}))
    if not words:
        raise InputError(faults[0])
    # The problem of a row is built once for all methods, since the last is kept.
    place = {row.label: i for i, row in enumerate(config.rows)}
    plan.units.sort(key=lambda unit: (place[unit.row.label], unit.seed))
    notes = [*dict.fromkeys([*faults, *filter(None, map(unavailable, wanted))])]
    used = dict.fromkeys(unit.prior for unit in plan.units if unit.prior is not None)
    plan.facts = _facts(config, device, list(used), "; ".join(dict.fromkeys(words)), notes)
    return plan


def place_of_batches(
    method: Method, prior: str | None, shape: tuple[int, ...], device: str, half: bool = False
) -> str:
    """What the number of images that fit the memory depends on, as a text."""
    place = torch.device(device)
    where = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    settings = json.dumps(method.all_settings, sort_keys=True)
    kind = f"{prior} in half precision" if half else prior
    return f"{method.solver} {settings}, prior {kind}, {shape}, {where}"


def _held_out(
    chosen: Calibration, row: Row, config: Config, load: Callable[..., Images], shown: Images | None
) -> NDArray[np.uint8]:
    """The images on which a method is calibrated, bytes ``(n, 3, H, W)``.

    Raises:
        InputError: they are not there, or some of those that are shown are among them.
    """
    own = row.data or config.data
    source, skip = chosen.data or own, chosen.skip
    if skip is None:
        skip = config.skip + config.images if source == own else 0
    found = load(source, chosen.images, row.size or config.size, chosen.choose, skip=skip).pixels
    if shown is not None:
        both = {*map(hash_of_image, found)} & {*map(hash_of_image, shown.pixels)}
        if both:
            raise InputError(
                f"{len(both)} of the images that the intervals are calibrated on are shown as "
                "well; set calibration.skip, or calibration.data to others."
            )
    return found.numpy()


@dataclass(frozen=True)
class _Cells:
    """The cells of one method in one row."""

    config: Config
    row: Row
    method: Method
    device: str
    networks: tuple[str, ...]
    held_out: NDArray[np.uint8] | None

    def add(self, plan: Plan, images: Images | None, fault: str, fitted: Mapping[str, int]) -> None:
        """Add them to a plan, or what is missing for them."""
        missing, failure, prior, weights = missing_solver(self.method) or fault, "", None, ""
        if not missing:
            try:
                prior = prior_of(self.method, self.row.priors.over(self.config.priors))
            except InputError as error:
                failure = str(error)
        if prior is not None:
            try:
                weights = hash_of_prior(prior)
            except InputError as error:  # a model that may be there the next time
                missing = str(error)
        names = [NOWHERE] if images is None else images.names
        hashes = [""] if images is None else [hash_of_image(x) for x in images.pixels]
        status, reason = ("missing", missing) if missing else ("failed", failure)
        for seed in self.config.seeds:
            keys = [self._key(seed, weights, content) for content in hashes]
            for key, name in zip(keys, names, strict=True):
                plan.labels.append(Label(key, self.row.label, self.method.label, name))
                if reason:
                    labels = key, self.row.label, self.method.label, name
                    plan.known.append(Entry(*labels, seed, status, reason, {}))
            if not reason and images is not None:
                plan.units += self._units(images, hashes, keys, seed, prior, fitted)

    def _key(self, seed: int, weights: str, content: str) -> str:
        method = {"solver": self.method.solver, "settings": self.method.all_settings}
        sampler = self.method.settings.get("sampler")
        return key_of(
            {
                "code": hash_of_code(),
                "device": torch.device(self.device).type,
                "task": [self.row.task, self.row.parameters],
                "method": {**method, "preset": self.method.preset, **self._calibration},
                "weights": [weights, hash_of_prior(sampler) if isinstance(sampler, str) else ""],
                "image": content or [self.row.data, self.config.data],
                "seed": seed,
                "half": self.config.half,
                "networks": sorted(self.networks),
            }
        )

    @cached_property
    def _calibration(self) -> dict[str, Any]:
        """What the calibration depends on, for the key."""
        chosen = self.method.calibration
        if chosen is None:
            return {}
        if self.held_out is None:  # what is missing is told by its name
            return {"calibration": chosen.model_dump()}
        settings = chosen.model_dump(include={"level", "delta", "groups"})
        return {"calibration": [settings, [*map(hash_of_image, torch.tensor(self.held_out))]]}

    def _units(
        self,
        images: Images,
        hashes: list[str],
        keys: list[str],
        seed: int,
        prior: str | None,
        fitted: Mapping[str, int],
    ) -> Iterator[Unit]:
        """Batches whose bounds do not depend on what is there already."""
        shape = tuple(images.pixels.shape[1:])
        place = place_of_batches(self.method, prior, shape, self.device, self.config.half)
        size = min(self._at_once(images), fitted.get(place, math.inf))
        kept = self.config.pictures if seed == self.config.seeds[0] else 0
        for start in range(0, len(keys), int(size)):
            part = slice(start, start + int(size))
            yield Unit(
                row=self.row,
                method=self.method,
                seed=seed,
                prior=prior,
                names=tuple(images.names[part]),
                hashes=tuple(hashes[part]),
                keys=tuple(keys[part]),
                pixels=images.pixels[part].numpy(),
                kept=tuple(i < kept for i in range(start, start + len(keys[part]))),
                networks=self.networks,
                half=self.config.half,
                held_out=self.held_out,
            )

    def _at_once(self, images: Images) -> int:
        place = torch.device(self.device)
        floats = 4 * images.pixels[0].numel()
        room = SHARE * memory_of(place) / (SURELY * floats)
        most = self.config.batch or _MOST.get(place.type, 16)
        return int(max(1, min(most, room)))


def _facts(
    config: Config, device: str, priors: list[str], words: str, notes: list[str]
) -> dict[str, Any]:
    """What a report says of a run."""
    printed = [column for columns in config.printed.values() for column in columns]
    columns = dict.fromkeys([*(method.label for method in config.solvers), *printed])
    return {
        "title": config.title,
        "source": config.source,
        "machine": machine(device),
        "version": version(),
        "rows": [row.label for row in config.rows],
        "solvers": list(columns),
        "metrics": config.metrics,
        "printed": config.printed,
        "prior": ", ".join(priors),
        "images": words,
        "notes": notes,
        "config": config.model_dump(mode="json"),
    }
