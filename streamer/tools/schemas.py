"""The contracts as documents: JSON Schema for every JSON value, AsyncAPI for all topics, generated from the structs.

python -m streamer.tools.schemas write      writes schemas/
python -m streamer.tools.schemas check      exit 1 if schemas/ is not as generated, or not compatible with a release
python -m streamer.tools.schemas release    keeps today's schemas as those of this version, to be compatible with
"""

import argparse
import difflib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from streamer import __version__
from streamer.events import KINDS, Item
from streamer.profile import Profile
from streamer.tools.asyncapi import asyncapi
from streamer.tools.schema_changes import incompatibilities

FOLDER = Path(__file__).parents[2] / "schemas"
MAJOR = 1  # in every $id: a change that is not compatible gets new schemas beside the old ones, and new topics

VALUES: dict[str, type[msgspec.Struct]] = {kind.name: kind.struct for kind in KINDS}
VALUES |= {"item": Item, "profile": Profile}


def json_schema(name: str) -> dict[str, Any]:
    """JSON Schema 2020-12 of the value called `name` in `VALUES`."""
    parts = definitions([VALUES[name]], "#/$defs/{name}")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:streamer:schema:{name}:{MAJOR}"}
    schema |= parts.pop(VALUES[name].__name__)
    return schema | {"$defs": parts} if parts else schema


def definitions(structs: Iterable[type[msgspec.Struct]], reference: str) -> dict[str, Any]:
    """The schema of each struct and of those inside it, by class name; they refer to each other as `reference` says."""
    _, components = msgspec.json.schema_components(structs, ref_template=reference)
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(components))  # defaults as JSON has them
    for definition in found.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])  # as Python 3.13 has it
        if "properties" in definition:
            definition["additionalProperties"] = True  # unknown fields are ignored: said, not left to the default
    return dict(sorted(found.items()))


def documents() -> dict[str, str]:
    """The text of every generated file by its name in schemas/."""
    texts = {f"{name}.schema.json": _text(json_schema(name)) for name in VALUES}
    texts["asyncapi.json"] = _text(asyncapi(MAJOR, definitions(VALUES.values(), "#/components/schemas/{name}")))
    return texts


def write(folder: Path) -> None:
    """Write all documents into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


def drift(folder: Path) -> str:
    """A diff from what is in `folder` to what the structs say; empty if they agree."""
    lines: list[str] = []
    for name, want in documents().items():
        path = folder / name
        have = path.read_text(encoding="utf-8") if path.exists() else ""
        before, after = have.splitlines(keepends=True), want.splitlines(keepends=True)
        lines += difflib.unified_diff(before, after, f"schemas/{name}", "generated")
    return "".join(lines)


def breaks(folder: Path) -> list[str]:
    """What keeps today's schemas from working together with those of each release kept in `folder`/released."""
    found = []
    for path, released in _released(folder):
        name = path.name.removesuffix(".schema.json")
        if name not in VALUES:
            found.append(f"{path.parent.name} {name}: the value is gone")
            continue
        today = json_schema(name)
        if today["$id"] == released["$id"]:
            found += [f"{path.parent.name} {name}{problem}" for problem in incompatibilities(released, today)]
    return found


def release(folder: Path) -> Path:
    """Keep today's JSON Schemas as those of this version; raises FileExistsError if that was done before."""
    kept = folder / "released" / f"v{__version__}"
    kept.mkdir(parents=True)
    for name in VALUES:
        (kept / f"{name}.schema.json").write_text(_text(json_schema(name)), encoding="utf-8")
    return kept


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m streamer.tools.schemas", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["write", "check", "release"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: schemas/ of this checkout")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return _check(options.folder)
    if options.command == "write":
        write(options.folder)
    else:
        release(options.folder)
    return 0


def _check(folder: Path) -> int:
    difference, problems = drift(folder), breaks(folder)
    if difference:
        sys.stderr.write(f"{difference}\nschemas/ is not what the structs say: run `make fix`\n")
    if problems:
        sys.stderr.write("Schemas that do not work together with released ones (see schemas/README.md):\n  ")
        sys.stderr.write("\n  ".join(problems) + "\n")
    if difference or problems:
        return 1
    sys.stdout.write("schemas/ is what the structs say, and compatible with every release\n")
    return 0


def _released(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.glob("released/*/*.schema.json")):
        yield path, json.loads(path.read_text(encoding="utf-8"))


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
