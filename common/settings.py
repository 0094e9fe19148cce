"""Settings: a TOML file, overridable key by key from the environment.

`CONSILIUM__SECTION__KEY=value` replaces `key` in `[section]`; the value is read as TOML where it
parses and as plain text otherwise. Secrets come as `*_FILE` keys: a path, never the secret itself.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from common.errors import SettingsError

PREFIX: Final = "CONSILIUM__"
T = TypeVar("T")


def load_settings(path: Path, kind: type[T], environ: Mapping[str, str] | None = None) -> T:
    """Read `path`, lay the environment over it, and validate as `kind` (a pydantic dataclass).

    Raises:
        SettingsError: naming the file or variable, every wrong key, and the remedy.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            path.name, "the file is not there", "Run `init` first, or give its folder"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise SettingsError(
            path.name, "the file is not readable TOML", "Check its rights and its syntax"
        ) from None
    overlay(raw, os.environ if environ is None else environ)
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)
        )
        raise SettingsError(path.name, wrong, "Correct these keys") from None


def overlay(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Lay every `CONSILIUM__SECTION__KEY` of the environment over `raw`, in place.

    Raises:
        SettingsError: naming a variable that does not lead to a key of a section.
    """
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX):
            continue
        *sections, key = name.removeprefix(PREFIX).lower().split("__")
        target: Any = raw
        for section in sections:
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict) or not key or "" in sections:
            raise SettingsError(
                name, "it leads to no key of a section", f"Write it as {PREFIX}SECTION__KEY, or unset it"
            )
        target[key] = _value(text)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
