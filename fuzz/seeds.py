#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets from the golden exchanges: `python3 fuzz/seeds.py`."""

import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "testdata" / "containers"
UUID, TOKEN = "0123abcd-0123-4567-89ab-0123456789ab", "-_aZ9" * 51
REQUESTS = {
    "stat": {"verb": "STAT", "parameters": {}},
    "destroy": {"verb": "DESTROY", "parameters": {"container_uuid": UUID, "client_token": TOKEN}},
    "create": {"verb": "CREATE", "parameters": {
        "image": "small", "memory": 512, "vcpus": 1, "ttl": 60, "labels": {"a": "b"},
        "ssh_public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here", "access_token": "x"}},
    "malformed": {"verb": "stat", "parameters": None},
}
MONITOR = {
    "greeting": '{"QMP": {"version": {}, "capabilities": []}}\r\n',
    "answers": '{"return": {"a": 1}, "id": 3}\n{"id": 4, "error": {"class": "G", "desc": "no"}}\n',
    "shutdown": '{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}\n',
    "migration": '{"event": "MIGRATION", "data": {"status": "completed"}}\n'
    '{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "reason": "No space"}}\n',
}
GUEST_MAC, GATEWAY_MAC = "020000000001", "52550a000202"


def ipv4(protocol, destination, payload):
    """A frame of the guest with an IPv4 packet."""
    head = f"4500{20 + len(payload):04x}00004000" + f"40{protocol:02x}0000"
    head += "0a00020f" + destination
    return bytes.fromhex(GATEWAY_MAC + GUEST_MAC + "0800" + head) + payload


def udp(port, payload):
    """A datagram from port 68 or so."""
    return (68).to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(payload)).to_bytes(
        2, "big") + bytes(2) + payload


def frames():
    """What a guest sends first."""
    arp = "0001080006040001" + GUEST_MAC + "0a00020f" + "000000000000" + "0a000202"
    syn = bytes.fromhex("c0000050" + "00000001" + "00000000" + "5002ffff" + "00000000")
    return {
        "arp": bytes.fromhex("ffffffffffff" + GUEST_MAC + "0806" + arp),
        "dhcp": ipv4(17, "ffffffff", udp(67, bytes.fromhex("01010600") + bytes(236))),
        "dns": ipv4(17, "0a000203", udp(53, b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1")),
        "tcp": ipv4(6, "08080808", syn),
        "echo": ipv4(1, "0a000202", bytes.fromhex("0800f7ff00000000")),
    }


def clients():
    """What the clients of the golden exchanges send, as it comes and in pieces."""
    for exchange in json.loads((GOLDEN / "exchanges.json").read_text(encoding="utf-8")):
        turns = [bytes.fromhex(turn) for turn in exchange["turns"]]
        name = f"generation{exchange['generation']}-{exchange['client_bits']}"
        yield name, b"\0" + b"".join(turns[0::2])
    for name, pem in json.loads((GOLDEN / "refused_keys.json").read_text(encoding="utf-8")).items():
        pem = pem.encode()
        yield name, b"\x05" + str(len(pem)).encode().ljust(8, b"=") + pem


def main():
    """Writes every seed."""
    requests = {name: json.dumps(request).encode() for name, request in REQUESTS.items()}
    seeds = {
        "frame": {"short": b"48======", "long": b"99999999", "zero": b"0=======", "block": bytes(64)},
        "handshake": dict(clients()),
        "message": {
            f"{name}-{kind}": bytes([kind]) + text for kind in range(3)
            for name, text in requests.items()
        } | {"clear": b"\x03\x0048======" + bytes(48), "sealed": b"\x03\x01" + bytes(80)},
        "qmp": {name: b"\x10" + text.encode() for name, text in MONITOR.items()},
        "guest_frame": frames(),
    }
    for target, files in seeds.items():
        folder = HERE / "seeds" / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
