"""`microseg-fastpath policy` as an operator calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastpath.cli.flows import MAX_LINE
from fastpath.cli.main import main

POLICY = """\
default: {action: deny}
rules:
  - {id: late, priority: 2000, from: 10.1.0.0/16, proto: tcp, ports: 80, action: deny}
  - {id: web, from: 10.1.0.0/16, to: 10.2.0.0/16, proto: tcp, ports: [80, 8000-8100], action: allow}
  - {id: tls, from: 10.1.0.0/16, proto: tcp, ports: 443, app: tls, action: allow, log: all}
"""
ODD = 'rules:\n  - {id: all, action: allow}\n  - {id: "w\\xe9b", proto: tcp, ports: 80, action: deny}\n'


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    path = tmp_path / "gateway.yaml"
    path.write_text("interfaces: [seg0, seg1]\npolicy: policy.yaml\n")
    return path


def other(gateway: Path, text: str) -> str:
    path = gateway.parent / "other.yaml"
    path.write_text(text)
    return str(path)


def run(gateway: Path, *argv: str) -> int:
    return main(["policy", *argv, "--config", str(gateway)])


FLOW = ("--from", "10.1.0.1", "--to", "10.2.0.1", "--proto", "tcp")


# --- check and show ---------------------------------------------------------------------------------------------------


def test_check(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "check", "--strict") == 0
    out = capsys.readouterr().out.splitlines()
    file = gateway.parent / "policy.yaml"
    assert out[0].startswith(f"{file}: ok; 3 rules, ")
    assert out[1:] == []


def test_check_warns(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = other(gateway, ODD)
    warning = f"{file}:3: warning: rule w\\xe9b is shadowed: no flow gets to it, all are taken by all\n"
    for argv, status in (((), 0), (("--strict",), 1)):
        assert run(gateway, "check", file, *argv) == status
        out, err = capsys.readouterr()
        assert out.endswith(warning)
        assert (out.count("\n"), err) == (2, "")


def test_check_reports_every_problem(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = other(gateway, "rules:\n  - {id: a, action: perhaps}\n  - {id: b, ports: 80, action: allow}\n")
    assert run(gateway, "check", file) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(": ")[0] for line in err.splitlines()] == [f"{file}:2", f"{file}:3"]


def test_show_is_in_the_order_of_judging(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "show") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["1", "web", "1000"], ["2", "tls", "1000"], ["3", "late", "2000"], ["-", "default", "-"],
    ]  # fmt: skip
    assert run(gateway, "show", "-o", "json", "--rule", "tls") == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(gateway.parent / "policy.yaml"),
        "ethertypes": [],
        "rules": [
            {
                "number": 2, "id": "tls", "place": f"{gateway.parent}/policy.yaml:5", "description": "",
                "priority": 1000, "from": ["10.1.0.0/16"], "to": None, "proto": ["tcp"], "ports": ["443"],
                "types": None, "app": ["tls"], "from_zone": None, "to_zone": None, "direction": None, "vlan": None,
                "action": "allow", "rules": None, "deny_with": "reset", "log": "all",
                "mode": "enforce", "on_inspector_down": "deny",
            }
        ],
    }  # fmt: skip
    assert run(gateway, "show", "--rule", "none") == 1
    assert "there is no rule 'none'" in capsys.readouterr().err


# --- simulate ---------------------------------------------------------------------------------------------------------


def test_simulate(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "simulate", *FLOW, "--port", "8080") == 0
    file = gateway.parent / "policy.yaml"
    assert capsys.readouterr().out.splitlines() == [
        f"allow by rule 1 web ({file}:4), reason policy",
        "  from   10.1.0.1: in 10.1.0.0/16",
        "  to     10.2.0.1: in 10.2.0.0/16",
        "  proto  tcp: matches",
        "  ports  8080: in 8000-8100",
        "  types  none: any",
        "  app    not known yet: any",
        "nearly matched:",
        f"  rule 2 tls ({file}:5): ports is 8080, wanted 443",
        f"  rule 3 late ({file}:3): ports is 8080, wanted 80",
    ]
    assert run(gateway, "simulate", *FLOW, "--port", "443") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"undecided by rule 2 tls ({file}:5), reason pending\n")
    assert f"\n  tls: allow by rule 2 tls ({file}:5)\n" in out
    assert run(gateway, "simulate", *FLOW, "--port", "443", "--app", "http") == 0
    assert capsys.readouterr().out.startswith(f"deny by the default ({file}), reason default\n  no rule matches\n")


def test_simulate_icmp(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = other(gateway, "rules: [{id: clocks, proto: icmp, types: timestamp-request, action: allow}]\n")
    ping = (*FLOW[:4], "--proto", "icmp")
    assert run(gateway, "simulate", file, *ping) == 0
    assert "types is echo-request, wanted icmp/timestamp-request\n" in capsys.readouterr().out
    assert run(gateway, "simulate", file, *ping, "--type", "13/0") == 0
    out = capsys.readouterr().out
    assert out.startswith("allow by rule 1 clocks ")
    assert "  types  timestamp-request: matches\n" in out
    assert run(gateway, "simulate", file, *FLOW, "--port", "80", "--type", "8") == 2


@pytest.mark.parametrize(
    "argv",
    [
        (),
        FLOW[:4],
        FLOW,
        (*FLOW, "--port", "http"),
        (*FLOW, "--port", "80", "--app", "gopher"),
        ("--from", "10.1.0.1", "--to", "::1", "--proto", "icmp"),
        (*FLOW, "--flows", "-"),
        ("--flows", "-", "--sport", "0"),
    ],
)
def test_simulate_usage(gateway: Path, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "simulate", *argv) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)


def judged(gateway: Path, tmp_path: Path, *lines: bytes) -> tuple[int, str]:
    file = tmp_path / "flows.jsonl"
    file.write_bytes(b"\n".join(lines))
    return run(gateway, "simulate", "--flows", str(file)), str(file)


def test_many_flows(gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = {"from": "10.1.0.1", "to": "10.2.0.1", "proto": "tcp", "port": 80}
    lines = [
        flow,
        flow | {"port": 81, "sport": 5},
        flow | {"proto": 6, "port": 443, "app": "tls"},
        flow | {"app": None},
    ]
    status, _ = judged(gateway, tmp_path, *(json.dumps(line).encode() for line in lines))
    out, err = capsys.readouterr()
    told = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert [(each["verdict"], each["rule"]["id"]) for each in told] == [
        ("allow", "web"), ("deny", "default"), ("allow", "tls"), ("allow", "web"),
    ]  # fmt: skip
    assert told[1]["flow"]["sport"] == 5


def test_the_same_answer_alone_and_among_many(
    gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = {"from": "10.1.0.1", "to": "10.2.0.1", "proto": "tcp", "port": 443}
    judged(gateway, tmp_path, json.dumps(flow).encode())
    among = json.loads(capsys.readouterr().out)
    assert run(gateway, "simulate", *FLOW, "--port", "443", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == among


GOOD = b'{"from": "10.1.0.1", "to": "10.2.0.1", "proto": "tcp", "port": 80}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "expected an object"),
        (b"[" * 60000, "nested too deep"),
        (b'{"from": 1}', "from: expected text"),
        (b"{}", "missing from"),
        (b'{"from": "10.1.0.1", "from": "10.1.0.1"}', "'from' is given twice"),
        (b'{"dport": 80}', "unknown field 'dport'"),
        (GOOD.replace(b"80", b"true"), "port: expected a number"),
        (GOOD.replace(b"80", b'"80"'), "port: expected a number"),
        (GOOD.replace(b"80", b"80.0"), "port: expected a number"),
        (GOOD.replace(b"80", b"-1"), "is not a port"),
        (GOOD.replace(b"80", b"9" * 5000), ""),
        (GOOD.replace(b"10.1.0.1", b"\\ud800"), "is not an IPv4 or IPv6 address"),
        (GOOD.replace(b"10.1.0.1", b"\xff"), "not UTF-8 at byte"),
        (GOOD + b" " * MAX_LINE, f"longer than {MAX_LINE} bytes"),
    ],
)
def test_a_bad_line(
    gateway: Path, tmp_path: Path, line: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, file = judged(gateway, tmp_path, GOOD, line, GOOD)
    out, err = capsys.readouterr()
    told = [json.loads(each) for each in out.splitlines()]
    assert status == 1
    assert [each.get("verdict") for each in told] == ["allow", None, "allow"]
    assert told[1]["line"] == 2
    assert message in told[1]["error"]
    assert len(err.splitlines()) == 1
    assert err.startswith(f"{file}:2: ")


def test_the_longest_line(gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longest = GOOD + b" " * (MAX_LINE - len(GOOD))
    assert judged(gateway, tmp_path, longest, longest)[0] == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_flows_from_stdin_in_bounded_memory(gateway: Path) -> None:
    script = f"""
