"""Run the bcc child: C text in, pinned programs and maps out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastpath.exit import CommandError, ExitStatus
from fastpath.loader.source import BPF_DIR

SYSTEM_PYTHON = "/usr/bin/python3"
CHILD = Path(__file__).with_name("bcc_child.py")
# Enough UAPI headers for bcc without kernel headers; made at install by bpf/shim/make_shim.py.
SHIM = BPF_DIR / "shim" / "generated"

# Twenty times what it takes on a slow machine.
TIMEOUT = 120.0
MAX_MESSAGE = 8000


class LoadError(CommandError):
    """The kernel half cannot be compiled, loaded or pinned."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitStatus.UNAVAILABLE)


def compile_and_pin(
    text: str,
    *,
    cflags: Sequence[str],
    programs: Mapping[str, Path],
    maps: Mapping[str, Path],
    slots: Mapping[int, str] | None = None,
    progs_map: str = "progs",
) -> None:
    """Compile `text`, load `programs`, fill the prog array's `slots`, pin everything at its path.
    LoadError carries what compiler and verifier said.
    """
    job = {
        "text": text,
        "cflags": list(cflags),
        "programs": {name: str(path) for name, path in programs.items()},
        "maps": {name: str(path) for name, path in maps.items()},
        "slots": {str(slot): name for slot, name in (slots or {}).items()},
        "progs_map": progs_map,
    }
    environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C.UTF-8"}
    if (SHIM / "include" / "linux" / "kconfig.h").exists():
        environment["BCC_KERNEL_SOURCE"] = str(SHIM)
    try:
        done = subprocess.run(
            [SYSTEM_PYTHON, "-I", CHILD],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise LoadError(f"{SYSTEM_PYTHON} is missing: bcc comes for the system's interpreter") from None
    except subprocess.TimeoutExpired:
        raise LoadError(f"compiling took longer than {TIMEOUT:g} s") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        error = answer.get("error")
    except (IndexError, ValueError):
        error = f"the compiler's process ended with status {done.returncode}"
    if error is not None:
        said = done.stderr.strip()[-MAX_MESSAGE:]
        raise LoadError(f"{error}\n{said}" if said else str(error))
