"""A hospital full of canaries, run as it would be: its own processes, a real socket, a courier and a server.

Everything that can be heard outside is kept: every byte on the socket, every message on Flower's grid, what the processes
print, and every file that any of them wrote outside of the site's folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from pydicom.uid import JPEG2000Lossless

from client.socket import healthy
from common import wire
from common.envelope import is_sealed, split
from common.plan import Plan
from simulations.grid import InProcessGrid, run_on
from tests.client.intake_files import chest, image, label_table, set_pixels, to_bytes

CANARIES: dict[str, str] = {
    "name": "Kanarienvogelin",
    "number": "KANARIE-7741902",
    "accession": "ACKANARIE551",
    "institution": "Kanarienspital",
    "physician": "Doktorkanarie",
    "comment": "Zeisigkommentar",
    "private": "Stieglitzprivat",
    "folder": "Gimpelordner",
    "file": "Finkendatei",
    "source": "Lesekanarie",
    "version": "dros5517802",
    "odd label": "Amselaccession",
    "not dicom": "Spatzeninhalt",
    "bad value": "Meisenwert",
    "codec": "Lerchenkompression",
    "environment": "Wachtelumgebung",
    "host": "kiebitzrechner",
    "user": "rohrammernutzer",
    "setting": "Rotkehlcheneinstellung",
    "data folder": "Zaunkoenigdaten",
    "home": "Elsterheim",
}
"""Where a canary was planted, and its word, which stands nowhere else."""
PATIENTS = 47


@dataclass
class Heard:
    """What could be heard of one hospital outside of its folder."""

    site: Path
    outside: Path
    printed: dict[str, str] = field(default_factory=dict)
    socket: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    """As they were brought back, in their envelopes."""
    logged_before: list[bool] = field(default_factory=list)
    """For each reply, whether its digest stood in the audit log when it arrived."""


def plant(folder: Path) -> Path:
    """An export with a canary in every place that a hospital's files have; gives its label table."""
    inner = folder / CANARIES["folder"]
    inner.mkdir(parents=True)
    lines = []
    for number in range(PATIENTS):
        ds = image(number, patient=f"{CANARIES['number']}{number}")
        set_pixels(ds, chest(number, 64))
        ds.PatientName = f"{CANARIES['name']}^Anna{number}"
        ds.AccessionNumber = f"{CANARIES['accession']}{number}"
        ds.InstitutionName, ds.ReferringPhysicianName = CANARIES["institution"], CANARIES["physician"]
        ds.PatientComments = ds.StudyDescription = CANARIES["comment"]
        block = ds.private_block(0x0011, CANARIES["private"], create=True)
        block.add_new(0x01, "LO", CANARIES["private"])
        (inner / f"{CANARIES['file']}{number}.dcm").write_bytes(to_bytes(ds))
        named = f"{CANARIES['source']},{CANARIES['version']}"
        lines.append(f"{CANARIES['accession']}{number},{number % 2},{named}")
    for name, content in _broken().items():
        (inner / f"{CANARIES['file']}-{name}.dcm").write_bytes(content)
    lines.append(f"{CANARIES['odd label']},1,{CANARIES['source']},{CANARIES['version']}")
    return label_table(folder.parent / f"{CANARIES['source']}.csv", lines)


