"""What a program that sees patients says, on its way to its log: lines of `common.logs`, and nothing else.

A parser, a library or a traceback may quote a patient's name. A line that is not one of ours, or whose fields are
not all allowed, is withheld and counted.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

from common.logs import REFUSED, allowed

_CHUNK_BYTES: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 14
_OURS: Final = ("time", "level", "room", "event", "exception")
_WORD: Final = re.compile(r"[A-Za-z0-9._:+-]{0,60}")


class Spoken:
    """Reads the end of a pipe without waiting and appends what may be kept to a log."""

    def __init__(self, reading: int, path: Path) -> None:
        os.set_blocking(reading, False)
        self._reading = reading
        self._path = path
        self._rest = b""

    def write(self) -> None:
        """Move what has come to the log; a log that cannot be written loses lines, never the program."""
        try:
            while chunk := os.read(self._reading, _CHUNK_BYTES):
                self._rest += chunk
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        self._rest = self._rest[-_LONGEST_LINE:]
        self._append(lines)

    def close(self) -> None:
        """The last words, then no more."""
        self.write()
        self._append([self._rest] if self._rest else [])
        os.close(self._reading)

    def _append(self, lines: list[bytes]) -> None:
        said = [line for line in lines if line.strip()]
        kept = [line for line in said if is_ours(line)]
        if withheld := len(said) - len(kept):
            kept.append(json.dumps({"event": "withheld", "count": withheld}).encode())
        if not kept:
            return
        try:
            with self._path.open("ab") as log:
                log.write(b"\n".join(kept) + b"\n")
        except OSError:
            return


def is_ours(line: bytes) -> bool:
    """Whether a line is one of `common.logs` with nothing in it that may not be said."""
    try:
        said = json.loads(line)
        words = [said.get(key, "") for key in _OURS]
        rest = {key: value for key, value in said.items() if key not in _OURS}
    except (ValueError, AttributeError):
        return False
    plain = all(isinstance(word, str) and _WORD.fullmatch(word) for word in words)
    return plain and all(allowed(key, value) or value == REFUSED for key, value in rest.items())
