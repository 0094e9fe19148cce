"""What a hostile app bundle would try, once it runs where the courier runs; started under the courier's account.

Reads a JSON object from its standard input: folders, socket, process id of the service, a genuine sealed question. Writes
one JSON object: by attempt either `denied` or, in hexadecimal, the beginning of what it got.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

import grpc

from client.socket import call
from common import envelope, wire
from common.errors import ConsiliumError
from common.identity import Identity
from common.messages import Refusal

DENIED = "denied"
WHOLE = 1 << 16


def attempt(work):
    """The outcome of one try."""
    try:
        got = work()
    except (OSError, RuntimeError, ValueError, ConsiliumError) as error:
        return f"{DENIED}: {type(error).__name__}"
    return bytes(got)[:WHOLE].hex() if got else f"{DENIED}: nothing"


def walk(folder):
    """Every name and content below a folder."""
    found = b""
    for path in Path(folder).iterdir():
        found += path.name.encode() + b"\n" + (walk(path) if path.is_dir() else path.read_bytes())
    return found


def files(asked):
    """Open what is the site's, by its own name, a link, and the service's eyes."""
    tried = {}
    for folder in asked["folders"]:
        tried[f"list {folder}"] = attempt(lambda f=folder: walk(f))
    for path in asked["files"]:
        tried[f"read {path}"] = attempt(lambda p=path: Path(p).read_bytes())
        tried[f"write {path}"] = attempt(
            lambda p=path: os.close(os.open(p, os.O_WRONLY | os.O_APPEND)) or b"opened"
        )
        link = f"{asked['own']}/link-{len(tried)}"
        tried[f"soft link {path}"] = attempt(
            lambda p=path, t=link: Path(t).symlink_to(p) or Path(t).read_bytes()
        )
        tried[f"hard link {path}"] = attempt(
            lambda p=path, t=link + "h": os.link(p, t) or Path(t).read_bytes()
        )
        tried[f"by the service's root {path}"] = attempt(
            lambda p=path: Path(f"/proc/{asked['pid']}/root{p}").read_bytes()
        )
    return tried


def memory(asked):
    """Look into the service's process."""
    process, tried = f"/proc/{asked['pid']}", {}
    for part in ("environ", "mem", "maps", "io", "auxv"):
        tried[f"{part} of the service"] = attempt(lambda p=part: Path(f"{process}/{p}").read_bytes())
    tried["files it has open"] = attempt(
        lambda: b"".join(bytes(path.readlink()) for path in Path(f"{process}/fd").iterdir())
    )
    tried["its working folder"] = attempt(lambda: bytes(Path(f"{process}/cwd").readlink()))
    tried["end it"] = attempt(lambda: os.kill(asked["pid"], signal.SIGKILL) or b"ended")
    library = ctypes.CDLL(None, use_errno=True)
    tried["trace it"] = attempt(
        lambda: b"attached" if library.ptrace(16, asked["pid"], None, None) == 0 else b""
    )
    tried["become root"] = attempt(lambda: os.setuid(0) or b"root")
    tried["become its account"] = attempt(lambda: os.setuid(Path(process).stat().st_uid) or b"it")
    shared = Path("/dev") / "shm"
    own = [p for p in shared.iterdir() if p.stat().st_uid != os.getuid() and "consilium" in p.name]
    tried["memory shared with all"] = attempt(lambda: b"".join(p.read_bytes() for p in own))
    return tried


def environment():
    """What the courier was given at its start."""
    return {"own environment": json.dumps(dict(os.environ)).encode().hex()}


def service(asked):
    """Everything that can be said over the socket."""
    path, genuine = Path(asked["socket"]), bytes.fromhex(asked["question"])
    tried = {"inner socket": attempt(lambda: call(Path(asked["inner"]), genuine, 5))}
    with grpc.insecure_channel(f"unix:{path}") as channel:
        for name in ("Read", "File", "Update", "Raw", "Answer/../Read"):
            method = channel.unary_unary(f"/consilium.SiteService/{name}")
            tried[f"method {name}"] = attempt(lambda m=method: _rpc(m))
        other = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        tried["reflection"] = attempt(lambda: _rpc(other))
    head, body = envelope.split(genuine)
    own = Identity.make(Path(asked["own"]) / "own.key")
    letter = envelope.peek(head)
    tried["bare question"] = code(call(path, body, 60))
    tried["question of its own"] = code(call(path, envelope.seal(body, own, letter), 60))
    other_body = body.replace(b"epsilon = 3.0", b"epsilon = 9.0")
    tried["question made worse"] = code(call(path, head + other_body, 60))
    reply = call(path, genuine, 240)
    tried["genuine question"] = reply.hex()
    tried["once more"] = code(call(path, genuine, 60))
    tried["kind of the answer"] = type(wire.unpack(envelope.split(reply)[1])).__name__
    return tried


def _rpc(method):
    try:
        return method(b"", timeout=5)
    except grpc.RpcError:
        raise OSError("refused") from None


def code(reply):
    """The word of a refusal, sealed or not; the whole reply where it is none."""
    body = envelope.split(reply)[1] if envelope.is_sealed(reply) else reply
    said = wire.unpack(body)
    return said.code if isinstance(said, Refusal) else reply.hex()


def other_account(asked):
    """Only whether the socket lets this account in."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        line.connect(asked["socket"])
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        return {"answered": line.recv(100).hex()}


def all_of(asked):
    """Every try there is."""
    return {**files(asked), **memory(asked), **environment(), **service(asked)}


def main():
    """Try all."""
    asked = json.loads(sys.stdin.read())
    if asked.get("knock"):
        found = {"knock": attempt(lambda: bytes.fromhex(other_account(asked)["answered"]))}
    else:
        found = all_of(asked)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
