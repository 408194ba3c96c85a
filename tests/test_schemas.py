"""The contract documents say what the code does: generated, valid, open, and compatible with every release."""

import base64
import copy
import gzip
import json
import re
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streamer.engine.topics import create_topics, topic_specs
from streamer.events import KINDS
from streamer.pipeline.decode import Limits, Reason, decode_events, decode_items
from streamer.pipeline.records import Record, Records
from streamer.profile import Profile
from streamer.settings import Settings
from streamer.tools import schemas
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.schema_changes import incompatibilities

ROOT = Path(__file__).parents[1]
README = (ROOT / "schemas" / "README.md").read_text(encoding="utf-8")
LIMITS = Limits(max_event_bytes=65_536, future_ms=300_000, too_old_ms=90 * 86_400_000)
EXAMPLES = re.findall(r"```json (\w+)\n(.*?)```", README, re.DOTALL)
SNIPPETS = dict(re.findall(r"```python (\w+)\n(.*?)```", README, re.DOTALL))


def schema_problem(name: str, value: Any) -> str | None:
    validator = jsonschema.Draft202012Validator(schemas.json_schema(name))
    problem = jsonschema.exceptions.best_match(validator.iter_errors(value))
    return problem and problem.message


def pipeline_problem(name: str, value: Any) -> str | None:
    """What the pipeline says of a value that comes under its own key at its own time."""
    fields = value if isinstance(value, dict) else {}
    key = str(fields.get("item_id" if name == "item" else "user_id")).encode()
    at = fields["ts"] if isinstance(fields.get("ts"), int) else 0
    record = Record(key, json.dumps(value).encode(), min(at, 2**43), offset=0)
    if name == "item":
        rejected = decode_items([record], LIMITS)[1]
    else:
        kind = next(kind for kind in KINDS if kind.name == name)
        rejected = decode_events(kind, Records.of([record]), LIMITS, 0).rejected
    return rejected[0].detail if rejected else None


def test_documents_are_as_generated() -> None:
    assert schemas.drift(schemas.FOLDER) == ""


def test_schemas_work_together_with_every_release() -> None:
    assert schemas.breaks(schemas.FOLDER) == []


@pytest.mark.parametrize("name", schemas.VALUES)
def test_schemas_are_valid_and_say_that_unknown_fields_are_ignored(name: str) -> None:
    schema = schemas.json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    for definition in [schema, *schema.get("$defs", {}).values()]:
        assert definition["additionalProperties"] is True


def asyncapi() -> dict[str, Any]:
    return json.loads((ROOT / "schemas" / "asyncapi.json").read_text(encoding="utf-8"))


def test_asyncapi_document_is_valid_by_the_official_schema() -> None:
    with gzip.open(ROOT / "tests" / "vendor" / "asyncapi-3.0.0.json.gz") as file:
        official = json.load(file)
    jsonschema.Draft7Validator(official).validate(asyncapi())


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi()
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found = document
        for step in reference.split("/"):
            found = found[step]


def test_asyncapi_document_has_every_topic_under_its_name() -> None:
    names = {
        channel["address"].replace("{prefix}", "p.").replace("{app_id}", "mine")
        for channel in asyncapi()["channels"].values()
    }
    assert names == {spec.name for spec in topic_specs(Settings(topic_prefix="p.", app_id="mine"))}


def test_asyncapi_document_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_TOPIC_PREFIX", "p.")
    monkeypatch.setenv("STREAMER_APP_ID", "mine")
    assert schemas.drift(schemas.FOLDER) == ""


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_examples_of_the_readme_hold_for_schema_and_decoder(name: str, text: str) -> None:
    value = json.loads(text)
    assert schema_problem(name, value) is None
    assert msgspec.json.decode(text, type=schemas.VALUES[name])
    if name != "profile":
        assert pipeline_problem(name, value) is None


def test_the_readme_has_an_example_of_every_value() -> None:
    assert {name for name, _ in EXAMPLES} == set(schemas.VALUES)


def test_the_example_vector_has_as_many_numbers_as_it_says() -> None:
    profile = next(json.loads(text) for name, text in EXAMPLES if name == "profile")
    assert len(base64.b64decode(profile["vector"])) == 4 * profile["vector_dim"]


def test_the_readme_names_every_field_reason_and_topic() -> None:
    fields = {name for schema in map(schemas.json_schema, schemas.VALUES) for name in field_names(schema)}
    topics = {"items", "profiles", "rejected", *(kind.topic for kind in KINDS)}
    assert {name for name in fields | topics | set(get_args(Reason)) if f"`{name}`" not in README} == set()


def field_names(schema: dict[str, Any]) -> set[str]:
    return {name for part in [schema, *schema.get("$defs", {}).values()] for name in part.get("properties", {})}


class EnoughError(Exception):
    """Leaves the consumer of the README, which reads for ever."""


