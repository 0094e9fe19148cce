"""Feature maps of networks whose features cannot learn: computed once, used in every round and arm.

Maps are found again by content: the digest of the images themselves and of everything frozen in the
network. So no cached map can be stale, and arms that share a hospital's images share its maps. Maps
are patient data: they stay in memory, or in a folder under the hospital's own data.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from client.patients import PatientSet, Positions
from common.models import Network, architecture_digest

MEMORY_BYTES: Final = 1 << 30
CHUNK: Final = 64
"""Images through the network at a time."""


def in_chunks(count: int, size: int = CHUNK) -> Iterator[Positions]:
    """0 to count - 1, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


class FeatureCache:
    """Maps by content, in memory up to a bound, and in a folder where one is given."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._bound = memory_bytes
        self._maps: OrderedDict[str, Tensor] = OrderedDict()
        self._digests: dict[int, tuple[weakref.ref[PatientSet], bytes]] = {}
        self._folder: Path | None = None
        self._mutex = threading.Lock()

    def keep_in(self, folder: Path | None) -> None:
        """Also keep maps in this folder (inside the hospital's data), or no longer."""
        self._folder = folder

    def forget(self) -> None:
        """Drop every map, on disk too: after a patient was withdrawn."""
        with self._mutex:
            self._maps.clear()
            self._digests.clear()
            for file in self._folder.glob("features-*.npy") if self._folder else ():
                file.unlink(missing_ok=True)

    @torch.no_grad()
    def maps(self, net: Network, data: PatientSet, device: torch.device) -> Tensor:
        """The feature map of every image of `data`, in its order, on the CPU: float32 [n_images, ...].

        `net` must have `frozen_features`; it is used in evaluation mode and left as it was.
        """
        with self._mutex:
            key = hashlib.sha256(self._digest(data) + frozen_digest(net)).hexdigest()
            if key not in self._maps:
                self._maps[key] = self._read(key) if self._on_disk(key) else _compute(net, data, device)
                self._write(key)
                self._shrink()
            self._maps.move_to_end(key)
            return self._maps[key]

    def _digest(self, data: PatientSet) -> bytes:
        known = self._digests.get(id(data))
        if known is not None and known[0]() is data:
            return known[1]
        digest = hashlib.sha256()
        for positions in in_chunks(data.n_images):
            digest.update(data.pixels(positions).tobytes())
        self._digests[id(data)] = (weakref.ref(data), digest.digest())
        return digest.digest()

    def _file(self, key: str) -> Path | None:
        return self._folder / f"features-{key}.npy" if self._folder else None

    def _on_disk(self, key: str) -> bool:
        file = self._file(key)
        return file is not None and file.is_file()

    def _read(self, key: str) -> Tensor:
        file = self._file(key)
        return torch.from_numpy(np.load(file, allow_pickle=False)) if file else torch.empty(0)

    def _write(self, key: str) -> None:
        file = self._file(key)
        if file is None or file.is_file():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}.tmp")
        with draft.open("wb") as handle:
            np.save(handle, self._maps[key].numpy())
        draft.replace(file)

    def _shrink(self) -> None:
        while len(self._maps) > 1 and sum(m.nbytes for m in self._maps.values()) > self._bound:
            self._maps.popitem(last=False)


cache: Final = FeatureCache()
"""The process's own. It changes how long things take, and nothing else."""


def frozen_digest(net: Network) -> bytes:
    """SHA-256 over architecture, frozen parameters and buffers: everything `features` depends on."""
    digest = hashlib.sha256(architecture_digest(net).encode())
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if not tensor.requires_grad:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def _compute(net: Network, data: PatientSet, device: torch.device) -> Tensor:
    training = net.training
    net.eval()
    try:
        parts = [net.features(data.tensor(p).to(device)).cpu() for p in in_chunks(data.n_images)]
    finally:
        net.train(training)
    return torch.cat(parts) if parts else torch.empty(0)
