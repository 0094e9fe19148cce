"""C-MOVE: the archive sends to our listener, which runs for the time of the pull.

Where `pacs listen` runs already, what it is sent lands in the same inbox; the order is watched there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove

from client.deid.pseudonyms import Pseudonyms
from client.pacs.arrivals import Arrivals
from client.pacs.dimse import Offer, accepted, check_status, close_association, open_association
from client.pacs.failures import lost
from client.pacs.fetch import MOVE, Target
from client.pacs.get import retrieve
from client.pacs.inbox import Draft, Inbox
from client.pacs.listener import Listener
from client.pacs.remote import Caller
from client.pacs.take import has_taker
from client.site import Site
from common.errors import PacsError, SettingsError

_MODEL: Final = StudyRootQueryRetrieveInformationModelMove


class MoveWay:
    """The listener of `[pacs.listen]`, open for this remote or running already, and one association for all orders."""

    name = MOVE
    whole_series = False
    """The instances are named, so that those of other senders are told apart."""
    together = 64

    def __init__(self, caller: Caller, site: Site, arrivals: Arrivals) -> None:
        """Listen, or find the listener of this site running.

        Raises:
            PacsError: `pacs-port`, the address is another program's or not this machine's, or the listener that runs
                there does not let this remote send.
            SettingsError: certificates that cannot be used.
        """
        self._caller = caller
        self._site = site
        self._arrivals = arrivals
        self._door = _Door(site, arrivals)
        self._listener: Listener | None = Listener(_open_for(site, caller), self._door)
        self._association: Association | None = None
        try:
            self._listener.start()
        except SettingsError:
            self._listener = None
            _check_running(site, caller, arrivals.inbox)

    def fetch(self, target: Target) -> None:
        """Order, and wait until the archive has sent.

        Raises:
            PacsError: see `Way`.
        """
        self._door.target = target
        title = self._site.pacs.ae_title
        try:
            association = self._open()
            for status, _ in association.send_c_move(retrieve(target), title, _MODEL):
                check_status(self._caller, "C-MOVE", status)
                self._look(target)
        except PacsError:
            self._end()
            raise
        except (ValueError, RuntimeError):  # what pynetdicom says of an association that ended meanwhile
            self._end()
            raise lost(self._caller.name, "DICOM") from None

    def close(self) -> None:
        """End the association and the listener."""
        self._end()
        if self._listener is not None:
            self._listener.stop(grace_s=2.0)

    def _look(self, target: Target) -> None:
        """Note what the listener that runs apart has put into the inbox; looked for at every answer, because it is
        taken in, and gone, once its study is quiet.
        """
        if self._listener is not None:
            return
        journal = self._arrivals.journal
        missing = [one for one in target.instances if not journal.has(one)]
        for instance in sorted(self._arrivals.inbox.held(target.study, missing)):
            self._arrivals.wait()
            self._arrivals.note(target.series, instance)

    def _end(self) -> None:
        if self._association is not None:
            close_association(self._association)
            self._association = None

    def _open(self) -> Association:
        if self._association is None or not self._association.is_established:
            self._end()
            self._association = open_association(self._caller, Offer([build_context(_MODEL)]))
            if not accepted(self._association, _MODEL):
                self._end()
                raise PacsError(
                    f"remote {self._caller.name}",
                    "it does not offer C-MOVE to us",
                    "Allow it for our AE title in the archive, or use --via get or --via web",
                    code="pacs-unsupported",
                )
        return self._association


def _check_running(site: Site, caller: Caller, inbox: Inbox) -> None:
    """See that what listens on our address is this site's own listener, and that it lets this remote send.

    Raises:
        PacsError: `pacs-port`.
    """
    if not has_taker(inbox):
        raise PacsError(
            "pacs.listen",
            "C-MOVE needs this address, and it is in use by another program or not one of this machine",
            "Choose another port in [pacs.listen] and at the archive, or use --via get or --via web",
            code="pacs-port",
        )
    if caller.remote.ae_title not in site.pacs.listen.calling:
        raise PacsError(
            "pacs.listen",
            f"the listener that runs does not let remote {caller.name} send",
            "Add its AE title to calling in [pacs.listen] and start `pacs listen` anew, or stop it for the time of "
            "the pull",
            code="pacs-port",
        )


class _Door(Inbox):
    """The inbox as the listener sees it while an order runs: in pace, and ordered instances are noted."""

    def __init__(self, site: Site, arrivals: Arrivals) -> None:
        listen = site.pacs.listen
        super().__init__(site.inbox, Pseudonyms.of(site), int(listen.floor_gib * 2**30), listen.backlog)
        self._arrivals = arrivals
        self.target: Target | None = None

    def keep(self, draft: Draft, study: str, instance: str) -> bool:
        """As the inbox; what was not ordered is kept as any sender's, and not noted."""
        self._arrivals.wait()
        new = super().keep(draft, study, instance)
        target = self.target
        if target is not None and study == target.study and instance in target.instances:
            self._arrivals.note(target.series, instance)
        return new


def _open_for(site: Site, caller: Caller) -> Site:
    """The site with this remote among those that may send."""
    listen = site.pacs.listen
    calling = tuple(dict.fromkeys((*listen.calling, caller.remote.ae_title)))
    return replace(site, pacs=replace(site.pacs, listen=replace(listen, calling=calling)))
