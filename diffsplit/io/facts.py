"""What people add to a measurement file: plain JSON values, not too deeply nested."""

from __future__ import annotations

import json
from typing import Any

from diffsplit.errors import InputError

__all__ = ["MAX_DEPTH", "plain_facts", "too_deep"]

MAX_DEPTH = 64
"""How deeply lists and objects may be nested, in facts and in a whole description."""


def plain_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts as a reader of the file will see them.

    Raises:
        InputError: they are no object of JSON values, hold NaN or infinity, or are too deep.
    """
    try:
        plain = json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the facts are no plain JSON values ({error}); give text, finite numbers, lists and "
            "objects of these."
        ) from error
    if not isinstance(plain, dict) or too_deep(plain, MAX_DEPTH - 1):
        raise InputError(
            f"the facts are no object of JSON values nested less than {MAX_DEPTH} deep; give a "
            "dictionary of plain values."
        )
    return plain


def too_deep(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested more than ``depth`` deep; it never recurses itself."""
    level = [value]
    for _ in range(depth):
        level = [part for item in level for part in _parts(item)]
    return bool(level)


def _parts(value: Any) -> list[Any]:
    """The lists and objects right inside a value."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in inside if isinstance(part, dict | list)]
