"""DNS: dig, nsupdate and named 9.18, a zone transfer in two messages, and multicast DNS."""

from parsers.base import TO_CLIENT, TO_SERVER, UDP, Value
from tests.contract.conversations import Conversation

_CODES = ("dns.qname", "dns.qtype", "dns.qclass", "dns.opcode")


def _query(*texts: bytes, **more: Value) -> tuple[str, dict[str, Value]]:
    """Name, type, class and operation; the last two IN and QUERY unless said."""
    said: dict[str, Value] = dict(zip(_CODES, (*texts, *(b"IN", b"QUERY")[len(texts) - 2 :]), strict=True))
    return "dns", said | {f"dns.{name}": value for name, value in more.items()}


def _response(
    *texts: bytes, answer: tuple[bytes, ...] = (), rcode: bytes = b"NOERROR", unasked: int = 0, **more: Value
) -> tuple[str, dict[str, Value]]:
    return _query(*texts, **more, answer=answer, rcode=rcode, unasked=unasked)


def _prefixed(*messages: str) -> bytes:
    return b"".join(len(bytes.fromhex(each)).to_bytes(2, "big") + bytes.fromhex(each) for each in messages)


_COOKIE = "00002904d000000000000c000a0008"
_COOKIES = "00002904d000000000001c000a0018"
_A = "0d3c012000010000000000010161076578616d706c6503636f6d0000010001" + _COOKIE + "59e45488322c3678"
_A_ANSWER = (
    "0d3c850000010003000000010161076578616d706c6503636f6d0000010001c00c000500010000012c000603777777c00e"
    "c02b000100010000012c0004c0000201c02b000100010000012c0004c0000202"
    + _COOKIES
    + "59e45488322c3678010000006b0ac7cc49718ada79a04e26"
)
_TLSA = "e05101200001000000000001045f343433045f746370076578616d706c6503636f6d0000340001" + _COOKIE + "59e45488322c3678"
_TLSA_ANSWER = (
    "e05185000001000100000001045f343433045f746370076578616d706c6503636f6d0000340001c00c003400010000012c0023030101"
    "d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971"
    + _COOKIES
    + "59e45488322c3678010000006b0ac7cc49718ada79a04e26"
)
_HASH = b"3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971"

_SUBNET = "00002904d000008000000b0008000700011800c00002"
_AAAA = "bdfb01200001000000000001046d61696c076578616d706c6503636f6d00001c0001" + _SUBNET
_AAAA_ANSWER = (
    "bdfb85000001000100000001046d61696c076578616d706c6503636f6d00001c0001"
    "c00c001c00010000012c001020010db8000000000000000000000025" + _SUBNET
)
_ODD = "c75b01200001000000000001076f64642e646f74076578616d706c6503636f6d0000010001" + _COOKIE + "41f8f6451377964c"
_ODD_ANSWER = (
    "c75b85000001000100000001076f64642e646f74076578616d706c6503636f6d0000010001c00c000100010000012c0004c0000209"
    + _COOKIES
    + "41f8f6451377964c010000006b0ac7cc983b5f18cf3e35f1"
)
_VERSION = "857901200001000000000001000002000100002904d000010000000c000a000821c49148271d414b"
_BAD_VERSION = "857981000001000000000001000002000100002904d0010000000000"
_UPDATE = (
    "f65728000001000100030000076578616d706c6503636f6d0000060001036e6577c00c000100fe000000000000"
    "c01d000100010000003c0004c000024d03777777c00c000100ff000000000000c00c001000fe0000000000020178"
)
_UPDATE_ANSWER = "f657a8000001000000000000076578616d706c6503636f6d0000060001"

_AXFR = "ddae00000001000000000000076578616d706c6503636f6d0000fc0001"
_FIRST = (
    "ddae84000001000200000000076578616d706c6503636f6d0000fc0001c00c000600010000012c001b026e73c00cc00c0000"
    "000100000002000000030000000400000005c00c000200010000012c0002c029"
)
# Without a question.
_SECOND = (
    "ddae84000000000200000000026e73076578616d706c6503636f6d00000100010000012c00047f000001c00f000600010000"
    "012c0018c00cc00f0000000100000002000000030000000400000005"
)
_SOA_TEXT = b"ns.example.com example.com 1 2 3 4 5"

