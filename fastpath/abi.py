"""Structs and enums shared with the kernel. Generated from bpf/include/abi.h by `make abi`: do not edit."""

from __future__ import annotations

from ctypes import Structure, c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum

ABI_HASH = "af7aad241aa9"


class Verdict(IntEnum):
    NONE = 0
    ALLOW = 1
    DENY = 2
    INSPECT = 3
    UNDECIDED = 4
    DRAIN = 5


class Scope(IntEnum):
    NONE = 0
    CONNECTION = 1
    REQUEST = 2


class Action(IntEnum):
    ALLOW = 1
    DENY = 2
    INSPECT = 3


class Reason(IntEnum):
    NONE = 0
    POLICY = 1
    DEFAULT = 2
    PROTOCOL = 3
    RULE = 4
    NO_RULE = 5
    HOST = 6
    FAILSAFE = 7
    RELATED = 8
    PENDING = 9
    MIDSTREAM = 10
    NEED_MORE = 11
    PARSE_ERROR = 12
    REASSEMBLY_LIMIT = 13
    OVERLAP_CONFLICT = 14
    FRAGMENT = 15
    TABLE_FULL = 16
    INSPECTOR_DOWN = 17
    PATTERN_BUDGET = 18
    ECH = 19
    TRUNCATED = 20
    BAD_HEADER = 21
    EXT_HEADERS = 22
    NOT_IP = 23
    TAP = 24
    ICMP_UNRELATED = 25
    DRAIN_LIMIT = 26
    SPOOFED = 27
    SOURCE_ROUTE = 28
    CLOSED = 29
    NO_POLICY = 30
    IP_HEADER = 31
    IP_LENGTH = 32
    IP_OPTIONS = 33
    IP_CHECKSUM = 34
    TCP_OFFSET = 35
    TCP_FLAGS = 36
    TCP_OPTIONS = 37
    PORT_ZERO = 38
    UDP_LENGTH = 39
    TCP_STATE = 40
    TCP_SEQUENCE = 41
    TCP_ACK = 42
    TCP_RESET = 43
    TCP_SYN = 44
    TCP_FIN = 45
    ICMP_FAMILY = 48
    ICMP_QUOTE = 49
    EXT_ORDER = 50
    EXT_LENGTH = 51
    JUMBOGRAM = 52
    FRAGMENT_LENGTH = 53
    FRAGMENT_TINY = 54
    FRAGMENT_OVERLAP = 55
    FRAGMENT_LIMIT = 56
    L4_SHORT = 57
    L4_CHECKSUM = 58
    LAND = 59
    NEIGHBOUR = 60
    MAX = 63


class Protocol(IntEnum):
    NONE = 0
    UNKNOWN = 1
    HTTP = 2
    HTTP2 = 3
    GRPC = 4
    WEBSOCKET = 5
    TLS = 6
    DNS = 7
    MYSQL = 8
    POSTGRES = 9
    REDIS = 10
    MONGODB = 11
    KAFKA = 12
    MEMCACHED = 13
    SSH = 14
    AMQP = 15
    MQTT = 16
    SMTP = 17
    FTP = 18
    SMB = 19
    RDP = 20
    QUIC = 21
    ICMP = 22
    MAX = 23


class Tcp(IntEnum):
    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10


class Direction(IntEnum):
    SERVER = 0
    CLIENT = 1


class End(IntEnum):
    CLOSED = 1
    RESET = 2
    TIMEOUT = 3
    REPLACED = 4
    REMOVED = 5


class SessionFlag(IntEnum):
    SERVER_IS_A = 1
    MIDSTREAM = 2
    HOST = 4
    LOGGED = 8


class Zone(IntEnum):
    UNKNOWN = 0
    NONE = 1
    HOST = 2
    FIRST = 3


class Course(IntEnum):
    THROUGH = 0
    TO_HOST = 1
    FROM_HOST = 2


class RuleFlag(IntEnum):
    MONITOR = 1
    RESET = 2
    LOG_DENY = 4
    LOG_ALL = 8
    FILES = 16
    DOWN_ALLOW = 32
    IDENTIFY = 64


class Exception(IntEnum):
    MIDSTREAM = 0
    NEED_MORE = 1
    PARSE_ERROR = 2
    REASSEMBLY_LIMIT = 3
    OVERLAP_CONFLICT = 4
    FRAGMENT = 5
    TABLE_FULL = 6
    INSPECTOR_DOWN = 7
    PATTERN_BUDGET = 8
    ECH = 9
    MAX = 10


