"""Strangers on the port: too long, too slow, too many, cut off; the listener serves the others."""

from __future__ import annotations

import io
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from client.pacs import connection
from client.site import Site
from tests.client.intake_files import image, to_bytes
from tests.client.pacs.listening import association, held, listener, listening_site, send, wait_for
from tests.studies import study


@contextmanager
def wire(site: Site) -> Iterator[socket.socket]:
    """A bare connection."""
    with socket.create_connection(("127.0.0.1", site.pacs.listen.port), timeout=20) as one:
        yield one


def closed(one: socket.socket) -> bool:
    """Whether the other side ends it."""
    try:
        while one.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A hospital that listens."""
    return listening_site(tmp_path / "site")


def drafts(site: Site) -> list[Path]:
    """Half instances."""
    return list((site.inbox / ".incoming").iterdir())


def test_a_unit_of_four_gigabytes_is_not_waited_for(site: Site) -> None:
    """The connection ends when the length is read."""
    with listener(site), wire(site) as one:
        one.sendall(struct.pack(">BxI", 1, 2**32 - 1) + b"x" * 1000)
        assert closed(one)
        assert send(site, study(0)) == [0]


def test_noise_is_no_association(site: Site) -> None:
    """Nor is HTTP, nor a unit of zeros; none leaves a traceback."""
    with listener(site):
        for noise in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0" * 500,
            b"\1\0\0\0\0\4abcd",
            b"\4\0\0\0\0\6" + b"\0\0\0\2\1\3",
        ):
            with wire(site) as one:
                one.sendall(noise)
                one.shutdown(socket.SHUT_WR)
                assert closed(one)
        assert send(site, study(0)) == [0]


def test_connections_that_say_nothing_leave_room(site: Site) -> None:
    """As many silent ones as the site has associations, and a sender still gets in."""
    silent = []
    with listener(site):
        try:
            silent = [
                socket.create_connection(("127.0.0.1", site.pacs.listen.port))
                for _ in range(site.pacs.listen.max_associations)
            ]
            time.sleep(0.3)
            assert send(site, study(0)) == [0]
        finally:
            for one in silent:
                one.close()


def test_a_flood_of_connections_is_cut(site: Site) -> None:
    """Beyond the associations and a few to spare, a connection is closed at once."""
    flood = []
    with listener(site):
        try:
            for _ in range(site.pacs.listen.max_associations + connection.SPARE + 5):
                flood.append(socket.create_connection(("127.0.0.1", site.pacs.listen.port), timeout=10))
                time.sleep(0.02)
            assert closed(flood[-1])
        finally:
            for one in flood:
                one.close()


def store_request(number: int) -> tuple[C_STORE, bytes]:
    """A request and its data set, to be sent by hand."""
    ds = image(number)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return request, to_bytes(ds)


def push(with_it: Association, control: int, data: bytes) -> None:
    """One fragment of a message."""
    unit = P_DATA()
    unit.presentation_data_value_list.append([1, bytes([control]) + data])
    with_it.dul.send_pdu(unit)


def test_an_instance_cut_off_leaves_nothing(site: Site) -> None:
    """The sender dies in the middle; neither an instance nor half of one remains."""
    with listener(site):
        with_it = association(site, study(0))
        _command(with_it)
        push(with_it, 0, b"\0" * 50_000)
        wait_for(lambda: drafts(site))
        with_it.abort()
        wait_for(lambda: not drafts(site))
    assert held(site) == []


def _command(with_it: Association) -> None:
    """The command set of a store, without its data set."""
    request, raw = store_request(0)
    request.DataSet = io.BytesIO(raw)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    first = next(iter(message.encode_msg(1, 16_384)))
    with_it.dul.send_pdu(first)


def test_a_command_without_end_is_cut(site: Site) -> None:
    """Command fragments pile up to 64 KiB and no further."""
    with listener(site):
        with_it = association(site, study(0))
        for _ in range(9):
            push(with_it, 1, b"\0" * 10_000)
        wait_for(lambda: not with_it.is_established)
        assert send(site, study(0)) == [0]


@pytest.mark.parametrize(
    "raw", [b"\0" * 3000, b"\x08\0\x05\0CS\xff\xff", b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" * 5000]
)
def test_a_data_set_of_nonsense_is_kept_for_the_parser(site: Site, raw: bytes) -> None:
    """What cannot be read here is not refused here: it goes to quarantine by name, later."""
    head = to_bytes(image(1))
    file = head[: 144 + int.from_bytes(head[140:144], "little")] + raw
    with listener(site):
        status = send(site, [file])
    assert status == [0]
    assert len(held(site)) == 1
