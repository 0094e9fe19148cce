"""What a real process did to its files, in order, as strace saw it; for replaying a power failure anywhere.

Nothing of ours and nothing of SQLite's is replaced: the process under test is the real code with the
real library, and every write, sync, truncate, rename and delete of the watched folder is recorded at the
border to the operating system, with its bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink,rename,"
    # Nothing we run does these to a watched file; if it ever does, the recorder says so.
    "creat,writev,pwritev,sync_file_range,truncate,unlinkat,renameat,renameat2,link,linkat,fallocate,copy_file_range"
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<.*>)?(?: .*)?$")
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_ENDED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")


@dataclass(frozen=True)
class Op:
    """One thing that was done to a file, at its place in the order."""

    kind: str
    """`write`, `truncate`, `sync`, `create`, `unlink`, `rename`, or `mark`."""
    path: str
    """Relative to the watched folder; of a mark, its text."""
    offset: int = 0
    data: bytes = b""
    to: str = ""


def record(command: Sequence[str | Path], folder: Path, marks: Path) -> list[Op]:
    """Run a command to its end and give what it did under `folder`; a line written to `marks` is a mark.

    Skips when strace is not here; where CI is set it must be.
    """
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed")
        pytest.skip("strace is not installed")
    trace = marks.with_suffix(".strace")
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
    # So that no string is cut short: the largest write of a round is the whole update.
    options = ["-f", "--seccomp-bpf", "-y", "-xx", "-s", "50000000", "-e", f"trace={_CALLS}"]
    subprocess.run([strace, *options, "-o", trace, *command], check=True, timeout=240)
    return list(_ops(trace, os.path.realpath(folder), os.path.realpath(marks), sizes))


class _Files:
    """Open files of the recorded process, so that a plain write is known to be where it is."""

    def __init__(self, folder: str, marks: str) -> None:
        self._folder = folder
        self._marks = marks
        self._at: dict[int, int] = {}
        self._append: set[int] = set()
        self._size: dict[str, int] = {}

    def ops(self, name: str, arguments: str, result: int) -> Iterator[Op]:
        """What one call did under the folder."""
        if name == "openat":
            yield from self._opened(arguments, result)
        elif name in ("write", "pwrite64"):
            yield from self._written(name, arguments)
        elif name in ("fsync", "fdatasync", "ftruncate"):
            yield from self._whole(name, arguments)
        elif name in ("unlink", "rename"):
            paths = [self._inside(os.fsdecode(text)) for text in _texts(arguments)]
            if None not in paths:
                if name == "rename":
                    self._size[paths[1]] = self._size.pop(paths[0], 0)
                else:
                    self._size.pop(paths[0], None)
                yield Op(name, paths[0], to=paths[1] if name == "rename" else "")
        elif self._folder in arguments or self._folder.encode().hex() in arguments.replace("\\x", ""):
            raise AssertionError(f"the recorder does not know {name} on a watched file")

    def _opened(self, arguments: str, fd: int) -> Iterator[Op]:
        path = self._inside(os.fsdecode(_texts(arguments.split(">", 1)[1])[0]))
        self._at[fd] = 0
        self._append.discard(fd)
        if "O_APPEND" in arguments:
            self._append.add(fd)
        if path is None or "O_CREAT" not in arguments:
            return
        yield Op("create", path)
        if "O_TRUNC" in arguments:
            self._size[path] = 0
            yield Op("truncate", path, 0)

    def _written(self, name: str, arguments: str) -> Iterator[Op]:
        fd, raw = _fd(arguments)
        data = _texts(arguments.split(">", 1)[1])[0]
        if raw == self._marks:
            for line in data.decode().splitlines():
                yield Op("mark", line)
            return
        path = self._inside(raw)
        if path is None:
            return
        at = int(arguments.rsplit(",", 1)[1]) if name == "pwrite64" else self._at.get(fd, 0)
        if fd in self._append:
            at = self._size.get(path, 0)
        if name == "write":
            self._at[fd] = at + len(data)
        self._size[path] = max(self._size.get(path, 0), at + len(data))
        yield Op("write", path, at, data)

    def _whole(self, name: str, arguments: str) -> Iterator[Op]:
        path = self._inside(_fd(arguments)[1])
        if path is None:
            return
        if name == "ftruncate":
            self._size[path] = int(arguments.rsplit(",", 1)[1])
            yield Op("truncate", path, self._size[path])
        else:
            yield Op("sync", path)

    def _inside(self, path: str) -> str | None:
        if path == self._folder:
            return ""
        return path[len(self._folder) + 1 :] if path.startswith(self._folder + "/") else None


def _ops(trace: Path, folder: str, marks: str, sizes: dict[str, int]) -> Iterator[Op]:
    files = _Files(folder, marks)
    files._size.update(sizes)
    waiting: dict[tuple[str, str], str] = {}
    for read in trace.read_text().splitlines():
        line = read
        if begun := _BEGUN.match(line):
            waiting[begun[1], begun[2]] = begun[3]
            continue
        if ended := _ENDED.match(line):
            line = f"{ended[1]} {ended[2]}({waiting.pop((ended[1], ended[2]))}{ended[3]}"
        call = _LINE.match(line)
        if call and int(call[4]) >= 0:
            yield from files.ops(call[2], call[3], int(call[4]))


def _fd(arguments: str) -> tuple[int, str]:
    number, _, rest = arguments.partition("<")
    return int(number), os.fsdecode(_bytes(rest.partition(">")[0]))


def _texts(arguments: str) -> list[bytes]:
    return [_bytes(text) for text in re.findall(r'"([^"]*)"', arguments)]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
