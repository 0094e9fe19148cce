"""Pictures of refused originals, drawn by a limited process; this one never looks into the file."""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from client.intake.folder import Incoming
from client.intake.pool import START_LIMIT_S, Limits
from common.errors import FileRefused, IntakeError

_MOST_SIDE: Final = 4096
THUMBNAIL_SIDE: Final = 256
_LINE_BYTES: Final = 4096


@dataclass(frozen=True)
class Ask:
    """Which picture: 0-based frame, one of the views of `client.review.draw`, longest side in pixels."""

    frame: int = 0
    view: str = "display"
    side: int = 1024


@dataclass(frozen=True)
class Picture:
    """One frame of an image, drawn small."""

    png: bytes
    rows: int
    """Of the image as it came; boxes are counted in these."""
    cols: int
    frames: int
    frame: int


class Painter:
    """A limited process that draws; a context manager. Several threads may ask, one is answered at a time."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def picture(self, key: str, file: Incoming, ask: Ask) -> Picture:
        """Draw one frame.

        Args:
            key: names the content, so that the same file is not decoded twice in a row.
            file: the original, opened for other processes; see `Quarantine.original`.
            ask: which picture.

        Raises:
            FileRefused: the file cannot be shown, by the code of why; `parser-crash` or `parser-limit` where it
                harmed the process or took too long.
            IntakeError: no process can be started.
        """
        with self._lock:
            person = None if file.person is None else asdict(file.person)
            side = min(max(ask.side, 16), _MOST_SIDE)
            task: dict[str, Any] = {"key": key, "path": str(file.path), "person": person}
            task |= {"frame": ask.frame, "view": ask.view, "side": side}
            try:
                said, grey = self._ask(task)
            except (OSError, ValueError, KeyError, TypeError):
                self._stop()
                raise _refused("parser-crash", "the process that drew it died") from None
        if said["code"]:
            raise _refused(str(said["code"]), str(said["rule"]))
        png = as_png(grey, said["width"], said["height"])
        return Picture(png, said["rows"], said["cols"], said["frames"], said["frame"])

    def _ask(self, task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        fresh = self._process is None
        process = self._process or self._start()
        end = time.monotonic() + self._limits.time_s + (START_LIMIT_S if fresh else 0.0)
        if process.stdin is None:
            raise OSError
        process.stdin.write(json.dumps(task).encode("ascii") + b"\n")
        process.stdin.flush()
        line, rest = self._read_line(end)
        said = json.loads(line)
        if said["code"]:
            return {"code": _word(said["code"]), "rule": str(said["rule"])[:200]}, b""
        numbers = {k: int(said[k]) for k in ("rows", "cols", "frames", "frame", "height", "width")}
        count = numbers["height"] * numbers["width"]
        if min(numbers.values()) < 0 or not 0 < count <= _MOST_SIDE**2 or int(said["bytes"]) != count:
            raise ValueError
        while len(rest) < count:
            rest += self._read(end)
        return {"code": "", **numbers}, rest[:count]

    def _read_line(self, end: float) -> tuple[bytes, bytes]:
        held = b""
        while b"\n" not in held:
            held += self._read(end)
            if len(held) > _LINE_BYTES and b"\n" not in held[:_LINE_BYTES]:
                raise ValueError
        line, _, rest = held.partition(b"\n")
        return line, rest

    def _read(self, end: float) -> bytes:
        if self._process is None or self._process.stdout is None:
            raise OSError
        answers = self._process.stdout.fileno()
        if not select.select([answers], [], [], max(0.0, end - time.monotonic()))[0]:
            self._stop()
            raise _refused("parser-limit", "drawing it takes longer than one file may take")
        piece = os.read(answers, 2**16)
        if not piece:
            raise OSError
        return piece

    def _start(self) -> subprocess.Popen[bytes]:
        home = str(Path(__file__).resolve().parents[2])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "client.review.draw"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except OSError:
            raise IntakeError(
                "the process that draws", "it does not start", "Check memory limits and the installation"
            ) from None
        self._process = process
        hello = {"parent": os.getpid(), "memory": self._limits.memory_bytes}
        if process.stdin is not None:
            process.stdin.write(json.dumps(hello).encode("ascii") + b"\n")
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        process.wait()


def as_png(grey: bytes, width: int, height: int) -> bytes:
    """An 8-bit greyscale PNG (ISO/IEC 15948) of rows of grey bytes."""
    lines = b"".join(b"\0" + grey[row * width : (row + 1) * width] for row in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_part(kind, body) for kind, body in parts)


def _part(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _word(code: object) -> str:
    """A code as we write them, whatever the other process became."""
    text = str(code)[:40]
    return text if text.replace("-", "").isalnum() else "parser-crash"


def _refused(code: str, rule: str) -> FileRefused:
    return FileRefused(
        "a picture", rule, "The image cannot be shown here; look at it in your archive", code=code
    )
