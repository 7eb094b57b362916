"""Kafka's wire protocol: requests, as far as they name topics; responses are framed.

After the protocol guide (kafka.apache.org/protocol) and the message schemas of Kafka 4.1, where versions that are not
spoken any more are still described. A request is told with the last topic it names: batches of records are passed over.
Of newer versions than the table's nobody knows where topics stand: they are refused, as brokers refuse what is new to
them; ApiVersions is not, clients try their newest and fall back. Requests that name a topic by its id only (Produce
from version 13, Fetch from 13 ...) tell the id, in the text that Kafka's tools show.

SaslHandshake of version 0 is refused: bare tokens follow that a broker without SASL takes for requests.
"""

from __future__ import annotations

import base64
import functools
import re
import struct
from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, Kind, ParseError, Said, Value
from parsers.walk import Steps, Walk, WalkParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # socket.request.max.bytes of brokers.
    request: int = 100 * 1024 * 1024
    # Texts that are kept: a topic has up to 249 bytes, clients call themselves what they like.
    text: int = 4096
    # Of one request.
    topics: int = 8192
    topics_size: int = 96 * 1024


FIELDS: Final = (
    Field("kafka.api", "what is asked for, as the protocol calls it: Produce, Fetch ...", folded=True),
    Field("kafka.version", "the version of this request", Kind.NUMBER),
    Field("kafka.client", "what the client calls itself"),
    Field("kafka.topics", "topics that the request names, or their ids where it says no more", Kind.LIST),
)

# Requests that name topics: key, name, first flexible version, newest version, and the fields up to the last topic.
# Digits: so many bytes. s: text, b: bytes, t: topic, u: its id, r: kind and name of a resource, a topic where the kind
# is 2. [...]: array of structures, <...>: of plain values. Behind the colon the versions that have it.
_LAYOUTS: Final = """
0 Produce 9 13 s:3+ 2 4 [t:0-12 u:13+ [4 b]]
1 Fetch 12 18 4:0-14 4 4 4:3+ 1:4+ 4:7+ 4:7+ [t:0-12 u:13+ [4 4:9+ 8 4:12+ 8:5+ 4]]
2 ListOffsets 6 11 4 1:2+ [t [4 4:4+ 8 4:0]]
3 Metadata 9 13 [u:10+ t]
8 OffsetCommit 8 10 s 4:1+ s:1+ s:7+ 8:2-4 [t:0-9 u:10+ [4 8 4:6+ 8:1 s]]
9 OffsetFetch 6 10 s:0-7 [t <4>]:0-7 [s s:9+ 4:9+ [t:0-9 u:10+ <4>]]:8+
19 CreateTopics 5 7 [t 4 2 [4 <4>] [s s]]
20 DeleteTopics 4 6 [t u]:6+ <t>:0-5
21 DeleteRecords 2 2 [t [4 8]]
23 OffsetForLeaderEpoch 4 4 4:3+ [t [4 4:2+ 4]]
24 AddPartitionsToTxn 3 5 [s 8 2 1 [t <4>]]:4+ s:0-3 8:0-3 2:0-3 [t <4>]:0-3
27 WriteTxnMarkers 1 2 [8 2 1 [t <4>] 4 1:2+]
28 TxnOffsetCommit 3 5 s s 8 2 4:3+ s:3+ s:3+ [t [4 8 4:2+ s]]
29 DescribeAcls 2 3 r
30 CreateAcls 2 3 [r 1:1+ s s 1 1]
31 DeleteAcls 2 3 [r 1:1+ s s 1 1]
32 DescribeConfigs 4 4 [r <s>]
33 AlterConfigs 2 2 [r [s s]]
34 AlterReplicaLogDirs 2 2 [s [t <4>]]
35 DescribeLogDirs 2 5 [t <4>]
37 CreatePartitions 2 3 [t 4 [<4>]]
43 ElectLeaders 2 2 1:1+ [t <4>]
44 IncrementalAlterConfigs 1 1 [r [s 1 s]]
45 AlterPartitionReassignments 0 1 4 1:1+ [t [4 <4>]]
46 ListPartitionReassignments 0 0 4 [t <4>]
47 OffsetDelete - 0 s [t [4]]
55 DescribeQuorum 0 2 [t [4]]
61 DescribeProducers 0 0 [t <4>]
68 ConsumerGroupHeartbeat 0 1 s s 4 s s 4 <t>
75 DescribeTopicPartitions 0 0 [t]
78 ShareFetch 0 2 s s 4 4 4 4 4:1+ 4:1+ 1:2+ [u [4 4:0 [8 8 <1>]]]
79 ShareAcknowledge 0 2 s s 4 1:2+ [u [4 [8 8 <1>]]]
"""

