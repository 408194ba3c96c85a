"""The explorer page's files, read once at the start: what is not in the list does not exist, whatever the path says."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from aiohttp import ETag, web

TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """One file of the page."""

    body: bytes
    content_type: str
    etag: str


def load() -> dict[str, Asset]:
    """All files of the page by name."""
    folder = files("streamer.serving") / "static"
    return {file.name: asset(file.name, file.read_bytes()) for file in folder.iterdir() if _type(file.name)}


def asset(name: str, body: bytes) -> Asset:
    """One file; its type goes by its name."""
    return Asset(body, _type(name), hashlib.sha256(body).hexdigest()[:16])


def answer(request: web.Request, asset: Asset) -> web.Response:
    """The file, or 304 when the client has it. Always asked for again: a new worker brings a new page."""
    headers = {"Cache-Control": "no-cache"}
    if any(known.value == asset.etag for known in request.if_none_match or ()):
        response = web.Response(status=304, headers=headers)
    else:
        response = web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers)
    response.etag = ETag(asset.etag)
    return response


def _type(name: str) -> str:
    return TYPES.get(name.rpartition(".")[2], "")
