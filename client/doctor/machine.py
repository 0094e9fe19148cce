"""The machine: disk, memory, shared memory, limits of the container, processors, GPU and driver.

Everything is read from below a root, which is `/` but in tests: Linux tells the truth in files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.doctor.check import Check, failed, passed, warned

GIB: Final = 1 << 30
LEAST_DISK: Final = 2 * GIB
"""Below this no study is taken in and no round is kept: a model of 100 million parameters is written whole, twice."""
GOOD_DISK: Final = 20 * GIB
LEAST_MEMORY: Final = 2 * GIB
"""PyTorch with a small network takes 0.6 GiB, one intake worker up to 1 GiB."""
GOOD_MEMORY: Final = 8 * GIB
GOOD_SHARED: Final = 256 << 20
"""What worker processes hand tensors through; a container has 64 MiB unless it is told otherwise."""
_NO_LIMIT: Final = 1 << 62


@dataclass(frozen=True)
class Machine:
    """Where to look."""

    root: Path = Path("/")

    def text(self, path: str) -> str:
        """A file of the system; empty where there is none."""
        try:
            return (self.root / path).read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""

    def number(self, path: str) -> int | None:
        """A file that holds one number; None where there is none, or the word `max`."""
        text = self.text(path).strip()
        return int(text) if text.isdigit() else None


def memory(machine: Machine) -> Iterator[Check]:
    """Memory that a process here can have: the machine's, or the container's limit where it is less."""
    told = re.search(r"^MemAvailable:\s+(\d+) kB", machine.text("proc/meminfo"), re.MULTILINE)
    if told is None:
        yield failed("memory", "/proc/meminfo does not say", "Run on Linux, with /proc mounted")
        return
    free = int(told.group(1)) * 1024
    limit, used = _limit(machine)
    left = min(free, limit - used)
    bounded = limit < _NO_LIMIT
    seen = f"{_gib(left)} free" + (f", limit of the container {_gib(limit)}" if bounded else "")
    remedy = "Raise the container's memory limit" if bounded and limit - used < free else "Add memory"
    yield _graded("memory", seen, left, (LEAST_MEMORY, GOOD_MEMORY), remedy)


def processors(machine: Machine) -> Iterator[Check]:
    """Cores this process may use, and the container's share of time."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, _, period = machine.text("sys/fs/cgroup/cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) / int(period))
    seen = f"{cores:g} cores"
    if cores < 1:
        yield failed("processors", seen, "Give the container at least one whole core")
    elif cores < 2:
        yield warned("processors", seen, "With two cores intake and training go side by side")
    else:
        yield passed("processors", seen)


def disk(name: str, folder: Path) -> Iterator[Check]:
    """Free space where the site keeps something, and whether it can be written there."""
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = os.statvfs(place)
    left = free.f_bavail * free.f_frsize
    if not os.access(place, os.W_OK, effective_ids=True):
        yield failed(name, "this user cannot write there", "Give the folder to the user that runs Consilium")
    elif free.f_files and free.f_favail < 1000:
        yield failed(
            name, f"{free.f_favail} files can still be made there", "Make a file system with more inodes"
        )
    else:
        yield _graded(
            name, f"{_gib(left)} free", left, (LEAST_DISK, GOOD_DISK), "Free space, or move the folder"
        )


def shared_memory(machine: Machine) -> Iterator[Check]:
    """Room in /dev/shm."""
    place = machine.root / "dev/shm"
    if not place.is_dir():
        yield failed("shared memory", "there is no /dev/shm", "Mount a tmpfs at /dev/shm")
        return
    free = os.statvfs(place)
    left = free.f_bavail * free.f_frsize
    yield _graded(
        "shared memory",
        f"{left / (1 << 20):.0f} MiB free",
        left,
        (0, GOOD_SHARED),
        "Set shm_size: 1g in the compose file",
    )


def gpu(machine: Machine) -> Iterator[Check]:
    """The driver that the kernel has, and whether this PyTorch can use it."""
    driver = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", machine.text("proc/driver/nvidia/version"))
    devices = sorted((machine.root / "dev").glob("nvidia[0-9]*"))
    yield from _gpu(driver.group(1) if driver else "", len(devices), _cuda())


def _gpu(driver: str, devices: int, cuda: tuple[str, tuple[str, ...]]) -> Iterator[Check]:
    built, usable = cuda
    if usable:
        yield passed("GPU", f"{', '.join(usable)}; driver {driver or 'unknown'}, PyTorch for CUDA {built}")
    elif not driver and not devices:
        yield passed("GPU", "none; training runs on the processor")
    elif not driver:
        yield failed("GPU", f"{devices} devices and no driver", "Install NVIDIA's driver on the host")
    elif not devices:
        yield failed(
            "GPU",
            f"driver {driver} and no device",
            "Give the container the GPU: deploy.resources.devices, or --gpus all",
        )
    elif not built:
        yield warned(
            "GPU",
            f"driver {driver}, and a PyTorch for processors only",
            "Install the CUDA variant of this release",
        )
    else:
        yield failed(
            "GPU",
            f"driver {driver} does not serve PyTorch for CUDA {built}",
            "Update the driver, or install the variant for its CUDA version",
        )


def _cuda() -> tuple[str, tuple[str, ...]]:
    """The CUDA version PyTorch was built for, empty for none, and the devices it can use."""
    import torch  # noqa: PLC0415 - two seconds, paid by this look alone

    built = torch.version.cuda or ""
    if not torch.cuda.is_available():
        return built, ()
    count = torch.cuda.device_count()
    return built, tuple(torch.cuda.get_device_properties(k).name for k in range(count))


def _limit(machine: Machine) -> tuple[int, int]:
    """The container's memory limit and what is used of it, in bytes; control groups version 2, then 1."""
    for limit, used in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most = machine.number(limit)
        if most is not None and most < _NO_LIMIT:
            return most, machine.number(used) or 0
    return _NO_LIMIT, 0


def _graded(name: str, seen: str, value: int, bounds: tuple[int, int], remedy: str) -> Check:
    """Failed below the first bound, warned below the second."""
    least, good = bounds
    if value < least:
        return failed(name, seen, remedy)
    return passed(name, seen) if value >= good else warned(name, seen, remedy)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
