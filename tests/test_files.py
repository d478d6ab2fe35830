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


@pytest.mark.parametrize("name", ["x.txt", "n" * 251 + ".txt", "n" * 54 + "." + "x" * 200])
def test_atomic_write_replaces_any_file_with_the_permissions_of_a_plain_one(
    tmp_path: Path, name: str
) -> None:
    for text in ("old", "new"):
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text(text)
    (tmp_path / "plain.txt").write_text("new")
    assert (tmp_path / name).read_text() == "new"
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_folders_pipes_and_devices_are_not_replaced_and_bad_paths_are_refused(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "folder", "null", "none/x.txt", "n" * 300, "/proc/x.txt"):
        with pytest.raises(InputError), atomic_write(tmp_path / name):
            pass
    with pytest.raises(InputError), atomic_write(3):  # type: ignore[arg-type]
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
    assert len({f.stat().st_mode for f in tmp_path.rglob("*") if f.is_file()}) == 1
    with pytest.raises(InputError, match="is a file"), atomic_folder(tmp_path / "plain.txt", "a"):
        pass
