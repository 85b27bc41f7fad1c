#!/usr/bin/env python3
"""Makes the golden exchanges of the container protocol, without any code of the server.

Needs the package `cryptography`. Run in this folder: `python3 make.py`. Keys that are here already are kept, because
large ones take minutes; delete one to have it made anew.
"""

import base64
import json
import os
import pathlib

from cryptography.hazmat.primitives import hashes, padding as block_padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HERE = pathlib.Path(__file__).parent
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
STAT = b'{"verb": "STAT", "parameters": {}}'
ANSWER = b'{"success": true, "message": "OK", "data": {"version": "4.1.4", "uptime": 5, "available": 6}}'


def private_key(bits):
    path = HERE / f"private{bits}.pem"
    if path.exists():
        return serialization.load_pem_private_key(path.read_bytes(), None)
    key = rsa.generate_private_key(65537, bits)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return key


def public_pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def aes(key, iv, plain):
    padder = block_padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()


def header(length):
    return str(length).encode().ljust(8, b"=")


def packet(generation, key, iv, plain):
    """Length message, packet and the IV that is next."""
    sealed = aes(key, iv, plain)
    if generation == 1:
        return header(len(sealed)), sealed, iv
    following = os.urandom(16)
    length = len(sealed) + 16
    if generation == 3:
        return header(length), sealed + following, following
    return aes(key, iv, str(length).encode()), sealed + following, following


def exchange(generation, key_bytes, client, server):
    """Every message of one connection, as hexadecimal digits, in turns: client, server, client, …"""
    first = os.urandom(key_bytes) + os.urandom(16)
    session = os.urandom(key_bytes) + os.urandom(16)
    key, iv = session[:-16], session[-16:]
    asked, request, following = packet(generation, key, iv, STAT)
    answered, answer, _ = packet(generation, key, following, ANSWER)
    client_pem, server_pem = public_pem(client), public_pem(server)
    turns = [
        header(len(client_pem)),
        b"1",
        client_pem,
        b"1" + header(len(server_pem)),
        b"1",
        server_pem,
        b"1" + server.public_key().encrypt(first, OAEP),
        b"1" + client.public_key().encrypt(session, OAEP),
        b"1" + asked,
        b"1",
        request,
        answered,
        b"1",
        answer,
    ]
    return {
        "generation": generation,
        "client_bits": client.key_size,
        "first": first.hex(),
        "session": session.hex(),
        "following_iv": following.hex(),
        "turns": [turn.hex() for turn in turns],
    }


def with_exponent(key, exponent):
    """The SubjectPublicKeyInfo of `key` with another exponent, which no library makes."""

    def der(tag, body):
        size = len(body)
        digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes([size]) if size < 128 else bytes([0x80 + len(digits)]) + digits
        return bytes([tag]) + length + body

    def integer(number):
        return der(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))

    inner = der(0x30, integer(key.public_key().public_numbers().n) + integer(exponent))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    text = base64.b64encode(der(0x30, algorithm + der(3, b"\0" + inner))).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def main():
    server = private_key(4096)
    clients = {bits: private_key(bits) for bits in (1024, 2048, 3072, 16384)}
    exchanges = [
        exchange(1, 32, clients[2048], server),
        exchange(1, 16, clients[3072], server),
        exchange(3, 24, clients[2048], server),
        exchange(3, 32, clients[3072], server),
        exchange(4, 32, clients[2048], server),
        exchange(4, 32, server, server),
    ]
    (HERE / "exchanges.json").write_text(json.dumps(exchanges, indent=1) + "\n")
    curve = public_pem(ec.generate_private_key(ec.SECP256R1())).decode()
    keys = {
        "curve": curve,
        "modulus_of_512_bits": SMALL,
        "exponent_of_2000_bits": with_exponent(clients[2048], (1 << 2000) - 1),
        "exponent_1": with_exponent(clients[2048], 1),
        "exponent_even": with_exponent(clients[2048], 65536),
    }
    (HERE / "refused_keys.json").write_text(json.dumps(keys, indent=1) + "\n")


# Made by `openssl genrsa 512`: the library refuses to make one.
SMALL = """-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALIHRzFMqCB02+WWK1Vhasq9WS92TBIQ
SCr9mjOadO9ZFK0zmcdSVblYG7oM3SUwGLrXJ+PKHwKbqJeNygQvNTUCAwEAAQ==
-----END PUBLIC KEY-----
"""

if __name__ == "__main__":
    main()
