"""TLS. The bytes are recorded ones of OpenSSL 3.0's s_client and s_server and of curl 7.88, with keys made for it."""

from parsers.base import TO_SERVER, Value
from tests.contract.conversations import Conversation
from tests.data import recorded

OLDER = (b"1.3", b"1.2", b"1.1", b"1.0")
NAMES = (b"web.lab", b"*.api.lab")
# What clients said first that knew SSL 2.0 still: ten ciphers of three bytes, no session, a challenge of 16 bytes.
SSL2 = bytes.fromhex(
    "8037010301001e00000010"
    "00003500002f00000a010080000005000004000039000033000016 0000ff"
    "000102030405060708090a0b0c0d0e0f"
)


def _hello(
    ja4: bytes, alpn: tuple[bytes, ...] = (), versions: tuple[bytes, ...] = OLDER
) -> tuple[str, dict[str, Value]]:
    return "tls", {"tls.version": versions, "tls.alpn": alpn, "tls.ech": 0, "tls.sni": b"web.lab", "tls.ja4": ja4}


def _chosen(version: bytes, cipher: int, **more: Value) -> tuple[str, dict[str, Value]]:
    fields: dict[str, Value] = {"tls.selected_version": version, "tls.cipher": cipher}
    fields.update({f"tls.{key}": each for key, each in more.items()})
    return "tls", fields


UNITS: dict[str, tuple[tuple[str, dict[str, Value]], ...]] = {
    "openssl 1.3": (
        _hello(b"t13d3111h2_e8f1e7e78f70_1f22a2ca17c4", (b"h2", b"http/1.1")),
        _chosen(b"1.3", 0x1302),
    ),
    "openssl 1.2": (
        _hello(b"t13d3111h2_e8f1e7e78f70_1f22a2ca17c4", (b"h2", b"http/1.1")),
        _chosen(b"1.2", 0xC02C, certificate=NAMES, selected_alpn=b"http/1.1"),
    ),
    "openssl 1.0": (
        _hello(b"t10d230600_44099cda8a52_195413a0cc0f", (), (b"1.0",)),
        _chosen(b"1.0", 0xC00A, certificate=NAMES),
    ),
    "openssl asked again": (_hello(b"t13d311000_e8f1e7e78f70_1f22a2ca17c4"), _chosen(b"1.3", 0x1302)),
    "openssl resumes 1.2": (_hello(b"t13d311000_e8f1e7e78f70_1f22a2ca17c4"), _chosen(b"1.2", 0xC02C)),
    "openssl early data": (_hello(b"t13d311200_e8f1e7e78f70_87f12a3f655c"), _chosen(b"1.3", 0x1302)),
    "openssl anonymous": (_hello(b"t12d140700_db3f48cd4e20_3c5a66c06c35", (), (b"1.2",)), _chosen(b"1.2", 0xA7)),
    "openssl with its certificate": (
        _hello(b"t13d311000_e8f1e7e78f70_1f22a2ca17c4"),
        _chosen(b"1.2", 0xC02C, certificate=NAMES),
    ),
    "openssl refused": (_hello(b"t12d280700_d943125447b4_e7e480e5a997", (), (b"1.2",)),),
    "curl": (_hello(b"t13d3112h2_e8f1e7e78f70_b26ce05bbdd6", (b"h2", b"http/1.1")), _chosen(b"1.3", 0x1302)),
    "curl 1.2 to an address": (
        (
            "tls",
            {
                "tls.version": (b"1.2",),
                "tls.alpn": (b"http/1.1",),
                "tls.ech": 0,
                "tls.ja4": b"t12i2806h1_d943125447b4_a44c6288192a",
            },
        ),
        _chosen(b"1.2", 0xC02C, certificate=NAMES),
    ),
}

CONVERSATIONS = [
    *(Conversation(name, "tls", parts, UNITS[name]) for name, parts in recorded("tls").items()),
    Conversation(
        "hello of ssl 2",
        "tls",
        ((TO_SERVER, SSL2),),
        (("tls", {"tls.version": (b"1.0",), "tls.alpn": (), "tls.ech": 0}),),
    ),
]
