"""Whether a model is worse than the one before on validation patients: the figures stay here, one word may leave.

Who may hear it is the door's to say (`client.coarsen.Rules.vote`).
"""

from __future__ import annotations

from typing import Final

from client.privacy.masking_store import NAME, Store
from client.site import Site
from common.types import RunId

HARM: Final = 1.05
"""The incoming model is worse where its validation loss is above that of the one before by more than a twentieth:
a loss over some dozens of patients moves by a few hundredths from round to round without any harm."""


def worse(loss: float | None, before: float | None) -> bool | None:
    """Whether a loss is above that of the model before by more than `HARM`; None where either is not known."""
    return None if loss is None or before is None else loss > HARM * before


def judged(site: Site, run: RunId, after: int, loss: float | None) -> bool | None:
    """Whether the final model is worse than the one that round `after`, the last one, began with; None where nobody knows.

    The caller has asked the door's rules (`client.coarsen.Rules.vote`), and the door asks them again.

    Raises:
        StorageError: as `Store.open`.
    """
    with Store(site.state / NAME).open() as book:
        before = book.loss_before(run, after + 1, loss)
    return worse(loss, before)
