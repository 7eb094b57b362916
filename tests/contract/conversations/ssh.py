"""SSH 2: the names are OpenSSH 9.2's and paramiko's, fewer of them."""

from __future__ import annotations

import hashlib

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation

LISTS = (
    b"curve25519-sha256,ecdh-sha2-nistp256,ext-info-c,kex-strict-c-v00@openssh.com",
    b"ssh-ed25519,rsa-sha2-512",
    b"chacha20-poly1305@openssh.com,aes128-ctr",
    b"chacha20-poly1305@openssh.com,aes256-gcm@openssh.com",
    b"umac-64-etm@openssh.com",
    b"hmac-sha2-256",
    b"none,zlib@openssh.com",
    b"none",
    b"",
    b"",
)
CLIENT = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10\r\n"
SERVER = b"SSH-2.0-dropbear_2022.83\r\n"


def packet(payload: bytes) -> bytes:
    padding = 4 + (-len(payload) - 9) % 8
    return (len(payload) + padding + 1).to_bytes(4, "big") + bytes((padding,)) + payload + bytes(padding)


def kexinit(*lists: bytes) -> bytes:
    names = b"".join(len(each).to_bytes(4, "big") + each for each in lists)
    return packet(b"\x14" + bytes(range(16)) + names + bytes(5))


def offer(prefix: str, way: int) -> dict[str, Value]:
    """What `kexinit(*LISTS)` says."""
    hassh = b";".join((LISTS[0], LISTS[2 + way], LISTS[4 + way], LISTS[6 + way]))
    return {
        f"ssh.{prefix}kex": tuple(LISTS[0].split(b",")),
        f"ssh.{prefix}host_key": (b"ssh-ed25519", b"rsa-sha2-512"),
        f"ssh.{prefix}ciphers": (b"chacha20-poly1305@openssh.com", b"aes128-ctr", b"aes256-gcm@openssh.com"),
        f"ssh.{prefix}macs": (b"umac-64-etm@openssh.com", b"hmac-sha2-256"),
        f"ssh.{prefix}hassh": hashlib.md5(hassh).hexdigest().encode(),
    }


KEXINIT = kexinit(*LISTS)
EXCHANGE = packet(b"\x1e\0\0\0\x20" + bytes(32))
NEWKEYS = packet(b"\x15")
CLIENT_SAID: dict[str, Value] = {"ssh.client": b"OpenSSH_9.2p1 Debian-2+deb12u10"}
SERVER_SAID: dict[str, Value] = {"ssh.server": b"dropbear_2022.83"}

CONVERSATIONS = [
    Conversation(
        "client first",
        "ssh",
        (
            (TO_SERVER, CLIENT),
            (TO_CLIENT, SERVER + KEXINIT),
            (TO_SERVER, KEXINIT + EXCHANGE),
            (TO_CLIENT, EXCHANGE + NEWKEYS + b"\x80encrypted"),
            (TO_SERVER, NEWKEYS + b"\xffencrypted"),
        ),
        (
            ("ssh", CLIENT_SAID),
            ("ssh", CLIENT_SAID | SERVER_SAID),
            ("ssh", CLIENT_SAID | SERVER_SAID | offer("server_", 1)),
            ("ssh", CLIENT_SAID | SERVER_SAID | offer("server_", 1) | offer("", 0)),
        ),
    ),
    Conversation(
        "lines before the banner and LF alone",
        "ssh",
        (
            (TO_CLIENT, b"Authorized use only.\r\n\r\nSSHould you not be here, go\nSSH-1.99-Cisco-1.25\n"),
            (TO_SERVER, b"SSH-2.0-PuTTY_Release_0.78\r\n" + packet(b"\x02\0\0\0\0")),
        ),
        (
            ("ssh", {"ssh.server": b"Cisco-1.25"}),
            ("ssh", {"ssh.server": b"Cisco-1.25", "ssh.client": b"PuTTY_Release_0.78"}),
        ),
    ),
]
