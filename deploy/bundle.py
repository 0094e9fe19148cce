"""The air-gapped bundle: everything to install Consilium where there is no network, in one tar file.

    python deploy/bundle.py [--torch cpu|index] [--out dist]

consilium-<version>/
    MANIFEST.sha256     digest of every other file; `sha256sum --check` reads it
    install.sh          makes the environment from wheels/, without any index
    wheels/             every package at the version of constraints.txt
    server/, site/      compose files
    systemd/            units
    runbook.md, site.example.toml, constraints.txt, no.key, LICENSE

The same wheels give the same bytes: files in order, without times and owners. The wheels are those of this machine's Python
and processor; build the bundle on a machine like those that it is for.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
MANIFEST: Final = "MANIFEST.sha256"
TORCH_CPU: Final = "https://download.pytorch.org/whl/cpu"
HEADLESS: Final = "opencv-python-headless"
"""OpenCV without windows, which no package asks for and install.sh puts in place of the other."""
EXTRAS: Final = "tracking"
"""Of pyproject.toml: what `install.sh` can be asked to bring along (`EXTRAS`)."""
FILES: Final = {
    "install.sh": "deploy/install.sh",
    "no.key": "deploy/no.key",
    "site.example.toml": "deploy/site.example.toml",
    "constraints.txt": "constraints.txt",
    "runbook.md": "docs/runbook.md",
    "LICENSE": "LICENSE",
}
PACKAGES: Final = ("common", "client", "server", "simulations")
FOLDERS: Final = ("server", "site", "systemd")
_LEFT_OUT: Final = ("Dockerfile", "Dockerfile.dockerignore")
"""They build from the repository."""


def version() -> str:
    """Of this release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def build(out: Path, torch: str = "index", only: Sequence[str] = ()) -> Path:
    """Make the bundle.

    Args:
        out: folder for the tar file.
        torch: `cpu`: torch's own builds without CUDA, a fifth of the size; `index`: whatever the package index has.
        only: for tests: these packages without what they need, instead of all.

    Returns:
        The tar file's path.
    """
    name = f"consilium-{version()}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="consilium-bundle-") as scratch:
        folder = Path(scratch) / name
        for target, source in FILES.items():
            _copy(ROOT / source, folder / target)
        for part in FOLDERS:
            for source in sorted((ROOT / "deploy" / part).iterdir()):
                if source.name not in _LEFT_OUT:
                    _copy(source, folder / part / source.name)
        _wheels(_sources(Path(scratch) / "sources"), folder / "wheels", torch, only)
        (folder / MANIFEST).write_text(manifest(folder), encoding="utf-8")
        path = out / f"{name}.tar"
        pack(folder, path)
    return path


def manifest(folder: Path) -> str:
    """Digest and path of every file but the manifest itself, sorted, as sha256sum writes them."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def pack(folder: Path, path: Path) -> None:
    """The folder as a tar file that depends on names and contents alone."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = "root"
        entry.mode = 0o755 if entry.isdir() or entry.name.endswith(".sh") else 0o644
        return entry

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for source in (folder, *sorted(folder.rglob("*"))):
            archive.add(source, str(source.relative_to(folder.parent)), recursive=False, filter=plain)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _sources(folder: Path) -> Path:
    """What our own wheel is built from, without what earlier builds left beside it."""
    for part in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            _copy(source, folder / part)
    return folder


def _wheels(sources: Path, folder: Path, torch: str, only: Sequence[str]) -> None:
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--wheel-dir",
        str(folder),
    ]
    held = ["--constraint", str(ROOT / "constraints.txt")]
    if torch == "cpu" and not only:
        _run([*pip, *held, "--no-deps", "--index-url", TORCH_CPU, "torch"])
    found = ["--find-links", str(folder)]
    if only:
        _run([*pip, *held, "--no-deps", str(sources), *only])
        return
    _run([*pip, *held, *found, f"{sources}[{EXTRAS}]", HEADLESS])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - pip with our own arguments


def main(words: Sequence[str] | None = None) -> None:
    """Make the bundle that the command line asks for."""
    parser = argparse.ArgumentParser(description="Make the air-gapped bundle.")
    parser.add_argument("--torch", choices=("cpu", "index"), default="index")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    asked = parser.parse_args(words)
    sys.stderr.write(
        f"Wheels are fetched and packed into {asked.out}: some minutes, and one to several gigabytes of disk ...\n"
    )
    path = build(asked.out, asked.torch)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    sys.stdout.write(f"{path} ({path.stat().st_size / 2**20:.0f} MiB)\nsha256 {digest}\n")


if __name__ == "__main__":
    main()
