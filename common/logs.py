"""Structured logging through which no patient attribute can pass.

A log line is an event name and fields from a closed list. There is no free text: a value is a
finite number, a digest, or a short word that matches the field's own pattern. Whatever does not
fit is replaced by `refused`, and the line still goes out, so that a mistake is seen and harmless.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from pathlib import Path
from typing import Any, Final, TextIO

_WORD: Final = re.compile(r"^[a-z0-9][a-z0-9._:/-]{0,79}$")
_NUMBER_FIELDS: Final = frozenset(
    [
        "round",
        "rounds",
        "images",
        "patients",
        "files",
        "bytes",
        "seconds",
        "steps",
        "epsilon",
        "delta",
        "sites",
        "expected",
        "count",
        "attempt",
        "exit_status",
        "port",
        "weight",
        "norm",
        "threshold",
        "workers",
        "kept",
        "pseudonym",
        "uid",
        "shifted",
        "generalised",
        "emptied",
        "entered",
        "removed",
        "private_removed",
        "blanked",
        "other",
    ]
)
_WORD_FIELDS: Final = frozenset(
    [
        "site",
        "run",
        "arm",
        "plan",
        "code",
        "stage",
        "kind",
        "digest",
        "status",
        "state",
        "version",
        "strategy",
        "model",
        "device",
        "study",
        "quarantine",
        "reason",
        "note",
        "methods",
        "user",
        "to",
    ]
)
_FIELDS: Final = _NUMBER_FIELDS | _WORD_FIELDS
EVENT: Final = re.compile(r"^[a-z][a-z0-9_.]{0,59}$")
"""The form of an event's name."""
REFUSED: Final = "refused"
_ROOMS: Final = ("common", "client", "server", "simulations")


def allowed(field: str, value: object) -> bool:
    """Whether this value may stand in this field of a log line."""
    if field in _NUMBER_FIELDS:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if field in _WORD_FIELDS:
        return isinstance(value, str) and _WORD.fullmatch(value) is not None
    return False


class Log:
    """A logger for one room of the house, e.g. `Log("client.intake")`."""

    def __init__(self, room: str) -> None:
        self._logger = logging.getLogger(f"consilium.{room}")

    def info(self, event: str, **fields: object) -> None:
        """Something happened as it should."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something a person should look at; the work goes on."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something failed."""
        self._emit(logging.ERROR, event, fields)

    def _emit(self, level: int, event: str, fields: dict[str, object]) -> None:
        name = event if EVENT.fullmatch(event) else REFUSED
        safe = {k: (v if allowed(k, v) else REFUSED) for k, v in fields.items() if k in _FIELDS}
        unknown = len(fields) - len(safe)
        if unknown:
            safe["count"] = unknown
            safe["code"] = "unknown-field"
        self._logger.log(level, name, extra={"fields": safe})


def place_of(error: BaseException) -> str:
    """The last line of our own code that an error went through, as `server/rounds.py:120`; `elsewhere` without one."""
    place = "elsewhere"
    for frame, line in traceback.walk_tb(error.__traceback__):
        parts = Path(frame.f_code.co_filename).parts[-3:]
        ours = [number for number, part in enumerate(parts) if part in _ROOMS]
        if ours:
            place = f"{'/'.join(parts[ours[0] :])}:{line}".lower()
    return place


def unforeseen(log: Log, event: str, error: BaseException, **fields: object) -> None:
    """An error that is none of ours: its kind and where it came through, never its words."""
    log.error(event, kind=type(error).__name__.lower(), note=place_of(error), **fields)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; for records that are not ours, only their logger and level."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record; messages and tracebacks of other libraries are withheld."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "room": record.name,
        }
        fields = getattr(record, "fields", None)
        if record.name.startswith("consilium.") and isinstance(fields, dict):
            # Checked again here: a caller can reach the logger of a room without its `Log`.
            event = record.getMessage()
            line["event"] = event if EVENT.fullmatch(event) else REFUSED
            line.update({k: v if allowed(k, v) else REFUSED for k, v in fields.items() if k in _FIELDS})
        else:
            line["event"] = "foreign"
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line)


def configure_ours() -> None:
    """Send our own lines through the safe formatter in a process whose other lines are somebody else's."""
    logger = logging.getLogger("consilium")
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Of others only warnings, also where their logger has a level of its own: their lines have lost their words."""
    return record.name.startswith("consilium.") or record.levelno >= logging.WARNING


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log line and warning of this process, ours or not, through the safe formatter.

    Each command line does so before anything else; a parser's warning may quote a patient's name.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_worth_a_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("consilium").setLevel(level)
    logging.captureWarnings(capture=True)
