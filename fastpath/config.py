"""gateway.yaml, which both daemons read. configs/gateway.yaml explains every field.

Relative paths in it count from its folder. Times are seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastpath import abi
from fastpath.document import Node, load
from fastpath.log import LEVELS
from fastpath.policy.fields import definitions
from fastpath.policy.where import HOST, MAX_ZONES, zone_numbers

DEFAULT: Final = Path("/etc/microseg/gateway.yaml")
# Linux: IFNAMSIZ is 16 with the final zero.
MAX_IFNAME: Final = 15
# Where the programs go; auto: tcx where the kernel has it.
HOOKS: Final = ("auto", "tcx", "clsact")
PATTERN_ENGINES: Final = ("auto", "re2", "hyperscan")

TIMEOUTS: Final[Mapping[str, float]] = MappingProxyType(
    {"syn": 30, "established": 3600, "closing": 30, "time_wait": 120, "udp": 30, "udp_stream": 120, "icmp": 10,
     "other": 60, "fragment": 30}
)  # fmt: skip
# Exceptions (design section 4): what each may be set to, its default first. `inspect` stands
# only where going on means something: a table that is full goes by its tiers.
_A, _D, _I = abi.Action.ALLOW, abi.Action.DENY, abi.Action.INSPECT
EXCEPTIONS: Final[Mapping[str, tuple[abi.Action, ...]]] = MappingProxyType(
    {
        "midstream": (_I, _A, _D),
        "need_more": (_I, _A, _D),
        "parse_error": (_D, _A, _I),
        "reassembly_limit": (_D, _A, _I),
        "overlap_conflict": (_D, _A, _I),
        "fragment": (_D, _A),
        "pattern_budget": (_D, _A, _I),
        "inspector_down": (_D, _A),
    }
)


@dataclass(frozen=True, slots=True)
class Mark:
    """The part of skb->mark that says "judged": `value` under `mask`."""

    value: int = 0x20000000
    mask: int = 0x30000000


@dataclass(frozen=True, slots=True)
class Inspection:
    """Bounds of the inspector."""

    timeout: float = 1.0
    drain: float = 0.1
    hold_incomplete: float = 0.020
    need_more: float = 2.0
    need_more_bytes: int = 64 * 1024
    need_more_packets: int = 1024
    need_more_progress: int = 16 * 1024
    gap: float = 30.0
    max_flows: int = 65_536
    total: int = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Records:
    """The inspection log."""

    path: Path = Path("/var/log/microseg/records.jsonl")
    max_bytes: int = 100 * 1024 * 1024
    keep: int = 9


@dataclass(frozen=True, slots=True)
class Config:
    """gateway.yaml, checked; the file's own name in `file`."""

    file: Path
    interfaces: tuple[str, ...]
    policy: Path
    rules: Path
    zones: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    run_dir: Path = Path("/run/microseg")
    state_dir: Path = Path("/var/lib/microseg")
    policy_history: int = 10
    watch: bool = True
    pin_root: Path = Path("/sys/fs/bpf/microseg")
    program_cache: Path | None = Path("/var/cache/microseg")
    tap: str = ""
    hook: str = "auto"
    pattern_engine: str = "auto"
    prio: int = 49_000
    mark: Mark = field(default_factory=Mark)
    capacity: int = 262_144
    table: str = "lru"
    sweep: float = 10.0
    accelerate: bool = False
    timeouts: Mapping[str, float] = field(default_factory=lambda: TIMEOUTS)
    failsafe: tuple[int, ...] = (22,)
    strict_tcp: bool = False
    exceptions: Mapping[str, abi.Action] = field(default_factory=dict)
    inspection: Inspection = field(default_factory=Inspection)
    records: Records = field(default_factory=Records)
    fastpath_listen: tuple[str, int] | None = None
    slowpath_listen: tuple[str, int] | None = None
    log_level: str = "info"

    @property
    def fastpath_socket(self) -> Path:
        """Where the fast path's daemon answers."""
        return self.run_dir / "fastpath.sock"

    @property
    def slowpath_socket(self) -> Path:
        """Where the inspector answers."""
        return self.run_dir / "slowpath.sock"

    @property
    def tap_names(self) -> tuple[str, str]:
        """The tap's near end, whose program takes back what was held, and the far end, where the inspector reads."""
        return self.tap, f"{self.tap}x"

    def zone_number(self, interface: str) -> int:
        """What stands for the zone of an interface in the kernel."""
        numbers = zone_numbers(self.zones)
        return numbers[next((zone for zone, members in self.zones.items() if interface in members), None)]

    def exception(self, name: str) -> abi.Action:
        """What the operator chose for an exception, or its default."""
        default = EXCEPTIONS[name][0] if name in EXCEPTIONS else abi.Action.DENY
        return self.exceptions.get(name, default)

    def rule_digest(self, name: str) -> str | None:
        """Digest of a rule file's text by its name, None if there is no such file."""
        try:
            said = (self.rules / f"{name}.yaml").read_bytes()
            if b"pattern" in said:  # what it looks for is told beside it
                files = sorted((self.rules.parent / "patterns.d").glob("*.yaml"))
                said = b"\0".join([said, *(file.read_bytes() for file in files)])
            return hashlib.sha256(said).hexdigest()
        except OSError:
            return None


