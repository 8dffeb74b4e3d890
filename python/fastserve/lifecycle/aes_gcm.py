"""Files encrypted with AES-256-GCM, in chunks, so that they may be of any size and nothing of a changed file is believed.

    "fsenc1\\n"  8 random bytes   then for each chunk of 1 MiB (the last one is shorter): ciphertext, 16 bytes of tag

The nonce of a chunk: those 8 bytes and its number (4 bytes, big endian); its additional data: b"last" for the last chunk, else
b"more", so that chunks can neither be swapped nor cut off. Needs the package `cryptography` (extra `crypto`).
"""

from __future__ import annotations

import base64
import binascii
import importlib
import os
import re
from collections.abc import Callable
from typing import Any

from fastserve.errors import FailedPrecondition, InvalidArgument

MAGIC = b"fsenc1\n"
KEY_BYTES = 32
CHUNK_BYTES = 1 << 20
_SALT_BYTES, _TAG_BYTES = 8, 16
_HEAD_BYTES = len(MAGIC) + _SALT_BYTES


def read_key(where: str) -> bytes:
    """`file=FILE` or `env=NAME`: 32 bytes as they are (file), as 64 hexadecimal digits, or as base64. Raises InvalidArgument."""
    kind, _, name = where.partition("=")
    if kind == "file" and name:
        try:
            with open(name, "rb") as file:
                raw = file.read(4096)
        except OSError as error:
            raise InvalidArgument(
                f"the key file '{name}' cannot be read: {error.strerror or error}"
            ) from None
    elif kind == "env" and name:
        if name not in os.environ:
            raise InvalidArgument(f"the environment has no {name} with the key")
        raw = os.environb[name.encode()]
    else:
        raise InvalidArgument("aes-gcm wants its key by file=FILE or env=NAME")
    if len(raw) == KEY_BYTES:
        return raw
    text = raw.strip()
    if re.fullmatch(rb"[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text.decode())
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidArgument(
            f"the key of {where} is not {KEY_BYTES} bytes, 64 hexadecimal digits or base64 of {KEY_BYTES} bytes"
        )
    return key


def decryptor(key: bytes) -> Callable[[bytes], bytearray]:
    """Its result is the caller's, to be overwritten. Raises FailedPrecondition without `cryptography`; the function raises
    InvalidArgument: not encrypted like this, changed, or with another key."""
    cipher, invalid = _cipher(key)

    def decrypt(data: bytes) -> bytearray:
        view = memoryview(data)
        if bytes(view[: len(MAGIC)]) != MAGIC or len(view) < _HEAD_BYTES + _TAG_BYTES:
            raise InvalidArgument("it does not begin like a file of aes-gcm")
        salt, sealed = bytes(view[len(MAGIC) : _HEAD_BYTES]), view[_HEAD_BYTES:]
        step = CHUNK_BYTES + _TAG_BYTES
        plain = bytearray(len(sealed) - _TAG_BYTES * -(-len(sealed) // step))
        done = 0
        for number, start in enumerate(range(0, len(sealed), step)):
            last = start + step >= len(sealed)
            try:
                chunk = cipher.decrypt(
                    _nonce(salt, number), sealed[start : start + step], b"last" if last else b"more"
                )
            except invalid:
                raise InvalidArgument("the key is another one, or the file was changed") from None
            plain[done : done + len(chunk)] = chunk
            done += len(chunk)
        return plain

    return decrypt


def encrypt(plain: bytes, key: bytes) -> bytes:
    """For a file *.enc."""
    cipher, _ = _cipher(key)
    salt = os.urandom(_SALT_BYTES)
    parts = [MAGIC, salt]
    count = max(1, -(-len(plain) // CHUNK_BYTES))
    for number in range(count):
        chunk = plain[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        parts.append(cipher.encrypt(_nonce(salt, number), chunk, b"last" if number == count - 1 else b"more"))
    return b"".join(parts)


def _nonce(salt: bytes, number: int) -> bytes:
    return salt + number.to_bytes(4, "big")


def _cipher(key: bytes) -> tuple[Any, type[Exception]]:
    try:
        aead = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
        invalid = importlib.import_module("cryptography.exceptions").InvalidTag
    except ImportError:
        raise FailedPrecondition(
            "aes-gcm needs the package cryptography: pip install 'fastserve[crypto]'"
        ) from None
    return aead.AESGCM(key), invalid
