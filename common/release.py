"""A release: a study plan and the app bundle that carries it out, under the consortium's signature.

The bundle is Flower's (a FAB): a zip file with the code of common, client and server, Flower's settings of the app, and
the plan. Nothing else may be in it, so that whoever knows the installed code and reads the plan knows it all. Plan,
bundle and description travel as one parcel:

    bundle.fab     what a node runs
    plan.toml      what is asked; the same is in the bundle
    release.json   digests of both and of every file of code, signed

`open_parcel` believes none of it before the signature, and no name in it before it has been compared with what we
would have written.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Final

import tomli_w

from common.code import digest_of
from common.errors import ConsiliumError, FederationError
from common.identity import Identity, PublicKey, fingerprint, verify
from common.plan import Plan, dump_plan, parse_plan
from common.types import Digest

SCHEMA: Final = "consilium/release/1"
BUNDLE, PLAN, DESCRIPTION = "bundle.fab", "plan.toml", "release.json"
APP: Final = "pyproject.toml"
_CONTENT: Final = ".info/CONTENT"
"""Flower's own table of a bundle's files."""
LARGEST: Final = 64 << 20
"""Bytes of a parcel, and of what is in it; Flower allows a bundle 10 MiB."""
_DATE: Final = (2024, 10, 1, 0, 0, 0)
"""Of every file in a parcel, so that the same content has the same bytes."""


@dataclass(frozen=True)
class Release:
    """What the consortium says of a bundle, and signs."""

    id: str
    """Study, version and the beginning of the bundle's digest."""
    study: str
    plan_digest: Digest
    bundle_digest: Digest
    code_digest: Digest
    consilium: str
    """Version of the code."""
    flower: str
    """Version of Flower the bundle was made with."""
    at: str
    """UTC, ISO 8601."""
    files: dict[str, str] = field(default_factory=dict)
    """Path to SHA-256, of the code alone."""
    key: str = ""
    signature: str = ""


@dataclass(frozen=True)
class Parcel:
    """A release with everything it names, checked against its signature."""

    release: Release
    plan: Plan
    bundle: bytes
    code: dict[str, bytes] = field(repr=False)
    """Path to content."""


def release_of(plan: Plan, bundle: bytes, at: str, identity: Identity) -> Release:
    """Describe a bundle that was just made, and sign the description.

    Raises:
        FederationError: code `release` when the bundle is not one of ours.
    """
    code = _code_in(bundle, plan)
    digest = bytes_digest(bundle)
    unsigned = Release(
        id=f"{plan.study.name}-{plan.study.version}-{digest[7:15]}",
        study=plan.study.name,
        plan_digest=plan.digest,
        bundle_digest=digest,
        code_digest=digest_of(code),
        consilium=version("consilium"),
        flower=version("flwr"),
        at=at,
        files={path: hashlib.sha256(content).hexdigest() for path, content in sorted(code.items())},
        key=identity.public,
    )
    return Release(**{**asdict(unsigned), "signature": identity.sign(_signed(unsigned))})


def pack_parcel(release: Release, plan: Plan, bundle: bytes) -> bytes:
    """Everything a hospital needs, as one file; the same content gives the same bytes."""
    parts = {
        BUNDLE: bundle,
        PLAN: dump_plan(plan).encode(),
        DESCRIPTION: json.dumps(asdict(release), indent=1, sort_keys=True).encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored: the bundle is compressed already
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def open_parcel(blob: bytes, key: PublicKey) -> Parcel:
    """What is in a parcel, once all of it is what the holder of `key` signed.

    Raises:
        FederationError: code `release`, saying which part does not fit.
    """
    parts = _unzipped(blob, "the parcel")
    if set(parts) != {BUNDLE, PLAN, DESCRIPTION}:
        raise wrong("it does not hold bundle, plan and description")
    release = _described(parts[DESCRIPTION])
    if release.key != key or not verify(key, release.signature, _signed(release)):
        raise wrong(f"it is not signed by the server pinned here, {fingerprint(key)}")
    if bytes_digest(parts[BUNDLE]) != release.bundle_digest:
        raise wrong("its bundle is not the one that was signed")
    plan = _plan(parts[PLAN])
    if plan.digest != release.plan_digest:
        raise wrong("its plan is not the one that was signed")
    code = _code_in(parts[BUNDLE], plan)
    files = {path: hashlib.sha256(content).hexdigest() for path, content in code.items()}
    if files != release.files or digest_of(code) != release.code_digest:
        raise wrong("the code in its bundle is not the code that was signed")
    return Parcel(release, plan, parts[BUNDLE], code)


def app_files(plan: Plan, code: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a bundle: code, plan, and Flower's settings of the app, which only the code's version changes."""
    return {**code, PLAN: dump_plan(plan).encode(), APP: tomli_w.dumps(app_settings()).encode()}


def app_settings() -> dict[str, Any]:
    """What Flower reads: where the two apps are, and the names of the run's settings."""
    return {
        "project": {"name": "consilium", "version": version("consilium"), "license": "Apache-2.0"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "consilium",
                    "fab-include": [f"{package}/**/*.{end}" for package, end in _INCLUDED] + [PLAN],
                    "components": {"serverapp": "server.app:app", "clientapp": "client.app:app"},
                    "config": {
                        "plan": "",
                        "federation": "",
                        "out": "",
                        "consortium": "",
                        "nodes": 0,
                        "turns": 0,
                    },
                }
            }
        },
    }


_INCLUDED: Final = (("common", "py"), ("client", "py"), ("client", "toml"), ("server", "py"))


def bytes_digest(blob: bytes) -> Digest:
    """SHA-256; of a bundle the one by which Flower knows it too."""
    return Digest("sha256:" + hashlib.sha256(blob).hexdigest())


def wrong(rule: str) -> FederationError:
    """The error of a release that is not what it should be."""
    return FederationError("the release", rule, "Fetch it again; else call the consortium", code="release")


def _code_in(bundle: bytes, plan: Plan) -> dict[str, bytes]:
    """The code of a bundle that holds this plan, our settings, and nothing else that runs.

    Raises:
        FederationError: code `release`.
    """
    files = _unzipped(bundle, "the bundle")
    files.pop(_CONTENT, None)
    fixed = app_files(plan, {})
    for name, content in fixed.items():
        if files.pop(name, None) != content:
            raise wrong(f"{name} in its bundle is not the one this release would have")
    for path in files:
        if path.partition("/")[0] not in ("common", "client", "server") or ".." in path.split("/"):
            raise wrong("its bundle holds a file that is no part of the release")
    return files


def _unzipped(blob: bytes, what: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(set(names)) != len(names) or sum(info.file_size for info in infos) > LARGEST:
                raise wrong(f"{what} holds a name twice or is too large")
            return {info.filename: archive.read(info) for info in infos if not info.is_dir()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        raise wrong(f"{what} cannot be read") from None


def _described(text: bytes) -> Release:
    try:
        values = json.loads(text)
        files = {str(path): str(digest) for path, digest in values.pop("files").items()}
        words: dict[str, Any] = {str(name): str(value) for name, value in values.items()}
        return Release(**words, files=files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise wrong("its description cannot be read") from None


def _plan(text: bytes) -> Plan:
    try:
        return parse_plan(text.decode())
    except (ConsiliumError, UnicodeDecodeError):
        raise wrong("its plan cannot be read by this release") from None


def _signed(release: Release) -> bytes:
    what = {**asdict(release), "signature": "", "schema": SCHEMA}
    return json.dumps(what, sort_keys=True, separators=(",", ":")).encode()
