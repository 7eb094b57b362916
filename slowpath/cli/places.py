"""Where the gateway's files are: the few lines of gateway.yaml that the reading commands need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastpath.document import Node

CONFIG = Path("/etc/microseg/gateway.yaml")
RECORDS = Path("/var/log/microseg/records.jsonl")
RUN_DIR = Path("/run/microseg")
SOCKET = "slowpath.sock"


def records_path(config: Path | None) -> Path:
    """``records.path`` of the configuration, or its default."""
    return _setting(config, ("records", "path"), RECORDS)


def run_dir(config: Path | None) -> Path:
    """``run_dir`` of the configuration, or its default."""
    return _setting(config, ("run_dir",), RUN_DIR)


def rules_folder(config: Path | None) -> Path:
    """``rules`` of the configuration, beside which a relative path lies, or its default."""
    folder = (config or CONFIG).parent
    return folder / _setting(config, ("rules",), folder / "rules.d")


def _setting(config: Path | None, keys: tuple[str, ...], default: Path) -> Path:
    """Everything else in the file is the daemon's business and not looked at. Only a file that
    was asked for must exist.
    """
    if config is None and not CONFIG.exists():
        return default
    from fastpath.document import load  # noqa: PLC0415  # PyYAML takes 20 ms

    def read(node: Node) -> str:
        for key in keys:
            fields = node.mapping()
            if key not in fields:
                return str(default)
            node = fields[key]
        return node.text()

    return Path(load(config or CONFIG, read))
