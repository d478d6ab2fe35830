"""The benchmarks that come with the package: the tables of both papers, and cuts of them.

``diff-onebit/table-1`` is a table as its paper has it. ``diff-onebit/table-1@cats`` is the same on
the bundled cats with the bundled priors of 64×64, and ``…@faces`` on faces with those of 256×256:
FFHQ where it is found, else the bundled face.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from diffsplit.bench.build import build
from diffsplit.bench.config import Config
from diffsplit.bench.lines import read_yaml
from diffsplit.errors import InputError

__all__ = ["CUTS", "find_config", "names_of_configs"]

_FOLDER = Path(str(resources.files("diffsplit"))) / "assets" / "bench"
SHORTER: dict[str, dict[str, Any]] = {
    "dps": {"steps": 100},
    "mcg": {"steps": 100},
    "daps": {"levels": 20},
    "red-diff": {"steps": 100},
    "latent-dps": {"steps": 50},
    "psld": {"steps": 50},
    "resample": {"steps": 50, "latent_steps": 20},
}
"""Settings of a cut for solvers that take a thousand evaluations in the papers."""
CUTS: dict[str, dict[str, Any]] = {
    "cats": {
        "data": "cats",
        "unnamed": "FFHQ, ",
        "images": 8,
        "size": 64,
        "priors": {
            "denoiser": "cats-64",
            "consistency": "cats-64-consistency",
            "latent": "cats-64-latent",
        },
        "settings": SHORTER,
    },
    "faces": {
        "data": "faces",
        "images": 10,
        "size": 256,
        "priors": {
            "denoiser": "faces-256",
            "consistency": "faces-256-consistency",
            "latent": "faces-256-latent",
        },
        "settings": SHORTER,
    },
}
"""What a cut sets, over everything that a table says. A table may say more under ``cuts``, see
`_reduced`."""
_OF_ROWS = ("data", "size", "priors")
"""What a cut takes away from the rows."""


def names_of_configs() -> list[str]:
    """Of all tables, without cuts."""
    files = _FOLDER.rglob("*.yaml")
    return sorted(file.relative_to(_FOLDER).with_suffix("").as_posix() for file in files)


def find_config(name: str, changes: Sequence[str] = ()) -> Config:
    """The benchmark of a YAML file or of a name.

    Args:
        name: a path, or one of `names_of_configs`, with ``@cats`` or ``@faces`` or without.
        changes: see `build.build`.

    Raises:
        InputError: there is none of that name, or something in it is wrong.
    """
    path, cut = Path(name), ""
    if not path.is_file():
        table, _, cut = name.partition("@")
        if table not in names_of_configs() or (cut and cut not in CUTS):
            raise InputError(
                f"{name:.200}: no such file and no benchmark of that name; give a YAML file or one "
                f"of {', '.join(names_of_configs())}, perhaps with {' or '.join(_at())} behind it."
            )
        path = _FOLDER / f"{table}.yaml"
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a YAML file.") from error
    document = read_yaml(text, str(path))
    values = dict(document.values)
    own = values.pop("cuts", None) or {}
    if cut:
        common, special = CUTS[cut], own.get(cut, {})
        settings = {**common["settings"], **special.get("settings", {})}
        values = _reduced(values, {**common, **special, "settings": settings})
        papers = ", the paper's values on its own data" if values["printed"] else ""
        values["title"] = f"{values['title']} (here on {cut}{papers})"
    return build(document.with_values(values), changes)


def _at() -> list[str]:
    return [f"@{cut}" for cut in CUTS]


def _reduced(values: dict[str, Any], cut: dict[str, Any]) -> dict[str, Any]:
    """A table on other data: rows that differ in their data alone become one.

    Args:
        cut: fields to set; and ``without``, labels of solvers to leave out, ``settings``, more of
            them by the name of a solver, and ``unnamed``, what labels of rows do not begin with,
            since the data are others.
    """
    without, settings = cut.pop("without", []), cut.pop("settings", {})
    prefix = cut.pop("unnamed", "")
    values = {**values, **cut}
    rows: dict[str, dict[str, Any]] = {}
    for row in values["rows"]:
        task = {k: v for k, v in row.items() if k not in (*_OF_ROWS, "label")}
        label = row["label"].removeprefix(prefix)
        rows.setdefault(repr(sorted(task.items())), {"label": label, **task})
    labels = [row["label"] for row in rows.values()]
    methods = []
    for method in values["solvers"]:
        served = [label.removeprefix(prefix) for label in method.get("rows") or labels]
        kept = [label for label in served if label in labels]
        if not kept or method["label"] in without:
            continue
        if method["solver"] in settings:
            own = {**method.get("settings", {}), **settings[method["solver"]]}
            method = {**method, "settings": own}
        methods.append({**method, "rows": kept} if "rows" in method else method)
    printed = {k.removeprefix(prefix): v for k, v in values.get("printed", {}).items()}
    printed = {k: v for k, v in printed.items() if k in labels}
    return {**values, "rows": list(rows.values()), "solvers": methods, "printed": printed}
