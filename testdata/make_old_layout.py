#!/usr/bin/env python3
"""Make a LUKS1 image as cryptsetup 1.0 laid it out, which no cryptsetup of today makes.

Key material begins at sector 2, right behind the header; areas are as long as their material and
not rounded up to 4096 bytes; the digest has 10 iterations (LUKS_MKD_ITER of the first versions);
an unused keyslot is inactive. aes-128, cbc-essiv:sha256, sha1. Random, so every run makes another
image.

usage: make_old_layout.py IMAGE SLOT=PASSPHRASE...
"""

import hashlib
import os
import struct
import sys
import uuid

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECTOR = 512
STRIPES = 4000
KEY_BYTES = 16
HASH = "sha1"
DIGEST_ITERATIONS = 10
SLOT_ITERATIONS = 1500
FIRST_SECTOR = 2
AREA_SECTORS = KEY_BYTES * STRIPES // SECTOR
PAYLOAD_SECTOR = -(-(FIRST_SECTOR + 8 * AREA_SECTORS) // 8) * 8
PAYLOAD = b"\xa5" * 4096


def encrypt_sectors(key: bytes, data: bytes) -> bytes:
    iv_cipher = Cipher(algorithms.AES(hashlib.sha256(key).digest()), modes.ECB())
    out = b""
    for number in range(len(data) // SECTOR):
        iv = iv_cipher.encryptor().update(struct.pack("<QQ", number, 0))
        sector = data[number * SECTOR : (number + 1) * SECTOR]
        out += Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor().update(sector)
    return out


def diffuse(block: bytes) -> bytes:
    size = hashlib.new(HASH).digest_size
    pieces = [block[i : i + size] for i in range(0, len(block), size)]
    return b"".join(
        hashlib.new(HASH, struct.pack(">I", i) + piece).digest()[: len(piece)]
        for i, piece in enumerate(pieces)
    )


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other))


def split(key: bytes) -> bytes:
    out, state = b"", bytes(len(key))
    for _ in range(STRIPES - 1):
        stripe = os.urandom(len(key))
        out += stripe
        state = diffuse(xor(state, stripe))
    return out + xor(state, key)


def main() -> None:
    path, *slots = sys.argv[1:]
    secrets = {int(slot): secret for slot, secret in (arg.split("=", 1) for arg in slots)}
    volume_key, digest_salt = os.urandom(KEY_BYTES), os.urandom(32)
    digest = hashlib.pbkdf2_hmac(HASH, volume_key, digest_salt, DIGEST_ITERATIONS, 20)
    header = b"LUKS\xba\xbe" + struct.pack(">H", 1)
    header += b"aes".ljust(32, b"\0") + b"cbc-essiv:sha256".ljust(32, b"\0")
    header += HASH.encode().ljust(32, b"\0") + struct.pack(">II", PAYLOAD_SECTOR, KEY_BYTES)
    header += digest + digest_salt + struct.pack(">I", DIGEST_ITERATIONS)
    header += str(uuid.uuid4()).encode().ljust(40, b"\0")
    image = bytearray(PAYLOAD_SECTOR * SECTOR)
    for slot in range(8):
        start = FIRST_SECTOR + slot * AREA_SECTORS
        if slot not in secrets:
            header += struct.pack(">II32sII", 0xDEAD, 0, b"", start, STRIPES)
            continue
        salt = os.urandom(32)
        key = hashlib.pbkdf2_hmac(HASH, secrets[slot].encode(), salt, SLOT_ITERATIONS, KEY_BYTES)
        material = encrypt_sectors(key, split(volume_key))
        header += struct.pack(">II32sII", 0xAC71F3, SLOT_ITERATIONS, salt, start, STRIPES)
        image[start * SECTOR : start * SECTOR + len(material)] = material
    image[: len(header)] = header
    with open(path, "wb") as file:
        file.write(image + encrypt_sectors(volume_key, PAYLOAD))


main()
