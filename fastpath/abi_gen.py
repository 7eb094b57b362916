"""Generate ``fastpath/abi.py`` from ``bpf/include/abi.h``.

The debug information of a plain clang compile is the source: sizes, offsets and
enum values are the compiler's, not a second reading of the text. Needs clang and
bpftool, which only developers and CI have; the generated file is committed.

    python -m fastpath.abi_gen            write the file
    python -m fastpath.abi_gen --check    exit 1 if the committed file differs
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastpath.loader.source import ABI_HEADER, header_digest

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "fastpath" / "abi.py"

SCALARS = {1: "c_uint8", 2: "c_uint16", 4: "c_uint32", 8: "c_uint64"}


def clang() -> str:
    """The newest clang of the PATH, Debian's versioned names included."""
    for name in ("clang", "clang-19", "clang-16", "clang-14", "clang-13"):
        if found := shutil.which(name):
            return found
    raise SystemExit("abi_gen: no clang on the PATH (make dev-packages installs it)")


def read_types(header: Path) -> list[dict[str, Any]]:
    """BTF type records of `header`, as bpftool prints them; index 0 is type id 1."""
    with tempfile.TemporaryDirectory() as scratch:
        text = header.read_text()
        structs = [line.split()[1] for line in text.splitlines() if line.startswith("struct ms_")]
        enums = [line.split()[1] for line in text.splitlines() if line.startswith("enum ms_")]
        # A pointer to each type is enough to keep it in the debug information.
        emit = Path(scratch) / "emit.c"
        emit.write_text(
            f'#include <linux/types.h>\n#include "{header}"\n'
            + "".join(f"struct {name} *keep_{name};\n" for name in structs)
            + "".join(f"enum {name} *keep_{name};\n" for name in enums)
        )
        obj = Path(scratch) / "emit.o"
        # -target bpf knows no multiarch include folder by itself.
        arch = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=False).stdout.strip()
        include = f"-I/usr/include/{arch or 'x86_64-linux-gnu'}"
        subprocess.run([clang(), "-target", "bpf", "-g", "-O1", include, "-c", str(emit), "-o", str(obj)], check=True)
        bpftool = shutil.which("bpftool") or "/usr/sbin/bpftool"
        dump = subprocess.run([bpftool, "-j", "btf", "dump", "file", str(obj)], capture_output=True, check=True)
        types: list[dict[str, Any]] = json.loads(dump.stdout)["types"]
        return types


def camel(name: str) -> str:
    """``ms_rule_set`` -> ``RuleSet``."""
    return "".join(part.capitalize() for part in name.removeprefix("ms_").split("_"))


def render(types: list[dict[str, Any]], digest: str) -> str:
    """The text of abi.py."""
    by_id = {record["id"]: record for record in types}

    def resolve(type_id: int) -> dict[str, Any]:
        record = by_id[type_id]
        while record["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
            record = by_id[record["type_id"]]
        return record

    def ctype(type_id: int) -> str:
        record = resolve(type_id)
        if record["kind"] == "INT":
            return SCALARS[record["size"]]
        if record["kind"] == "ARRAY":
            return f"{ctype(record['type_id'])} * {record['nr_elems']}"
        if record["kind"] == "STRUCT":
            return camel(record["name"])
        raise SystemExit(f"abi_gen: cannot express {record}")

    enums = {r["name"]: r for r in types if r["kind"] == "ENUM" and r["name"].startswith("ms_")}
    structs = {r["name"]: r for r in types if r["kind"] == "STRUCT" and r["name"].startswith("ms_")}
    header = ABI_HEADER.read_text()
    order = [line.split()[1] for line in header.splitlines() if line.startswith(("enum ms_", "struct ms_"))]
    order.sort(key=lambda name: name in structs)

    out = [
        '"""Structs and enums shared with the kernel. Generated from bpf/include/abi.h by `make abi`: do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        "from ctypes import Structure, c_uint8, c_uint16, c_uint32, c_uint64",
        "from enum import IntEnum",
        "",
        f'ABI_HASH = "{digest}"',
    ]
    for name in order:
        if name in enums:
            values = [(v["name"], v["val"]) for v in enums[name]["values"]]
            first = [v for v, _ in values]
            prefix = first[0][: 1 + max(i for i, c in enumerate(first[0]) if c == "_")]
            while not all(v.startswith(prefix) for v in first):
                prefix = prefix[:-1].rpartition("_")[0] + "_"
            out += ["", "", f"class {camel(name)}(IntEnum):"]
            out += [f"    {v.removeprefix(prefix)} = {val}" for v, val in values]
        else:
            out += ["", "", f"class {camel(name)}(Structure):", "    _fields_ = ("]
            end = 0
            for member in structs[name]["members"]:
                if member["bits_offset"] != end * 8:
                    raise SystemExit(f"abi_gen: {name}.{member['name']}: implicit padding before it")
                out.append(f'        ("{member["name"]}", {ctype(member["type_id"])}),')
                end = member["bits_offset"] // 8 + size(by_id, resolve(member["type_id"]))
            if end != structs[name]["size"]:
                raise SystemExit(f"abi_gen: {name}: implicit padding at its end")
            out.append("    )")
    return "\n".join(out) + "\n"


def size(by_id: dict[int, dict[str, Any]], record: dict[str, Any]) -> int:
    """Bytes of a resolved BTF type."""
    if record["kind"] == "ARRAY":
        element = by_id[record["type_id"]]
        while element["kind"] == "TYPEDEF":
            element = by_id[element["type_id"]]
        return int(record["nr_elems"]) * size(by_id, element)
    return int(record["size"])


def main() -> int:
    """Command line; the exit status is 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = render(read_types(ABI_HEADER), header_digest())
    if not options.check:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() != text:
        sys.stderr.write("fastpath/abi.py differs from bpf/include/abi.h: run `make abi`\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
