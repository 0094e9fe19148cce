"""The processes of a run: started once, handed every piece of work, ended with whoever started them.

A worker does not listen to Ctrl-C, which a terminal sends to everybody: the process that started the
crew does, and ends its workers. A worker whose starter is gone, however it went, ends by itself. Either
way the work in hand is unwound first, so that processes of its own end with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.queues import Queue
from typing import Final, ParamSpec, TypeVar

from common.durability import relax
from common.errors import FederationError
from simulations.board import CONTEXT, Board, Tick

Given = ParamSpec("Given")
Result = TypeVar("Result")

GRACE_S: Final = 10.0
"""How long a worker may take to put its work down before it is killed."""
_ENDED: Final = 128 + signal.SIGTERM

_ticks: Queue[Tick | None] | None = None
_busy: Final = threading.Event()
"""Set while a worker has work to unwind."""


class _Pool(ProcessPoolExecutor):
    """A pool whose workers can be ended in the middle of their work."""

    def submit(
        self, fn: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Result]:
        return super().submit(_carry_out, partial(fn, *args, **kwargs))


class Crew:
    """Workers and the bars that show what they do."""

    def __init__(self, pool: Executor, bars: Board, size: int) -> None:
        self._pool = pool
        self.bars = bars
        self.size = size

    @property
    def pool(self) -> Executor:
        """The workers, for code that hands out work by itself."""
        return self._pool

    def do(self, jobs: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """Carry out jobs, begun in their order; each result as it comes.

        Once a job failed no other is begun; the results of those in hand still come, then its error.

        Args:
            jobs: picklable calls.

        Raises:
            FederationError: `worker-lost`, when a worker was ended from outside; else what a job raised.
        """
        waiting = [self._pool.submit(job) for job in jobs]
        failed: BaseException | None = None
        for future in as_completed(waiting):
            try:
                result = future.result()
            except CancelledError:
                continue
            except Exception as error:  # noqa: BLE001 - raised below, once the others have come in
                failed = failed or error
                for other in waiting:
                    other.cancel()
                continue
            yield result
        if isinstance(failed, BrokenProcessPool):
            raise FederationError(
                "a worker process",
                "it was ended from outside",
                "Check the memory, then repeat",
                code="worker-lost",
            ) from None
        if failed is not None:
            raise failed


@contextmanager
def crew(bars: Board, size: int | None = None) -> Iterator[Crew]:
    """Workers for the length of a block, one a core by default; none is left when it ends, however it ends."""
    count = size or len(os.sched_getaffinity(0))
    others = set(multiprocessing.active_children())
    pool = _Pool(count, mp_context=CONTEXT, initializer=_begin, initargs=(bars.queue,))
    try:
        with _uninterrupted():
            for _ in range(count):
                pool.submit(_nothing)
        yield Crew(pool, bars, count)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        workers = set(multiprocessing.active_children()) - others
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(GRACE_S)
            worker.kill()
        raise
    finally:
        pool.shutdown()


def say(bar: str, done: int, total: int, part: str = "", parts: int = 1) -> None:
    """Move a bar from inside a worker; see `Tick`. Without a crew nobody watches."""
    if _ticks is not None:
        _ticks.put(Tick(bar, done, total, part, parts))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started in this block never hears Ctrl-C; whoever starts it hears it when the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    """Work that makes a worker start."""


def _begin(ticks: Queue[Tick | None]) -> None:
    """What a worker does first, before any library of numbers is loaded."""
    global _ticks  # noqa: PLW0603 - a worker's own, set once before its first job
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_follow, daemon=True).start()
    _ticks = ticks
    ticks.cancel_join_thread()  # nobody may be left to read what a bar would still have shown
    # One thread each: two in one process are many times slower when the cores are shared.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

    relax()  # a crew's hospitals are virtual; where one is not, it cannot be loaded

    from simulations.hospitals.export import keep_freed_memory  # noqa: PLC0415 - numbers, after their setting

    keep_freed_memory()


def _stop(_number: int, _frame: object) -> None:
    if _busy.is_set():
        sys.exit(_ENDED)
    os._exit(_ENDED)


def _follow() -> None:
    """End when the starter has ended; a worker that waits for work would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(_ENDED)


def _carry_out(job: Callable[[], Result]) -> Result:
    _busy.set()
    try:
        return job()
    except SystemExit:
        # The pool would take this for the job's result and wait for the next one.
        os._exit(_ENDED)
    finally:
        _busy.clear()
