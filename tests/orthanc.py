"""A real archive for tests: Orthanc on free ports of the loopback, in a folder of the test's own.

    from tests.orthanc import orthanc, orthanc_session   # in a conftest.py; then ask for `orthanc`

`orthanc` is one server per test process, empty at the start of every test. For other options, or TLS, take
`running(folder, options)`. On CI a missing Orthanc is a failure, elsewhere a skip with its reason.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

AE_TITLE = "TESTPACS"
USER, PASSWORD = "test", "test-word"
_DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
_START_S = 30.0
_TRIES = 3


def program(name: str, package: str) -> str:
    """Path of a program; without it a skip, and with CI set a failure, so that CI never skips quietly."""
    for folder in ("/usr/sbin", "/usr/bin", "/usr/local/bin"):  # not the environment's own namesakes
        if (path := Path(folder) / name).is_file():
            return str(path)
    if path_found := shutil.which(name):
        return path_found
    reason = f"no {name} on this machine (Debian: apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A port that nobody listened to a moment ago."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Answer(Exception):
    """Orthanc said no; `status` is its HTTP status and `body` what it said."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}: {body[:300]!r}")
        self.status = status
        self.body = body


@dataclass
class Orthanc:
    """One server that runs."""

    folder: Path
    http_port: int
    dicom_port: int
    process: subprocess.Popen[bytes]
    user: str = USER
    password: str = PASSWORD
    ae_title: str = AE_TITLE
    host: str = "127.0.0.1"
    modalities: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Root of the REST interface, without a slash at its end."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        """Root of DICOMweb."""
        return f"{self.url}/dicom-web"

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """One call; `body` is bytes, or anything JSON. Returns parsed JSON where it is JSON, else bytes.

        Raises:
            Answer: any status from 400 on.
        """
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310  loopback
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310  loopback
                said = reply.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Answer(error.code, error.read()) from None
        try:
            return json.loads(said)
        except ValueError:
            return said

    def upload(self, *files: bytes) -> list[str]:
        """Put files in by REST (far faster than C-STORE); their identifiers as instances."""
        return [self.rest("POST", "/instances", file)["ID"] for file in files]

    def studies(self) -> list[str]:
        """Identifiers of the studies held."""
        return list(self.rest("GET", "/studies"))

    def know(self, name: str, ae_title: str, port: int, **options: Any) -> None:
        """Let this server send to, and be asked by, another node; `UseDicomTls=True` for TLS."""
        node = {"AET": ae_title, "Host": "127.0.0.1", "Port": port, "AllowGet": True, "AllowMove": True}
        self.rest("PUT", f"/modalities/{name}", {**node, "AllowFind": True, "AllowStore": True, **options})
        self.modalities.add(name)

    def store(self, name: str, *resources: str, **options: Any) -> dict[str, Any]:
        """C-STORE patients, studies, series or instances (by Orthanc's identifiers) to a node and wait.

        Raises:
            Answer: the node refused the association or an instance.
        """
        order = {"Resources": list(resources), "Synchronous": True, **options}
        return dict(self.rest("POST", f"/modalities/{name}/store", order))

    def clear(self) -> None:
        """Forget every image, every change and every node told by `know`."""
        for patient in self.rest("GET", "/patients"):
            self.rest("DELETE", f"/patients/{patient}")
        self.rest("DELETE", "/changes")
        self.rest("DELETE", "/exports")
        for name in self.modalities:
            self.rest("DELETE", f"/modalities/{name}")
        self.modalities.clear()

    def log(self) -> str:
        """What it wrote to its log."""
        return (self.folder / "orthanc.log").read_text(encoding="utf-8", errors="replace")


@contextmanager
def running(folder: Path, options: dict[str, Any] | None = None) -> Iterator[Orthanc]:
    """Start a server in a folder and stop it at the end; a folder used before still holds its images.

    Args:
        folder: storage, index, settings and log.
        options: entries of Orthanc's settings to add or replace, e.g. DicomTlsEnabled and its certificates.
    """
    server = _started(folder, options or {})
    try:
        yield server
    finally:
        stop(server)


def stop(server: Orthanc) -> None:
    """End it as a service manager would, and wait."""
    server.process.terminate()
    try:
        server.process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


def _started(folder: Path, options: dict[str, Any]) -> Orthanc:
    path = program("Orthanc", "orthanc orthanc-dicomweb")
    folder.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(_TRIES)):
        server = _launch(path, folder, options)
        if _up(server):
            return server
        stop(server)
        if not left:
            raise AssertionError(f"Orthanc does not start:\n{server.log()[-3000:]}")
    raise AssertionError


def _launch(path: str, folder: Path, options: dict[str, Any]) -> Orthanc:
    http_port, dicom_port = options.get("HttpPort") or free_port(), options.get("DicomPort") or free_port()
    settings = {
        "Name": "test archive",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [_DICOMWEB] if Path(_DICOMWEB).exists() else [],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomAet": AE_TITLE,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowFind": False,
        "DicomScuTimeout": 10,
        "DicomModalities": {},
        "StableAge": 1,
        "HttpThreadsCount": 8,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps({**settings, **options}), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [path, str(folder / "orthanc.json")], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder
        )
    return Orthanc(folder, http_port, dicom_port, process)


def _up(server: Orthanc) -> bool:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.process.poll() is None:
        try:
            server.rest("GET", "/system")
            with socket.create_connection((server.host, server.dicom_port), timeout=1):
                return True
        except (OSError, Answer):
            time.sleep(0.1)
    return False


@pytest.fixture(scope="session")
def orthanc_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One server for all tests of this process."""
    with running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(orthanc_session: Orthanc) -> Orthanc:
    """The server of this process, empty."""
    orthanc_session.clear()
    return orthanc_session
