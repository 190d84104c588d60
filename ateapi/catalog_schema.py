"""Documents of the catalog: shape by JSON Schema, rules between fields, defaults.

The schemas in ateapi/schemas/ are the reference system's CRDs as data. They say what a field may
be; `x-rule` beside a pattern is the pattern in words. What the fields of a document must be to one
another is in `ateapi.catalog_rules`.
"""

import difflib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError, validators

from ateapi import catalog_rules
from ateapi.validate import Path, path_text
from ateerrors.errors import FieldViolation, invalid_argument

DEFAULT_NAMESPACE: Final = "default"

# More would not fit into an answer.
_MAX_VIOLATIONS: Final = 100
_REQUIRED: Final = "is required"

# A schema, or a part of one.
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A valid document, its defaults filled in."""

    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, object]


def parse(raw: Mapping[str, object]) -> Document:
    """Check a document and fill in its defaults.

    As in Kubernetes, a field that is null counts as absent.

    Raises:
        AteError: INVALID_ARGUMENT with everything that is wrong with it.
    """
    document, violations = _without_nulls(raw)
    violations += _shape_violations("document", document, ())
    kind, spec = document.get("kind"), document.get("spec")
    metadata = _object(document.get("metadata"))
    violations += catalog_rules.metadata_violations(str(kind), metadata)
    if kind in catalog_rules.KINDS and isinstance(spec, dict):
        spec = _filled(_SCHEMAS[kind], spec, _SCHEMAS[kind])
        violations += _shape_violations(kind, spec, ("spec",))
        violations += catalog_rules.spec_violations(kind, spec)
    if violations:
        raise invalid_argument(violations[:_MAX_VIOLATIONS])
    namespace = metadata.get("namespace", DEFAULT_NAMESPACE)
    return Document(
        kind=str(kind),
        namespace="" if kind in catalog_rules.CLUSTER_KINDS else str(namespace),
        name=str(metadata["name"]),
        labels=_object(metadata.get("labels")),
        spec=_object(spec),
    )


def filled(kind: str, spec: Mapping[str, object]) -> Mapping[str, object]:
    """Return a spec that an older version may have stored, with the defaults of today."""
    return _object(_filled(_SCHEMAS[kind], spec, _SCHEMAS[kind]))


def _object(value: Any) -> dict[str, Any]:
    """Return the value if it is an object; what is none has been complained about."""
    return value if isinstance(value, dict) else {}


def _without_nulls(raw: Mapping[str, object]) -> tuple[dict[str, Any], list[FieldViolation]]:
    """Return a copy without null fields, and complaints about numbers that JSON cannot say."""
    violations: list[FieldViolation] = []

    def copy(value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            return {
                key: copy(item, (*path, key)) for key, item in value.items() if item is not None
            }
        if isinstance(value, list):
            return [copy(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            violations.append(FieldViolation(path_text(path), "must be a finite number"))
        return value

    return copy(raw, ()), violations


def _filled(schema: Schema, value: Any, root: Schema) -> Any:
    """Return the value with the defaults of its schema where it says nothing."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list) and "items" in schema:
        return [_filled(schema["items"], item, root) for item in value]
    if not isinstance(value, dict):
        return value
    fields = schema.get("properties", {})
    filled = {
        key: _filled(fields[key], item, root) if key in fields else item
        for key, item in value.items()
    }
    for key, field in fields.items():
        if "default" in field:
            filled.setdefault(key, field["default"])
    return filled


def _shape_violations(schema: str, value: object, prefix: Path) -> list[FieldViolation]:
    errors = itertools.islice(_VALIDATORS[schema].iter_errors(value), _MAX_VIOLATIONS)
    return [
        FieldViolation(path_text((*prefix, *error.absolute_path)) or "document", _words(error))
        for error in errors
    ]


def _words(error: ValidationError) -> str:
    """Say what a value must be: jsonschema's own texts quote whole values and patterns."""
    schema: Any = error.schema
    if error.validator == "pattern":
        return str(schema["x-rule"])
    words = _WORDS.get(str(error.validator))
    return words(error.validator_value, error.instance) if words else error.message


def _required(
    _validator: Any, required: Iterable[str], value: object, _schema: Schema
) -> Iterator[ValidationError]:
    """Complain about the field that is missing, not about the object that misses it."""
    if isinstance(value, dict):
        for name in required:
            if name not in value:
                yield ValidationError(_REQUIRED, path=(name,))


def _additional(
    validator: Any, allowed: Schema | bool, value: object, schema: Schema
) -> Iterator[ValidationError]:
    """Complain about an unknown field at its own path: mostly it is a slip of the pen."""
    if not isinstance(value, dict):
        return
    known = schema.get("properties", {})
    for name in value.keys() - known.keys():
        if isinstance(allowed, Mapping):
            yield from validator.descend(value[name], allowed, path=name)
            continue
        similar = difflib.get_close_matches(name[:64], known, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        yield ValidationError(f"is not a field that exists here{hint}", path=(name,))


def _type_of(value: object) -> str:
    """Return the type in the words of JSON and YAML."""
    for kind, word in _TYPES_OF:
        if isinstance(value, kind):
            return word
    return "null"


def _short(value: object) -> str:
    return f"{value!r:.64}"


# bool is an int too, so it comes first.
_TYPES_OF: Final = (
    (bool, "boolean"),
    (int | float, "number"),
    (str, "string"),
    (list, "list"),
    (dict, "object"),
)
_TYPES: Final = {
    "array": "a list",
    "object": "an object",
    "string": "a string",
    "integer": "a whole number",
    "boolean": "true or false",
}
# {keyword of JSON Schema: words for (its value, the value that breaks it)}
_WORDS: Final[Mapping[str, Callable[[Any, Any], str]]] = {
    "type": lambda kind, value: f"must be {_TYPES[kind]}, is of type {_type_of(value)}",
    "enum": lambda allowed, value: f"must be one of {', '.join(allowed)}; is {_short(value)}",
    "const": lambda allowed, value: f"must be {allowed}, is {_short(value)}",
    "minLength": lambda _least, _value: "must not be empty",
    "maxLength": lambda most, value: f"must have at most {most} characters, has {len(value)}",
    "minItems": lambda least, _value: f"must have at least {least} item",
    "maxItems": lambda most, value: f"must have at most {most} items, has {len(value)}",
    "minimum": lambda least, value: f"must be at least {least}, is {_short(value)}",
    "maximum": lambda most, value: f"must be at most {most}, is {_short(value)}",
    "minProperties": lambda _least, _value: "must say one of its fields",
    "maxProperties": lambda most, _value: f"must say only {most} of its fields",
}


def _load(name: str) -> Schema:
    path = resources.files("ateapi") / "schemas" / f"{name.lower()}.json"
    schema: Schema = json.loads(path.read_text("utf-8"))
    return schema


_Validator: Final = validators.extend(  # type: ignore[no-untyped-call]  # not typed there
    Draft202012Validator, {"required": _required, "additionalProperties": _additional}
)
_SCHEMAS: Final = {name: _load(name) for name in ("document", *catalog_rules.KINDS)}
_VALIDATORS: Final = {name: _Validator(schema) for name, schema in _SCHEMAS.items()}
