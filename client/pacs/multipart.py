"""multipart/related as a stream: one part after the other, never two in memory (RFC 2046, PS3.18 8.6.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message
from typing import Final

MAX_HEAD_BYTES: Final = 16 * 2**10
_BLANK: Final = b"\r\n\r\n"


class Broken(Exception):
    """The stream is not multipart, or ends in the middle; our caller says it by name."""


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart type; None for any other type."""
    parsed = Message()
    parsed["Content-Type"] = content_type
    boundary = parsed.get_boundary()
    if parsed.get_content_maintype() != "multipart" or not boundary:
        return None
    return boundary.encode("ascii", "replace")


def parts(pieces: Iterable[bytes], boundary: bytes) -> Iterator[Iterator[bytes]]:
    """Each part as an iterator over the pieces of its body; read it to its end before the next.

    Raises:
        Broken: while reading, when the stream is not whole.
    """
    stream = _Stream(iter(pieces))
    delimiter = b"\r\n--" + boundary
    # The first delimiter may stand at the very beginning: a line break of ours makes it like the others.
    stream.held[:0] = b"\r\n"
    for _ in stream.until(delimiter):
        pass
    while not stream.ends():
        stream.head()
        body = stream.until(delimiter)
        yield body
        for _ in body:
            pass


class _Stream:
    """The pieces, with what was read and not yet given out."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.held = bytearray()

    def ends(self) -> bool:
        """Whether the delimiter just passed was the last."""
        self._need(2)
        return self.held.startswith(b"--")

    def head(self) -> None:
        """Pass the header of a part."""
        while (at := self.held.find(_BLANK)) < 0:
            if len(self.held) > MAX_HEAD_BYTES:
                raise Broken
            self._more()
        del self.held[: at + len(_BLANK)]

    def until(self, delimiter: bytes) -> Iterator[bytes]:
        """Everything before the delimiter, in pieces; the delimiter itself is passed."""
        while (at := self.held.find(delimiter)) < 0:
            safe = len(self.held) - len(delimiter) + 1
            if safe > 0:
                piece = bytes(self.held[:safe])
                del self.held[:safe]
                yield piece
            self._more()
        if at:
            yield bytes(self.held[:at])
        del self.held[: at + len(delimiter)]

    def _need(self, count: int) -> None:
        while len(self.held) < count:
            self._more()

    def _more(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise Broken
        self.held += piece
