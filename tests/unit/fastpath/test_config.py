from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastpath import abi
from fastpath.config import EXCEPTIONS, MAX_IFNAME, TIMEOUTS, Config, Inspection, Mark, Records, load_config
from fastpath.document import InvalidDocumentError

EXAMPLE = Path(__file__).parents[3] / "configs" / "gateway.yaml"
MINIMAL = "interfaces: [eth0, eth1]\npolicy: policy.yaml\n"


def read(folder: Path, text: str) -> Config:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return load_config(path)


def problems(folder: Path, text: str) -> list[tuple[int, str, str]]:
    """Line, path and message of everything wrong."""
    with pytest.raises(InvalidDocumentError) as caught:
        read(folder, text)
    return [(problem.line, problem.path, problem.message) for problem in caught.value.problems]


def uncommented(text: str) -> str:
    """The example with its defaults no longer commented out: `# name: value`, and lines indented under one."""
    lines, inside = [], False
    for line in text.splitlines():
        found = re.fullmatch(r"# (([a-z_]+):.*)", line)
        if found and (inside := found[2] in KNOWN):
            lines.append(found[1])
        elif inside and re.match(r"#  +\S", line):
            lines.append(line[2:])
        else:
            inside = False
            lines.append(line)
    return "\n".join(lines)


KNOWN = {
    "rules", "run_dir", "pin_root", "tap", "hook", "prio", "mark", "sessions", "timeouts", "failsafe", "exceptions",
    "inspector", "records", "listen", "log_level", "accelerate", "state_dir", "policy_history", "watch", "zones",
    "program_cache", "pattern_engine",
}  # fmt: skip


def test_minimal(tmp_path: Path) -> None:
    config = read(tmp_path, MINIMAL)
    assert config.interfaces == ("eth0", "eth1")
    assert (config.policy, config.rules) == (tmp_path / "policy.yaml", tmp_path / "rules.d")
    assert config.fastpath_socket == Path("/run/microseg/fastpath.sock")
    assert config.slowpath_socket == Path("/run/microseg/slowpath.sock")
    assert config.timeouts == TIMEOUTS
    assert config.failsafe == (22,)
    assert (config.fastpath_listen, config.slowpath_listen) == (None, None)


def test_the_example_shows_every_field_with_its_default(tmp_path: Path) -> None:
    text = uncommented(EXAMPLE.read_text())
    assert {name for name in KNOWN if re.search(rf"^{name}:", text, re.MULTILINE)} == KNOWN
    assert set(yaml.safe_load(text)["inspector"]) == {field.name for field in fields(Inspection)}
    shown, default = read(tmp_path, text), read(tmp_path, MINIMAL)
    # The example names a tap and addresses to listen on; by default the name is derived, and nobody listens.
    different = {field.name for field in fields(Config) if getattr(shown, field.name) != getattr(default, field.name)}
    assert different == {"tap", "fastpath_listen", "slowpath_listen", "exceptions"}
    assert {name: shown.exception(name) for name in EXCEPTIONS} == {
        name: default.exception(name) for name in EXCEPTIONS
    }
    assert shown.fastpath_listen == ("127.0.0.1", 9470)


