"""Archives of two makes send to us; what they sent is on disk byte for byte, and nobody else gets in."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE

from common.audit import read
from common.errors import SettingsError
from tests.client.intake_files import image, to_bytes
from tests.client.pacs.listening import (
    CALLED,
    association,
    changed,
    data_set,
    dcmtk,
    held,
    held_uids,
    listener,
    listening_site,
    send,
    written,
)
from tests.orthanc import Answer, Orthanc, program
from tests.studies import dataset, study


def uids(files: list[bytes]) -> list[str]:
    """SOP instance UIDs."""
    return sorted(str(dcmread(DicomBytesIO(file), stop_before_pixels=True).SOPInstanceUID) for file in files)


def test_orthanc_sends_its_studies(tmp_path: Path, orthanc: Orthanc) -> None:
    """Two studies by one order: all instances, once, in two folders, and echo answers."""
    site = listening_site(tmp_path / "site")
    files = study(0, 3) + study(1, 2)
    orthanc.upload(*files)
    orthanc.know("site", CALLED, site.pacs.listen.port)
    with listener(site) as running:
        orthanc.rest("POST", "/modalities/site/echo", {})
        done = orthanc.store("site", *orthanc.studies())
        assert done["FailedInstancesCount"] == 0
        assert running.counts.received == 5
    assert held_uids(site) == uids(files)
    assert len({path.parent for path in held(site)}) == 2


def test_orthanc_under_a_wrong_name_is_refused(tmp_path: Path, orthanc: Orthanc) -> None:
    """A called title that is not ours."""
    site = listening_site(tmp_path / "site")
    orthanc.upload(*study(0))
    orthanc.know("site", "SOMEBODY", site.pacs.listen.port)
    with listener(site) as running:
        with pytest.raises(Answer):
            orthanc.store("site", *orthanc.studies())
        assert running.counts.refused["called"]
    assert held(site) == []


def test_dcmtk_sends_compressed_images_as_they_are(tmp_path: Path) -> None:
    """Lossless JPEG, JPEG-LS and RLE arrive with the very bytes of their data sets."""
    site = listening_site(tmp_path / "site")
    source = written(tmp_path / "plain", study(0, 1))
    (plain,) = source.iterdir()
    kinds = {"dcmcjpeg": "-xs", "dcmcjpls": "-xt", "dcmcrle": "-xr"}
    with listener(site):
        for packer, option in kinds.items():
            packed = tmp_path / packer / "image.dcm"
            packed.parent.mkdir()
            subprocess.run([program(packer, "dcmtk"), "+ua", str(plain), str(packed)], check=True)
            assert dcmtk(site, packed.parent, option) == 0
        assert len(held(site)) == 3
    sent = {pixels(tmp_path / packer / "image.dcm") for packer in kinds}
    assert {pixels(path) for path in held(site)} == sent
    assert len({dcmread(path).file_meta.TransferSyntaxUID for path in held(site)}) == 3


def pixels(path: Path) -> bytes:
    """Encoded pixels as they lie in the file."""
    return bytes(dcmread(path).PixelData)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_any_syntax_and_any_class_is_kept_undecoded(tmp_path: Path, syntax: str) -> None:
    """Also a private storage class nobody knows, with pixels that are no pixels."""
    site = listening_site(tmp_path / "site")
    ds = image(1, SOPClassUID="1.2.826.0.1.3680043.9.9999.1")
    if syntax == RLELossless:
        ds["PixelData"].is_undefined_length = True
        ds.PixelData = bytes.fromhex("feff00e000000000feff00e004000000deadbeeffeffdde000000000")
    file = to_bytes(ds, syntax)
    with listener(site):
        assert send(site, [file]) == [0]
    (path,) = held(site)
    assert data_set(path.read_bytes()) == data_set(file)


def test_titles_that_are_not_listed_are_refused(tmp_path: Path) -> None:
    """Wrong called title, wrong calling title; nothing is kept and the reason is counted."""
    site = listening_site(tmp_path / "site")
    folder = written(tmp_path / "src", study(0))
    with listener(site) as running:
        assert dcmtk(site, folder, called="NOTUS") != 0
        assert dcmtk(site, folder, calling="STRANGER") != 0
        assert running.counts.refused == {"called": 1, "calling": 1}
        assert dcmtk(site, folder) == 0
    assert len(held(site)) == 1


def test_without_a_sender_nothing_starts(tmp_path: Path) -> None:
    """An empty list means nobody, not everybody."""
    site = listening_site(tmp_path / "site", calling=[])
    with pytest.raises(SettingsError, match="no sender"), listener(site):
        pass


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """Two listeners on one port: the second says so."""
    site = listening_site(tmp_path / "site")
    other = listening_site(tmp_path / "other", port=site.pacs.listen.port)
    with listener(site), pytest.raises(SettingsError, match="cannot be listened on"), listener(other):
        pass


def test_eight_associations_at_once(tmp_path: Path) -> None:
    """8 x 25 instances of 8 studies in parallel: all there, once."""
    site = listening_site(tmp_path / "site")
    studies = [study(number, 25) for number in range(8)]
    answers: list[list[int]] = []
    with listener(site) as running:
        threads = [
            threading.Thread(target=lambda files=files: answers.append(send(site, files)))
            for files in studies
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [[0] * 25] * 8
        assert running.counts.received == 200
    assert held_uids(site) == uids([file for files in studies for file in files])
    assert len({path.parent for path in held(site)}) == 8


def test_a_sender_has_so_many_associations(tmp_path: Path) -> None:
    """The next one of the same title is turned away for now; another title is not, until the site is full."""
    site = listening_site(tmp_path / "site", max_per_sender=2, max_associations=3)
    with listener(site) as running:
        first = [association(site) for _ in range(2)]
        assert all(one.is_established for one in first)
        third = association(site)
        assert third.is_rejected
        assert third.acceptor.primitive.result == 2
        other = association(site, calling="STORESCU")
        assert other.is_established
        assert association(site, calling="TESTPACS").is_rejected
        assert running.counts.refused["too-many"] == 2
        for one in (*first, other):
            one.release()


def test_below_the_floor_the_sender_keeps_and_tries_again(tmp_path: Path) -> None:
    """Out of resources while the disk is short, with one line in the audit log; then all goes in."""
    site = listening_site(tmp_path / "site", floor_gib=1e9)
    files = study(0, 4)
    folder = written(tmp_path / "src", files)
    with listener(site) as running:
        assert send(site, files) == [0xA700] * 4
        assert dcmtk(site, folder) != 0
        assert running.counts.refused["disk-floor"] >= 5
    assert held(site) == []
    assert list((site.inbox / ".incoming").iterdir()) == []
    with listener(changed(site, floor_gib=0.0)):
        assert send(site, files) == [0] * 4
    assert len(held(site)) == 4
    assert [line["event"] for line in read(site.audit)].count("pacs.full") == 1


def test_the_floor_is_an_episode(tmp_path: Path) -> None:
    """It is told when it begins and when it ends, not for every instance; and so is the backlog."""
    site = listening_site(tmp_path / "site", backlog=3)
    files = study(0, 6)
    with listener(site) as running:
        assert send(site, files) == [0, 0, 0, 0xA700, 0xA700, 0xA700]
        shutil.rmtree(held(site)[0].parent)
        running._inbox._counted = -9.0
        assert send(site, files[3:]) == [0, 0, 0]
    told = [(line["event"], line["fields"].get("code")) for line in read(site.audit)]
    assert told[1:3] == [("pacs.full", "backlog"), ("pacs.room_again", "backlog")]
    assert len(told) == 4


def test_instances_that_hide_their_study_share_a_folder(tmp_path: Path) -> None:
    """Those of one association together, those of the next apart."""
    site = listening_site(tmp_path / "site")

    def nameless(number: int) -> bytes:
        ds = dataset(number)
        del ds.StudyInstanceUID
        return to_bytes(ds)

    with listener(site):
        assert send(site, [nameless(1), nameless(2)]) == [0, 0]
        assert send(site, [nameless(3)]) == [0]
    assert sorted(len(list(path.iterdir())) for path in {path.parent for path in held(site)}) == [1, 2]


def test_storage_commitment_and_queries_are_not_offered(tmp_path: Path) -> None:
    """What we do not do is not promised."""
    site = listening_site(tmp_path / "site")
    with listener(site):
        sender = AE(ae_title="SENDER")
        for kind in ("1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.1"):
            sender.add_requested_context(kind)
        with_it = sender.associate("127.0.0.1", site.pacs.listen.port, ae_title=CALLED)
        assert [str(context.abstract_syntax) for context in with_it.accepted_contexts] == [
            "1.2.840.10008.1.1"
        ]
        with_it.release()


def test_the_log_of_the_listener_names_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in log or audit lines, of ours or of pynetdicom, at any level."""
    site = listening_site(tmp_path / "site")
    with listener(site), caplog.at_level("DEBUG"):
        caplog.clear()
        send(site, study(7, 2), calling="STRANGER")
        send(site, study(7, 2))
        text = caplog.text + "".join(record.getMessage() for record in caplog.records)
    text += json.dumps(list(read(site.audit)))
    for word in ("Abendroth", "HOSP-77", "ACC0", "1.2.276", "Quackenbush", "STRANGER"):
        assert word not in text
