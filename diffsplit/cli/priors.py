"""``diffsplit priors list | show | pull``: the models that there are, and what each needs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from diffsplit.cli.common import printable
from diffsplit.cli.info import table_of
from diffsplit.errors import InputError
from diffsplit.priors import (
    Card,
    bundled_priors,
    card_names,
    load_prior,
    locate_prior,
    model_card,
    models_folder,
)
from diffsplit.priors.load import bundled_facts

__all__ = ["list_", "pull", "show"]

Name = Annotated[str, typer.Argument(metavar="NAME")]


def list_() -> None:
    """List the priors that come with the package, and the published ones that it knows by name.

    Examples:
        diffsplit priors list
    """
    table = Table()
    table.add_column("prior", no_wrap=True)  # names are there to be copied
    for heading in ("kind", "of what", "needs"):
        table.add_column(heading, overflow="fold")
    for name in bundled_priors():
        facts = bundled_facts(name)
        rows = name, facts["kind"], facts.get("data", ""), "nothing: it is bundled"
        table.add_row(*map(printable, rows))
    for name in card_names():
        card = model_card(name)
        table.add_row(*map(printable, (name, card.kind, card.title, _needs(card))))
    Console().print(table)
    print(f"Files that are fetched by hand belong in {models_folder()}.")


def _needs(card: Card) -> str:
    """What a user has to have for a published model, and whether it is there."""
    if card.path is None:
        return f"a download: {card.hub} of the model hub"
    library = "azula" if find_spec("azula") else "azula (pip install 'diffsplit[azula]')"
    return f"{library}, {card.file} ({'is there' if card.path.is_file() else 'not there yet'})"


def show(name: Name) -> None:
    """Show what is known of one prior: its source, its license, its noise levels.

    Args:
        name: Of a prior in `diffsplit priors list`.

    Examples:
        diffsplit priors show cats-64
        diffsplit priors show ffhq-256-adm
    """
    if name in bundled_priors():
        facts = load_prior(name).describe()
    elif name in card_names():
        card = model_card(name)
        known = card.model_dump(exclude={"name", "hub", "file", "get"}, exclude_defaults=True)
        places = {"hub": card.hub, "file": card.path, "to get it": card.get}
        unknown = {"license": "not known", "sha256": "not known"}
        facts = {**unknown, **{k: v for k, v in {**known, **places}.items() if v is not None}}
        facts["needs"] = _needs(card)
    else:
        raise InputError(
            f"{name:.200}: no such prior; `diffsplit priors list` has their names, and `diffsplit "
            "info` describes a folder."
        )
    Console().print(table_of(name, facts))


def pull(name: Name) -> None:
    """Download a prior of the model hub, or say which file to fetch and where to put it.

    A model of the hub goes into the cache of huggingface_hub. Other files belong in the folder
    models of $DIFFSPLIT_HOME, or in ~/.cache/diffsplit/models.

    Args:
        name: Of a prior in `diffsplit priors list`, or a hub id such as organization/model.

    Examples:
        diffsplit priors pull celebahq-256-ddpm
        diffsplit priors pull ffhq-256-adm
    """
    print(f"{name} is in {locate_prior(name)}.")