def test_everything_set(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        MINIMAL
        + "rules: other\nrun_dir: run\npin_root: /sys/fs/bpf/x\ntap: mytap\nprio: 7\nmark: {value: 0x10, mask: 0x30}\n"
        "sessions: {capacity: 4096, kind: hash, sweep: 0.5}\ntimeouts: {syn: 5, udp: 7.5}\nfailsafe: [22, 443]\n"
        "exceptions: {midstream: deny, fragment: allow}\ninspector: {timeout: 2, max_flows: 100, gap: 7.5}\n"
        "records: {path: log.jsonl, max_bytes: 4096, keep: 0}\nlisten: {slowpath: '[::1]:9000'}\nlog_level: debug\n"
        "accelerate: true\nhook: clsact\nstate_dir: state\npolicy_history: 3\nwatch: false\n"
        "zones: {lan: [eth0], dmz.1: eth1}\nprogram_cache: programs\n"
        "pattern_engine: re2\n",
    )
    assert (config.rules, config.run_dir) == (tmp_path / "other", tmp_path / "run")
    assert config.pin_root == Path("/sys/fs/bpf/x")
    assert config.tap_names == ("mytap", "mytapx")
    assert config.pattern_engine == "re2"
    assert (config.hook, config.prio, config.mark) == ("clsact", 7, Mark(0x10, 0x30))
    assert (config.capacity, config.table, config.sweep) == (4096, "hash", 0.5)
    assert config.timeouts == dict(TIMEOUTS) | {"syn": 5, "udp": 7.5}
    assert config.failsafe == (22, 443)
    assert config.exception("midstream") == abi.Action.DENY
    assert config.exception("fragment") == abi.Action.ALLOW
    assert config.exception("need_more") == abi.Action.INSPECT
    assert config.exception("table_full") == abi.Action.DENY
    assert config.inspection == Inspection(timeout=2, max_flows=100, gap=7.5)
    assert config.records == Records(tmp_path / "log.jsonl", 4096, 0)
    assert config.slowpath_listen == ("::1", 9000)
    assert config.zones == {"lan": ("eth0",), "dmz.1": ("eth1",)}
    assert config.log_level == "debug"
    assert config.accelerate is True
    assert config.program_cache == tmp_path / "programs"
    assert (config.state_dir, config.policy_history, config.watch) == (tmp_path / "state", 3, False)


def test_compiled_programs_need_not_be_kept(tmp_path: Path) -> None:
    assert read(tmp_path, MINIMAL + "program_cache: none\n").program_cache is None


def test_taps_of_different_pin_roots_differ(tmp_path: Path) -> None:
    taps = {read(tmp_path, f"{MINIMAL}pin_root: /sys/fs/bpf/{name}\n").tap_names for name in "abc"}
    assert len(taps) == 3
    assert all(len(name) <= MAX_IFNAME for names in taps for name in names)


