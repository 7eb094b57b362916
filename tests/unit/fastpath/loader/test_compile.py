import stat
from pathlib import Path

import pytest

from fastpath.exit import ExitStatus
from fastpath.loader import compile as subject
from fastpath.loader.compile import Compiled, LoadError, Places, compile_and_pin

PLACES = Places({"p": Path("/pin/p")}, {"m": Path("/pin/m")}, {"s": Path("/pin/s")}, {3: "p"})


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\ncat > {tmp_path}/job\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(subject, "SYSTEM_PYTHON", str(script))


def run() -> Compiled:
    return compile_and_pin("int x;", cflags=["-DA=1"], places=PLACES)


def test_the_job_says_what_to_pin_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = '{"code": {"p": "AAECAwQFBgc="}, "descriptors": {"m": 7, "s": 9}, "compiler": ["/bcc"]}'
    child(tmp_path, monkeypatch, f"echo '{answer}'")
    assert run() == Compiled({"p": bytes(range(8))}, {"m": 7, "s": 9}, (Path("/bcc"),))
    assert (tmp_path / "job").read_text() == (
        '{"text": "int x;", "cflags": ["-DA=1"], "programs": {"p": "/pin/p"}, "maps": {"m": "/pin/m"}, '
        '"shared": ["s"], "slots": {"3": "p"}, "progs_map": "progs"}'
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("""echo 'bpf/gateway.c:7: error: no' >&2; echo '{"error": "Exception: Failed to compile"}'; exit 1""",
         "Exception: Failed to compile\nbpf/gateway.c:7: error: no"),
        ("echo boom >&2; exit 139", "the compiler's process ended with status 139\nboom"),
        ("echo not JSON", "the compiler's process ended with status 0"),
        ("echo '{}'", "the compiler's process ended with status 0"),
    ],
)  # fmt: skip
def test_failures_show_what_the_compiler_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    child(tmp_path, monkeypatch, body)
    with pytest.raises(LoadError) as error:
        run()
    assert str(error.value) == message
    assert error.value.status == ExitStatus.UNAVAILABLE


def test_a_compiler_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(subject, "TIMEOUT", 0.2)
    with pytest.raises(LoadError, match=r"longer than 0\.2 s"):
        run()


def test_no_system_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SYSTEM_PYTHON", str(tmp_path / "none"))
    with pytest.raises(LoadError, match="is missing"):
        run()