_OTHERS: Final = """
4 LeaderAndIsr 5 StopReplica 6 UpdateMetadata 7 ControlledShutdown 10 FindCoordinator 11 JoinGroup 12 Heartbeat
13 LeaveGroup 14 SyncGroup 15 DescribeGroups 16 ListGroups 17 SaslHandshake 18 ApiVersions 22 InitProducerId
25 AddOffsetsToTxn 26 EndTxn 36 SaslAuthenticate 38 CreateDelegationToken 39 RenewDelegationToken
40 ExpireDelegationToken 41 DescribeDelegationToken 42 DeleteGroups 48 DescribeClientQuotas 49 AlterClientQuotas
50 DescribeUserScramCredentials 51 AlterUserScramCredentials 52 Vote 53 BeginQuorumEpoch 54 EndQuorumEpoch
56 AlterPartition 57 UpdateFeatures 58 Envelope 59 FetchSnapshot 60 DescribeCluster 62 BrokerRegistration
63 BrokerHeartbeat 64 UnregisterBroker 65 DescribeTransactions 66 ListTransactions 67 AllocateProducerIds
69 ConsumerGroupDescribe 70 ControllerRegistration 71 GetTelemetrySubscriptions 72 PushTelemetry
73 AssignReplicasToDirs 74 ListConfigResources 76 ShareGroupHeartbeat 77 ShareGroupDescribe 80 AddRaftVoter
81 RemoveRaftVoter 82 UpdateRaftVoter 83 InitializeShareGroupState 84 ReadShareGroupState 85 WriteShareGroupState
86 DeleteShareGroupState 87 ReadShareGroupStateSummary 88 StreamsGroupHeartbeat 89 StreamsGroupDescribe
90 DescribeShareGroupOffsets 91 AlterShareGroupOffsets 92 DeleteShareGroupOffsets
"""

SASL_HANDSHAKE: Final = 17
CONTROLLED_SHUTDOWN: Final = 7
_TOPIC: Final = 2
_NEVER: Final = 1 << 15

_TOKEN: Final = re.compile(r"([\[\]<>]|\d+|[a-z])(?::(\d+)(-|\+)?(\d+)?)?")


@dataclass(frozen=True, slots=True)
class _Step:
    """One field of a layout, or several of fixed size together. `names`: a topic may stand in it."""

    kind: str
    size: int = 0
    inner: tuple[_Step, ...] = ()
    names: bool = False


@dataclass(frozen=True, slots=True)
class _Api:
    name: bytes
    flexible: int = _NEVER
    newest: int = _NEVER
    layout: str = ""


def _apis() -> dict[int, _Api]:
    found = {int(key): _Api(name.encode()) for key, name in re.findall(r"(\d+) (\w+)", _OTHERS)}
    for line in _LAYOUTS.strip().splitlines():
        key, name, flexible, newest, layout = line.split(" ", 4)
        found[int(key)] = _Api(name.encode(), _NEVER if flexible == "-" else int(flexible), int(newest), layout)
    return found


_APIS: Final = _apis()


@functools.cache
def _layout(key: int, version: int) -> tuple[_Step, ...]:
    """What a version of a request consists of, up to its last topic."""
    levels: list[list[_Step]] = [[]]
    for found in _TOKEN.finditer(_APIS[key].layout):
        kind, low, dash, high = found.groups()
        there = low is None or int(low) <= version <= int(high or (low if dash is None else _NEVER))
        if kind in "[<":
            levels.append([])
            continue
        if kind in "]>":
            inner = tuple(levels.pop())
            step = _Step("[" if kind == "]" else "<", inner=inner, names=any(each.names for each in inner))
        elif kind.isdigit():
            step = _Step("", int(kind))
        else:
            step = _Step(kind, names=kind in "tur")
        fields = levels[-1]
        if there and step.kind == "" and fields and fields[-1].kind == "":
            fields[-1] = _Step("", fields[-1].size + step.size)
        elif there:
            fields.append(step)
    return tuple(levels[0])


