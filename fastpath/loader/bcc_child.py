"""Compile with bcc, load, pin, exit. The only file that imports bcc.

Runs as a short-lived child under the *system* interpreter (`/usr/bin/python3 -I`),
where the distribution puts bcc, because a compile leaves 120-190 MB behind in its
process. Imports nothing of ours, so it also works under a Python older than the
daemon's. Reads one JSON job from standard input:

    {"text", "cflags": [option], "programs": {name: pin path}, "maps": {name: pin path},
     "shared": [map that `text` pins], "slots": {slot: program}, "progs_map": name}

and writes one JSON line: {"code": {program: base64 of its instructions}, "descriptors":
{map: its number in them}, "compiler": [file]} or {"error": text}. Compiler and verifier
messages go to standard error, which the caller captures.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import sys
from pathlib import Path

# What a compile's outcome hangs on, of the files that are mapped here: bcc, clang and LLVM, in whichever pieces.
COMPILER = re.compile(r" (/\S*/lib(?:bcc|clang|LLVM)[^/\s]*)$", re.MULTILINE)


def main() -> dict[str, object]:
    """Do the job on standard input."""
    job = json.load(sys.stdin)
    from bcc import BPF, lib  # noqa: PLC0415  (a missing bcc is an answer, not a crash)

    bpf = BPF(text=job["text"], cflags=job["cflags"])
    functions = {name: bpf.load_func(name, BPF.SCHED_CLS) for name in job["programs"]}
    if job["slots"]:
        progs = bpf[job["progs_map"]]
        for slot, name in job["slots"].items():
            progs[ctypes.c_int(int(slot))] = functions[name]
    pins = [(functions[name].fd, path) for name, path in job["programs"].items()]
    # By name without a table object: bcc knows no Python class for some kinds of map.
    pins += [(lib.bpf_table_fd(bpf.module, name.encode()), path) for name, path in job["maps"].items()]
    for fd, path in pins:
        if lib.bpf_obj_pin(fd, path.encode()):
            number = ctypes.get_errno()
            raise OSError(number, "cannot pin: " + os.strerror(number), path)
    libraries = set(COMPILER.findall(Path("/proc/self/maps").read_text()))
    return {
        "code": {name: base64.b64encode(bpf.dump_func(name)).decode() for name in functions},
        "descriptors": {name: lib.bpf_table_fd(bpf.module, name.encode()) for name in [*job["maps"], *job["shared"]]},
        "compiler": [sys.modules["bcc"].__file__, *sorted(libraries)],
    }


if __name__ == "__main__":
    try:
        answer = main()
    except ImportError as error:
        answer = {"error": "bcc is missing for " + sys.executable + " (Debian: python3-bpfcc): " + str(error)}
    except BaseException as error:  # noqa: BLE001  bcc raises bare Exception and calls sys.exit
        answer = {"error": type(error).__name__ + ": " + str(error)}
    json.dump(answer, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
    # bcc's atexit hooks would detach and print: everything is pinned, leave at once.
    os._exit(1 if "error" in answer else 0)