def _broken() -> dict[str, bytes]:
    """Files on which parsers and codecs fail, with a canary in what their messages would quote."""
    ds = image(900)
    coded = to_bytes(ds)
    word = CANARIES["bad value"].encode()
    bad = image(901)
    bad.KVP = "120"
    value = to_bytes(bad).replace(b"\x18\x00\x60\x00DS\x04\x00120 ", b"\x18\x00\x60\x00DS\x0a\x00" + word)
    compressed = image(902)
    raw = CANARIES["codec"].encode() * 20
    compressed.add_new(
        "PixelData",
        "OB",
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0"
        + len(raw).to_bytes(4, "little")
        + raw
        + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    )
    compressed["PixelData"].is_undefined_length = True
    return {
        "not": CANARIES["not dicom"].encode() * 50,
        "cut": coded[: len(coded) // 2],
        "value": value,
        "codec": to_bytes(compressed, JPEG2000Lossless),
    }


class Hospital:
    """The processes of one hospital, with canaries in their environment, host name and settings."""

    def __init__(self, folder: Path) -> None:
        self.heard = Heard(folder / "site", folder / "outside")
        self._places = {
            "HOME": self.heard.outside / CANARIES["home"],
            "TMPDIR": self.heard.outside / "tmp",
            "cwd": self.heard.outside / "cwd",
        }
        for place in self._places.values():
            place.mkdir(parents=True)
        self._folder = folder

    def run(self, *words: str | Path) -> int:
        """One command of `consilium-site`; what it prints is kept."""
        done = subprocess.run(
            self._command(words),
            env=self._environment(),
            cwd=self._places["cwd"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.heard.printed[f"{words[0]} {len(self.heard.printed)}"] = done.stdout + done.stderr
        return done.returncode

    @contextmanager
    def serving(self) -> Iterator[Path]:
        """The service and, before it, a socket that keeps every byte in both directions."""
        path, front = self._folder / "s.sock", self._folder / "f.sock"
        log = self._folder / "serve.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self._command(("serve", "--socket", path)),
                env=self._environment(),
                cwd=self._places["cwd"],
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                deadline = time.monotonic() + 60
                while not healthy(path, 0.5) and time.monotonic() < deadline and process.poll() is None:
                    time.sleep(0.1)
                with listening(front, path, self.heard.socket):
                    yield front
            finally:
                process.terminate()
                process.wait(timeout=30)
        self.heard.printed["serve"] = log.read_text()

    def _command(self, words: tuple[str | Path, ...]) -> list[str]:
        command = [sys.executable, "-m", "client.cli", *map(str, words)]
        renamed = shutil.which("unshare") and _may_rename_host()
        return ["unshare", "--uts", "sh", "-c", _RENAME, "sh", *command] if renamed else command

    def _environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self._places["HOME"]),
            "TMPDIR": str(self._places["TMPDIR"]),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "CONSILIUM_SITE": str(self.heard.site),
            "USER": CANARIES["user"],
            "HOSPITAL_NOTE": CANARIES["environment"],
        }


_RENAME = f'hostname {CANARIES["host"]}; exec "$@"'


def _may_rename_host() -> bool:
    """Whether this machine lets a process have a host name of its own; in a container it may not."""
    done = subprocess.run(
        ["unshare", "--uts", "hostname", CANARIES["host"]], capture_output=True, check=False
    )
    return done.returncode == 0


@contextmanager
def listening(front: Path, back: Path, kept: list[bytes]) -> Iterator[None]:
    """Pass every byte between `front` and `back` on, and keep it."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(front))
        door.listen()
        threading.Thread(target=_accept, args=(door, back, kept), daemon=True).start()
        yield


def _accept(door: socket.socket, back: Path, kept: list[bytes]) -> None:
    with suppress(OSError):
        while True:
            here, _ = door.accept()
            threading.Thread(target=_connect, args=(here, back, kept), daemon=True).start()


def _connect(here: socket.socket, back: Path, kept: list[bytes]) -> None:
    with here, socket.socket(socket.AF_UNIX) as there:
        there.connect(str(back))
        other = threading.Thread(target=_pass_on, args=(there, here, kept), daemon=True)
        other.start()
        _pass_on(here, there, kept)
        other.join()


def _pass_on(one: socket.socket, other: socket.socket, kept: list[bytes]) -> None:
    heard = bytearray()
    with suppress(OSError):
        while data := one.recv(1 << 16):
            heard += data
            other.sendall(data)
    kept.append(bytes(heard))
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)


class HeardGrid(InProcessGrid):
    """A grid whose one node is a courier with a socket, as in a hospital; what it brings back is kept."""

    def __init__(self, path: Path, heard: Heard) -> None:
        super().__init__([heard.site])
        self._heard = heard
        self._contexts = {
            1: Context(
                run_id=self.run.run_id,
                node_id=1,
                node_config={"service-socket": str(path)},
                state=RecordDict(),
                run_config={},
            )
        }

    def deliver(self, message: Message) -> list[Message]:
        """Hand on, and look at once whether what came was written down before it came."""
        replies = super().deliver(message)
        for reply in replies:
            blob = wire.from_records(reply.content)
            self._heard.replies.append(blob)
            self._heard.logged_before.append(digest_of(message_of(blob)) in self._log())
        return replies

    def _log(self) -> str:
        return (self._heard.site / "state" / "audit.jsonl").read_text()


def message_of(blob: bytes) -> bytes:
    """What is in an envelope; a refusal of what could not be opened comes without one."""
    return split(blob)[1] if is_sealed(blob) else blob


def digest_of(blob: bytes) -> str:
    """SHA-256, counted here and not by the code that is tested."""
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def federate(path: Path, heard: Heard, plan: Plan, name: str) -> str:
    """Run a plan over this one hospital; gives how it ended. The server's folder lies outside, too."""
    return run_on(HeardGrid(path, heard), plan, heard.outside / name).status
