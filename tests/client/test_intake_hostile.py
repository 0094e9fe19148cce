"""Files made to harm: each costs itself only, by name; the others are taken in."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import compress
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from client.deid.pixels import decode
from client.deid.pseudonyms import Pseudonyms
from client.intake.ingest import ingest
from client.intake.outcome import Outcome, Task, outcome_from, to_json
from client.intake.parse import parse, quiet
from client.intake.pool import Limits, Pool, Setup
from common.errors import FileRefused
from tests.client.intake_files import chest, export, image, new_site, set_pixels, to_bytes, when_read


def head_of(data: bytes) -> bytes:
    """Preamble and file meta."""
    length = struct.unpack_from("<I", data, 140)[0]
    return data[: 144 + length]


def deep_sequences(depth: int) -> bytes:
    """Sequences of undefined length inside each other, before the first attribute of an ordinary file."""
    whole = to_bytes(image())
    opened = struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closed = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return head_of(whole) + opened * depth + closed * depth + whole[len(head_of(whole)) :]


def deflate_bomb(megabytes: int) -> bytes:
    """An image followed by zeros: small on disk, large in memory."""
    whole = to_bytes(image())
    body = whole[len(head_of(whole)) :]
    tool = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, megabytes << 20)
    packed = tool.compress(body + zeros) + b"".join(tool.compress(bytes(1 << 20)) for _ in range(megabytes))
    ds = dcmread(io.BytesIO(whole))
    return head_of(to_bytes(ds, DeflatedExplicitVRLittleEndian)) + packed + tool.flush()


def rle_lie() -> bytes:
    ds = dcmread(io.BytesIO(to_bytes(image())))
    compress(ds, RLELossless, generate_instance_uid=False)
    ds.Rows = ds.Columns = 60000
    return to_bytes(ds, RLELossless)


def other_class(uid: str) -> bytes:
    return to_bytes(image(SOPClassUID=uid))


def in_meta_only(element: int) -> bytes:
    """Its file meta names class and instance, its data set only one of them."""
    whole = to_bytes(image())
    body = whole[len(head_of(whole)) :]
    at = body.index(struct.pack("<HH2s", 0x0008, element, b"UI"))
    length = 8 + struct.unpack("<H", body[at + 6 : at + 8])[0]
    return head_of(whole) + body[:at] + body[at + length :]


STORAGE = "1.2.840.10008.5.1.4.1.1."
HOSTILE: dict[str, tuple[bytes, str]] = {
    "html": (b"<html><body>PACS error</body></html>", "not-dicom"),
    "empty": (b"", "not-dicom"),
    "class in file meta only": (in_meta_only(0x0016), "sop-class-missing"),
    "instance in file meta only": (in_meta_only(0x0018), "deid-uid"),
    "magic only": (bytes(128) + b"DICM", "sop-class-missing"),
    "noise after magic": (bytes(128) + b"DICM" + bytes(range(256)) * 20, "sop-class-missing"),
    "cut in the header": (to_bytes(image())[:700], "pixel-missing"),
    "cut in the pixels": (to_bytes(image())[:-1000], "pixel-truncated"),
    "sequences 5000 deep": (deep_sequences(5000), "parser-limit"),
    "RLE of 60000 by 60000": (rle_lie(), "pixel-size"),
    "60000 by 60000": (to_bytes(image(Rows=60000, Columns=60000)), "pixel-size"),
    "burned in": (to_bytes(image(BurnedInAnnotation="YES")), "review-burned-in"),
    "screen save": (to_bytes(image(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])), "review-screen-save"),
    "no patient": (to_bytes(image(PatientID="")), "patient-unknown"),
    "no study": (to_bytes(image(StudyInstanceUID="")), "deid-uid"),
    "modality of its own": (to_bytes(image(Modality="ZZ")), "deid-value"),
    "ultrasound": (other_class(STORAGE + "6.1"), "review-ultrasound"),
    "secondary capture": (other_class(STORAGE + "7"), "review-secondary-capture"),
    "structured report": (other_class(STORAGE + "88.33"), "sop-class-report"),
    "key object": (other_class(STORAGE + "88.59"), "sop-class-key-object"),
    "pdf": (other_class(STORAGE + "104.1"), "sop-class-document"),
    "presentation state": (other_class(STORAGE + "11.1"), "sop-class-presentation"),
    "directory": (other_class("1.2.840.10008.1.3.10"), "sop-class-dicomdir"),
}


def code_of(data: bytes) -> str:
    with pytest.raises(FileRefused) as caught, quiet():
        parse(data)
    return caught.value.code


def test_a_deflated_image_is_read_and_a_bomb_is_not():
    with quiet():
        assert parse(deflate_bomb(1)).Rows == 96
    assert code_of(deflate_bomb(300)) == "deflate-bomb"


def test_each_hostile_file_is_refused_by_its_name_and_the_others_go_on(tmp_path):
    folder = export(tmp_path / "in", 2, 100)
    for number, (data, _) in enumerate(HOSTILE.values()):
        (folder / f"h{number}.dcm").write_bytes(data)
    site = new_site(tmp_path / "site")
    report = ingest(site, folder, None, workers=2)
    expected: dict[str, int] = {}
    for _, code in HOSTILE.values():
        expected[code] = expected.get(code, 0) + 1
    assert report.refused == expected
    assert report.accepted == 2


def test_path_traversal_in_a_uid_or_number_writes_nowhere_else(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with quiet():
        data = to_bytes(image(PatientID="../../../evil", AccessionNumber="../../x"))
        (folder / "a.dcm").write_bytes(
            data.replace(b"1.2.276.0.7230010.3.1.1.1", b"../../../../../../evil.dc")
        )
    site = new_site(tmp_path / "site")
    before = {p for p in tmp_path.rglob("*") if not {site.data, site.state} & {*p.parents}}
    assert ingest(site, folder, None, workers=1).accepted == 1
    assert {p for p in tmp_path.rglob("*") if not {site.data, site.state} & {*p.parents}} == before
    assert not any("evil" in p.name for p in site.data.rglob("*"))


def tasks(folder, staging) -> list[Task]:
    staging.mkdir(exist_ok=True)
    paths = sorted(folder.iterdir())
    return [Task(n, str(path), f"{n:032x}", str(staging)) for n, path in enumerate(paths)]


SETUP = Setup(Pseudonyms(b"k" * 32, b"s" * 32))


def test_a_worker_that_dies_costs_one_file(tmp_path):
    """Killed from outside while it waits for its file: the next worker takes the rest."""
    todo = tasks(export(tmp_path / "in", 4), tmp_path / "st")
    with Pool(SETUP, 1) as pool:
        codes = []
        for task, outcome in pool.run(todo):
            codes.append(outcome.code)
            if task.number == 0:
                os.kill(pool.pids[0], signal.SIGKILL)
    assert codes.count("parser-crash") <= 1
    assert codes.count("accepted") >= 3
    assert len(codes) == 4


def test_a_file_that_takes_too_long_is_given_up(tmp_path):
    """A named pipe: reading it never ends."""
    folder = export(tmp_path / "in", 2)
    os.mkfifo(folder / "Abendroth_0b.dcm")
    setup = Setup(SETUP.names, limits=Limits(time_s=8.0))
    started = time.monotonic()
    with Pool(setup, 1) as pool:
        codes = [outcome.code for _, outcome in pool.run(tasks(folder, tmp_path / "st"))]
    assert codes == ["accepted", "parser-limit", "accepted"]
    assert time.monotonic() - started < 30


def cpu_limit(pid: int) -> int:
    """Seconds of processor time after which the kernel ends a process."""
    return int(Path(f"/proc/{pid}/limits").read_text().split("Max cpu time")[1].split()[0])


def test_every_file_has_the_processor_time_of_a_file(tmp_path):
    """What earlier files have used, together seconds of it, is not taken from the next one's."""
    folder = export(tmp_path / "in", 1)
    slow, before = folder / "A_first.dcm", []
    os.mkfifo(slow)
    big = image(1)
    set_pixels(big, chest(1, 2500))
    for number in range(2, 5):
        further = image(number)
        set_pixels(further, chest(number, 2500))
        (folder / f"B_{number}.dcm").write_bytes(to_bytes(further))

    def feed(pool: Pool) -> None:
        with slow.open("wb") as pipe:  # opened once the worker is at this file
            before.append(cpu_limit(pool.pids[0]))
            pipe.write(to_bytes(big))

    with Pool(Setup(SETUP.names, limits=Limits(cpu_s=30.0)), 1) as pool:
        feeder = threading.Thread(target=feed, args=(pool,), daemon=True)
        feeder.start()
        for _, outcome in pool.run(tasks(folder, tmp_path / "st")):
            assert outcome.accepted
        assert 30 < before[0] < cpu_limit(pool.pids[0]) < 90


