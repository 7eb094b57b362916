from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from fastpath.abi import Action
from fastpath.config import EXCEPTIONS, Config, Inspection, load_config
from fastpath.document import InvalidDocumentError
from slowpath.core.model import Exceptions, Limits
from slowpath.service import exceptions_of, limits_of, read_rules


def config(folder: Path, text: str = "") -> Config:
    file = folder / "gateway.yaml"
    file.write_text(f"interfaces: [a0, a1]\npolicy: policy.yaml\nrules: rules\n{text}")
    return load_config(file)


def test_defaults_agree_with_those_of_the_inspector(tmp_path: Path) -> None:
    plain = config(tmp_path)
    assert limits_of(plain) == Limits()
    assert exceptions_of(plain) == Exceptions()


def test_each_bound_reaches_the_inspector(tmp_path: Path) -> None:
    chosen = {"hold_incomplete": 0.5, "need_more": 7, "need_more_bytes": 2048, "need_more_packets": 77}
    chosen |= {"max_flows": 99, "total": 5_000_000}
    limits = limits_of(config(tmp_path, f"inspector: {chosen}"))
    assert {name: getattr(limits, name) for name in chosen} == chosen
    # The other two are the kernel's.
    assert {field.name for field in fields(Inspection)} - set(chosen) == {"timeout", "drain"}


@pytest.mark.parametrize("name", sorted(set(EXCEPTIONS) - {"midstream", "inspector_down"}))
@pytest.mark.parametrize("action", [Action.ALLOW, Action.DENY, Action.INSPECT])
def test_each_exception_reaches_the_inspector(tmp_path: Path, name: str, action: Action) -> None:
    text = f"exceptions: {{{name}: {action.name.lower()}}}"
    if action not in EXCEPTIONS[name]:
        with pytest.raises(InvalidDocumentError, match=name):
            config(tmp_path, text)
        return
    assert getattr(exceptions_of(config(tmp_path, text)), name) == action


def test_rule_files_of_the_configured_folder(tmp_path: Path) -> None:
    plain = config(tmp_path)
    assert not read_rules(plain).files
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "web.yaml").write_text("name: web\nprotocol: http\nrules: [{id: all, action: allow}]\n")
    assert list(read_rules(plain).files) == ["web"]
