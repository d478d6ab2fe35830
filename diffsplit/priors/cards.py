"""Published models by name: what each is, where it comes from, and where its file belongs.

A card is a YAML file in ``diffsplit/assets/models``. Files that no hub gives belong into the folder
``models`` of $DIFFSPLIT_HOME, by default ``~/.cache/diffsplit/models``.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from diffsplit.errors import InputError
from diffsplit.priors.weights import check_hash

__all__ = ["Card", "Schedule", "card_names", "home_folder", "model_card", "models_folder"]

CARDS = Path(str(resources.files("diffsplit"))) / "assets" / "models"
HOME_VARIABLE = "DIFFSPLIT_HOME"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(_Part):
    """Betas of a variance-preserving model, in the words of diffusers."""

    name: Literal["linear", "scaled_linear"]
    steps: int = Field(ge=2)
    beta_start: float = Field(gt=0, lt=1)
    beta_end: float = Field(gt=0, lt=1)


class Card(_Part):
    """What is known of a published model; None where it is not known for certain.

    Attributes:
        name: of the card.
        title: what it generates and how.
        kind: as `Prior.kind`.
        source: who published it, and where.
        license: of the weights, as its publisher states it.
        hub: its hub id; or else
        file: the name that its file has, and
        get: where that file is to be found, in words.
        sha256: of the file.
        resolution, channels: of the images.
        classes: how many it can be conditioned on.
        layout: of its files.
        data_range: of the images that the network sees.
        schedule: the betas of a variance-preserving model.
        sigma_range: the noise levels that it was trained on, in the units of what it denoises.
        config: of a guided-diffusion network, in that project's words.
    """

    name: str
    title: str
    kind: Literal["diffusion model", "consistency model", "latent diffusion model"]
    source: str
    license: str | None
    hub: str | None = None
    file: str | None = None
    get: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    resolution: int = Field(ge=1)
    channels: int = Field(ge=1)
    classes: int | None = None
    layout: Literal["diffusers", "guided-diffusion"]
    data_range: tuple[float, float] | None
    schedule: Schedule | None
    sigma_range: tuple[float, float] | None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Card:
        if (self.hub is None) == (self.file is None):
            raise ValueError("a card has either a hub id or a file")
        if self.file is not None and (self.get is None or self.config is None):
            raise ValueError("a file needs words on where to get it, and a config")
        return self

    @property
    def path(self) -> Path | None:
        """Where its file belongs; None of a model of the hub."""
        return None if self.file is None else models_folder() / self.file

    def checked_path(self) -> Path:
        """Its file, after its hash was compared where that is known.

        Raises:
            InputError: the file is missing, or it is another file.
        """
        path = self.path
        if path is None or not path.is_file():
            raise InputError(
                f"{self.name}: its file {self.file} is not in {models_folder()}; {self.get}, and "
                "put it there."
            )
        if self.sha256 is not None:
            check_hash(path, self.sha256)
        return path


def home_folder() -> Path:
    """$DIFFSPLIT_HOME, by default ``~/.cache/diffsplit``; it may not be there yet."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.cache/diffsplit").expanduser()


def models_folder() -> Path:
    """The folder of models that the user downloaded; it may not be there yet."""
    return home_folder() / "models"


def card_names() -> list[str]:
    """Names of the published models that have a card."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


@lru_cache
def model_card(name: str) -> Card:
    """The card of a published model; ``name`` is one of `card_names`."""
    facts = yaml.safe_load((CARDS / f"{name}.yaml").read_text("utf-8"))
    return Card.model_validate({"name": name, **facts})
