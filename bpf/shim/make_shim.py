"""Make the include tree that bcc compiles against, without kernel headers.

    /usr/bin/python3 bpf/shim/make_shim.py OUTDIR

bcc takes the environment variable BCC_KERNEL_SOURCE for a kernel tree, asks only
that ``include/linux/kconfig.h`` exists below it, and searches ``include/`` and
``include/uapi/``. A TC program needs the user-space API alone, so that tree is
made of our stubs (``stubs/``, the kernel-internal headers that bcc insists on)
and of copies from linux-libc-dev: the headers named below and what they include.
Runs at install under the system Python, hence the standard library only.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

# What programs may include; their own includes follow by themselves.
WANTED = (
    "linux/bpf_common.h",
    "linux/icmp.h",
    "linux/icmpv6.h",
    "linux/if_ether.h",
    "linux/if_packet.h",
    "linux/in.h",
    "linux/in6.h",
    "linux/ip.h",
    "linux/ipv6.h",
    "linux/pkt_cls.h",
    "linux/stddef.h",
    "linux/tcp.h",
    "linux/types.h",
    "linux/udp.h",
    "linux/version.h",
)

# The rest of /usr/include is the C library's and never enters the tree.
KERNEL = ("linux/", "asm/", "asm-generic/")

SYSTEM = Path("/usr/include")
STUBS = Path(__file__).resolve().parent / "stubs"
INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*[<"]([\w./-]+)[>"]', re.MULTILINE)


class ShimError(Exception):
    """A header that linux-libc-dev should have is not there."""


def search_path() -> list[Path]:
    """Where UAPI headers are: /usr/include and its multiarch folder (the asm ones)."""
    folders = sorted(folder for folder in SYSTEM.glob("*-linux-gnu*") if (folder / "asm").is_dir())
    return [SYSTEM, *folders]


def includes(content: bytes) -> set[str]:
    """Names that a header includes."""
    return {name.decode() for name in INCLUDE.findall(content)}


def collect() -> dict[str, bytes]:
    """Content by path below ``include/``: stubs, then copies under ``uapi/``."""
    folders = search_path()
    tree = {str(stub.relative_to(STUBS)): stub.read_bytes() for stub in sorted(STUBS.rglob("*.h"))}
    waiting = [f"uapi/{name}" for name in WANTED]
    for content in tree.values():
        waiting += includes(content)
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        name = wanted.removeprefix("uapi/")
        target = f"uapi/{name}"
        # A stub stands for the original unless the original is asked for as uapi/.
        if name in seen or wanted in tree or target in tree or not name.startswith(KERNEL):
            continue
        seen.add(name)
        source = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if source is None:
            # Kernel-only names inside `#ifdef __KERNEL__`, or one of our stubs.
            if name in WANTED:
                raise ShimError(f"{name} is not in {SYSTEM}: is linux-libc-dev installed?")
            continue
        tree[target] = source.read_bytes()
        waiting += includes(tree[target])
    return tree


def main(arguments: list[str]) -> int:
    """Write the tree to the folder named on the command line, replacing it as a whole."""
    if len(arguments) != 1:
        sys.stderr.write("usage: make_shim.py OUTDIR\n")
        return 2
    target = Path(arguments[0])
    try:
        tree = collect()
    except ShimError as error:
        sys.stderr.write(f"make_shim: {error}\n")
        return 5
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    for name, content in tree.items():
        path = fresh / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
