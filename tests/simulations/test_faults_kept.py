"""What was measured of faults is kept case by case; which are chosen; and the stretch of network that can be cut."""

from __future__ import annotations

import socket
import threading

import pytest

from common.errors import InputError
from simulations.faults.cases import ALL, CUT, FAULTS, SECURED
from simulations.faults.hung import Hung
from simulations.faults.kept import HUNG, Kept, read_kept, write_kept
from simulations.faults.matrix import Happened, table, what_happened
from simulations.faults.relay import relay
from simulations.faults.report import names, put, tables
from simulations.faults.wrong import CASES, Outcome

WELL = {"same_bits": True, "everybody": True}


def test_each_fault_has_a_name_of_its_own_and_a_word_chooses_by_it():
    assert len({fault.name for fault in ALL}) == len(ALL)
    assert names([]) == [*CASES, HUNG, *(fault.name for fault in ALL)]
    assert names(["tls-beta-node-*"]) == [f.name for f in SECURED if "beta-node" in f.name]
    assert names(["a pickle", "*silent-90*"]) == ["a pickle", "tls-beta-network-silent-90-half"]
    assert 0 < len(names([], short=True)) < 10
    with pytest.raises(InputError):
        names(["nonsense"])


def test_what_was_well_is_kept_on_disk_and_what_was_not_is_measured_again(tmp_path):
    path = tmp_path / "kept.json"
    good, lost, twice, failed = FAULTS[:4]
    rows = {
        good.name: Happened(good, 1, 0.1, 4.0, **WELL),
        lost.name: Happened(lost, 2, 0.1, 4.0, same_bits=True, everybody=False),
        twice.name: Happened(twice, 3, 0.1, 4.0, **WELL, twice=1),
        failed.name: Happened(failed, 4, 0.0, 0.0, failed="it did not come in 240 s"),
    }
    kept = Kept(rows, {"NaN": Outcome("NaN", "not-finite", clean=True, noted=True, seconds=1.0)})
    kept.failed["Inf"] = "no"
    write_kept(kept, path)
    again = read_kept(path)
    assert again == kept
    assert [name for name in [*rows, "NaN", "Inf", HUNG] if again.has(name)] == [good.name, "NaN"]
    assert again.unwell == [lost.name, twice.name, failed.name, "Inf"]
    assert read_kept(tmp_path / "none.json") == Kept()
    path.write_text("[]")
    with pytest.raises(InputError):
        read_kept(path)


def test_a_hospital_that_was_freed_too_late_is_not_well():
    good = Hung(60.0, 55.0, 71.0, 9.0, "timeout", subset=True, told=True, clean=True)
    assert good.well
    assert not Hung(60.0, 55.0, 101.0, 9.0, "timeout", subset=True, told=True, clean=True).well
    assert not Hung(60.0, 55.0, 71.0, 9.0, "timeout", subset=False, told=True, clean=True).well


def test_only_tables_that_were_measured_are_replaced_in_a_document(tmp_path):
    document = tmp_path / "faults.md"
    text = "".join(
        f"<!-- measured: {n} -->\nold {n}\n<!-- measured: end of {n} -->\n" for n in ("cut", "wrong")
    )
    document.write_text(text)
    kept = Kept({CUT[0].name: Happened(CUT[0], 1, 20.0, 5.0, attempts=1, trainings=2, kept=True, **WELL)})
    put(document, kept)
    said = document.read_text()
    assert "old wrong" in said
    assert "old cut" not in said
    assert "refused for 20 s" in said
    assert "| 20.0 s | 5.0 s |" in said
    assert f"Not measured: `{CUT[1].name}`" in said, "a table that is not whole says so"
    kept.happened[FAULTS[0].name] = Happened(FAULTS[0], 1, 0.1, 1.0, **WELL)
    with pytest.raises(InputError):
        put(document, kept)
    assert set(tables(kept)) == {"cut", "killed"}


def test_what_went_wrong_stands_in_the_table():
    assert "FAILED: why" in what_happened(Happened(FAULTS[0], 1, 0.0, 0.0, failed="why"))
    assert "NOT WELL" in what_happened(Happened(FAULTS[0], 1, 0.1, 1.0))
    assert what_happened(Happened(FAULTS[0], 1, 0.1, 1.0, **WELL)) == "the hospital trained once"


def test_a_round_that_needed_nobody_back_says_so_and_no_time_before_nought():
    assert "| 1.1 s | before it was there again |" in table([Happened(FAULTS[0], 1, 1.1, -0.9, **WELL)])
    assert "| 1.1 s | 0.9 s |" in table([Happened(FAULTS[0], 1, 1.1, 0.9, **WELL)])


def _echo(server):
    def serve(caller):
        with caller:
            while data := caller.recv(100):
                caller.sendall(data)

    def accept():
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(caller,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _said(link, word):
    link.sendall(word)
    return link.recv(100)


def test_a_relay_passes_drops_is_silent_and_heals():
    with socket.create_server(("127.0.0.1", 0)) as server:
        _echo(server)
        with relay(server.getsockname()[1]) as between:

            def link():
                return socket.create_connection(("127.0.0.1", between.port), timeout=10)

            with link() as one:
                assert _said(one, b"a") == b"a"
                between.refuse()
                assert one.recv(1) == b"", "dropped"
                with link() as refused:
                    assert refused.recv(1) == b""
                between.heal()
            with link() as two:
                assert _said(two, b"b") == b"b"
                between.silence()
                two.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    _said(two, b"c")
                with link() as three:
                    three.sendall(b"d")
                    between.heal()
                    assert three.recv(1) == b"d", "it came while nothing passed"
        server.close()