class _Request:
    """The body of one request, and the topics it has named so far."""

    __slots__ = ("_end", "_flexible", "_limits", "_room", "_walk", "topics")

    def __init__(self, walk: Walk, end: int, limits: Limits, *, flexible: bool) -> None:
        self._walk = walk
        self._end = end
        self._limits = limits
        self._room = limits.topics_size
        self._flexible = flexible
        self.topics: list[bytes] = []

    def fields(self, steps: tuple[_Step, ...], *, last: bool) -> Steps[bool]:
        """Walk through a structure; of the `last` one True = the last topic is named, nothing more is read."""
        walk = self._walk
        final = max((number for number, step in enumerate(steps) if step.names), default=-1)
        for number, step in enumerate(steps):
            kind = step.kind
            ends = last and number == final
            if kind == "":
                walk.inside(step.size, self._end)
                yield -step.size
            elif kind in "[<":
                done = yield from self._array(step, last=ends)
                if done:
                    return True
            elif kind == "u":
                walk.inside(16, self._end)
                topic = yield 16
                if any(topic):  # else it is named
                    self._name(base64.urlsafe_b64encode(topic).rstrip(b"="))
            elif kind == "b":
                size = yield from self._length(4)
                yield -max(size, 0)
            elif kind == "s":
                size = yield from self._length(2)
                yield -max(size, 0)
            else:
                if kind == "r":
                    walk.inside(1, self._end)
                    kind = "t" if (yield 1)[0] == _TOPIC else ""
                text = yield from self.text()
                if kind and text:
                    self._name(text)
            if ends:
                return True
        return False

    def tags(self) -> Steps[None]:
        """Pass over the tagged fields behind a structure."""
        if not self._flexible:
            return
        count = yield from self._varint()
        for _ in range(count):
            yield from self._varint()
            size = yield from self._varint()
            self._walk.inside(size, self._end)
            yield -size

    def text(self, *, compact: bool = True) -> Steps[bytes]:
        """A text that is kept; one that is null is empty."""
        size = yield from self._length(2, compact=compact)
        if size > self._limits.text:
            raise ParseError("text_size")
        text = yield max(size, 0)
        return text

    def _array(self, step: _Step, *, last: bool) -> Steps[bool]:
        walk, inner = self._walk, step.inner
        count = yield from self._length(4)
        plain = step.kind == "<" or not self._flexible
        if plain and len(inner) == 1 and not inner[0].kind:
            size = max(count, 0) * inner[0].size
            walk.inside(size, self._end)
            yield -size
            return False
        for left in range(count - 1, -1, -1):
            done = yield from self.fields(inner, last=last and not left)
            if done:
                return True
            if step.kind == "[":
                yield from self.tags()
        return False

    def _length(self, size: int, *, compact: bool = True) -> Steps[int]:
        """Of a text, of bytes or an array; -1 where it is null. Nothing has more parts than bytes."""
        walk = self._walk
        if self._flexible and compact:
            length = (yield from self._varint()) - 1
        else:
            walk.inside(size, self._end)
            length = int.from_bytes((yield size), "big", signed=True)
            if length < -1:
                raise ParseError("length")
        walk.inside(max(length, 0), self._end)
        return length

    def _varint(self) -> Steps[int]:
        value = shift = 0
        while True:
            self._walk.inside(1, self._end)
            byte = (yield 1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise ParseError("varint")

    def _name(self, topic: bytes) -> None:
        self.topics.append(topic)
        self._room -= len(topic)
        if self._room < 0 or len(self.topics) > self._limits.topics:
            raise ParseError("too_many_topics")


_HEADER: Final = struct.Struct(">hhi")


class KafkaParser(WalkParser):
    """One connection; see `parsers.base.Parser`."""

    name = "kafka"
    fields = FIELDS

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        super().__init__()

    def _answers(self, walk: Walk) -> Steps[None]:
        while True:
            walk.message()
            size = int.from_bytes((yield 4), "big", signed=True)
            if size < 4:
                raise ParseError("response_size")
            yield -size

    def _requests(self, walk: Walk) -> Steps[None]:
        while True:
            walk.message()
            size = int.from_bytes((yield 4), "big", signed=True)
            if not 8 <= size <= self.limits.request:
                raise ParseError("request_size")
            end = walk.offset + size
            key, version, _ = _HEADER.unpack((yield 8))
            if key < 0 or version < 0:
                raise ParseError("api")
            api = _APIS.get(key) or _Api(b"%d" % key)
            said: dict[str, Value] = {"kafka.api": api.name, "kafka.version": version}
            request = _Request(walk, end, self.limits, flexible=version >= api.flexible)
            # The first version of all, without a client, is of ControlledShutdown only.
            client = b""
            if key != CONTROLLED_SHUTDOWN or version:
                client = yield from request.text(compact=False)
            if client:
                said["kafka.client"] = client
            if api.layout:
                if version > api.newest:
                    raise ParseError("version")
                yield from request.tags()
                yield from request.fields(_layout(key, version), last=True)
                if request.topics:
                    said["kafka.topics"] = tuple(request.topics)
            self._events.append(Said("kafka", said))
            walk.judging = False
            if key == SASL_HANDSHAKE and not version:
                raise ParseError("sasl_version")
            yield walk.offset - end


__all__ = ["TO_CLIENT", "TO_SERVER", "KafkaParser", "Limits"]
