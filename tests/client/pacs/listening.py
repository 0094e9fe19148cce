"""Sites that listen, in this process or as a hospital runs them, and senders of two makes."""

from __future__ import annotations

import dataclasses
import io
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from client.intake.durable import on_disk
from client.pacs.inbox import Inbox
from client.pacs.listener import Listener
from client.site import Site, load_site
from tests.client.intake_files import new_site
from tests.orthanc import AE_TITLE, free_port, program

SENDERS = (AE_TITLE, "STORESCU", "SENDER")
CALLED = "CONSILIUM"
SOCKETS: list[socket.socket] = []
"""Those of this test's senders: pynetdicom does not close one that the other side closed first."""


def listening_site(folder: Path, **listen: object) -> Site:
    """A hospital that listens on a free port, with a short quiet time and no floor."""
    new_site(folder)
    path = folder / "site.toml"
    section = {"port": free_port(), "calling": list(SENDERS), "quiet_s": 1.0, "floor_gib": 0.0, **listen}
    text = path.read_text() + "\n" + tomli_w.dumps({"pacs": {"listen": section}})
    path.write_text(text)
    on_disk([path], "settings")
    return load_site(folder)


def changed(site: Site, **listen: object) -> Site:
    """The same hospital with other limits, for a listener in this process."""
    settings = dataclasses.replace(site.pacs.listen, **listen)
    return dataclasses.replace(site, pacs=dataclasses.replace(site.pacs, listen=settings))


@contextmanager
def listener(site: Site) -> Iterator[Listener]:
    """A listener in this process."""
    with Listener(site, Inbox.of(site)) as running:
        yield running


@dataclass
class Command:
    """`consilium-site pacs listen` as a process of its own; `log` is what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM, and its exit status."""
        self.process.terminate()
        return self.process.wait(timeout)

    def rss_mib(self) -> float:
        """Memory it holds now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError


@contextmanager
def command(site: Site, *options: str) -> Iterator[Command]:
    """The command line, until the end of the block at most."""
    log = site.folder / f"listen-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "client.cli", "pacs", "listen", "--site", str(site.folder), *options],
            stderr=out,
            stdout=out,
            cwd=Path(__file__).resolve().parents[3],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            _until(lambda: b"pacs.listening" in log.read_bytes() or process.poll() is not None)
            yield Command(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def wait_for(check: object, seconds: float = 60.0) -> None:
    """Until it is so.

    Raises:
        AssertionError: it does not become so.
    """
    _until(check, seconds)  # type: ignore[arg-type]


def _until(check: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end, "it does not happen"
        select.select([], [], [], 0.05)


def dcmtk(site: Site, folder: Path, *options: str, called: str = CALLED, calling: str = "STORESCU") -> int:
    """Send a folder with dcmtk's storescu; its exit status."""
    node = ["-aec", called, "-aet", calling, "127.0.0.1", str(site.pacs.listen.port)]
    done = subprocess.run(
        [program("storescu", "dcmtk"), *options, *node, "+sd", str(folder)], capture_output=True, check=False
    )
    return done.returncode


def association(
    site: Site,
    files: Sequence[bytes] = (),
    *,
    called: str = CALLED,
    calling: str = "SENDER",
    **options: object,
) -> Association:
    """An association of pynetdicom's sender, proposing what these files need."""
    sender = AE(ae_title=calling)
    sender.acse_timeout = sender.dimse_timeout = 10
    kinds = {_kind(file) for file in files} or {("1.2.840.10008.1.1", "1.2.840.10008.1.2")}
    for sop_class, syntax in sorted(kinds):
        sender.add_requested_context(sop_class, syntax)
    grab = [(evt.EVT_CONN_OPEN, lambda event: SOCKETS.append(event.assoc.dul.socket.socket))]
    return sender.associate("127.0.0.1", site.pacs.listen.port, ae_title=called, evt_handlers=grab, **options)


def send(site: Site, files: Sequence[bytes], **options: object) -> list[int]:
    """Send files, with data sets as they are, in one association; the status of each, -1 where none came back."""
    with_it = association(site, files, **options)
    if not with_it.is_established:
        return [-1] * len(files)
    try:
        return [store(with_it, file) for file in files]
    finally:
        with_it.release()


def store(with_it: Association, file: bytes) -> int:
    """Send one file; its status, or -1 where none came back."""
    if not with_it.is_established:
        return -1
    meta = _meta(file)
    context = next(
        one
        for one in with_it.accepted_contexts
        if (one.abstract_syntax, one.transfer_syntax[0])
        == (meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    )
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = meta.MediaStorageSOPClassUID
    request.AffectedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    request.DataSet = io.BytesIO(data_set(file))
    with_it._reactor_checkpoint.clear()
    try:
        while not with_it._is_paused:
            time.sleep(0.001)
        with_it.dimse.send_msg(request, context.context_id)
        answer = with_it.dimse.get_msg(block=True)[1]
    finally:
        with_it._reactor_checkpoint.set()
    return -1 if answer is None else int(answer.Status)


def data_set(raw: bytes) -> bytes:
    """All after the file meta."""
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


def _kind(file: bytes) -> tuple[str, str]:
    meta = _meta(file)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _meta(file: bytes) -> Dataset:
    return read_partial(io.BytesIO(file), lambda tag, _vr, _length: tag.group > 2).file_meta


def written(folder: Path, files: Sequence[bytes]) -> Path:
    """A folder of these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        (folder / f"{number:04d}.dcm").write_bytes(file)
    return folder


def held(site: Site) -> list[Path]:
    """Instances in the inbox, whether waiting or being taken in."""
    return sorted(site.inbox.rglob("*.dcm"))


def held_uids(site: Site) -> list[str]:
    """Their SOP instance UIDs."""
    return sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in held(site))
