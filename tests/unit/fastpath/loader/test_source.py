from pathlib import Path

from fastpath import abi
from fastpath.loader.source import BPF_DIR, digest, flatten, header_digest


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_includes_are_put_in_place_once_and_keep_their_lines(tmp_path: Path) -> None:
    write(tmp_path, "lib/a.h", "int a;\n")
    write(tmp_path, "lib/b.h", '#include "lib/a.h"\nint b;\n')
    main = write(tmp_path, "main.c", '#include <linux/bpf.h>\n#include "lib/a.h"\n#include "lib/b.h"\nint c;\n')
    assert flatten(main).splitlines() == [
        '#line 1 "main.c"',
        "#include <linux/bpf.h>",
        '#line 1 "lib/a.h"',
        "int a;",
        '#line 3 "main.c"',
        '#line 1 "lib/b.h"',
        '#line 2 "lib/b.h"',
        "int b;",
        '#line 4 "main.c"',
        "int c;",
    ]


def test_the_gateway_has_no_quoted_include_left() -> None:
    text = flatten()
    assert '#include "' not in text
    for header in (BPF_DIR / "lib").glob("*.h"):
        assert f'#line 1 "lib/{header.name}"' in text


def test_digests_depend_on_every_part_and_on_their_borders() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("ab", "d")}) == 4


def test_the_generated_abi_is_that_of_the_header() -> None:
    assert header_digest() == abi.ABI_HASH
