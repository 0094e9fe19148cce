"""What is installed here, as a software bill of materials: CycloneDX 1.6, JSON.

It is made from the metadata of the environment that runs it and nothing else, so that it says what is there and not
what was meant to be there. The same environment gives the same bytes: no time, no random number, sorted throughout.
Only what Consilium needs is listed, followed from requirement to requirement; a tool beside it is not.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, distributions
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT: Final = "consilium"
SPECIFICATION: Final = "1.6"
_NAMESPACE: Final = uuid.UUID("7d3ba9a8-6f2c-5f0e-9d0b-6a3a1f0c9c11")
_SHORT: Final = 64
"""Letters of a licence's name; longer ones are whole licence texts."""


@dataclass(frozen=True)
class _Found:
    """One installed distribution and what it asks for."""

    name: str
    version: str
    metadata: Message
    record: str
    requires: tuple[Requirement, ...]

    @property
    def ref(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def sbom() -> dict[str, Any]:
    """The bill of materials of this environment, as CycloneDX 1.6 says."""
    installed = _installed()
    needed = _closure(installed)
    root = installed[ROOT]
    others = [installed[name] for name in sorted(needed.keys() - {ROOT})]
    dependencies = [
        {
            "ref": found.ref,
            "dependsOn": sorted(installed[name].ref for name in _asked(found, needed[found.name], installed)),
        }
        for found in (root, *others)
    ]
    body = {
        "metadata": {"component": _component(root, "application")},
        "components": [_component(found, "library") for found in others],
        "dependencies": sorted(dependencies, key=lambda row: str(row["ref"])),
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(body, sort_keys=True))
    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    }
    return {**head, **body}


def dump_sbom() -> str:
    """`sbom` as text; the same environment gives the same text."""
    return json.dumps(sbom(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _installed() -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for distribution in distributions():
        name = str(canonicalize_name(distribution.metadata["Name"] or ""))
        if name and name not in found:  # the first one on the path is the one that is imported
            found[name] = _Found(
                name,
                distribution.version,
                distribution.metadata,  # type: ignore[arg-type] # an email.message.Message behind its protocol
                distribution.read_text("RECORD") or "",
                _requirements(distribution),
            )
    return found


def _requirements(distribution: Distribution) -> tuple[Requirement, ...]:
    made = []
    for line in distribution.requires or []:
        try:
            made.append(Requirement(line))
        except InvalidRequirement:
            continue
    return tuple(made)


def _closure(installed: dict[str, _Found]) -> dict[str, set[str]]:
    """Name to the extras under which it is wanted, of everything that Consilium leads to."""
    needed: dict[str, set[str]] = {ROOT: set()}
    waiting = [ROOT]
    while waiting:
        found = installed[waiting.pop()]
        for name, extras in _asked(found, needed[found.name], installed).items():
            known = needed.get(name)
            if known is None or not extras <= known:
                needed[name] = (known or set()) | extras
                waiting.append(name)
    return needed


def _asked(found: _Found, extras: set[str], installed: dict[str, _Found]) -> dict[str, set[str]]:
    """What this one asks for in this environment and finds there."""
    asked: dict[str, set[str]] = {}
    for requirement in found.requires:
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if wanted and name in installed and name != found.name:
            asked.setdefault(name, set()).update(requirement.extras)
    return asked


def _component(found: _Found, kind: str) -> dict[str, Any]:
    """One entry; its digest is over the list of its installed files with theirs, as the installer wrote it down."""
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": found.ref,
        "name": found.name,
        "version": found.version,
        "purl": found.ref,
    }
    if found.record:
        lines = sorted(line for line in found.record.splitlines() if ",sha256=" in line and line[:3] != "../")
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        component["properties"] = [{"name": "consilium:installed-files", "value": f"sha256:{digest}"}]
    if licence := _licence(found.metadata):
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def _licence(metadata: Message) -> str:
    """As the package says it, in its own words; whether it is an SPDX expression is not judged."""
    stated = str(metadata.get("License-Expression") or metadata.get("License") or "").strip()
    if stated and len(stated) <= _SHORT and "\n" not in stated and stated.upper() != "UNKNOWN":
        return stated
    classified = [
        str(line).rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if str(line).startswith("License :: ") and not str(line).endswith("OSI Approved")
    ]
    return ", ".join(sorted(classified))
