"""JSON Schema of rule files, for editors: ``python -m slowpath.rules.schema`` prints configs/rules.schema.json, with
``patterns`` behind it that of pattern files, configs/patterns.schema.json.
"""

from __future__ import annotations

import enum
import json
import sys
from typing import Any, Final

from parsers.base import Field, Kind
from parsers.registry import FIELDS
from slowpath.rules.checks import CHECKS
from slowpath.rules.fields import PROTOCOLS
from slowpath.rules.patterns import Case, Decode, Severity

_TEXTS: Final = {"anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "items": {"$ref": "#/$defs/text"}}]}
_TEXT: Final = {"type": ["string", "number", "boolean"]}
_POLICY: Final = "In place of what the policy's rule says."
_RANGE: Final = {"type": ["integer", "string"], "pattern": "^[0-9]+(-[0-9]+)?$"}


def schema() -> dict[str, Any]:
    """Of all fields that parsers have."""
    combined = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/match"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "microseg rule file",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "protocol", "rules"],
        "properties": {
            "name": {"type": "string", "pattern": "^[^/]+$", "description": "What policies and records call the file."},
            "description": {"type": "string"},
            "protocol": {
                "description": "Protocols that the rules are about; of others every flow is denied.",
                "anyOf": [{"$ref": "#/$defs/protocol"}, {"type": "array", "items": {"$ref": "#/$defs/protocol"}}],
            },
            "rules": {
                "description": "The first that matches decides; none is a denial.",
                "type": "array",
                "items": {"$ref": "#/$defs/rule"},
            },
        },
        "$defs": {
            "text": _TEXT,
            "texts": _TEXTS,
            "protocol": {"enum": sorted(protocol.name.lower() for protocol in PROTOCOLS)},
            "rule": {
                "type": "object",
                "additionalProperties": False,
                "required": ["id", "action"],
                "properties": {
                    "id": {"type": ["string", "number"]},
                    "action": {"enum": ["allow", "deny"]},
                    "description": {"type": "string"},
                    "severity": {
                        "enum": [each.name.lower() for each in Severity],
                        "description": "For those who read records.",
                    },
                    "deny_with": {"enum": ["reset", "drop"], "description": _POLICY},
                    "log": {"enum": ["none", "deny", "all"], "description": _POLICY},
                    "mode": {
                        "enum": ["enforce", "monitor"],
                        "description": "monitor: what it would deny is recorded, and the next rule decides.",
                    },
                    "match": {"anyOf": [{"$ref": "#/$defs/match"}, {"type": "null"}]},
                    "samples": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            name: {"type": "array", "items": {"$ref": "#/$defs/sample"}}
                            for name in ("must_match", "must_not_match")
                        },
                    },
                },
            },
            "match": {
                "description": "All of it must hold; without any of it the rule matches everything.",
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    **{name: _condition(field) for name, field in FIELDS.items() if not field.keyed},
                    "all": combined,
                    "any": combined,
                    "not": {"$ref": "#/$defs/match"},
                },
                "patternProperties": {_keys(name): _condition(field) for name, field in FIELDS.items() if field.keyed},
            },
            "values": {
                "anyOf": [
                    {"$ref": "#/$defs/texts"},
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "minProperties": 1,
                        "properties": {
                            "exact": _TEXTS,
                            "prefix": _TEXTS,
                            "glob": {**_TEXTS, "description": "`?`, `*` within a segment, `**` across them."},
                            "regex": {**_TEXTS, "description": "RE2, over the whole value."},
                            "file": {**_TEXTS, "description": "Values, one a line, in a file beside this one."},
                            "pattern": {
                                **_TEXTS,
                                "description": "Sets of patterns.d, or set/id: one that the value contains.",
                            },
                            "values": {
                                "enum": ["any", "every"],
                                "description": "Of a field with several: how many have to fit.",
                            },
                        },
                    },
                ],
            },
            "numbers": {"anyOf": [_RANGE, {"type": "array", "items": _RANGE}]},
            "sample": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "protocol": {"$ref": "#/$defs/protocol"},
                    **{name: _told(field) for name, field in FIELDS.items() if not field.keyed},
                },
                "patternProperties": {_keys(name): _told(field) for name, field in FIELDS.items() if field.keyed},
            },
        },
    }


def _condition(field: Field) -> dict[str, Any]:
    scope = "Said once: a verdict on it is final." if field.once else "May be said anew: all of it is judged."
    kind = "numbers" if field.kind == Kind.NUMBER else "values"
    return {"description": f"{field.says[:1].upper()}{field.says[1:]}. {scope}", "$ref": f"#/$defs/{kind}"}


def _keys(name: str) -> str:
    """Pattern of the names of a family: a token of RFC 9110 in lower case behind it."""
    return f"^{name.replace('.', chr(92) + '.')}\\.[!#$%&'*+.^_`|~0-9a-z-]+$"


def _told(field: Field) -> dict[str, Any]:
    return {"description": field.says, **_said(field)}


def _said(field: Field) -> dict[str, Any]:
    if field.kind == Kind.NUMBER:
        return {"type": "integer"}
    return {"$ref": "#/$defs/texts"} if field.kind == Kind.LIST else {"$ref": "#/$defs/text"}


def patterns_schema() -> dict[str, Any]:
    """Of files of patterns.d."""
    samples = {"anyOf": [{"$ref": "#/$defs/sample"}, {"type": "array", "items": {"$ref": "#/$defs/sample"}}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "microseg pattern file",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "patterns"],
        "properties": {
            "name": {"type": "string", "pattern": "^[^/]+$", "description": "Rules name all of it, or name/id."},
            "description": {"type": "string"},
            "patterns": {"type": "array", "items": {"$ref": "#/$defs/pattern"}},
        },
        "$defs": {
            "pattern": {
                "type": "object",
                "additionalProperties": False,
                "required": ["id", "description", "regex"],
                "properties": {
                    "id": {"type": ["string", "number"], "pattern": "^[^/]+$"},
                    "description": {"type": "string"},
                    "regex": {"type": "string", "description": "RE2, over bytes, anywhere in a value."},
                    "case": {"enum": _names(Case), "description": "exact unless said."},
                    "decode": {
                        "enum": _names(Decode),
                        "description": "url: looked at as sent, and percent-decoded once and twice.",
                    },
                    "check": {"enum": sorted(CHECKS), "description": "What a match must hold besides: check digits."},
                    "severity": {"enum": _names(Severity)},
                    "samples": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"must_match": samples, "must_not_match": samples},
                    },
                },
            },
            "sample": {
                "anyOf": [
                    _TEXT,
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["hex"],
                        "properties": {"hex": {"type": ["string", "number"]}},
                    },
                ],
            },
        },
    }


def _names(kind: type[enum.Enum]) -> list[str]:
    return [each.name.lower() for each in kind]


if __name__ == "__main__":
    made = patterns_schema() if sys.argv[1:] == ["patterns"] else schema()
    sys.stdout.write(json.dumps(made, indent=2) + "\n")