def run_snippet(name: str, broker: EmbeddedKafka, prefix: str, enough: int) -> list[str]:
    """Run a snippet against a real broker on topics of this test; the first `enough` lines that it prints."""
    lines: list[str] = []

    def show(*words: object) -> None:
        lines.append(" ".join(map(str, words)))
        if len(lines) == enough:
            raise EnoughError

    code = SNIPPETS[name].replace("localhost:9092", broker.brokers)
    code = re.sub(r'"(clicks|profiles|my-service)"', rf'"{prefix}\1"', code)
    names: dict[str, Any] = {"print": show}
    with suppress(EnoughError):
        exec(compile(code, name, "exec"), names)  # noqa: S102 - our own document
    names[name].close()
    return lines


@pytest.fixture
def topics(kafka: EmbeddedKafka, prefix: str) -> str:
    """The prefix of topics of this test, as `streamer topics create` makes them."""
    create_topics(Settings(brokers=kafka.brokers, topic_prefix=prefix, partitions=1))
    return prefix


def test_the_producer_of_the_readme_sends_what_the_pipeline_takes(kafka: EmbeddedKafka, topics: str) -> None:
    run_snippet("producer", kafka, topics, 1)
    with closing(KafkaConsumer(bootstrap_servers=kafka.brokers, auto_offset_reset="earliest")) as consumer:
        consumer.assign([TopicPartition(f"{topics}clicks", 0)])
        record = next(consumer)
    assert decode_events(KINDS[0], Records.of([record]), LIMITS, 0).rejected == []


def test_the_consumer_of_the_readme_reads_profiles_and_erasures(kafka: EmbeddedKafka, topics: str) -> None:
    profile = next(text for name, text in EXAMPLES if name == "profile")
    with closing(KafkaProducer(bootstrap_servers=kafka.brokers)) as producer:
        producer.send(f"{topics}profiles", key=b"u-42", value=profile.encode())
        producer.send(f"{topics}profiles", key=b"u-42", value=None)
        producer.flush()
    assert run_snippet("consumer", kafka, topics, 2) == ["u-42 3 [('running', 0.31)]", "u-42 was erased"]


def test_an_encoded_profile_is_as_its_schema_says() -> None:
    profile = msgspec.json.decode(next(text for name, text in EXAMPLES if name == "profile"), type=Profile)
    assert schema_problem("profile", json.loads(msgspec.json.encode(profile))) is None


# What the schema takes the pipeline takes, and the other way round. Left out: numbers like 1.0 for integers, which JSON
# Schema calls integers and the pipeline does not (schemas/README.md says so).
ODD = [None, True, "", "x", "eur", "EUR", "EURO", "ÅÄÖ", -1, 0, 1, 1.5, 10**9, 10**9 + 1, 10**12, 10**12 + 1]
ODD += [2**43, 2**43 + 1, 10**30, -0.5, [], ["a"], [""], [1], [None], {}, {"a": 1}]
FIELDS = {
    "event_id": st.text(max_size=5),
    "user_id": st.text(max_size=5),
    "item_id": st.text(max_size=5),
    "title": st.text(max_size=5),
    "ts": st.integers(-2, 2**43 + 2),
    "session_id": st.none() | st.text(max_size=5),
    "order_id": st.none() | st.text(max_size=5),
    "category": st.none() | st.text(max_size=5),
    "dwell_ms": st.none() | st.integers(-2, 10**7),
    "tags": st.lists(st.text(max_size=3), max_size=3),
    "price": st.floats(-1, 2e12, allow_nan=False) | st.integers(-1, 2 * 10**12),
    "currency": st.text("AZaz1Ä", min_size=2, max_size=4),
    "quantity": st.integers(-1, 10**9 + 1),
    "unknown": st.sampled_from(ODD),
}
USUAL = {
    "event_id": "e",
    "user_id": "u",
    "item_id": "i",
    "title": "t",
    "ts": 1,
    "price": 2.5,
    "currency": "EUR",
    "tags": ["a"],
}
EVENTS = sorted(schemas.VALUES.keys() - {"profile"})


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """A usual value in which a few fields are missing, odd, or close to a limit."""
    value: dict[str, Any] = dict(USUAL)
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True)):
        value[name] = draw(FIELDS[name] | st.sampled_from(ODD))
    for name in draw(st.lists(st.sampled_from(sorted(USUAL)), max_size=1)):
        del value[name]
    return value


@pytest.mark.parametrize("name", EVENTS)
@settings(max_examples=300, deadline=None)
@given(value=values())
def test_schema_and_pipeline_take_the_same_values(name: str, value: dict[str, Any]) -> None:
    by_schema, by_pipeline = schema_problem(name, value), pipeline_problem(name, value)
    assert (by_schema is None) == (by_pipeline is None), (by_schema, by_pipeline)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("field", sorted(FIELDS))
def test_schema_and_pipeline_agree_on_every_odd_value_of_every_field(name: str, field: str) -> None:
    for odd in ODD:
        value = USUAL | {field: odd}
        by_schema, by_pipeline = schema_problem(name, value), pipeline_problem(name, value)
        assert (by_schema is None) == (by_pipeline is None), (odd, by_schema, by_pipeline)


