"""configs/rules.schema.json says what rule files may say."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from slowpath.rules.schema import schema

CONFIGS = Path(__file__).parents[2] / "configs"


def test_it_knows_all_fields() -> None:
    assert json.loads((CONFIGS / "rules.schema.json").read_text()) == schema(), "make abi"


@pytest.mark.parametrize("path", sorted((CONFIGS / "rules.d").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


def test_mistakes_are_told() -> None:
    good = {"name": "w", "protocol": "http", "rules": [{"id": "a", "action": "allow", "match": {"http.method": "GET"}}]}
    jsonschema.validate(good, schema())
    for bad in (
        {**good, "protocol": "smoke"},
        {**good, "colour": "red"},
        {**good, "rules": [{"id": "a", "action": "allow", "match": {"http.colour": "red"}}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema())