class Timeout(IntEnum):
    SYN = 0
    ESTABLISHED = 1
    CLOSING = 2
    TIME_WAIT = 3
    UDP = 4
    UDP_STREAM = 5
    ICMP = 6
    OTHER = 7
    MAX = 8


class Stat(IntEnum):
    PACKETS = 0
    BYTES = 1
    FAST = 2
    HELD = 3
    RELEASED = 4
    INSERTS = 5
    DELETES = 6
    INSERT_FAILURES = 7
    REJUDGED = 8
    OFFLOADED = 9
    IDENTIFIED = 10
    EVENTS_LOST = 11
    RESETS = 12
    DRAIN_LIMIT = 13
    NEIGHBOUR = 14
    FRAGMENTS = 16
    MONITORED = 17
    DRAINS = 19
    ACCELERATED = 24
    TCP_STATE = 25
    TCP_SEQUENCE = 26
    TCP_ACK = 27
    TCP_RESET = 28
    TCP_SYN = 29
    TCP_FIN = 30
    ETHERTYPE = 31
    MAX = 32


class Pressure(IntEnum):
    NONE = 0
    WARN = 1
    HIGH = 2
    FULL = 3


class EventKind(IntEnum):
    VERDICT = 1
    END = 2
    DROP = 3


class Op(IntEnum):
    NOW = 1
    JUDGE = 2
    VERDICT = 3
    DELETE = 4
    WALK = 5
    DISCARD = 6
    HEARTBEAT = 7
    CLOSE = 8


class Status(IntEnum):
    OK = 0
    NO_SESSION = 1
    STALE_ID = 2
    STALE_REVISION = 3
    USED = 4
    BAD_OP = 5
    NO_POLICY = 6


class Word(IntEnum):
    SCOPE = 4
    MONITOR = 6
    RESET = 7
    REASON = 8
    RULE = 16
    REVISION = 40


class Limit(IntEnum):
    POLICY_CANDIDATES = 512
    POLICY_LISTS = 64
    POLICY_PAGE = 65536
    POLICY_RULES = 1048575
    POLICY_ETHERTYPES = 16
    APPLY_BATCH = 30
    APPLY_OFFSET = 16
    SCAN_BYTES = 1024
    FAILSAFE_PORTS = 16
    DRAIN_PACKETS = 256
    FRAGMENT_PIECES = 64
    FRAGMENT_UNITS = 8192
    MANAGED_NEAR = 4
    HOPS = 8192
    HOP_TICK = 6
    HITS_SLOTS = 8


class Prog(IntEnum):
    INGRESS = 0
    EGRESS = 1
    JUDGE = 2
    IDENTIFY = 3
    RESET = 4
    DECIDE = 5
    TCP = 6
    ROUTE = 7
    ACCELERATE = 8
    POLICY = 9
    SETTLE = 10
    DECIDED = 11
    MAX = 16


class HopWord(IntEnum):
    NUMBER = 65535
    CLOCK = 16


class Index(IntEnum):
    DEPTH = 7
    ON = 8
    NODE = 16
    LEVELS = 6


class HitsNumber(IntEnum):
    HOST = 0
    LOST = 1
    RULES = 2


class PolicyKey(IntEnum):
    TCP = 0
    UDP = 65536
    ICMP = 131072
    ICMPV6 = 196608
    OTHER = 262144
    MAX = 262400


class Key(Structure):
    _fields_ = (
        ("addr_a", c_uint8 * 16),
        ("addr_b", c_uint8 * 16),
        ("port_a", c_uint16),
        ("port_b", c_uint16),
        ("l4", c_uint8),
        ("zone", c_uint8),
        ("a_asks", c_uint16),
    )


class Session(Structure):
    _fields_ = (
        ("verdict", c_uint64),
        ("last_jiffies", c_uint64),
        ("packets", c_uint64 * 2),
        ("tcp", c_uint8 * 2),
        ("flags", c_uint8),
        ("timeout", c_uint8),
        ("scale", c_uint8 * 2),
        ("provisional", c_uint8),
        ("told", c_uint8),
        ("bytes", c_uint64 * 2),
        ("end", c_uint32 * 2),
        ("ack", c_uint32 * 2),
        ("edge", c_uint32 * 2),
        ("window", c_uint16 * 2),
        ("hop", c_uint32 * 2),
        ("isn", c_uint32 * 2),
        ("ident_end", c_uint32),
        ("id", c_uint64),
        ("first_ns", c_uint64),
        ("held", c_uint32 * 2),
        ("released", c_uint32 * 2),
        ("ifindex", c_uint32 * 2),
        ("stamp", c_uint32),
        ("syn", c_uint32),
        ("cpu", c_uint16 * 2),
        ("vlan", c_uint16 * 2),
        ("rule_hash", c_uint32),
        ("protocol", c_uint8),
        ("first_protocol", c_uint8),
        ("zones", c_uint8 * 2),
    )


