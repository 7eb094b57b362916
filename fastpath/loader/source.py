"""The C text handed to bcc: headers flattened, because its rewriter only sees the main file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

BPF_DIR = Path(__file__).resolve().parent.parent.parent / "bpf"
ABI_HEADER = BPF_DIR / "include" / "abi.h"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def flatten(entry: Path = BPF_DIR / "gateway.c") -> str:
    """`entry` with every quoted include put in its place, once; ``#line`` keeps
    diagnostics naming the real file and line. Paths are relative to bpf/.
    """
    seen: set[Path] = set()
    root = entry.parent

    def expand(path: Path) -> list[str]:
        seen.add(path)
        name = path.relative_to(root)
        out = [f'#line 1 "{name}"']
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                out.append(line)
                continue
            target = (root / match[1]).resolve()
            if target not in seen:
                out += expand(target)
            out.append(f'#line {number + 1} "{name}"')
        return out

    return "\n".join(expand(entry.resolve())) + "\n"


def digest(*parts: str) -> str:
    """Twelve hex digits over texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def header_digest(header: Path = ABI_HEADER) -> str:
    """Twelve hex digits that name the layout of what kernel and userspace share."""
    return hashlib.sha256(header.read_bytes()).hexdigest()[:12]
