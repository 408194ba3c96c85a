"""The API's description (OpenAPI 3.1), made from the table of endpoints, the structs and the handlers' docstrings."""

import inspect
from typing import Any, Final

import msgspec

from streamer import __version__
from streamer.events import NAME_CHARS
from streamer.serving import problems
from streamer.serving.endpoints import ENDPOINTS, Endpoint
from streamer.serving.problems import ProblemBody

REFERENCE: Final = "#/components/schemas/{name}"
FORBIDDEN: Final = (401, 403, 421, 429)  # what may meet every question for something personal
ETAG: Final = "names what is answered: sent back as If-None-Match, it is answered again only when that has changed"
# Where the ids in an answer lead to: operations that take one.
LINKS: Final = {
    "users": ("$response.body#/users/0/user_id", ("profile", "recommendations", "history")),
    "recommendations": ("$response.body#/items/0/item_id", ("item", "similar")),
}
# What other errors mean, for people.
SAYS: Final = {
    400: "a parameter is wrong: `detail` says which",
    401: "a token is needed, where the worker has one",
    403: "a client certificate is needed, where the worker has an authority for them",
    404: "unknown",
    421: "the worker does not go by the name in `Host`",
    429: "too many questions: ask again after `Retry-After` seconds",
    500: "a fault of the worker's: its log has the `instance`",
    501: "switched off in this worker's settings",
    503: "no right answer can be given now, as in a rebalance: ask again after `Retry-After` seconds",
}


def document(handlers: object) -> dict[str, Any]:
    """The whole description; `handlers` has a method an operation."""
    structs = {ProblemBody, *(endpoint.answer for endpoint in ENDPOINTS if endpoint.answer is not None)}
    _, schemas = msgspec.json.schema_components(sorted(structs, key=lambda s: s.__name__), ref_template=REFERENCE)
    paths = {endpoint.path: {"get": _operation(endpoint, handlers)} for endpoint in ENDPOINTS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "streamer",
            "version": __version__,
            "summary": "User profiles that follow what people do",
            "description": "Any worker answers for any user; `X-Answered-By` says which did. All is read-only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {name: _tidy(schema) for name, schema in sorted(schemas.items())},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, handlers: object) -> dict[str, Any]:
    summary, _, description = str(inspect.getdoc(getattr(handlers, endpoint.operation))).partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": endpoint.operation,
        "summary": summary.rstrip("."),
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_header_parameters(endpoint)],
        "responses": {"200": _success(endpoint), **_others(endpoint)},
    }
    if description:
        operation["description"] = " ".join(description.split())
    if endpoint.is_protected:
        operation["security"] = [{"token": []}, {}]  # none is needed where none is set
    return operation


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if "{id}" not in endpoint.path:
        return []
    schema = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS}
    return [{"name": "id", "in": "path", "required": True, "schema": schema}]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    fields = msgspec.json.schema_components([endpoint.query])[1][endpoint.query.__name__]
    return [_query_parameter(name, schema, fields["required"]) for name, schema in fields["properties"].items()]


def _query_parameter(name: str, schema: dict[str, Any], required: list[str]) -> dict[str, Any]:
    description = schema.pop("description", "")
    if "anyOf" in schema:  # or null, which no query can say: it is left out then
        schema = schema["anyOf"][0]
    return {"name": name, "in": "query", "description": description, "required": name in required, "schema": schema}


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    name = "If-None-Match" if endpoint.etag else "Last-Event-ID" if endpoint.operation == "changes" else None
    return [{"name": name, "in": "header", "required": False, "schema": {"type": "string"}}] if name else []


def _success(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "string"}}
    if endpoint.answer is not None:
        content = {"schema": {"$ref": REFERENCE.format(name=endpoint.answer.__name__)}}
    return {
        "description": _first_line(endpoint.answer) if endpoint.answer is not None else "Text.",
        "headers": _headers(endpoint),
        "content": {endpoint.content_type: content},
        "links": _links(endpoint),
    }


def _links(endpoint: Endpoint) -> dict[str, Any]:
    expression, operations = LINKS.get(endpoint.operation, ("", ()))
    return {name: {"operationId": name, "parameters": {"id": expression}} for name in operations}


def _headers(endpoint: Endpoint) -> dict[str, Any]:
    said = {"X-Answered-By": "which worker answered"} if endpoint.is_protected else {}
    said |= {"ETag": ETAG} if endpoint.etag else {}
    said |= {"X-Profile-Age": "seconds since the newest event in it"} if endpoint.operation == "profile" else {}
    return {name: {"description": text, "required": True, "schema": {"type": "string"}} for name, text in said.items()}


def _others(endpoint: Endpoint) -> dict[str, Any]:
    statuses = {500, *endpoint.problems, *(FORBIDDEN if endpoint.is_protected else (421,))}
    statuses |= {400} if endpoint.is_protected else set()
    found = {str(status): _problem(status) for status in sorted(statuses)}
    return {"304": {"description": "The client has it already."}, **found} if endpoint.etag else found


def _problem(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": SAYS[status],
        "content": {problems.CONTENT_TYPE: {"schema": {"$ref": REFERENCE.format(name=ProblemBody.__name__)}}},
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"description": "seconds", "required": True, "schema": {"type": "integer"}}}
    return answer


def _first_line(struct: type) -> str:
    return str(inspect.getdoc(struct)).split("\n", 1)[0]


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "description": inspect.cleandoc(schema["description"])} if "description" in schema else schema
