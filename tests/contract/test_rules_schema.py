"""configs/rules.schema.json says what rule files may say."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from slowpath.cli.main import main
from slowpath.rules.schema import schema

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
EXAMPLES = [
    text
    for text in re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    if "\nprotocol:" in text
]


def test_it_knows_all_fields() -> None:
    assert json.loads((CONFIGS / "rules.schema.json").read_text()) == schema(), "make abi"


@pytest.mark.parametrize("path", sorted((CONFIGS / "rules.d").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


def test_mistakes_are_told() -> None:
    good = {"name": "w", "protocol": "http", "rules": [{"id": "a", "action": "allow", "match": {"http.method": "GET"}}]}
    jsonschema.validate(good, schema())
    header = {"id": "a", "action": "allow", "match": {"http.header.x.y": "GET"}}
    jsonschema.validate({**good, "rules": [header]}, schema())
    for bad in (
        {**good, "protocol": "smoke"},
        {**good, "colour": "red"},
        {**good, "rules": [{"id": "a", "action": "allow", "match": {"http.colour": "red"}}]},
        {**good, "rules": [{"id": "a", "action": "allow", "match": {"http.header": "red"}}]},
        {**good, "rules": [{"id": "a", "action": "allow", "match": {"http.header.X": "red"}}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema())


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_readme(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.validate(yaml.safe_load(text), schema())
    (tmp_path / "shop.yaml").write_text(text)
    (tmp_path / "hosts.txt").write_text("www.shop.example\n")
    assert main(["rules", "check", str(tmp_path)]) == 0, capsys.readouterr().out


def test_there_are_examples() -> None:
    assert EXAMPLES
