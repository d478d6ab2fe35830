"""What the documentation calls by name is there."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

import pytest

import diffsplit as ds

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONAL = "ds.interop."
"""Names whose libraries may not be installed."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_on_a_page_is_reached_from_the_package_alone(page: Path) -> None:
    names = set(re.findall(r"\bds(?:\.[A-Za-z_]\w*)+", page.read_text("utf-8")))
    for name in sorted(names):
        assert name.split(".")[1] in ds.__all__, name
        if not name.startswith(OPTIONAL):
            attrgetter(name.removeprefix("ds."))(ds)
