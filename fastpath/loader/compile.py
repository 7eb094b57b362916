"""Run the bcc child: C text in, pinned programs and maps out."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is pinned, and what belongs into the prog array's slots. `shared` maps are opened if they are
    there already.
    """

    programs: Mapping[str, Path]
    maps: Mapping[str, Path]
    shared: Mapping[str, Path] = field(default_factory=dict)
    slots: Mapping[int, str] = field(default_factory=dict)
    progs_map: str = "progs"


@dataclass(frozen=True, slots=True)
class Compiled:
    """What bcc made: each program's instructions, in which `descriptors` stand for the maps, and its own files."""

    code: Mapping[str, bytes]
    descriptors: Mapping[str, int]
    compiler: tuple[Path, ...]


class LoadError(CommandError):
    """The kernel half cannot be compiled, loaded or pinned."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitStatus.UNAVAILABLE)


def compile_and_pin(text: str, *, cflags: Sequence[str], places: Places) -> Compiled:
    """Compile `text`, load the programs, fill the prog array's slots, pin everything at its place; `shared` maps are
    the text's own business. LoadError carries what compiler and verifier said.
    """
    job = {
        "text": text,
        "cflags": list(cflags),
        "programs": {name: str(path) for name, path in places.programs.items()},
        "maps": {name: str(path) for name, path in places.maps.items()},
        "shared": list(places.shared),
        "slots": {str(slot): name for slot, name in places.slots.items()},
        "progs_map": places.progs_map,
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
        if error is None:
            return Compiled(
                {name: base64.b64decode(code) for name, code in answer["code"].items()},
                answer["descriptors"],
                tuple(Path(file) for file in answer["compiler"]),
            )
    except (IndexError, ValueError, KeyError):
        error = f"the compiler's process ended with status {done.returncode}"
    said = done.stderr.strip()[-MAX_MESSAGE:]
    raise LoadError(f"{error}\n{said}" if said else str(error))
