"""Images of 512 x 512 per second on one core, for each machine of each chain.

The process is tied to one core and OpenCV to one thread. Every image gets settings drawn anew and one of four patients, rendered
before the clock starts. Judged by the process's own CPU time, which other programs on the machine hardly change; time by the
clock stands beside: the mean, and what nine of ten images exceed, which is the clock's time where nobody came between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from rich.table import Table

from common.cli import grid
from simulations.hospitals.export import keep_freed_memory
from simulations.phantoms import draw_patient, render
from simulations.phantoms.head import draw_head, render_head
from simulations.phantoms.trunk import draw_trunk, render_trunk
from simulations.scanners import ct, mr, xray

SIZE: Final = 512
PATIENTS: Final = 4
LIMIT: Final = 50.0
"""Images a second on one core, of every machine: what the project set itself."""
Make = Callable[[int], object]


@dataclass(frozen=True)
class Speed:
    """One machine's."""

    chain: str
    machine: str
    images: int
    cpu_ms: float
    """For one image, drawing its settings included."""
    clock_ms: float
    least_clock_ms: float
    """The first decile of the clock's time for one image: of those between which no other program ran."""

    @property
    def per_second(self) -> float:
        """Images in a second of one core's time."""
        return 1000 / self.cpu_ms


def scanner_speed(images: int, seed: int) -> list[Speed]:
    """Time every machine over so many images each, after two that do not count."""
    with _one_core():
        keep_freed_memory()
        return [_timed(chain, name, make, images) for chain, name, make in _machines(seed)]


def table(found: list[Speed]) -> Table:
    """One line for each machine."""
    rows = [
        (
            one.chain,
            one.machine,
            f"{one.cpu_ms:.1f}",
            f"{one.clock_ms:.1f}",
            f"{one.least_clock_ms:.1f}",
            f"{one.per_second:.0f}",
        )
        for one in found
    ]
    title = f"Images of {SIZE} x {SIZE} on one core; the limit is {LIMIT:.0f} a second"
    return grid(title, ("chain", "machine", "CPU ms", "clock ms", "undisturbed", "images/s of CPU"), rows)


def _machines(seed: int) -> Iterator[tuple[str, str, Make]]:
    rng = np.random.default_rng(seed)
    chests = [
        xray.subject_of(render(draw_patient(rng, positive=bool(n % 2)), "PA", SIZE)) for n in range(PATIENTS)
    ]
    for name, room in xray.SITES.items():

        def radiograph(n: int, room: xray.Site = room) -> object:
            subject = chests[n % PATIENTS]
            return xray.expose(subject, xray.draw(rng, room, "PA", subject.pitch_mm))

        yield "X-ray", name, radiograph
    heads = [render_head(draw_head(rng, positive=bool(n % 2)), SIZE) for n in range(PATIENTS)]
    for name, magnet in mr.SITES.items():

        def slice_of_head(n: int, magnet: mr.MrSite = magnet) -> object:
            return mr.acquire(heads[n % PATIENTS], mr.draw(rng, magnet))

        yield "MR", name, slice_of_head
    trunks = [render_trunk(draw_trunk(rng, positive=bool(n % 2)), SIZE) for n in range(PATIENTS)]
    for name, gantry in ct.SITES.items():

        def slice_of_trunk(n: int, gantry: ct.CtSite = gantry) -> object:
            return ct.scan(trunks[n % PATIENTS], ct.draw(rng, gantry))

        yield "CT", name, slice_of_trunk


def _timed(chain: str, name: str, make: Make, images: int) -> Speed:
    for n in range(2):
        make(n)
    clocks, cpu = [], time.process_time()
    for n in range(images):
        began = time.perf_counter()
        make(n)
        clocks.append(1000 * (time.perf_counter() - began))
    cpu = time.process_time() - cpu
    least = float(np.quantile(clocks, 0.1))
    return Speed(chain, name, images, 1000 * cpu / images, sum(clocks) / images, least)


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep to the first core, and OpenCV to one thread; all is as before afterwards."""
    threads = cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cv2.setNumThreads(1)
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        if cores:
            os.sched_setaffinity(0, cores)
