"""To whom what leaves a hospital goes: the consortium's server, by the fingerprint of its key, and the study it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.membership import load_membership
from common.errors import ConsiliumError
from common.identity import fingerprint
from common.plan import Plan
from common.types import Digest

if TYPE_CHECKING:
    from client.site import Site


@dataclass(frozen=True)
class Addressee:
    """Who asked, as far as this hospital knows, and for what."""

    server: Digest | None = None
    """Fingerprint of the server's key, as pinned at enrolment, or by the first countersigned ledger; else None."""
    plan: Digest | None = None
    study: str = ""

    @property
    def fields(self) -> dict[str, object]:
        """Of the audit log's line; what is not known is left out."""
        known = {"to": self.server, "plan": self.plan, "study": self.study}
        return {name: value for name, value in known.items() if value}


def addressee(site: Site, plan: Plan | None = None) -> Addressee:
    """Who a reply goes to, now.

    Args:
        site: whose pinned key is looked up; a file that cannot be believed names nobody.
        plan: what was asked under; None where no plan was read.
    """
    server = _server(site)
    return Addressee(server) if plan is None else Addressee(server, plan.digest, plan.study.name)


def _server(site: Site) -> Digest | None:
    from client.privacy.heads import NAME, Heads  # noqa: PLC0415 - the ledger's modules read the policy

    try:
        membership = load_membership(site)
        if membership is not None:
            return fingerprint(membership.server_key)
        return Heads(site.state / NAME).known.fingerprint
    except ConsiliumError:
        return None