def load_config(path: Path) -> Config:
    """Read gateway.yaml. InvalidDocumentError has all problems."""
    return load(path, _Reader(path).read)


class _Reader:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._folder = file.resolve().parent

    def read(self, root: Node) -> Config:
        fields = root.mapping(
            required=("interfaces", "policy"),
            optional=(
                "rules", "run_dir", "pin_root", "tap", "hook", "prio", "mark", "sessions", "timeouts", "failsafe",
                "strict_tcp", "exceptions", "inspector", "records", "listen", "log_level", "accelerate", "state_dir",
                "policy_history", "watch", "zones", "program_cache", "pattern_engine",
            ),
        )  # fmt: skip
        values: dict[str, object] = {}

        def take(name: str, read: object, to: str = "") -> None:
            if name in fields:
                # Each reader gives what the field of Config with its name holds.
                got = fields[name].attempt(read)  # type: ignore[arg-type]
                if got is not None:
                    values[to or name] = got

        take("interfaces", _interfaces)
        take("zones", lambda node: _zones(node, values.get("interfaces")))
        take("policy", self._path)
        take("rules", self._path)
        take("run_dir", self._path)
        take("state_dir", self._path)
        take("policy_history", lambda node: node.integer(1, 100))
        take("watch", lambda node: node.boolean())
        take("pin_root", self._path)
        take("tap", lambda node: _ifname(node, MAX_IFNAME - 1))
        take("hook", lambda node: _one_of(node, HOOKS))
        take("pattern_engine", lambda node: _one_of(node, PATTERN_ENGINES))
        take("prio", lambda node: node.integer(1, 0xFFFF))
        take("mark", _mark)
        take("accelerate", lambda node: node.boolean())
        take("timeouts", _timeouts)
        take("failsafe", _failsafe)
        take("strict_tcp", lambda node: node.boolean())
        take("exceptions", _exceptions)
        take("inspector", _inspection, "inspection")
        take("records", self._records)
        take("log_level", _log_level)
        for name, read in (("sessions", _sessions), ("listen", _listen), ("program_cache", self._program_cache)):
            if name in fields:
                values.update(fields[name].attempt(read) or {})
        values.setdefault("rules", self._folder / "rules.d")
        values.setdefault("interfaces", ())
        values.setdefault("policy", self._file)
        config = Config(file=self._file, **values)  # type: ignore[arg-type]
        if not config.tap:
            tag = hashlib.sha256(str(config.pin_root).encode()).hexdigest()[:6]
            config = Config(file=self._file, **values, tap=f"mstap{tag}")  # type: ignore[arg-type]
        for name in sorted({*config.tap_names} & {*config.interfaces}):
            fields["interfaces"].report(f"{name} is the tap's name")
        return config

    def _path(self, node: Node) -> Path:
        return self._folder / node.text()

    def _program_cache(self, node: Node) -> dict[str, object]:
        return {"program_cache": None if node.text() == "none" else self._path(node)}

    def _records(self, node: Node) -> Records:
        fields = node.mapping(optional=("path", "max_bytes", "keep"))
        default = Records()
        return Records(
            self._path(fields["path"]) if "path" in fields else default.path,
            fields["max_bytes"].integer(4096, 1 << 40) if "max_bytes" in fields else default.max_bytes,
            fields["keep"].integer(0, 1000) if "keep" in fields else default.keep,
        )


def _ifname(node: Node, longest: int = MAX_IFNAME) -> str:
    name = node.text(max_length=longest)
    if "/" in name or name in {".", ".."} or any(c.isspace() or not c.isprintable() for c in name):
        raise node.fail(f"{name!r} is no name of an interface")
    return name


def _interfaces(node: Node) -> tuple[str, ...]:
    names = node.collect(_ifname)
    for name in {name for name in names if names.count(name) > 1}:
        node.report(f"{name} is listed twice")
    if len(set(names)) < 2:
        node.report("a gateway stands between segments: name at least two interfaces")
    return tuple(names)


