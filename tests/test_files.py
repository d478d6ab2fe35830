from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from diffsplit.errors import InputError
from diffsplit.io.files import atomic_folder, atomic_write


def test_atomic_write_leaves_the_old_file_and_nothing_else_after_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with suppress(KeyboardInterrupt), atomic_write(target) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_write_replaces_with_the_permissions_of_a_plain_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "x.txt") as temporary:
        temporary.write_text("new")
    (tmp_path / "plain.txt").write_text("new")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
    assert (tmp_path / "x.txt").read_text() == "new"


def test_atomic_write_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="no such folder"),
        atomic_write(tmp_path / "none" / "x.txt"),
    ):
        pass


@pytest.mark.parametrize("suffix", [".txt", "." + "x" * 200])
def test_the_longest_names_that_a_file_may_have_can_be_written(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / ("n" * (255 - len(suffix)) + suffix)
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_folders_pipes_and_devices_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "folder", "null"):
        with pytest.raises(InputError, match="no plain file"), atomic_write(tmp_path / name):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "folder", "null"}


def test_a_folder_gets_all_files_or_none_and_keeps_its_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b)))

    def write(text: str, fail: bool) -> None:
        with atomic_folder(folder, last="a.json") as temporary:
            (temporary / "deep").mkdir()
            for name in ("a.json", "deep/a.json", "z.bin"):
                (temporary / name).write_text(text)
            if fail:
                raise KeyboardInterrupt

    write("old", fail=False)
    (folder / "kept.txt").write_text("mine")
    with suppress(KeyboardInterrupt):
        write("half", fail=True)
    write("new", fail=False)
    assert order[:3] == order[3:] == ["a.json", "z.bin", "a.json"]
    found = {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}
    assert found == {"a.json": "new", "deep/a.json": "new", "z.bin": "new", "kept.txt": "mine"}
    (tmp_path / "plain.txt").write_text("")
    modes = {f.stat().st_mode for f in tmp_path.rglob("*") if f.is_file()}
    assert len(modes) == 1


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="is a file"), atomic_folder(tmp_path / "x", last="a"):
        pass
