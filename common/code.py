"""What code is running here: one digest over the files of the packages both sides share.

A message carries the sender's digest, and the receiver compares its own. So a stale checkout, or
another project's top-level `client` first on the import path, is noticed before it touches anything.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
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
    return digest_of(sources())


def digest_of(code: Mapping[str, bytes]) -> Digest:
    """SHA-256 over these files, in the order of their packages and paths.

    Args:
        code: path from the packages' folder, such as `common/code.py`, to content.
    """
    state = hashlib.sha256()
    for path in sorted(code, key=lambda path: (PACKAGES.index(path.partition("/")[0]), path)):
        name, content = path.encode(), code[path]
        state.update(b"%d:%s%d:" % (len(name), name, len(content)))
        state.update(content)
    return Digest("sha256:" + state.hexdigest())


def sources() -> dict[str, bytes]:
    """Every file that counts, as installed here: path, such as `common/code.py`, to content.

    Raises:
        FederationError: code `code-missing`.
    """
    found: dict[str, bytes] = {}
    for package in PACKAGES:
        root = _folder(package)
        found |= {f"{package}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in files(root)}
    return found


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