@pytest.mark.parametrize(
    ("text", "line", "path", "message"),
    [
        ("interfaces: [eth0]", 1, "interfaces", "name at least two interfaces"),
        ("interfaces: [eth0, eth1, eth0]", 1, "interfaces", "eth0 is listed twice"),
        ("interfaces: [eth0, eth1, sixteen-letters-]", 1, "interfaces[2]", "longer than 15 characters"),
        ("interfaces: [eth0, eth1, a/b]", 1, "interfaces[2]", "is no name of an interface"),
        ("interfaces: [eth0, eth1, ..]", 1, "interfaces[2]", "is no name of an interface"),
        ("interfaces: [eth0, t0x]\ntap: t0", 1, "interfaces", "t0x is the tap's name"),
        ("tap: exactly-fifteen", 3, "tap", "longer than 14 characters"),
        ("hook: xdp", 3, "hook", "'xdp' is not one of auto, tcx, clsact"),
        ("pattern_engine: pcre", 3, "pattern_engine", "'pcre' is not one of auto, re2, hyperscan"),
        ("prio: 0", 3, "prio", "0 is not within 1..65535"),
        ("prio: first", 3, "prio", "expected a whole number"),
        ("mark: {value: 3, mask: 2}", 3, "mark", "value 0x3 has bits outside mask 0x2"),
        ("mark: {value: 3}", 3, "mark", "missing mask"),
        ("sessions: {capacity: 10}", 3, "sessions.capacity", "not within 1024.."),
        ("sessions: {kind: tree}", 3, "sessions.kind", "'tree' is not one of lru, lru_percpu, hash"),
        ("timeouts: {syn: 0}", 3, "timeouts.syn", "0 is not within 1.."),
        ("timeouts: {sin: 1}", 3, "timeouts", "unknown field 'sin'"),
        ("failsafe: [0]", 3, "failsafe[0]", "0 is not within 1..65535"),
        (f"failsafe: [{', '.join(map(str, range(1, 18)))}]", 3, "failsafe", "more than 16 ports"),
        ("exceptions: {fragment: inspect}", 3, "exceptions.fragment", "'inspect' is not one of deny, allow"),
        ("exceptions: {weather: deny}", 3, "exceptions", "unknown field 'weather'"),
        ("inspector: {timeout: nan}", 3, "inspector.timeout", "nan is not within"),
        ("inspector: {max_flows: 1.5}", 3, "inspector.max_flows", "expected a whole number"),
        ("inspector: {gap: 0.9}", 3, "inspector.gap", "0.9 is not within 1..300"),
        ("inspector: {gap: 301}", 3, "inspector.gap", "301 is not within 1..300"),
        ("inspector:\n  need_more_progress: 1023", 4, "inspector.need_more_progress", "1023 is not within 1024.."),
        ("inspector: {need_more_progress: 1e4}", 3, "inspector.need_more_progress", "expected a whole number"),
        ("records: {keep: -1}", 3, "records.keep", "-1 is not within"),
        ("listen: {fastpath: 9470}", 3, "listen.fastpath", "expected HOST:PORT"),
        ("listen: {fastpath: 'localhost:0'}", 3, "listen.fastpath", "expected HOST:PORT"),
        ("zones: {lan: [eth0, eth2]}", 3, "zones.lan[1]", "eth2 is not one of `interfaces`"),
        ("zones: {lan: eth0, dmz: [eth1, eth0]}", 3, "zones.dmz[1]", "eth0 is in zone lan already"),
        ("zones: {lan: []}", 3, "zones.lan", "the zone has no interfaces"),
        ("zones: {host: eth0}", 3, "zones.host", "'host' is the gateway itself"),
        ("zones: {1st: eth0}", 3, "zones.1st", "'1st' is no name"),
        ("zones: [lan]", 3, "zones", "expected a mapping"),
        (f"zones: {{{', '.join(f'z{n}: eth0' for n in range(251))}}}", 3, "zones", "251 names; 250 is the most"),
        ("policy_history: 0", 3, "policy_history", "0 is not within 1..100"),
        ("policy_history: 101", 3, "policy_history", "101 is not within 1..100"),
        ("watch: closely", 3, "watch", "expected true or false"),
        ("log_level: loud", 3, "log_level", "'loud' is not one of"),
        ("colour: red", 3, "", "unknown field 'colour'"),
    ],
)
def test_one_thing_wrong(tmp_path: Path, text: str, line: int, path: str, message: str) -> None:
    kept = "policy: policy.yaml\n" if text.startswith("interfaces") else MINIMAL
    found = problems(tmp_path, f"{text}\n{kept}" if text.startswith("interfaces") else f"{kept}{text}\n")
    assert len(found) == 1, found
    assert found[0][:2] == (line, path)
    assert message in found[0][2]


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = "interfaces: [a]\npolicy: []\nprio: 0\nfailsafe: [0, 99999]\nlisten: {fastpath: x, slowpath: y}\nwhat: 1\n"
    assert [line for line, *_ in problems(tmp_path, text)] == [1, 2, 3, 4, 4, 5, 5, 6]


@pytest.mark.parametrize("missing", ["interfaces", "policy"])
def test_what_must_be_there(tmp_path: Path, missing: str) -> None:
    text = "".join(line for line in MINIMAL.splitlines(keepends=True) if not line.startswith(missing))
    assert [message for *_, message in problems(tmp_path, text)] == [f"missing {missing}"]


def test_rule_digest_is_of_the_text(tmp_path: Path) -> None:
    config = read(tmp_path, MINIMAL)
    assert config.rule_digest("web") is None
    (tmp_path / "rules.d").mkdir()
    file = tmp_path / "rules.d" / "web.yaml"
    digests: list[Any] = []
    for text in ("a", "b", "a"):
        file.write_text(text)
        digests.append(config.rule_digest("web"))
    assert digests[0] == digests[2] != digests[1]


def test_a_rule_file_differs_when_the_patterns_that_it_names_do(tmp_path: Path) -> None:
    config = read(tmp_path, MINIMAL)
    for folder in ("rules.d", "patterns.d"):
        (tmp_path / folder).mkdir()
    (tmp_path / "rules.d" / "plain.yaml").write_text("rules: []\n")
    (tmp_path / "rules.d" / "looks.yaml").write_text("rules: [{match: {http.path: {pattern: own}}}]\n")
    before = [config.rule_digest(name) for name in ("plain", "looks", "none")]
    (tmp_path / "patterns.d" / "own.yaml").write_text("name: own\n")
    after = [config.rule_digest(name) for name in ("plain", "looks", "none")]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
