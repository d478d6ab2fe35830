"""``diffsplit info``: what a measurement file or a prior is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from diffsplit.cli.common import key_value_table
from diffsplit.errors import InputError

__all__ = ["info"]


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_PRIOR",
            help="A measurement file, the folder of a prior, a bundled prior's name or a hub id.",
        ),
    ],
) -> None:
    """Describe a measurement file or a prior."""
    Console().print(
        key_value_table(name, _file(Path(name)) if Path(name).is_file() else _prior(name))
    )


def _file(path: Path) -> dict[str, object]:
    from diffsplit.io.measurements import read_facts

    facts = read_facts(path)
    batch, *measurements = facts["shape"]
    return {
        "kind": f"measurements, format version {facts['version']}",
        "images": batch,
        "image shape": " × ".join(map(str, facts["image_shape"])),
        "measurements per image": " × ".join(map(str, measurements)),
        "bits per measurement": facts["bits"],
        "operator": facts["operator"],
        "channel": facts["channel"],
        "added by its writer": facts["facts"],
        "bytes of measurements": facts["payload_bytes"],
        "bytes of the file": facts["file_bytes"],
    }


def _prior(name: str) -> dict[str, object]:
    from diffsplit.priors import bundled_priors, load_prior
    from diffsplit.priors.load import HUB_ID

    if not (Path(name).exists() or name in bundled_priors() or HUB_ID.fullmatch(name)):
        raise InputError(
            f"{name}: no such measurement file or prior; give a file from diffsplit measure, one "
            f"of the bundled priors ({', '.join(bundled_priors())}), the folder of another, or a "
            "hub id of the form organization/model."
        )
    return load_prior(name).describe()
