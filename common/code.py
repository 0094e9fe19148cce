"""What code is running here: one digest over the files of the packages both sides share.

A message carries the sender's digest, and the receiver compares its own. So a stale checkout, or
another project's top-level `client` first on the import path, is noticed before it touches anything.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Final

from common.errors import FederationError
from common.types import Digest

PACKAGES: Final = ("common", "client", "server")
SUFFIXES: Final = (".py", ".toml")
"""Code and the data that steers it; what an app bundle may hold of either."""


@functools.cache
def code_digest() -> Digest:
    """SHA-256 over path and content of every file of our packages, as this process would load them.

    Raises:
        FederationError: code `code-missing` when one of the packages cannot be found.
    """
    state = hashlib.sha256()
    for package in PACKAGES:
        root = _folder(package)
        for path in files(root):
            name = f"{package}/{path.relative_to(root).as_posix()}".encode()
            content = path.read_bytes()
            state.update(b"%d:%s%d:" % (len(name), name, len(content)))
            state.update(content)
    return Digest("sha256:" + state.hexdigest())


def files(root: Path) -> list[Path]:
    """The files of one package that count, sorted by their path."""
    found = [p for p in root.rglob("*") if p.suffix in SUFFIXES and "__pycache__" not in p.parts]
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FederationError(
            f"package {package}",
            "it is not installed here",
            "Install the whole release",
            code="code-missing",
        )
    return Path(spec.origin).resolve().parent
