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
from diffsplit.priors import bundled_priors, card_names, load_prior, model_card, models_folder
from diffsplit.priors.load import HUB_ID, bundled_facts
from diffsplit.priors.published import pull_published

__all__ = ["PRIORS"]

Name = Annotated[str, typer.Argument(metavar="NAME")]


def list_() -> None:
    """List the priors that come with the package and the published ones that it knows by name.

    Examples:
        diffsplit priors list
    """
    table = Table("prior", "what it is", "images", "needs")
    for name in bundled_priors():
        kind, shape = bundled_facts(name)
        table.add_row(name, kind, " × ".join(map(str, shape)), "nothing: it is bundled")
    for name in card_names():
        card = model_card(name)
        size = f"{card.channels} × {card.resolution} × {card.resolution}"
        table.add_row(*map(printable, (name, card.title, size, card.missing or "nothing more")))
    Console().print(table)
    Console().print(f"Files that you download belong in {models_folder()}.", highlight=False)


def show(name: Name) -> None:
    """Show what is known of one prior: where it is from, its license, its noise levels.

    Args:
        name: Of `diffsplit priors list`.

    Examples:
        diffsplit priors show cats-64
        diffsplit priors show ffhq-256-adm
    """
    if name in card_names():
        card = model_card(name)
        facts = card.model_dump(exclude={"name"})
        shown = {key: "not known" if value is None else value for key, value in facts.items()}
        ...
    elif name in bundled_priors():
        shown = load_prior(name).describe()
