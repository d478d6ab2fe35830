"""YAML that remembers its lines, so that a message can name the one that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from diffsplit.errors import InputError

__all__ = ["Document", "read_yaml"]


class Document:
    """The values of a YAML text, and where each of them stands.

    Attributes:
        name: of the file, for messages.
        values: plain lists, dictionaries and scalars.
    """

    def __init__(self, name: str, values: Any, root: Any) -> None:
        self.name, self.values = name, values
        self._root = root

    def with_values(self, values: Any) -> Document:
        """The same text with other values, whose fields stand where they stood."""
        return Document(self.name, values, self._root)

    def place(self, field: Sequence[str | int]) -> str:
        """``file, line N`` of a field, or of the innermost part around it that is there."""
        return f"{self.name}, line {self._line(field)}"

    def _line(self, field: Sequence[str | int]) -> int:
        node, line = self._root, self._root.start_mark.line
        for part in field:
            found = None
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(part)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                inside = node.value[part : part + 1]
                found = (inside[0], inside[0]) if inside else None
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        return int(line) + 1


def read_yaml(text: str, name: str) -> Document:
    """A YAML text with a mapping at its top.

    Args:
        name: of the file, for messages.

    Raises:
        InputError: it is no YAML, it repeats a key, or it is no mapping.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{name}: is no benchmark; write fields such as 'title: …' into it.")
        for line, key in _repeated(root, set()):
            raise InputError(f"{name}, line {line}: the field {key!r:.40} is there twice.")
        return Document(name, yaml.safe_load(text), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = name if mark is None else f"{name}, line {mark.line + 1}"
        raise InputError(f"{place}: is not valid YAML ({error.problem}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: is not valid YAML ({error!s:.80}).") from error


def _repeated(node: Any, seen: set[int]) -> Iterator[tuple[int, str]]:
    """Line and name of keys that a mapping has twice; a plain loader keeps the last in silence."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item, seen)
        return
    keys: set[str] = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                yield key.start_mark.line + 1, key.value
            keys.add(key.value)
        yield from _repeated(value, seen)
