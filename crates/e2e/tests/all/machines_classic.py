"""A client of the encrypted protocol, written from its description alone.

Asks for what the JSON on standard input lists and prints one JSON line for each answer, in order:

    {"port": 1, "requests": [{"generation": 4, "request": {"verb": "STAT", "parameters": {}}}, ...], "at_once": false}

With `"pieces": true` a request is sent a few bytes at a time, with `"leave": true` its response is not waited for. With
`"held": NAME` a file of that name is made when the response's length is known, and the length is confirmed when the file
is gone.
`request` may be a text, which is then sent as it is. An answer is `{"response": ..., "fingerprint": ..., "seconds": ...}`,
with how long it took from connecting, or `{"ended": "where"}` when the server closed the connection.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import socket
import sys
import time

from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

OAEP = asymmetric.OAEP(mgf=asymmetric.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


class Ended(Exception):
    """The server closed, or did not confirm."""


class Wire:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data, pieces=False):
        for at in range(0, len(data), 7 if pieces else len(data)):
            self.socket.sendall(data[at : at + 7] if pieces else data)

    def read(self, count, where):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise Ended(where)
            data += more
        return data

    def confirm(self, where):
        if self.read(1, where) != b"1":
            raise Ended(where)


def sealed(key, iv, plain):
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()


def opened(key, iv, data):
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()


def clear_length(length):
    return str(length).encode().ljust(8, b"=")


def greet(wire):
    """Exchanges keys; gives the AES key and IV in force, and the server's fingerprint."""
    wire.send(clear_length(len(PEM)))
    wire.confirm("key length")
    wire.send(PEM)
    wire.confirm("key")
    length = int(wire.read(8, "server key length").split(b"=")[0])
    wire.send(b"1")
    pem = wire.read(length, "server key")
    wire.send(b"1")
    server = serialization.load_pem_public_key(pem)
    wire.send(server.encrypt(os.urandom(32) + os.urandom(16), OAEP))
    wire.confirm("AES key")
    block = KEY.decrypt(wire.read(KEY.key_size // 8, "server AES key"), OAEP)
    wire.send(b"1")
    return block[:-16], block[-16:], hashlib.sha256(pem).hexdigest()


def hold(name):
    held = pathlib.Path(name)
    held.touch()
    while held.exists():
        time.sleep(0.005)


def exchange(port, generation, request, pieces=False, leave=False, held=None):
    begun = time.monotonic()
    wire = Wire(port)
    key, iv, fingerprint = greet(wire)
    plain = (request if isinstance(request, str) else json.dumps(request)).encode()
    packet, following = sealed(key, iv, plain), iv
    if generation > 1:
        following = os.urandom(16)
        packet += following
    length = clear_length(len(packet))
    if generation == 4:
        length = sealed(key, iv, str(len(packet)).encode())
    wire.send(length, pieces)
    wire.confirm("request length")
    wire.send(packet, pieces)
    if leave:
        raise Ended("left")
    if generation == 4:
        count = int(opened(key, following, wire.read(16, "response length")))
    else:
        head = wire.read(8, "response length")
        assert re.fullmatch(rb"[0-9]{1,8}=*", head), head
        count = int(head.split(b"=")[0])
    if held:
        hold(held)
    wire.send(b"1")
    packet = wire.read(count, "response")
    packet = packet if generation == 1 else packet[:-16]
    response = json.loads(opened(key, following, packet))
    assert wire.socket.recv(1) == b"", "the server closes after the response"
    return {"response": response, "fingerprint": fingerprint, "seconds": time.monotonic() - begun}


def ask(port, entry):
    try:
        how = {name: entry[name] for name in ("pieces", "leave", "held") if name in entry}
        return exchange(port, entry["generation"], entry["request"], **how)
    except (Ended, ConnectionError) as error:
        return {"ended": str(error)}


def main():
    order = json.load(sys.stdin)
    workers = len(order["requests"]) if order.get("at_once") else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        answers = pool.map(lambda entry: ask(order["port"], entry), order["requests"])
        for answer in answers:
            print(json.dumps(answer), flush=True)


main()
