"""SMB of the public captures."""

from __future__ import annotations

import pytest

from parsers.base import Unit, Value
from parsers.smb import SmbParser
from tests.captures.streams import CapturedFlow, flows

FLOWS = flows("smb", agree=False)


def units(flow: CapturedFlow) -> list[dict[str, Value]]:
    parser = SmbParser()
    found = [e for direction, data in flow.parts for e in parser.feed(direction, data) if isinstance(e, Unit)]
    assert parser.buffered == 0
    return [dict(unit.fields) for unit in found]


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_every_flow_is_read(flow: CapturedFlow) -> None:
    assert units(flow)


def test_what_is_said() -> None:
    by_file = {flow.truth["file"]: units(flow) for flow in FLOWS}
    said = by_file["nDPI__smbv1.pcap"]
    assert [unit["smb.command"] for unit in said] == [b"negotiate", b"session_setup", b"tree_connect", b"transaction2"]
    assert said[2]["smb.share"] == b"\\\\10.128.0.243\\IPC$"
    said = by_file["suricata-verify__smb-eicar-file-segmentation-random__input.pcap"]
    assert [unit["smb.share"] for unit in said if "smb.share" in unit] == [b"\\\\127.0.0.1\\PUBLIC"]
    assert [unit["smb.command"] for unit in said[4:]] == [b"create", b"write", b"close", b"tree_disconnect"]
    said = by_file["zeek__smb__smb311.pcap"]
    assert said[0]["smb.dialects"] == (b"3.1.1",)
    assert {unit["smb.version"] for unit in said[1:]} == {b"3.1.1"}
    assert {unit["smb.command"] for unit in said[3:]} == {b"encrypted"}
    assert len(by_file["nDPI__smb_deletefile.pcap"]) == 83
