"""The store of a benchmark: what was added is there whole, or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import torch

from diffsplit.bench.store import STORE_NAME, Entry, Label, Store
from diffsplit.errors import InputError


def entry(key: str, status: str = "done") -> Entry:
    return Entry(key, "row", "solver", "cat.png", 0, status, "", {"psnr": 20.5})


def picture(value: int) -> torch.Tensor:
    return torch.full((3, 4, 5), value, dtype=torch.uint8)


def test_an_entry_and_its_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    with Store.open(tmp_path, write=True) as store:
        store.add(entry("a"), {"truth": picture(7), "answer": picture(200)})
    with Store.open(tmp_path) as store:
        assert store.entries() == [entry("a")]
        found = store.pictures("a")
        assert torch.equal(found["truth"], picture(7))
        assert torch.equal(found["answer"], picture(200))
        assert store.pictures("b") == {}


def test_an_entry_whose_pictures_cannot_be_kept_is_not_kept_either(tmp_path: Path) -> None:
    with Store.open(tmp_path, write=True) as store:
        with pytest.raises(InputError, match="to_uint8"):
            store.add(entry("a"), {"truth": torch.zeros(3, 4, 4)})
        assert store.entries() == []


def test_an_error_in_the_middle_of_a_transaction_leaves_nothing_of_it(tmp_path: Path) -> None:
    with Store.open(tmp_path, write=True) as store:
        store.add(entry("a"))
        store._connection.execute("DROP TABLE blobs")
        with pytest.raises(sqlite3.OperationalError):
            store.add_all([(entry("b"), {}), (entry("c"), {"truth": picture(1)})])
        assert [e.key for e in store.entries()] == ["a"]


def test_the_plan_says_which_entries_a_run_has_and_how_they_are_called(tmp_path: Path) -> None:
    with Store.open(tmp_path, write=True) as store:
        for key in "abc":
            store.add(entry(key))
        labels = [Label("c", "first", "other", "x.png"), Label("a", "row", "solver", "y.png")]
        store.plan(labels, {"rows": ["×4", "σ 0.5"]})
        assert [(e.key, e.row, e.image) for e in store.entries()] == [
            ("c", "first", "x.png"),
            ("a", "row", "y.png"),
        ]
        assert store.keys() == {"a", "b", "c"}
        assert store.facts() == {"rows": ["×4", "σ 0.5"]}


def test_what_misses_a_solver_counts_as_not_there(tmp_path: Path) -> None:
    with Store.open(tmp_path, write=True) as store:
        store.add_all([(entry("a", "missing"), {}), (entry("b", "failed"), {})])
        assert store.keys() == {"b"}


def test_a_picture_that_entries_share_is_kept_once(tmp_path: Path) -> None:
    with Store.open(tmp_path, write=True) as store:
        for key in "abc":
            store.add(entry(key), {"truth": picture(9)})
        assert store._connection.execute("SELECT count(*) FROM blobs").fetchone() == (1,)


def test_a_folder_without_results_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        Store.open(tmp_path)
    (tmp_path / STORE_NAME).write_text("no database at all, but long enough to be looked at")
    with pytest.raises(InputError, match="cannot be used as a store"):
        Store.open(tmp_path, write=True)
    with pytest.raises(InputError, match="cannot be used as a store"):
        Store.open(tmp_path)


def test_others_read_while_one_writes(tmp_path: Path) -> None:
    with Store.open(tmp_path, write=True) as writer:
        writer.add(entry("a"))
        with Store.open(tmp_path) as reader:
            writer._connection.execute("BEGIN IMMEDIATE")
            assert [e.key for e in reader.entries()] == ["a"]
            writer._connection.execute("ROLLBACK")