BEFORE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "size"],
    "additionalProperties": True,
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "size": {"type": "integer", "minimum": 0, "maximum": 100},
        "colour": {"enum": ["red", "blue"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
    },
    "$defs": {
        "Part": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": True,
            "properties": {"name": {"type": "string"}},
        }
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """BEFORE with `value` at a path such as `properties/size/maximum`; None takes away what is there."""
    schema = copy.deepcopy(BEFORE)
    *steps, last = path.split("/")
    at = schema
    for step in steps:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return schema


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/weight", {"type": "number", "default": 0}),
        ("$defs/Part/properties/weight", {"type": "number"}),
        ("properties/size/description", "in cm"),
        ("title", "Thing"),
    ],
)
def test_new_optional_fields_and_words_are_compatible(path: str, value: Any) -> None:
    assert incompatibilities(BEFORE, changed(path, value)) == []


def test_a_struct_may_get_another_name() -> None:
    renamed = json.loads(json.dumps(BEFORE).replace("Part", "Piece"))
    assert incompatibilities(BEFORE, renamed) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("properties/note", None, ".note: removed"),
        ("properties/size/type", "string", ".size: type was 'integer', is 'string'"),
        ("properties/size/maximum", 50, ".size: maximum was 100, is 50: narrower"),
        ("properties/size/maximum", 200, ".size: maximum was 100, is 200: wider"),
        ("properties/size/maximum", None, ".size: maximum was 100, is not set: wider"),
        ("properties/size/minimum", 1, ".size: minimum was 0, is 1: narrower"),
        ("properties/size/multipleOf", 2, ".size: multipleOf was not set, is 2"),
        ("properties/id/minLength", 0, ".id: minLength was 1, is 0: wider"),
        ("properties/id/maxLength", 9, ".id: maxLength was not set, is 9: narrower"),
        ("properties/id/pattern", "^x", ".id: pattern was not set, is '^x'"),
        ("properties/colour/enum", ["red"], ".colour: 'blue' is no longer allowed"),
        ("properties/colour/enum", ["red", "blue", "green"], ".colour: 'green' is new"),
        ("properties/colour/enum", None, ".colour: enum was ['red', 'blue'], is not set"),
        ("properties/note/anyOf", [{"type": "string"}], ".note: anyOf was"),
        ("properties/note/anyOf", [{"type": "integer"}, {"type": "null"}], ".note: type was 'string', is 'integer'"),
        ("properties/note/default", "none", ".note: default was None, is 'none'"),
        ("properties/parts/items", {"type": "string"}, ".parts[]"),
        ("required", ["id"], ".size: no longer required"),
        ("required", ["id", "size", "note"], ".note: required now"),
        ("additionalProperties", False, ": additionalProperties was True, is False"),
        ("$defs/Part/properties/name/type", "integer", ".parts[].name: type was 'string', is 'integer'"),
        ("$defs/Part/properties/name", None, ".parts[].name: removed"),
    ],
)
def test_any_other_change_is_named_with_its_place(path: str, value: Any, said: str) -> None:
    assert any(problem.startswith(said) for problem in incompatibilities(BEFORE, changed(path, value)))


def test_a_new_field_must_not_be_required() -> None:
    new = changed("properties/weight", {"type": "number"}) | {"required": ["id", "size", "weight"]}
    assert incompatibilities(BEFORE, new) == [".weight: new and required, and older producers do not send it"]


def kept_release(folder: Path, name: str, **changes: Any) -> None:
    """Release today's schemas in `folder`, with one of them changed."""
    path = schemas.release(folder) / f"{name}.schema.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_check_fails_on_drift_and_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemas.write(tmp_path)
    assert schemas.main(["check", "--folder", str(tmp_path)]) == 0
    path = tmp_path / "click.schema.json"
    path.write_text(path.read_text(encoding="utf-8").replace("minLength", "maxLength"), encoding="utf-8")
    assert schemas.main(["check", "--folder", str(tmp_path)]) == 1
    assert '+      "minLength": 1' in capsys.readouterr().err


def test_check_fails_on_what_breaks_a_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemas.write(tmp_path)
    kept_release(tmp_path, "click", required=["event_id", "user_id", "item_id"])
    assert schemas.main(["check", "--folder", str(tmp_path)]) == 1
    assert "click.ts: required now" in capsys.readouterr().err


def test_another_major_version_need_not_be_compatible(tmp_path: Path) -> None:
    kept_release(tmp_path, "click", **{"$id": "urn:streamer:schema:click:0"}, required=[])
    assert schemas.breaks(tmp_path) == []


def test_a_released_value_does_not_vanish(tmp_path: Path) -> None:
    path = schemas.release(tmp_path)
    (path / "click.schema.json").rename(path / "search.schema.json")
    assert schemas.breaks(tmp_path) == [f"{path.name} search: the value is gone"]


def test_a_release_is_kept_once(tmp_path: Path) -> None:
    schemas.release(tmp_path)
    with pytest.raises(FileExistsError):
        schemas.release(tmp_path)
