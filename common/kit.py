"""The enrolment kit: what a hospital needs to know of its federation, and nothing secret.

`kit.zip` holds `kit.json`, which machines read, and `README.txt`, which people read. The one-time code travels
apart from it. Its last sixteen characters are a digest of the kit, so that whoever changed the kit on its way
would have had to know the code, and cannot have the hospital send it anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from common.certificates import read_certificate
from common.errors import FederationError, InputError
from common.identity import PublicKey, fingerprint
from common.types import Digest, SiteName

SCHEMA: Final = "consilium/kit/1"
SECRET_BYTES: Final = 15
"""120 random bits in a code; guessing is rate-limited besides."""
_CHECK_BYTES: Final = 10
"""80 bits of the kit's digest: what a forger would have to meet."""
_LARGEST: Final = 1 << 18
_BROKEN: Final = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,  # encrypted, packed in an unknown way, or nested without end
    ValueError,
    KeyError,
    TypeError,
    FederationError,
)
"""What a file that is no kit makes its readers say."""


@dataclass(frozen=True)
class Kit:
    """What one hospital is told of its federation."""

    federation: str
    site: SiteName
    addresses: tuple[str, ...]
    """`host:port` of the edge, tried in turn."""
    authority: str
    """Certificate of the federation's authority, PEM."""
    server: PublicKey
    """The key the server signs with."""

    @property
    def fingerprint(self) -> Digest:
        """Of the server's key, for comparing by telephone."""
        return fingerprint(self.server)

    @property
    def check(self) -> str:
        """The part of the code that belongs to this kit."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()
        return base64.b32encode(hashlib.sha256(text).digest()[:_CHECK_BYTES]).decode()


def new_code(kit: Kit) -> str:
    """A one-time code for this kit, in eight groups of five letters and digits."""
    text = base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode() + kit.check
    return "-".join(text[at : at + 5] for at in range(0, len(text), 5))


def code_digest(code: str) -> str:
    """What the server keeps of a code: it cannot be used, and small mistakes of typing do not matter."""
    return hashlib.sha256(b"consilium/code/1 " + _plain(code).encode()).hexdigest()


def check_code(kit: Kit, code: str) -> None:
    """Refuse to send a code that was not given for this kit.

    Raises:
        InputError: `kit-code`.
    """
    plain = _plain(code)
    if len(plain) != SECRET_BYTES * 8 // 5 + len(kit.check) or not plain.endswith(kit.check):
        raise InputError(
            "the one-time code",
            "it does not belong to this kit: it was mistyped, is of another kit, or the kit was changed on its way",
            "Compare it, then the kit's fingerprint, with the consortium by telephone",
            code="kit-code",
        )


def write_kit(kit: Kit, path: Path) -> None:
    """Write `kit.zip`.

    Raises:
        InputError: `kit` when it cannot be written there.
    """
    values = {"schema": SCHEMA, **asdict(kit), "fingerprint": kit.fingerprint}
    told = _README.format(kit=kit, addresses=", ".join(kit.addresses))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("kit.json", json.dumps(values, indent=1)), ("README.txt", told)):
            # a fixed date, so that the same kit is the same file
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    try:
        path.write_bytes(buffer.getvalue())
    except OSError:
        raise _wrong(path.name, "it cannot be written", "Give a folder that can be written to") from None


def read_kit(path: Path, site: str) -> Kit:
    """Read a kit for this hospital.

    Args:
        path: of `kit.zip`.
        site: the name of the hospital that reads it.

    Raises:
        InputError: `kit` when it is none or was damaged, `kit-site` when it is another hospital's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("kit.json").file_size > _LARGEST:
                raise _not_a_kit(path)
            values = json.loads(archive.read("kit.json"))
        kit = _kit(values)
        authority = read_certificate(kit.authority)
    except FileNotFoundError:
        raise _wrong(path.name, "the kit is not there", "Give the path of the kit.zip you received") from None
    except _BROKEN:
        raise _not_a_kit(path) from None
    if values.get("fingerprint") != kit.fingerprint or authority.federation != kit.federation:
        raise _not_a_kit(path)
    if kit.site != site:
        raise InputError(
            path.name,
            f"it is the kit of {kit.site}, and this site is {site}",
            f"Ask the consortium for a kit for {site}, and tell it that you have this one",
            code="kit-site",
        )
    return kit


def _kit(values: dict[str, Any]) -> Kit:
    addresses = tuple(values["addresses"])
    texts = (values["federation"], values["site"], values["authority"], values["server"], *addresses)
    if values["schema"] != SCHEMA or not addresses or not all(isinstance(text, str) for text in texts):
        raise ValueError
    return Kit(
        values["federation"],
        SiteName(values["site"]),
        addresses,
        values["authority"],
        PublicKey(values["server"]),
    )


def _plain(code: str) -> str:
    return "".join(letter for letter in code.upper() if letter.isalnum())


def _not_a_kit(path: Path) -> InputError:
    return _wrong(path.name, "it is not a whole enrolment kit", "Ask the consortium to send it again")


def _wrong(name: str, rule: str, remedy: str) -> InputError:
    return InputError(name, rule, remedy, code="kit")


_README: Final = """Enrolment kit of {kit.site} for the federation {kit.federation}

Server:      {addresses}
Fingerprint: {kit.fingerprint}

Nothing in here is secret. The one-time code comes to you by another way.

1. Call the consortium at a number you know, and compare the fingerprint.
2. consilium-site enrol kit.zip
   It asks for the code, makes this hospital's keys, which never leave, and prints their fingerprint.
3. Read that fingerprint to the consortium. Once they have admitted you, repeat the command.
"""
