"""Compile with bcc, load, pin, exit. The only file that imports bcc.

Runs as a short-lived child under the *system* interpreter (`/usr/bin/python3 -I`),
where the distribution puts bcc, because a compile leaves 120-190 MB behind in its
process. Imports nothing of ours, so it also works under a Python older than the
daemon's. Reads one JSON job from standard input:

    {"text", "cflags", "directory", "programs": [name], "maps": [name],
     "slots": {slot: program}, "progs_map": name}

and writes one JSON line: {"programs": n, "maps": n} or {"error": text}. Compiler
and verifier messages go to standard error, which the caller captures.
"""

import ctypes
import json
import os
import sys


def main():
    job = json.load(sys.stdin)
    from bcc import BPF, lib  # noqa: PLC0415  (a missing bcc is an answer, not a crash)

    os.makedirs(job["directory"], mode=0o700, exist_ok=True)
    bpf = BPF(text=job["text"], cflags=job["cflags"])
    functions = {name: bpf.load_func(name, BPF.SCHED_CLS) for name in job["programs"]}
    progs = bpf[job["progs_map"]]
    for slot, name in job["slots"].items():
        progs[ctypes.c_int(int(slot))] = functions[name]
    pinned = []
    for name, fd in [(name, function.fd) for name, function in functions.items()] + [
        (name, bpf.get_table(name).map_fd if name != "events" else bpf["events"].map_fd) for name in job["maps"]
    ]:
        path = os.path.join(job["directory"], name)
        if lib.bpf_obj_pin(fd, path.encode()):
            raise OSError(ctypes.get_errno(), "cannot pin " + path)
        pinned.append(path)
    return {"programs": len(functions), "maps": len(job["maps"])}


if __name__ == "__main__":
    try:
        answer = main()
    except ImportError as error:
        answer = {"error": "bcc is missing for " + sys.executable + " (Debian: python3-bpfcc): " + str(error)}
    except BaseException as error:  # bcc raises bare Exception and calls sys.exit
        answer = {"error": type(error).__name__ + ": " + str(error)}
    json.dump(answer, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
    # bcc's atexit hooks would detach and print: everything is pinned, leave at once.
    os._exit(1 if "error" in answer else 0)