def _zones(node: Node, interfaces: object) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    zone_of: dict[str, str] = {}

    def member(item: Node, zone: str) -> str:
        name = _ifname(item)
        if isinstance(interfaces, tuple) and name not in interfaces:
            raise item.fail(f"{name} is not one of `interfaces`")
        if zone_of.setdefault(name, zone) != zone:
            raise item.fail(f"{name} is in zone {zone_of[name]} already")
        return name

    defined = definitions([node], MAX_ZONES)
    if len(defined) > MAX_ZONES:
        return {}
    for zone, value in defined.items():
        if zone == HOST:
            value.report(f"{HOST!r} is the gateway itself")
        if value.is_empty:
            value.report("the zone has no interfaces")
        found[zone] = tuple(dict.fromkeys(value.collect(lambda item, zone=zone: member(item, zone))))  # type: ignore[misc]
    return found


def _one_of(node: Node, names: tuple[str, ...]) -> str:
    name = node.text()
    if name not in names:
        raise node.fail(f"{name!r} is not one of {', '.join(names)}")
    return name


def _mark(node: Node) -> Mark:
    fields = node.mapping(required=("value", "mask"))
    mark = Mark(fields["value"].integer(1, 0xFFFFFFFF), fields["mask"].integer(1, 0xFFFFFFFF))
    if mark.value & ~mark.mask:
        raise node.fail(f"value {mark.value:#x} has bits outside mask {mark.mask:#x}")
    return mark


def _timeouts(node: Node) -> dict[str, float]:
    fields = node.mapping(optional=TIMEOUTS)
    found = {name: value.attempt(lambda item: item.number(1, 1e7)) for name, value in fields.items()}
    return dict(TIMEOUTS) | {name: value for name, value in found.items() if value is not None}


def _failsafe(node: Node) -> tuple[int, ...]:
    ports = tuple(node.collect(lambda item: item.integer(1, 65535)))
    if len(ports) > abi.Limit.FAILSAFE_PORTS:
        raise node.fail(f"more than {abi.Limit.FAILSAFE_PORTS} ports")
    return ports


def _exceptions(node: Node) -> dict[str, abi.Action]:
    found = {}
    for name, value in node.mapping(optional=EXCEPTIONS).items():

        def read(item: Node, name: str = name) -> abi.Action:
            return item.choice(abi.Action, allowed=EXCEPTIONS[name])

        action = value.attempt(read)
        if action is not None:
            found[name] = action
    return found


def _inspection(node: Node) -> Inspection:
    d = Inspection()
    fields = node.mapping(optional=d.__slots__)
    seconds = {
        "timeout": (0.2, 60),
        "drain": (0.01, 10),
        "hold_incomplete": (0.001, 1),
        "need_more": (0.1, 60),
        # Before a second no lost segment need come again (RFC 6298 section 2.4).
        "gap": (1, 300),
    }
    whole = {
        "need_more_bytes": (1024, 1 << 20),
        "need_more_packets": (16, 1 << 16),
        # With 0 silence would be progress; the most is as good as never.
        "need_more_progress": (1024, 1 << 30),
        "max_flows": (16, 1 << 20),
        "total": (1 << 20, 1 << 34),
    }
    found: dict[str, float | int] = {}
    for name, value in fields.items():
        if name in seconds:
            low, high = seconds[name]
            got = value.attempt(lambda item, low=low, high=high: item.number(low, high))  # type: ignore[misc]
        else:
            least, most = whole[name]
            got = value.attempt(lambda item, least=least, most=most: item.integer(least, most))  # type: ignore[misc]
        if got is not None:
            found[name] = got
    return Inspection(**found)  # type: ignore[arg-type]


def _sessions(node: Node) -> dict[str, object]:
    fields = node.mapping(optional=("capacity", "kind", "sweep"))
    found: dict[str, object] = {}
    if "capacity" in fields:
        found["capacity"] = fields["capacity"].integer(1024, 16 * 1024 * 1024)
    if "kind" in fields:
        kind = fields["kind"].text()
        if kind not in {"lru", "lru_percpu", "hash"}:
            raise fields["kind"].fail(f"{kind!r} is not one of lru, lru_percpu, hash")
        found["table"] = kind
    if "sweep" in fields:
        found["sweep"] = fields["sweep"].number(0.1, 3600)
    return found


def _address(node: Node) -> tuple[str, int]:
    host, _, port = node.text().rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise node.fail("expected HOST:PORT")
    return host.strip("[]"), int(port)


def _listen(node: Node) -> dict[str, object]:
    fields = node.mapping(optional=("fastpath", "slowpath"))
    found = {f"{name}_listen": value.attempt(_address) for name, value in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def _log_level(node: Node) -> str:
    level = node.text()
    if level not in LEVELS:
        raise node.fail(f"{level!r} is not one of {', '.join(LEVELS)}")
    return level