class Hop(Structure):
    _fields_ = (
        ("link", c_uint32 * 3),
        ("from", c_uint32),
        ("ifindex", c_uint32),
        ("mtu", c_uint32),
        ("turn", c_uint32),
        ("pad", c_uint32),
    )


class Policy(Structure):
    _fields_ = (
        ("ipv4", c_uint32),
        ("ipv6", c_uint32),
        ("asks_for_zones", c_uint32),
        ("defaults", c_uint32),
        ("zones", c_uint32),
        ("unused", c_uint32 * 3),
        ("ethertypes", c_uint16 * 16),
    )


class Rule(Structure):
    _fields_ = (
        ("apps", c_uint32),
        ("hash", c_uint32),
        ("action", c_uint8),
        ("flags", c_uint8),
        ("pad", c_uint16),
        ("where", c_uint32),
        ("unused", c_uint32 * 4),
    )


class Where(Structure):
    _fields_ = (
        ("from_zones", c_uint32 * 8),
        ("to_zones", c_uint32 * 8),
        ("courses", c_uint32),
        ("vlans", c_uint32),
        ("unused", c_uint32 * 14),
    )


class Class(Structure):
    _fields_ = (
        ("signature", c_uint64),
        ("spread", c_uint32),
        ("shift", c_uint32),
        ("by_destination", c_uint32),
        ("by_source", c_uint32),
        ("unused", c_uint32 * 2),
    )


class Block(Structure):
    _fields_ = (
        ("sets", c_uint32 * 8),
        ("rules", c_uint32 * 8),
    )


class Hits(Structure):
    _fields_ = (
        ("sessions", c_uint64),
        ("packets", c_uint64),
        ("bytes", c_uint64),
        ("revision", c_uint32),
        ("pad", c_uint32),
    )


class Config(Structure):
    _fields_ = (
        ("revision", c_uint32),
        ("tap_ifindex", c_uint32),
        ("mark_mask", c_uint32),
        ("mark_judged", c_uint32),
        ("managed", c_uint32 * 4),
        ("managed_far", c_uint32),
        ("route_mtu", c_uint32),
        ("timeouts", c_uint64 * 8),
        ("inspector_timeout", c_uint64),
        ("drain_timeout", c_uint64),
        ("capacity", c_uint64),
        ("exceptions", c_uint8 * 16),
        ("failsafe", c_uint16 * 16),
        ("monitor", c_uint8),
        ("pressure", c_uint8),
        ("strict_tcp", c_uint8),
        ("hop_age", c_uint8),
        ("hop_clock", c_uint16),
        ("pad", c_uint16),
        ("fragment_timeout", c_uint64),
        ("zoned_since", c_uint32),
        ("unused", c_uint32),
    )


class FragmentKey(Structure):
    _fields_ = (
        ("src", c_uint8 * 16),
        ("dst", c_uint8 * 16),
        ("id", c_uint32),
        ("l4", c_uint32),
    )


class Fragment(Structure):
    _fields_ = (
        ("jiffies", c_uint64),
        ("id", c_uint64),
        ("key", Key),
        ("hole", c_uint16 * 4),
        ("hole_end", c_uint16 * 4),
        ("revision", c_uint32),
        ("first_end", c_uint16),
        ("pieces", c_uint8),
        ("refused", c_uint8),
        ("allowed", c_uint8),
        ("pad", c_uint8 * 3),
        ("seq", c_uint32),
    )


class Event(Structure):
    _fields_ = (
        ("ns", c_uint64),
        ("key", Key),
        ("session", Session),
        ("kind", c_uint8),
        ("end", c_uint8),
        ("reason", c_uint8),
        ("pad", c_uint8 * 5),
    )


class Command(Structure):
    _fields_ = (
        ("op", c_uint32),
        ("status", c_uint32),
        ("key", Key),
        ("id", c_uint64),
        ("verdict", c_uint64),
        ("last_jiffies", c_uint64),
        ("ns", c_uint64),
        ("revision", c_uint32),
        ("possible", c_uint32),
        ("protocol", c_uint8),
        ("first_protocol", c_uint8),
        ("direction", c_uint8),
        ("end", c_uint8),
        ("count", c_uint32),
        ("rule_flags", c_uint32),
        ("vlan", c_uint16),
        ("zones", c_uint8 * 2),
    )
