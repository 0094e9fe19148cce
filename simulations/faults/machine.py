"""What a federation on this machine needs of it: ports, processes by name, and a copy of the code that nobody edits."""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from common.code import PACKAGES

_ROOT: Final = Path(__file__).resolve().parents[2]


def copied(folder: Path) -> Path:
    """The code as it is now, in a folder of its own; gives the folder."""
    for package in (*PACKAGES, "simulations"):
        shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_ROOT / "pyproject.toml", folder)
    return folder


def bucket(settings: Path, patients: int) -> None:
    """Put a public number of patients into a hospital's settings."""
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("patients_bucket")]
    place = lines.index("[site]") + 1
    settings.write_text("\n".join([*lines[:place], f"patients_bucket = {patients}", *lines[place:], ""]))


def child(parent: int, name: str) -> int | None:
    """A running child of a process whose command line holds this name."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            after = stat.read_text().rpartition(")")[2].split()
            if int(after[1]) == parent and after[0] != "Z" and name in (stat.parent / "cmdline").read_text():
                return int(stat.parent.name)
    return None


def free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens at."""
    while True:
        with ExitStack() as open_:
            first = open_.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            ports = [first.getsockname()[1] + number for number in range(count)]
            try:
                for port in ports[1:]:
                    open_.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return ports


def listening(port: int) -> bool:
    """Whether somebody takes connections at this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
