"""What `./run` shows, each use of a service as a test: what is allowed gets through, what is denied does not,
and the inspection log says who judged it and why."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from slowpath.record import schema
from tests.lab import Lab, Namespace, servers
from tests.lab.capture import payload_bytes
from tests.lab.clients import V4, V6
from tests.lab.demo import Step, demonstrate, denied_steps, perform, steps
from tests.lab.gateway import Gateway
from tests.netns.peers import eventually

pytestmark = pytest.mark.root

# Protocols that the kernel tells from the first bytes, without the inspector.
KERNEL = {"http", "tls", "dns", "mysql", "redis", "ssh"}
# What redis-cli sends to a pipe are inline commands: no array, so the inspector names it, and hands it back.
INLINE = "redis-cli --pipe"
# Rules of configs/policy.yaml that decide them.
RULES = {"tls": "https", "http2": "web"}
# What is written of a denied use: who judged, rule of the policy, reason, rule of the rule file.
DENIALS = {
    "port without a rule": ("kernel", "default", "default", None),
    "SSH on the web port": ("kernel", "no-ssh-on-web-ports", "protocol", None),
    "PUT, no rule for it": ("inspector", "web", "no_rule", None),
    "/admin, HTTP/2": ("inspector", "web", "rule", "no-admin"),
    "lab.Admin/Wipe": ("inspector", "grpc", "no_rule", None),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Lab() as lab, Gateway(lab) as one, servers.running(lab):
        yield one


def named(wanted: Iterator[Step]) -> list[Any]:
    return [pytest.param(step, id=f"{step.protocol}: {step.what}") for step in wanted]


def verdicts(gateway: Gateway, step: Step, since: int) -> list[dict[str, Any]]:
    """Verdicts written since, of flows to the step's family of addresses, once there is one that says so."""
    host = V6 if step.what.endswith("IPv6") else V4
    wanted = "allow" if step.allowed else "deny"

    def find() -> list[dict[str, Any]]:
        found = [
            record
            for record in gateway.read_records()[since:]
            if record["event"] == "verdict" and record["flow"]["dst"] == host
        ]
        return found if any(record["verdict"] == wanted for record in found) else []

    records: list[dict[str, Any]] = eventually(find)
    return records


@pytest.mark.parametrize("step", named(steps()))
def test_allowed_use_gets_through(gateway: Gateway, step: Step) -> None:
    since = len(gateway.read_records())
    result = step.run(gateway.lab)
    assert result.ok, result.detail
    records = verdicts(gateway, step, since)
    assert {record["verdict"] for record in records} == {"allow"}
    first = "http" if "h2c" in step.what else "http2" if step.protocol == "grpc" else step.protocol
    assert {record["first"] for record in records} == {first}
    # The request that asks for an upgrade is judged as what it is.
    assert records[-1]["protocol"] == step.protocol
    assert {record["protocol"] for record in records} <= {first, step.protocol}
    by_kernel = step.protocol in KERNEL and INLINE not in step.what
    assert {record["path"] for record in records} == {"kernel" if by_kernel else "inspector"}
    assert {record["rule"] for record in records} == {RULES.get(step.protocol, step.protocol)}
    assert {record["enforced"] for record in records} == {True}
    if step.protocol in KERNEL:
        assert {(record["reason"], record["scope"]) for record in records} == {("protocol", "connection")}
    else:
        assert {(record["reason"], record["scope"]) for record in records} == {("rule", "request")}


@pytest.mark.parametrize("step", named(denied_steps()))
def test_denied_use_does_not_and_nothing_of_it_reaches_the_server(gateway: Gateway, step: Step) -> None:
    since = len(gateway.read_records())
    (outcome,) = perform(gateway.lab, [step])
    assert not outcome.result.ok, outcome.result.detail
    assert not outcome.leaked
    assert outcome.ok
    records = verdicts(gateway, step, since)
    denied = [record for record in records if record["verdict"] == "deny"]
    path, rule, reason, l7_rule = DENIALS[step.what.rpartition(", ")[0]]
    assert {(record["path"], record["rule"], record["reason"]) for record in denied} == {(path, rule, reason)}
    assert {record.get("l7_rule") for record in denied} == {l7_rule}
    assert all(record["enforced"] for record in denied)
    assert {record["flow"]["dport"] for record in denied} == {step.port}


def test_a_denied_request_would_be_seen_if_it_got_through(gateway: Gateway) -> None:
    """The capture and the needle of the tests above can find something: an allowed use is no leak, but is seen."""
    allowed = next(step for step in steps() if step.protocol == "http")
    (outcome,) = perform(gateway.lab, [replace(allowed, allowed=False, needle=b"GET /", port=80)])
    assert outcome.leaked
    assert not outcome.ok
    assert payload_bytes(gateway.lab.directory / f"capture-{Namespace.SERVER}-eth0.pcap", 80) > 0


def test_flows_that_the_kernel_judged_never_left_it(gateway: Gateway) -> None:
    by_kernel = {record["session"] for record in gateway.read_records() if record["path"] == "kernel"}
    sessions = {session["session"]: session for session in gateway.sessions()}
    stayed = [session for number, session in sessions.items() if number in by_kernel and session["verdict"] == "allow"]
    assert {session["protocol"] for session in stayed} >= KERNEL
    assert all(session["held"] == [0, 0] for session in stayed)
    inspected = [session for session in sessions.values() if session["protocol"] in {"http2", "grpc"}]
    assert inspected
    assert all(sum(session["held"]) > 0 for session in inspected)


def test_every_record_of_the_run_is_valid(gateway: Gateway) -> None:
    validator = jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker())
    records = gateway.read_records()
    for record in records:
        validator.validate(record)
    assert {record["event"] for record in records} == {"verdict", "end"}
    ends = {record["session"]: record for record in records if record["event"] == "end"}
    closed = [end for end in ends.values() if end["end"] == "closed" and end["verdict"] == "allow"]
    assert closed
    assert all(min(*end["packets"].values(), *end["bytes"].values()) > 0 for end in closed)
    # A verdict comes before its end, and no session ends twice.
    order = [record["session"] for record in records if record["event"] == "end"]
    assert len(order) == len(set(order))
    verdicts_at = {record["session"]: at for at, record in reversed(list(enumerate(records)))}
    assert all(records[verdicts_at[session]]["event"] == "verdict" for session in ends)


def test_the_demonstration_fails_when_something_is_not_as_the_rules_want_it() -> None:
    """`./run`'s own judgement, on one use that is as wanted and one that is not."""
    ok = next(step for step in steps() if step.protocol == "redis")
    out = io.StringIO()
    assert not demonstrate([ok, replace(ok, what="redis-cli, expected to fail", allowed=False)], out)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines if " passed " in line or " FAILED " in line] == ["redis", "redis"]
    assert sum(" FAILED " in line for line in lines) == 1
    assert any(line.startswith("2 uses of services, 1 not as the rules want them") for line in lines)
