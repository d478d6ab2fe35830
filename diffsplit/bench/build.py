"""From a YAML document and changes of its fields to a benchmark that is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from diffsplit.bench.config import Config
from diffsplit.bench.lines import Document
from diffsplit.errors import InputError

__all__ = ["build"]


def build(document: Document, changes: Sequence[str] = ()) -> Config:
    """The benchmark of a YAML document with some of its fields set otherwise.

    Args:
        changes: ``KEY=VALUE``, with dots in the key for what is further inside, and the value as
            YAML would have it.

    Raises:
        InputError: something is wrong; the message names the file, the line and the field.
    """
    values = _changed(document.values, changes)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = [part for part in first["loc"] if isinstance(part, int | str)]
        changed = next((c for c in changes if _is_inside(field, c.partition("=")[0])), None)
        place = document.place(field) if changed is None else f"--set {changed}"
        name = ".".join(map(str, field))
        colon = f": {name}" if name else ""
        raise InputError(f"{place}{colon}: {_reason(dict(first))}.") from error


def _reason(error: Mapping[str, Any]) -> str:
    """What is wrong with a field, in a few words."""
    words = {"missing": "this field is missing", "extra_forbidden": "there is no such field"}
    message = words.get(error["type"], str(error["msg"]).removeprefix("Value error, "))
    shown = isinstance(error.get("input"), str | int | float) and error["type"] != "value_error"
    given = f", not {error['input']!r:.40}" if shown and error["type"] not in words else ""
    return message[:1].lower() + message[1:] + given


def _is_inside(field: Sequence[str | int], key: str) -> bool:
    parts = key.strip().split(".")
    return [str(part) for part in field[: len(parts)]] == parts


def _changed(values: Any, changes: Sequence[str]) -> Any:
    """A copy of the values with the changes made."""
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {change:.60}: give KEY=VALUE, such as images=20.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {change:.60}: the value is not valid YAML.") from error
        values = _with(values, key.strip().split("."), value, change)
    return values


def _with(values: Any, parts: Sequence[str], value: Any, change: str) -> Any:
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if isinstance(values, list):
        if not part.isdigit() or int(part) >= len(values):
            raise InputError(
                f"--set {change:.60}: {part!r} is no number from 0 to {len(values) - 1} of a list."
            )
        index = int(part)
        return [_with(v, rest, value, change) if i == index else v for i, v in enumerate(values)]
    inside = values if isinstance(values, dict) else {}
    return {**inside, part: _with(inside.get(part), rest, value, change)}
