"""SSH of the public captures."""

from __future__ import annotations

import pytest

from parsers.base import ParseError, Unit
from parsers.ssh import SshParser
from tests.captures.streams import CapturedFlow, flows

# A person who pressed return, and was told "Protocol mismatch.".
NO_CLIENT = "nDPI__ssh_unidirectional.pcap"
FLOWS = [flow for flow in flows("ssh") if flow.truth["file"] != NO_CLIENT]


def units(flow: CapturedFlow) -> list[Unit]:
    parser = SshParser()
    found = [e for direction, data in flow.parts for e in parser.feed(direction, data) if isinstance(e, Unit)]
    assert parser.buffered == 0
    return found


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_both_sides_say_all(flow: CapturedFlow) -> None:
    found = units(flow)
    assert len(found) == 4
    assert not found[-1].later


def test_what_they_say() -> None:
    last = {flow.truth["file"]: units(flow)[-1].fields for flow in FLOWS}
    said = last["zeek__ssh__server-pre-banner-data.pcap"]
    assert said["ssh.client"] == b"OpenSSH_9.7"
    assert said["ssh.server"] == b"OpenSSH_9.2p1 Debian-2+deb12u5"
    assert said["ssh.hassh"] == b"7994d3e86b804f8317899f8b2eeb1059"
    said = last["suricata-verify__ssh-hassh-reassembled__input.pcap"]
    assert said["ssh.server"] == b"Cisco-1.25"
    assert said["ssh.server_macs"] == (b"hmac-sha1", b"hmac-sha1-96", b"hmac-md5", b"hmac-md5-96")


def test_a_person_is_no_client() -> None:
    (flow,) = (flow for flow in flows("ssh") if flow.truth["file"] == NO_CLIENT)
    with pytest.raises(ParseError, match="banner at byte 0"):
        units(flow)