def test_processor_time_that_is_used_up_ends_the_process_whatever_it_is_doing():
    code = "from client.intake.limits import limit_cpu\nlimit_cpu(1)\nx = 0\nwhile True: x += 1"
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == -signal.SIGXCPU


def test_a_worker_that_dies_leaves_no_picture_of_its_memory():
    """A core dump would be the whole identified file, in a place that nobody chose."""
    code = (
        "import resource as r\nfrom client.intake.limits import limit_memory\nmost = r.getrlimit(r.RLIMIT_CORE)[1]\n"
        "r.setrlimit(r.RLIMIT_CORE, (most, most))\nlimit_memory(2**30)\nprint(r.getrlimit(r.RLIMIT_CORE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=120, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(0, 0)"


def test_a_file_that_uses_up_its_processor_time_is_named_so_and_the_others_go_on(tmp_path):
    """The kernel's signal comes while the worker hangs in a pipe, as it would in a decoder."""
    folder = export(tmp_path / "in", 2)
    os.mkfifo(folder / "Abendroth_0b.dcm")
    with Pool(SETUP, 1) as pool:
        when_read(folder / "Abendroth_0b.dcm", lambda: os.kill(pool.pids[0], signal.SIGXCPU))
        codes = [outcome.code for _, outcome in pool.run(tasks(folder, tmp_path / "st"))]
    assert codes == ["accepted", "parser-limit", "accepted"]


def test_a_file_that_wants_too_much_memory_is_given_up(tmp_path):
    folder = export(tmp_path / "in", 1)
    big = image(1)
    big.Rows = big.Columns = 8000
    big.PixelData = bytes(8000 * 8000 * 2)
    (folder / "big.dcm").write_bytes(to_bytes(big))
    setup = Setup(SETUP.names, limits=Limits(memory_bytes=96 << 20))
    with Pool(setup, 1) as pool:
        codes = [outcome.code for _, outcome in pool.run(tasks(folder, tmp_path / "st"))]
    assert codes == ["accepted", "parser-limit"]


def test_what_crosses_from_a_worker_is_data_and_never_an_object():
    task = Task(1, "p", "k", "s")
    assert outcome_from(to_json(Outcome("accepted", row={"age": 3}))).row == {"age": 3}
    for text in ("", "[]", '{"evil": 1}', "not json", to_json(task)):
        with pytest.raises(ValueError, match="not an outcome"):
            outcome_from(text)


def test_a_wrong_value_representation_never_passes_as_another():
    """US said to be text: the file is refused or the value dropped, never half read."""
    whole = to_bytes(image())
    spoiled = whole.replace(struct.pack("<HH2s", 0x28, 0x10, b"US"), struct.pack("<HH2s", 0x28, 0x10, b"LO"))
    with quiet():
        ds = parse(spoiled)
        assert isinstance(ds, Dataset)
    with pytest.raises(FileRefused), quiet():
        decode(ds)