import resource, sys
from fastpath.cli.main import main
resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
sys.exit(main(["policy", "simulate", "--flows", "-", "--config", {str(gateway)!r}]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        for _ in range(600):
            process.stdin.write(b" " * (1 << 20))
        out, err = process.communicate(b"\n" + GOOD + b"\n")
    told = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 1
    assert told[0]["error"] == f"longer than {MAX_LINE} bytes"
    assert told[1]["verdict"] == "allow"
    assert err.startswith(b"stdin:1: longer")


def test_no_such_file_of_flows(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "simulate", "--flows", "/nowhere/flows") == 1
    assert "/nowhere/flows: No such file" in capsys.readouterr().err


# --- diff -------------------------------------------------------------------------------------------------------------


def test_diff(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "diff", str(gateway.parent / "policy.yaml")) == 0
    assert capsys.readouterr().out == "no differences\n"
    new = other(
        gateway, POLICY.replace("late, priority: 2000", "early, priority: 1").replace("ports: 443", "ports: 444")
    )
    assert run(gateway, "diff", new) == 0
    file = gateway.parent / "policy.yaml"
    assert capsys.readouterr().out.splitlines() == [
        f"removed rule 3 late ({file}:3): deny",
        f"added rule 1 early ({new}:3): deny",
        f"changed rule 3 tls ({new}:5): ports 443 -> 444",
    ]
    assert run(gateway, "diff", new, str(file), "-o", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["id"], each["number"]) for each in told["added"]] == [("early", 1)]
    assert run(gateway, "diff", str(file), new) == 0
    assert "removed rule 1 early" in capsys.readouterr().out


def test_diff_of_a_broken_file(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "diff", other(gateway, "rules: 7\n")) == 3
    assert capsys.readouterr().out == ""


def test_offline_is_offline() -> None:
    script = """
import sys
import fastpath.cli.policy
print(sorted({"aiohttp", "pyroute2", "fastpath.libbpf"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- zones ------------------------------------------------------------------------------------------------------------

ZONED = """\
defaults:
  - {from_zone: lan, to_zone: dmz, action: allow}
rules:
  - {id: here, proto: tcp, direction: to-host, from_zone: lan, vlan: 1-9, action: deny}
"""


@pytest.fixture
def zoned(gateway: Path) -> Path:
    (gateway.parent / "policy.yaml").write_text(ZONED)
    gateway.write_text(gateway.read_text() + "zones: {lan: [seg0], dmz: [seg1]}\n")
    return gateway


def test_zones_of_gateway_yaml(zoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(zoned, "check") == 0
    assert main(["config", "check", "--config", str(zoned)]) == 0
    capsys.readouterr()
    file = other(zoned, ZONED.replace("to_zone: dmz", "to_zone: guests"))
    assert run(zoned, "check", file) == 3
    assert capsys.readouterr().err == f"{file}:2: defaults[0].to_zone: gateway.yaml has no zone 'guests'\n"


def test_show_says_where(zoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(zoned, "show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "from_zone=lan direction=to-host vlan=1-9" in lines[1]
    assert lines[2].split()[:2] == ["-", "default:lan>dmz"]
    assert "from_zone=lan to_zone=dmz" in lines[2]
    assert lines[3].split()[:2] == ["-", "default"]


def test_simulate_goes_by_zones_and_tags(zoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(zoned, "simulate", *FLOW, "--port", "80", "--from-zone", "lan", "--to-zone", "dmz") == 0
    file = zoned.parent / "policy.yaml"
    assert capsys.readouterr().out.startswith(
        f"allow by default:lan>dmz ({file}:2), reason default\n  no rule matches\n"
    )
    assert run(zoned, "simulate", *FLOW, "--port", "80", "--from-zone", "lan", "--to-zone", "host", "--vlan", "9") == 0
    assert capsys.readouterr().out.startswith("deny by rule 1 here ")
    assert run(zoned, "simulate", *FLOW, "--port", "80", "--from-zone", "wan") == 2
    assert "from_zone: gateway.yaml has no zone 'wan'" in capsys.readouterr().err
    flow = {"from": "10.1.0.1", "to": "10.2.0.1", "proto": "tcp", "port": 80, "from_zone": "lan", "to_zone": "host"}
    flows = zoned.parent / "flows"
    flows.write_text("".join(json.dumps(flow | {"vlan": vlan}) + "\n" for vlan in (9, "none", 0, True)))
    assert run(zoned, "simulate", "--flows", str(flows)) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["rule"]["id"] for line in lines[:2]] == ["here", "default"]
    assert [line.partition(": ")[2].split(":")[0] for line in err.splitlines()] == ["vlan", "vlan"]


def test_diff_says_which_defaults_change(zoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(zoned, "diff", other(zoned, ZONED.replace("dmz, action: allow", "dmz, action: deny"))) == 0
    old, new = (f"default:lan>dmz {action} drop deny enforce" for action in ("allow", "deny"))
    assert capsys.readouterr().out == f"changed defaults {old} -> {new}\n"
