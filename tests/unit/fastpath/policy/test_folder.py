"""A policy in several files: one policy, read as it was at one time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastpath import document
from fastpath.cli.main import main
from fastpath.config import load_config
from fastpath.document import InvalidDocumentError, Problems
from fastpath.gateway import Gateway
from fastpath.policy import source as source_module
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.model import Policy
from fastpath.policy.read import load_policy


def load(folder: Path) -> Policy:
    return load_policy(folder, {"web": "abc"}.get)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def problems(folder: Path) -> list[str]:
    with pytest.raises(InvalidDocumentError) as caught:
        load(folder)
    return [line.removeprefix(f"{folder}/").replace(f"{folder}", "FOLDER") for line in str(caught.value).splitlines()]


def test_files_are_one_policy_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        b_rules="rules:\n- {id: b, from: app, service: web, action: allow}\n- {id: first, priority: 1, action: deny}",
        a_rules="mode: monitor\nrules: [{id: a, to: app, action: deny}]",
        names="default: allow\ngroups: {app: [10.0.0.0/24, more]}\nservices: {web: {proto: tcp, ports: 80}}",
        z_more="groups: {more: 10.1.0.0/24}",
    )
    (tmp_path / ".a.yaml.swp").write_bytes(b"\xff")
    (tmp_path / ".git").mkdir()
    policy = load(tmp_path)
    assert [(rule.id, Path(rule.file).name, rule.line) for rule in policy.rules] == [
        ("first", "b_rules.yaml", 3),
        ("a", "a_rules.yaml", 2),
        ("b", "b_rules.yaml", 2),
    ]
    assert policy.file == str(tmp_path)
    assert [str(n) for n in policy.rules[1].destinations] == ["10.0.0.0/24", "10.1.0.0/24"]
    assert policy.rules[2].ports == ((80, 80),)
    # `mode` is that of all files.
    assert all(rule.monitor for rule in policy.rules)
    assert policy.default.monitor
    assert policy.default.action.name == "ALLOW"


def test_what_is_given_twice_names_both_places(tmp_path: Path) -> None:
    a = "mode: enforce\ndefault: deny\ngroups:\n  g: 10.0.0.1\nservices:\n  s: {proto: tcp}\n"
    a += "rules:\n- {id: r, action: deny}\n"
    write(tmp_path, a=a, b=f"# second\n{a}")
    assert problems(tmp_path) == [
        "b.yaml:2: mode: is given in FOLDER/a.yaml:1 already",
        "b.yaml:3: default: is given in FOLDER/a.yaml:2 already",
        "b.yaml:5: groups.g: 'g' is defined in FOLDER/a.yaml:4 already",
        "b.yaml:7: services.s: 's' is defined in FOLDER/a.yaml:6 already",
        "b.yaml:9: rules[0]: id 'r' is used in FOLDER/a.yaml:8 already",
    ]


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="rules:\n- {id: a, from: nowhere, action: deny}\n- {id: b, action: maybe}",
        b="zones: {}\nrules: {}",
        c="groups: {g: 10.0.0.1/8}\nrules: [{id: c, to: g, action: deny}]",
        d="[]",
    )
    (tmp_path / "e.yml").write_text("rules: []")
    (tmp_path / "f.yaml").mkdir()
    (tmp_path / "g.yaml").symlink_to("nowhere.yaml")
    os.mkfifo(tmp_path / "h.yaml")
    assert problems(tmp_path) == [
        # Not: there is no group 'nowhere'. It may be in one of the files that could not be read.
        "a.yaml:3: rules[1].action: 'maybe' is not one of allow, deny, inspect",
        "b.yaml:1: unknown field 'zones'; known here: default, defaults, ethertypes, groups, mode, rules, services",
        "b.yaml:2: rules: expected a list",
        "c.yaml:1: groups.g: 10.0.0.1/8 has host bits set; write 10.0.0.0/8, or 10.0.0.1 for the one address",
        "d.yaml:1: expected a mapping",
        "e.yml: is no *.yaml file; only names that begin with a dot are left alone",
        "f.yaml: is not a file",
        "g.yaml: is not a file",
        "h.yaml: is not a file",
    ]


def test_a_folder_without_a_policy(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["FOLDER: the folder has no *.yaml files: that is no policy"]
    write(tmp_path, a="groups: {g: 10.0.0.1}", b="mode: enforce")
    assert problems(tmp_path) == ["a.yaml:1: missing rules"]
    write(tmp_path, b="rules: []", c="")
    assert problems(tmp_path) == ["c.yaml: the document is empty"]


def test_limits_count_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpath.policy.read.MAX_RULES", 5)
    rules = "".join(f"- {{id: r%s-{n}, action: deny}}\n" for n in range(3))
    write(tmp_path, a="rules:\n" + rules.replace("%s", "a"), b="rules:\n" + rules.replace("%s", "b"))
    assert problems(tmp_path) == ["b.yaml:2: rules: 6 rules; 5 is the most"]
    monkeypatch.setattr(document, "MAX_BYTES", (tmp_path / "a.yaml").stat().st_size + 10)
    assert problems(tmp_path)[0].startswith("b.yaml: with this file the policy is larger than")
    monkeypatch.setattr(source_module, "MAX_FILES", 1)
    assert problems(tmp_path) == ["b.yaml: is file 2; a policy has 1 at most"]


def test_the_compiler_names_the_file_of_a_rule(tmp_path: Path) -> None:
    rules = "".join(f"- {{id: r{n}, proto: tcp, app: http, action: allow}}\n" for n in range(513))
    write(tmp_path, a="rules: []", b=f"rules:\n{rules}")
    with pytest.raises(InvalidDocumentError, match=r"/b.yaml:514: rules: .* 513 rules have to"):
        compile_policy(load(tmp_path))


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[int], Any]) -> list[Path]:
    """Call `change` with a running number behind each reading of a file. The files read, in order."""
    seen: list[Path] = []
    real = document.read_bytes

    def read(path: Path, found: Problems) -> bytes | None:
        text = real(path, found)
        seen.append(path)
        change(len(seen))
        return text

    monkeypatch.setattr(source_module, "read_bytes", read)
    return seen


def both(folder: Path, name: str) -> None:
    """Two files that belong together, put in place whole."""
    for file in ("a", "b"):
        fresh = folder / f".{file}"
        fresh.write_text(f"rules: [{{id: {name}-{file}, action: deny}}]")
        fresh.replace(folder / f"{file}.yaml")


def test_files_that_are_replaced_between_give_no_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both(tmp_path, "old")
    seen = meanwhile(monkeypatch, lambda n: both(tmp_path, "new") if n == 1 else None)
    assert [rule.id for rule in load(tmp_path).rules] == ["new-a", "new-b"]
    assert len(seen) == 4


@pytest.mark.parametrize("name", ["c.yaml", "b.yaml"])
def test_a_file_that_comes_or_goes_between_counts(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both(tmp_path, "old")

    def change(count: int) -> None:
        if count == 1:
            (tmp_path / name).unlink(missing_ok=True)
            if name == "c.yaml":
                write(tmp_path, c="rules: [{id: c, action: deny}]")

    meanwhile(monkeypatch, change)
    assert [rule.id for rule in load(tmp_path).rules] == {"c.yaml": ["old-a", "old-b", "c"], "b.yaml": ["old-a"]}[name]


def test_a_folder_that_never_rests_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both(tmp_path, "old")
    seen = meanwhile(monkeypatch, lambda n: both(tmp_path, f"new{n}"))
    assert problems(tmp_path) == ["FOLDER: changed each of 5 times while it was read"]
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g: &a [10.0.0.1]\n" + "".join(f"g{n}: *a\n" for n in range(1001)), "a.yaml:1002: not YAML: too many aliases"),
        ("rules: " + "[" * 100_000, "a.yaml"),
        ("groups: {g: " + "{include: " * 100_000, "a.yaml"),
        # Nine levels of nine: as a tree it would be 387 million members.
        (
            "groups:\n g0: &g0 [10.0.0.1]\n"
            + "".join(f" g{n}: &g{n} [{', '.join([f'*g{n - 1}'] * 9)}]\n" for n in range(1, 10)),
            "a.yaml:2: groups.g1[0]: expected text",
        ),
        ("a" * (document.MAX_BYTES + 1), "a.yaml: with this file the policy is larger than 67108864 bytes"),
    ],
    ids=["aliases", "lists", "mappings", "bomb", "size"],
)
def test_bombs(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(write(tmp_path, a=text, b="rules: [{id: r, to: nowhere, action: deny}]"))
    assert found[0].startswith(expected)
    assert len(found) < 100


def gateway_file(folder: Path) -> Path:
    (folder / "policy.d").mkdir()
    file = folder / "gateway.yaml"
    file.write_text("interfaces: [seg0, seg1]\npolicy: policy.d\n")
    return file


def test_config_check_takes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = gateway_file(tmp_path)
    write(tmp_path / "policy.d", a="rules: [{id: a, to: g, action: deny}]", b="groups: {g: 10.0.0.1}")
    assert main(["config", "check", "--config", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: ok; {tmp_path}/policy.d: 1 rules, 3 prefixes")
    write(tmp_path / "policy.d", b="groups: {g: 10.0.0.1/8}", c="rules: [{id: a, action: deny}]")
    assert main(["config", "check", "--config", str(file)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{tmp_path}/policy.d/{name}.yaml:1" for name in "bc"]


def test_a_reload_of_a_broken_folder_changes_nothing(tmp_path: Path) -> None:
    file = gateway_file(tmp_path)
    write(tmp_path / "policy.d", a="rules: [{id: a, to: g, action: deny}]", b="groups: {g: h}")
    gateway = Gateway(before := load_config(file))
    # It was never started: whatever the reload touched would raise something else.
    with pytest.raises(InvalidDocumentError, match="there is no group 'h'"):
        asyncio.run(gateway.reload(load_config(file), "sighup"))
    assert gateway.config is before