# "Who has a printer, answer me alone"; what answers has no question, and of one record it is all that there is.
_MULTICAST = "000000000001000000000000045f697070045f746370056c6f63616c00000c8001"
_MULTICAST_ANSWER = (
    "000084000000000100000001045f697070045f746370056c6f63616c00000c0001000011940009066f6666696365c00cc027"
    "000180010000007800047f000001"
)

CONVERSATIONS = [
    Conversation(
        "two at once in one segment",
        "dns",
        (
            (TO_SERVER, _prefixed(_A, _TLSA)),
            (TO_CLIENT, _prefixed(_TLSA_ANSWER, _A_ANSWER)),
        ),
        (
            _query(b"a.example.com", b"A", udp_size=1232, dnssec_ok=0),
            _query(b"_443._tcp.example.com", b"TLSA", udp_size=1232, dnssec_ok=0),
            _response(b"_443._tcp.example.com", b"TLSA", answer=(_HASH,), udp_size=1232, dnssec_ok=0),
            _response(
                b"a.example.com",
                b"A",
                answer=(b"www.example.com", b"192.0.2.1", b"192.0.2.2"),
                udp_size=1232,
                dnssec_ok=0,
            ),
        ),
    ),
    Conversation(
        "zone transfer",
        "dns",
        (
            (TO_SERVER, _prefixed(_AXFR)),
            (TO_CLIENT, _prefixed(_FIRST)),
            (TO_CLIENT, _prefixed(_SECOND)),
        ),
        (
            _query(b"example.com", b"AXFR"),
            _response(b"example.com", b"AXFR", answer=(_SOA_TEXT, b"ns.example.com")),
            _response(b"example.com", b"AXFR", answer=(b"127.0.0.1", _SOA_TEXT)),
        ),
    ),
    Conversation(
        "queries",
        "dns",
        tuple(
            (direction, bytes.fromhex(message))
            for query, answer in ((_AAAA, _AAAA_ANSWER), (_ODD, _ODD_ANSWER), (_VERSION, _BAD_VERSION))
            for direction, message in ((TO_SERVER, query), (TO_CLIENT, answer))
        ),
        (
            _query(b"mail.example.com", b"AAAA", udp_size=1232, dnssec_ok=1, client_subnet=b"192.0.2.0/24"),
            _response(
                b"mail.example.com",
                b"AAAA",
                answer=(b"2001:db8::25",),
                udp_size=1232,
                dnssec_ok=1,
                client_subnet=b"192.0.2.0/24",
            ),
            _query(b"odd\\.dot.example.com", b"A", udp_size=1232, dnssec_ok=0),
            _response(b"odd\\.dot.example.com", b"A", answer=(b"192.0.2.9",), udp_size=1232, dnssec_ok=0),
            _query(b".", b"NS", udp_size=1232, dnssec_ok=0),
            _response(b".", b"NS", rcode=b"BADVERS", udp_size=1232, dnssec_ok=0),
        ),
        UDP,
    ),
    Conversation(
        "update",
        "dns",
        ((TO_SERVER, bytes.fromhex(_UPDATE)), (TO_CLIENT, bytes.fromhex(_UPDATE_ANSWER))),
        (
            _query(b"example.com", b"SOA", b"IN", b"UPDATE"),
            _response(b"example.com", b"SOA", b"IN", b"UPDATE"),
        ),
        UDP,
    ),
    Conversation(
        "multicast",
        "dns",
        ((TO_SERVER, bytes.fromhex(_MULTICAST)), (TO_CLIENT, bytes.fromhex(_MULTICAST_ANSWER))),
        (
            _query(b"_ipp._tcp.local", b"PTR"),
            _response(b"_ipp._tcp.local", b"PTR", answer=(b"office._ipp._tcp.local",)),
        ),
        UDP,
    ),
]
