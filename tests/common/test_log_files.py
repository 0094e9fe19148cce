"""Processes that write for months: does a log stay small, and does whoever holds it open go on writing into it?"""

from __future__ import annotations

import io
import logging
import sys
import time

from common.log_files import Bounded, bound
from common.logs import configure
from common.supervisor import Program, Supervisor

TALKS = """
import sys, time
while True:
    sys.stdout.write("x" * 1023 + "\\n")
    sys.stdout.flush()
    time.sleep(0.001)
"""


def test_a_log_that_grew_too_large_is_emptied_under_its_writer_and_one_copy_is_kept(tmp_path):
    log, small = tmp_path / "a.log", tmp_path / "b.log"
    small.write_text("little")
    with log.open("ab", buffering=0) as writer:
        for turn in range(3):
            writer.write(bytes([65 + turn]) * 3000)
            assert bound([log, small, tmp_path / "none.log"], 2000) == [log]
            assert log.read_bytes() == b""
            assert (tmp_path / "a.log.1").read_bytes() == bytes([65 + turn]) * 3000
        writer.write(b"on")
    assert log.read_bytes() == b"on"
    assert small.read_text() == "little"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1", "b.log"]


def test_a_copy_is_as_closed_as_its_log_and_a_link_is_left_alone(tmp_path):
    log, other = tmp_path / "a.log", tmp_path / "elsewhere"
    log.write_bytes(b"x" * 100)
    log.chmod(0o600)
    other.write_bytes(b"y" * 100)
    (tmp_path / "link.log").symlink_to(other)
    assert bound([log, tmp_path / "link.log"], 10) == [log]
    assert (tmp_path / "a.log.1").stat().st_mode & 0o777 == 0o600
    assert other.read_bytes() == b"y" * 100


def test_a_log_that_cannot_be_copied_keeps_its_words(tmp_path):
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 100)
    (tmp_path / "a.log.1").mkdir()
    assert bound([log], 10) == []
    assert log.read_bytes() == b"x" * 100


def test_it_is_looked_now_and_then_only(tmp_path):
    log = tmp_path / "a.log"
    looks = Bounded([log], every_s=3600, largest=10)
    looks.look()
    log.write_bytes(b"x" * 100)
    looks.look()
    assert log.stat().st_size == 100, "an hour has not gone by"
    Bounded([log], every_s=3600, largest=10).look()
    assert log.stat().st_size == 0


def test_a_supervisor_keeps_the_logs_of_its_programs_small(tmp_path):
    """What a program says, and a file that it writes by itself."""
    own = tmp_path / "own.log"
    program = Program("talker", (sys.executable, "-c", TALKS), tmp_path, logs=(own,))
    kept = Supervisor([program], tmp_path)
    kept._logs._every_s, kept._logs._largest = 0.0, 50_000
    try:
        started = time.monotonic()
        own.write_bytes(b"x" * 60_000)
        while not (tmp_path / "talker.log.1").exists():
            assert time.monotonic() - started < 120
            kept.tick()
            time.sleep(0.02)
        assert own.stat().st_size == 0
        assert kept.starts("talker") == 1
    finally:
        kept.stop()
    assert (tmp_path / "talker.log.1").stat().st_size > 50_000


def test_what_others_tell_themselves_while_they_look_for_faults_is_no_line():
    """Flower's logger has a level of its own: three lines a second that have lost their words anyway."""
    told = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    foreign = logging.getLogger("flwr-like")
    try:
        configure("INFO", told)
        foreign.setLevel(logging.DEBUG)
        foreign.debug("asking")
        foreign.info("asked")
        assert told.getvalue() == ""
        foreign.warning("Canary^Maria")
        assert told.getvalue().count("\n") == 1
        assert "anary" not in told.getvalue()
    finally:
        root.handlers[:], root.level = before
        foreign.setLevel(logging.NOTSET)
        logging.captureWarnings(capture=False)
