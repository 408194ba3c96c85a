"""What keeps two JSON Schemas of one value from working together. Pure: two documents in, sentences out.

Producers and consumers are upgraded at different times, in either order. So each must be able to work with the other's
older version: the only change that both sides survive is a new optional field. Structs are compared by what they mean
(`$ref` is followed), not by their names.
"""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

NOTES = frozenset({"$schema", "$id", "$defs", "$comment", "title", "description", "examples"})  # for people only
UPPER_LIMITS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
LOWER_LIMITS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
MISSING = object()


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Every change from `old` to `new` that a producer or a consumer of the other version does not survive.

    Each is `.path: what and why`; an empty list means that both versions work together.
    """
    return list(_compare(old, new, _Documents(old, new), ""))


class _Documents:
    """The two whole documents, to look up `$ref`s in."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new

    def resolve(self, old: Schema, new: Schema) -> tuple[Schema, Schema]:
        return _follow(old, self._old), _follow(new, self._new)


def _follow(schema: Schema, document: Schema) -> Schema:
    while (reference := schema.get("$ref")) is not None:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = document["$defs"][reference.removeprefix("#/$defs/")] | beside
    return schema


def _compare(old: Schema, new: Schema, documents: _Documents, path: str) -> Iterator[str]:
    old, new = documents.resolve(old, new)
    yield from _compare_fields(old, new, documents, path)
    for keyword in sorted((old.keys() | new.keys()) - NOTES - {"properties", "required"}):
        before, after = old.get(keyword, MISSING), new.get(keyword, MISSING)
        yield from _compare_keyword(keyword, before, after, documents, path)


def _compare_fields(old: Schema, new: Schema, documents: _Documents, path: str) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    needed_before, needed_after = set(old.get("required", ())), set(new.get("required", ()))
    for name, schema in before.items():
        here = f"{path}.{name}"
        if name not in after:
            yield f"{here}: removed, and older consumers may count on it"
            continue
        yield from _compare(schema, after[name], documents, here)
        if name in needed_after - needed_before:
            yield f"{here}: required now, and older producers may leave it out"
        if name in needed_before - needed_after:
            yield f"{here}: no longer required, and older consumers fail without it"
    for name in sorted(needed_after - before.keys()):
        yield f"{path}.{name}: new and required, and older producers do not send it"


def _compare_keyword(keyword: str, old: Any, new: Any, documents: _Documents, path: str) -> Iterator[str]:
    if old == new and not _has_references(old):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _compare(old, new, documents, f"{path}[]")
    elif _are_schemas(old) and _are_schemas(new) and len(old) == len(new):
        for before, after in zip(old, new, strict=True):
            yield from _compare(before, after, documents, path)
    elif keyword == "enum" and MISSING not in (old, new):
        yield from _compare_choices(old, new, path)
    else:
        yield f"{path}: {_change(keyword, old, new)}"


def _has_references(value: Any) -> bool:
    """Equal text may still mean different things: what stands behind a `$ref` is elsewhere in the documents."""
    if isinstance(value, dict):
        return "$ref" in value or any(map(_has_references, value.values()))
    return isinstance(value, list) and any(map(_has_references, value))


def _are_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _compare_choices(old: list[Any], new: list[Any], path: str) -> Iterator[str]:
    for gone in (value for value in old if value not in new):
        yield f"{path}: {gone!r} is no longer allowed, and older producers may send it"
    for added in (value for value in new if value not in old):
        yield f"{path}: {added!r} is new, and older consumers do not know it"


def _change(keyword: str, old: Any, new: Any) -> str:
    said = f"{keyword} was {_shown(old)}, is {_shown(new)}"
    if keyword in UPPER_LIMITS | LOWER_LIMITS:
        narrower = old is MISSING or (new is not MISSING and (new < old) == (keyword in UPPER_LIMITS))
        return f"{said}: {'narrower, older producers exceed it' if narrower else 'wider, older consumers refuse it'}"
    return f"{said}: values of one version mean something else in the other"


def _shown(value: Any) -> str:
    return "not set" if value is MISSING else repr(value)
