"""Other accounts of this machine: an interpreter they may run, a folder they may enter, a service they may reach."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from client.courier import courier_of
from client.site import Site, load_site
from client.socket import healthy

ROOT = Path(__file__).resolve().parents[1]
NOBODY, OTHER = "nobody", "daemon"


def needs_root():
    """Only root can run a process under another account; where that is promised, its absence is a failure."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("these tests change accounts and need root")
        pytest.skip("only root can run a process under another account")


def python_for(account):
    """An interpreter of this version that the account may run; this one may lie in root's home."""
    found = [
        sys.executable,
        *(f"{place}/python3.{sys.version_info[1]}" for place in ("/usr/bin", "/usr/local/bin")),
    ]
    for program in found:
        with suppress(OSError):  # not there, or in a folder that is closed to the account
            if run_as(account, [program, "-c", ""]).returncode == 0:
                return program
    return pytest.fail("no interpreter of this version that another account may run")


def run_as(account, command, text="", **more):
    """Run a command under another account, with no group but its own."""
    known = pwd.getpwnam(account)
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        cwd="/",
        user=known.pw_uid,
        group=known.pw_gid,
        extra_groups=[],
        **more,
    )


def installation_for(account: str, folder: Path) -> Path:
    """Folder of an interpreter and of Flower's programs that the account may run: ours, or a copy of how to start them."""
    ours = Path(sys.executable).parent
    program = python_for(account)
    if program == sys.executable:
        return ours
    subprocess.run([program, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python3*/site-packages"))
    places = [str(ROOT), *(place for place in sys.path if place.endswith("site-packages"))]
    (packages / "ours.pth").write_text("\n".join(places) + "\n")
    for script in [*ours.glob("flwr*"), *ours.glob("flower-*")]:
        copy = folder / "bin" / script.name
        copy.write_text(f"#!{folder}/bin/python\n" + script.read_text().partition("\n")[2])
        copy.chmod(0o755)
    return folder / "bin"


def clean_environment():
    """The environment of a courier: where the code is, and nothing else."""
    code = [str(ROOT), *(place for place in sys.path if place.endswith("site-packages"))]
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(code), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder that other accounts may enter, as /srv would be; pytest's own is closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="consilium-courier-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def with_courier(site: Site, user: str = NOBODY) -> Site:
    """The same site, its courier's account named."""
    path = site.folder / "site.toml"
    path.write_text(path.read_text() + f'\n[courier]\nuser = "{user}"\n')
    return load_site(site.folder)


def start_service(site: Site, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The site service as `consilium-site serve` starts it, once the courier's socket answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "client.cli", "serve", "--site", str(site.folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not healthy(courier_of(site).socket, 1.0):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail("the site service did not start")
    return process
