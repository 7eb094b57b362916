from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slowpath.cli import places
from slowpath.cli.main import main
from slowpath.record.write import Writer, encode
from tests.unit.slowpath.record import sample

COMMAND = [sys.executable, "-m", "slowpath.cli.main", "inspect"]


@pytest.fixture(autouse=True)
def no_system_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CONFIG", tmp_path / "none.yaml")
    monkeypatch.setattr(places, "RECORDS", tmp_path / "records.jsonl")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    writer = Writer(path, max_bytes=10_000, keep=50)
    for number in range(100):
        writer.write(sample.record(number, verdict="deny" if number % 2 else "allow"))
    writer.close()
    return path


def sessions(text: str) -> list[int]:
    return [json.loads(line)["session"] for line in text.splitlines()]


class Run:
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        status = main(["inspect", *argv])
        out, err = self._capfd.readouterr()
        return status, out, err


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(capfd)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("", range(80, 100)),
        ("--last 3", range(97, 100)),
        ("--last 0", []),
        ("--all", range(100)),
        (f"--since @{sample.T0 + 95}", range(95, 100)),
        (f"--until @{sample.T0 + 3}", range(3)),
        (f"--since @{sample.T0 + 10} --until @{sample.T0 + 12.25}", [10, 11, 12]),
        (f"--since @{sample.T0 + 10} --last 2", [98, 99]),
        ("--verdict deny --last 2", [97, 99]),
        ("--all --session 5 --session 70", [5, 70]),
    ],
)
def test_selection(run: Run, path: Path, argv: str, expected: range | list[int]) -> None:
    status, out, err = run("-o", "json", *argv.split())
    assert (status, sessions(out), err) == (0, list(expected), "")


def test_input_file_shows_all_of_that_file(run: Run, path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"".join(encode(sample.record(number)) for number in range(30)))
    assert sessions(run("-o", "json", "--input-file", str(other))[1]) == list(range(30))
    assert sessions(run("-o", "json", "--input-file", str(other), "--last", "2")[1]) == [28, 29]


def test_configuration_names_the_records(run: Run, path: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(encode(sample.record(500)))
    config.write_text(f"interfaces: whatever\nrecords:\n  path: {moved}\n")
    assert sessions(run("-o", "json", "--config", str(config))[1]) == [500]
    config.write_text("records: {}\n")
    assert len(sessions(run("-o", "json", "--config", str(config))[1])) == 20


def test_corrupt_lines_are_reported_and_the_rest_shown(run: Run, path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"torn{\n" + encode(sample.record(100)) + b'{"v":1,"t')
    status, out, err = run("-o", "json", "--last", "2")
    assert (status, sessions(out)) == (0, [99, 100])
    assert err == "microseg-slowpath inspect: 2 corrupt lines left out\n"
    assert run("-q", "--last", "2")[2] == ""


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ("--verdict drop", 2, "'drop' is not one of allow, deny, inspect"),
        ("--since never", 2, "legal are 5m"),
        ("--not", 2, "--not needs a filter"),
        ("--verdict deny --not", 2, "--not needs a filter"),
        ("--last -1", 2, "--last"),
        ("--last x", 2, "number of records"),
        ("--all --last 1", 2, "contradict"),
        ("--follow --until now", 2, "contradict"),
        ("-o xml", 2, "compact"),
        ("--verd deny", 2, "unrecognized"),
        ("--input-file /nonexistent/x", 1, "/nonexistent/x: No such file"),
        ("--input-file /", 1, "/: Is a directory"),
        ("--config /nonexistent.yaml", 3, "/nonexistent.yaml: No such file"),
    ],
)
def test_bad_usage(run: Run, path: Path, argv: str, status: int, message: str) -> None:
    found, out, err = run(*argv.split())
    assert (found, out) == (status, "")
    assert message in err
    assert "Traceback" not in err


def test_bad_configuration_has_its_place(run: Run, path: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    for text in ("records: 5\n", "a: [\n", "records:\n  path: []\n"):
        config.write_text(text)
        status, _, err = run("--config", str(config))
        assert status == 3
        assert f"{config}:" in err


def test_no_records_yet(run: Run, tmp_path: Path) -> None:
    status, _, err = run()
    assert status == 1
    assert str(tmp_path / "records.jsonl") in err


def test_help_explains_how_filters_combine(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    text = " ".join(out.split())
    assert "same flag repeated is OR, different flags are AND" in text
    assert "--not" in text


def test_colour(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[3" in run("--color", "always")[1]
    assert "\x1b" not in run("--color", "never")[1]
    assert "\x1b" not in run()[1]
    monkeypatch.setattr("os.isatty", lambda _: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[3" in run()[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run()[1]


def test_standard_input() -> None:
    given = b"".join(encode(sample.record(number)) for number in range(30)) + b"junk\n"
    done = subprocess.run([*COMMAND, "--input-file", "-", "-o", "json"], input=given, capture_output=True, check=True)
    assert sessions(done.stdout.decode()) == list(range(30))
    assert b"1 corrupt line left out" in done.stderr


def test_closed_pipe_is_quiet(path: Path) -> None:
    with path.open("ab") as file:
        for number in range(20_000):
            file.write(encode(sample.record(number)))
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1; exit "${PIPESTATUS[0]}"', "-", *COMMAND, "--input-file", str(path)],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 1, b"")


def test_follow_until_interrupted(path: Path) -> None:
    """The last 20, then what comes, across a rotation; 130 and no traceback on Ctrl-C."""
    writer = Writer(path, max_bytes=10_000, keep=50)
    with subprocess.Popen(
        [*COMMAND, "--follow", "--input-file", str(path), "--last", "3", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = [json.loads(process.stdout.readline())["session"] for _ in range(3)]
        assert first == [97, 98, 99]
        for number in range(100, 160):
            writer.write(sample.record(number))
        writer.close()
        more = [json.loads(process.stdout.readline())["session"] for _ in range(60)]
        assert more == list(range(100, 160))
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert process.stderr.read() == b""


# What `inspect` must never load: each costs more than the rest of its start.
HEAVY = (
    "aiohttp", "pyroute2", "bcc", "scapy", "dpkt", "asyncio", "ctypes", "jsonschema", "prometheus_client", "hpack",
    "httptools", "yaml", "http.client", "email", "importlib.metadata", "fastpath.abi", "logging", "tempfile",
    "subprocess",
)  # fmt: skip


def test_start_imports_nothing_heavy(path: Path) -> None:
    script = f"""
import sys
from slowpath.cli.main import main
status = main(["inspect", "--input-file", {str(path)!r}, "--verdict", "deny", "--since", "2020-01-01", "--last", "1"])
print([name for name in {HEAVY!r} if name in sys.modules], status)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
