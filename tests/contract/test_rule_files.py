"""Every shipped rule file compiles, and every rule of it has samples that hold."""

from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol, Scope
from slowpath.rules.check import unsound
from slowpath.rules.ruleset import load_rules

CONFIGS = Path(__file__).parents[2] / "configs" / "rules.d"
FILES = sorted(CONFIGS.glob("*.yaml"))


def test_the_shipped_files() -> None:
    assert set(load_rules([CONFIGS]).files) >= {"web", "greeter", "grpc-only"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_named_as_its_rules(path: Path) -> None:
    assert list(load_rules([path]).files) == [path.stem]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_samples(path: Path) -> None:
    (rule_file,) = load_rules([path]).files.values()
    assert not list(unsound(rule_file))


def test_scopes() -> None:
    rules = load_rules([CONFIGS])
    assert rules.decide(("web",), Protocol.HTTP) is None
    assert rules.decide(("greeter",), Protocol.GRPC) is None
    whole = rules.decide(("grpc-only",), Protocol.GRPC)
    assert whole is not None
    assert (whole.action, whole.scope) == (Action.ALLOW, Scope.CONNECTION)
