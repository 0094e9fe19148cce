"""C-GET: the archive sends over the association on which we asked; no listener, no firewall rule."""

from __future__ import annotations

from typing import Any, Final

from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet

from client.pacs.arrivals import Arrivals
from client.pacs.dimse import Offer, accepted, check_status, close_association, open_association
from client.pacs.failures import lost
from client.pacs.fetch import GET, Target, classes_of, storage_contexts
from client.pacs.find_dimse import identifier
from client.pacs.part10 import preface
from client.pacs.remote import Caller
from common.errors import PacsError, StorageError

_MODEL: Final = StudyRootQueryRetrieveInformationModelGet
_SUCCESS, _OUT_OF_RESOURCES, _REFUSED = 0x0000, 0xA700, 0xC000


class GetWay:
    """One association for all series of one kind, opened again when it was lost."""

    name = GET
    whole_series = True
    together = 64

    def __init__(self, caller: Caller, arrivals: Arrivals) -> None:
        self._caller = caller
        self._arrivals = arrivals
        self._association: Association | None = None
        self._classes: tuple[str, ...] = ()
        self._target: Target | None = None

    def fetch(self, target: Target) -> None:
        """Ask, and store what comes before asking for more.

        Raises:
            PacsError: see `Way`.
            StorageError: the inbox cannot take more.
        """
        association = self._open(classes_of(target.modality))
        self._target, self._arrivals.failure = target, None
        last: PacsError | None = None
        try:
            for status, _ in association.send_c_get(retrieve(target), _MODEL):
                check_status(self._caller, "C-GET", status)
        except PacsError as error:
            last = error
        except (ValueError, RuntimeError):  # what pynetdicom says of an association that ended meanwhile
            last = lost(self._caller.name, "DICOM")
        self._target = None
        if last is not None:
            self.close()
        if self._arrivals.failure is not None:
            raise self._arrivals.failure
        if last is not None:
            raise last

    def close(self) -> None:
        """End the association."""
        if self._association is not None:
            close_association(self._association)
            self._association = None

    def _open(self, classes: tuple[str, ...]) -> Association:
        ready = self._association is not None and self._association.is_established
        if self._association is None or not ready or classes != self._classes:
            self.close()
            self._classes = classes
            offer = Offer(
                [build_context(_MODEL), *storage_contexts(classes)],
                [build_role(sop_class, scp_role=True) for sop_class in classes],
                [(evt.EVT_C_STORE, self._store)],
            )
            self._association = open_association(self._caller, offer)
            if not accepted(self._association, _MODEL):
                self.close()
                raise PacsError(
                    f"remote {self._caller.name}",
                    "it does not offer C-GET to us",
                    "Allow it for our AE title in the archive, or use --via web or --via move",
                    code="pacs-unsupported",
                )
        return self._association

    def _store(self, event: Any) -> int:
        """One C-STORE of the archive; success is answered when the instance is on the disk."""
        target, request = self._target, event.request
        if target is None:
            return _REFUSED
        instance, sop_class = str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID)
        if target.instances and instance not in target.instances:
            return _REFUSED
        head = preface(sop_class, instance, str(event.context.transfer_syntax))
        try:
            self._arrivals.put(
                target.study, target.series, instance, (head, request.DataSet.getbuffer().tobytes())
            )
        except StorageError as error:
            self._arrivals.failure = error
            return _OUT_OF_RESOURCES
        except PacsError:
            return _REFUSED
        return _SUCCESS


def retrieve(target: Target) -> Any:
    """The identifier of C-GET and C-MOVE for a target."""
    keys = {"StudyInstanceUID": target.study, "SeriesInstanceUID": target.series}
    if not target.instances:
        return identifier("SERIES", (), keys)
    return identifier("IMAGE", (), {**keys, "SOPInstanceUID": "\\".join(target.instances)})
