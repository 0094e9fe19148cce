"""A Grid around another: what it does not change is asked of the one inside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

Inside = TypeVar("Inside", bound=Grid)


class Around(Grid, Generic[Inside]):
    """Hands everything on but pushing and pulling, which whoever inherits does in its own way."""

    def __init__(self, grid: Inside) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """As the grid inside."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """As the grid inside."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """As the grid inside."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """As the grid inside."""
        return self._grid.get_node_ids()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As the grid inside."""
        return self._grid.send_and_receive(messages, timeout=timeout)
