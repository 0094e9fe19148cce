"""Who made a device, and which: a listed name in its listed spelling, a keyed code for any other.

Laws:
1. Nothing that is on no list is written as it stood: a person's name fits wherever a maker's does.
2. A maker is known by how its name begins and by words of business after it; a model by its maker's family, with short
   codes and listed words after it. A model of an unknown maker is unknown.
3. A code says the same name by the same letters, here and only here: devices can be told apart and not named.

`makers.toml` is the release's list. A hospital names its own machines in `[[deid.makers]]` of site.toml.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import OwnMaker
from common.errors import SettingsError

BUILT_IN: Final = Path(__file__).with_name("makers.toml")
LONGEST_FAMILY: Final = 5
"""Words of the longest beginning that is looked up."""
_CODE: Final = re.compile(r"[a-z]{0,2}\d{1,4}([a-z]{1,2}\d?)?")
"""A short code that holds a digit: MR750, 16, AS64, 7C."""
_RUN_ON: Final = re.compile(r"([a-z]{2,})(\d{1,4}[a-z]{0,2})")
"""A family with its number written on: lightspeed16."""
CODED: Final = re.compile(r"(maker|model)-[0-9a-f]{8}")
"""What stands in the place of a name that is on no list."""

Words = tuple[str, ...]


@dataclass(frozen=True)
class Maker:
    """One maker: how it is written, and how its models are known."""

    name: str
    families: frozenset[Words] = frozenset()
    models: Mapping[Words, str] | None = None
    """Whole model names, and how they are written."""


@dataclass(frozen=True)
class Makers:
    """Every maker that a site writes by name."""

    beginnings: Mapping[Words, Maker]
    business: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset()
    digest: str = ""
    """Of the release's list."""

    def known(self, maker: str) -> Maker | None:
        """The maker of this name, None where it is on no list."""
        found = _words(maker)
        for length in range(min(LONGEST_FAMILY, len(found)), 0, -1):
            one = self.beginnings.get(found[:length])
            if one is not None:
                return one if self.business.issuperset(found[length:]) else None
        return None

    def model(self, maker: str, model: str) -> str | None:
        """The model as it may be written, None where it is on no list of its maker."""
        one, found = self.known(maker), _words(model)
        if one is None or not found:
            return None
        whole = (one.models or {}).get(found)
        if whole is not None:
            return whole
        for length in range(min(LONGEST_FAMILY, len(found)), 0, -1):
            rest = _after(one.families, found[:length])
            if rest is not None and all(self._may_follow(word) for word in (*rest, *found[length:])):
                return " ".join(model.split())
        return None

    def joined(self, own: Iterable[OwnMaker]) -> Makers:
        """With a hospital's own machines beside the release's."""
        beginnings = dict(self.beginnings)
        for row in own:
            one = self.known(row.name) or Maker(row.name)
            models = {**(one.models or {}), **{_words(model): model for model in row.models}}
            both = replace(one, models=models)
            for words in [words for words, other in beginnings.items() if other.name == one.name]:
                beginnings[words] = both
            beginnings[_words(row.name)] = both
        return replace(self, beginnings=beginnings)

    def _may_follow(self, word: str) -> bool:
        return word in self.suffixes or bool(_CODE.fullmatch(word))


def maker_written(makers: Makers, names: Pseudonyms, maker: str) -> str:
    """A maker as it may stand in a de-identified image."""
    one = makers.known(maker)
    return one.name if one is not None else names.device("maker", " ".join(_words(maker)))


def model_written(makers: Makers, names: Pseudonyms, maker: str, model: str) -> str:
    """A model as it may stand in a de-identified image."""
    known = makers.model(maker, model)
    return known or names.device("model", " ".join(_words(maker)), " ".join(_words(model)))


@cache
def built_in() -> Makers:
    """The release's list, read once.

    Raises:
        SettingsError: the file is damaged.
    """
    try:
        text = BUILT_IN.read_text(encoding="utf-8")
        return replace(_load(tomllib.loads(text)), digest=hashlib.sha256(text.encode("utf-8")).hexdigest())
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError):
        raise SettingsError(BUILT_IN.name, "the list of makers is not readable TOML", "Restore it") from None


def _load(document: Mapping[str, Any]) -> Makers:
    beginnings: dict[Words, Maker] = {}
    for row in document["maker"]:
        models = {_words(model): model for model in row.get("models", ())}
        one = Maker(row["name"], frozenset(map(_words, row.get("families", ()))), models)
        for spelling in (row["name"], *row.get("also", ())):
            if beginnings.setdefault(_words(spelling), one) is not one:
                raise ValueError(spelling)
    return Makers(beginnings, frozenset(document["business"]), frozenset(document["suffixes"]))


def _words(text: str) -> Words:
    """Words and numbers without signs, in small letters."""
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


def _after(families: frozenset[Words], found: Sequence[str]) -> Words | None:
    """What is written on to a family without a blank; nothing where the words are one; None where they are none."""
    words = tuple(found)
    if words in families:
        return ()
    run_on = _RUN_ON.fullmatch(words[-1])
    if run_on and (*words[:-1], run_on[1]) in families:
        return (run_on[2],)
    return None
