"""How `vectors.json` was made: python -m tests.common.secagg.make_vectors > tests/common/secagg/vectors.json

Nothing of `common.secagg` is used. HKDF is written out over `hmac` (RFC 5869), ChaCha20 over integers (RFC 8439,
section 2.3), interpolation over GF(2^128) with x^128 + x^7 + x^2 + x + 1 bit by bit, and sums over Python's own
integers. X25519 alone is a library's (`cryptography`); its result for RFC 7748's own vector is among the answers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

DOMAIN = "consilium/secagg/1"


def packed(purpose, *parts):
    return json.dumps([DOMAIN, purpose, *parts], separators=(",", ":")).encode()


def hkdf(material, salt, info):
    key = hmac.new(salt or bytes(32), material, hashlib.sha256).digest()
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def chacha20(key, count):
    """The first `count` bytes of the stream with counter 0 and nonce 0."""

    def turn(x, a, b, c, d):
        for left, right, by, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[left] = (x[left] + x[right]) & 0xFFFFFFFF
            word = x[by] ^ x[left]
            x[by] = ((word << bits) | (word >> (32 - bits))) & 0xFFFFFFFF

    out, number = b"", 0
    while len(out) < count:
        state = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), number, 0, 0, 0]
        x = list(state)
        for _ in range(10):
            for place in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
                turn(x, *place)
            for place in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                turn(x, *place)
        out += struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(x, state, strict=True)))
        number += 1
    return out[:count]


def times(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a, b = a << 1, b >> 1
        if a >> 128:
            a ^= (1 << 128) | 0x87
    return product


def inverse(a):
    result = 1
    for _ in range(127):
        a = times(a, a)
        result = times(result, a)
    return result


def interpolated(shares):
    """The value at 0 of the polynomial through {holder: 16 bytes}."""
    total = 0
    for j, y in shares.items():
        top = bottom = 1
        for m in shares:
            if m != j:
                top, bottom = times(top, m), times(bottom, j ^ m)
        total ^= times(int.from_bytes(y, "big"), times(top, inverse(bottom)))
    return total.to_bytes(16, "big")


def on_line(secret, slope, holder):
    """The share of a holder on the line secret + slope * x, so threshold 2."""
    return (int.from_bytes(secret, "big") ^ times(int.from_bytes(slope, "big"), holder)).to_bytes(16, "big")


def words(stream, bits):
    size = {16: 2, 24: 4, 32: 4, 64: 8}[bits]
    found = [int.from_bytes(stream[at : at + size], "little") for at in range(0, len(stream), size)]
    return [word % 2**bits for word in found]


def vectors():
    one, two = bytes(range(32)), bytes(range(32, 64))
    public = [X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw() for key in (one, two)]
    shared = X25519PrivateKey.from_private_bytes(one).exchange(X25519PublicKey.from_public_bytes(public[1]))
    bond = hashlib.sha256(b"bond").digest()
    pair = hkdf(shared, bond, packed("pair", "anna", "bert"))
    own = hkdf(one, bond, packed("own", "anna"))
    streams = {}
    for bits in (16, 24, 32, 64):
        key = hkdf(pair, b"", packed(f"stream-{bits}"))
        streams[str(bits)] = words(chacha20(key, 8 * {16: 2, 24: 4, 32: 4, 64: 8}[bits]), bits)
    secret, slope = hashlib.sha256(b"secret").digest(), hashlib.sha256(b"slope").digest()
    shares = {
        holder: on_line(secret[:16], slope[:16], holder) + on_line(secret[16:], slope[16:], holder)
        for holder in (1, 2, 3)
    }
    halves = [{h: s[at : at + 16] for h, s in shares.items() if h != 2} for at in (0, 16)]
    if b"".join(interpolated(half) for half in halves) != secret:
        raise SystemExit("the line does not go through its secret")
    context = hashlib.sha256(
        packed(
            "context",
            "run-1",
            3,
            "sha256:p",
            "sha256:c",
            ["sha256:r", ["anna", "bert", "carla"], 3, 32, 4.0, 200, 17],
        )
    ).hexdigest()
    return {
        "x25519": {
            "one": one.hex(),
            "two": two.hex(),
            "public": [key.hex() for key in public],
            "shared": shared.hex(),
        },
        "bond": bond.hex(),
        "pair_seed": pair.hex(),
        "own_seed": own.hex(),
        "commitment": hkdf(one, bond, packed("commitment", "anna")).hex(),
        "streams": streams,
        "shares": {"secret": secret.hex(), "by_holder": {str(h): s.hex() for h, s in shares.items()}},
        "context": context,
        "coding": _coding(),
    }


def _coding():
    """Counts by hand: 3 parties, heaviest 4, range 2; most = floor((2^(b-1) - 1) / 3); q = round(w d most / 8)."""
    values = [0.0, 1.0, -2.0, 0.3, -0.7]
    found = {}
    for bits in (24, 32):
        most = (2 ** (bits - 1) - 1) // 3
        found[str(bits)] = [round(3 * v * most / 8) % 2**bits for v in values]
    return {"values": values, "weight": 3, "heaviest": 4, "range": 2.0, "parties": 3, "counts": found}


if __name__ == "__main__":
    json.dump(vectors(), sys.stdout, indent=1)
    sys.stdout.write("\n")
