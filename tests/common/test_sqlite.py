"""Several processes open one new file of ours in the same moment: each gets it, none is told that it is locked."""

from __future__ import annotations

import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from client.index import Index
from common.sqlite import use_wal

PROCESSES = 8
FILES = 150


def _open(path: Path) -> int:
    with Index(path) as index:
        return len(index.images())


def test_eight_processes_open_a_new_index_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        for number in range(FILES):
            path = tmp_path / str(number) / "index.sqlite"
            assert list(pool.map(_open, [path] * PROCESSES)) == [0] * PROCESSES


def test_a_file_that_another_holds_for_longer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "held.sqlite"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    other = sqlite3.connect(path, timeout=0.01, isolation_level=None)
    try:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            use_wal(other, 0.05)
    finally:
        other.close()
        holder.close()


def test_a_file_that_is_not_a_database_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "not.sqlite"
    path.write_bytes(b"\x00not a database" * 100)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            use_wal(db, 60)
    finally:
        db.close()
