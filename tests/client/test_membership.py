"""Does a hospital hold its federation to what it pinned, and take nothing new without being asked?"""

from __future__ import annotations

import json

import pytest

from client.membership import identity_of, load_membership, offer, offered, pin
from client.site import init_site
from common.errors import ConsiliumError
from common.identity import Identity
from common.roster import Member, sign_roster
from common.types import SiteName


@pytest.fixture
def site(tmp_path):
    return init_site(tmp_path / "site", "st-anna")


@pytest.fixture
def server(tmp_path):
    return Identity.make(tmp_path / "consortium.key")


@pytest.fixture
def other(tmp_path):
    return Identity.make(tmp_path / "other.key")


def roster(server, site, version=1, *more, federation="lungs"):
    members = [Member(site.name, identity_of(site).public)]
    members += [Member(SiteName(name), key.public) for name, key in more]
    return sign_roster(server, federation, version, members)


def refused(code, action):
    with pytest.raises(ConsiliumError) as refusal:
        action()
    assert refusal.value.code == code


def test_a_site_that_was_not_enrolled_has_no_membership(site):
    assert load_membership(site) is None
    assert offered(site) is None


def test_what_was_pinned_is_there_after_a_restart(site, server):
    made = roster(server, site)
    pin(site, made, server.public)
    known = load_membership(site)
    assert known is not None
    assert (known.roster, known.server_key) == (made, server.public)
    assert known.identity.public == identity_of(site).public


def test_another_server_or_federation_cannot_take_a_sites_place(site, server, other):
    pin(site, roster(server, site), server.public)
    refused("server-key", lambda: pin(site, roster(other, site, 2), other.public))
    refused("server-key", lambda: pin(site, roster(server, site, 2, federation="livers"), server.public))
    refused("roster", lambda: pin(site, roster(other, site, 2), server.public))
    known = load_membership(site)
    assert known is not None
    assert known.roster.version == 1


def test_a_roster_that_leaves_this_hospital_out_or_names_another_key_is_refused(site, server, other):
    without = sign_roster(server, "lungs", 1, [Member(SiteName("elsewhere"), other.public)])
    posing = sign_roster(server, "lungs", 1, [Member(site.name, other.public)])
    for made in (without, posing):
        refused("not-a-member", lambda made=made: pin(site, made, server.public))
    assert load_membership(site) is None


def test_a_newer_roster_waits_for_a_person_and_the_pinned_one_counts(site, server, other):
    pin(site, roster(server, site), server.public)
    assert not offer(site, roster(server, site))
    newer = roster(server, site, 2, ("beta", other))
    assert offer(site, newer)
    assert offered(site) == newer
    known = load_membership(site)
    assert known is not None
    assert known.roster.version == 1
    pin(site, newer, server.public)
    assert offered(site) is None


def test_a_roster_never_goes_back_and_a_version_is_one_list(site, server, other):
    pin(site, roster(server, site, 3), server.public)
    refused("roster-old", lambda: pin(site, roster(server, site, 2), server.public))
    refused("roster-fork", lambda: offer(site, roster(server, site, 3, ("beta", other))))
    refused("not-enrolled", lambda: offer(init_site(site.folder / "two", "b"), roster(server, site)))


def test_a_changed_or_missing_part_is_noticed_and_nothing_is_guessed(site, server):
    pin(site, roster(server, site), server.public)
    folder = site.state / "federation"
    good = (folder / "roster.json").read_text()
    values = json.loads(good)
    (folder / "roster.json").write_text(json.dumps(values | {"version": 2}))
    refused("roster", lambda: load_membership(site))
    (folder / "roster.json").write_text(good)
    (site.secrets / "identity.key").chmod(0o644)
    refused("key-rights", lambda: load_membership(site))
    (site.secrets / "identity.key").chmod(0o600)
    (folder / "server.json").unlink()
    refused("membership", lambda: load_membership(site))
    (folder / "server.json").write_text("{}")
    refused("membership", lambda: load_membership(site))
