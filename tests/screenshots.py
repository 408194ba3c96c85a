"""Pictures of the page for the README: `make screenshots`. Runs the demo until there is something to see.

Usage: python -m tests.screenshots DIR
"""

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.page_world import CHROMIUM, FLAGS
from tests.serving_world import free_port

READY_S = 300.0  # the demo's first start downloads Kafka and compiles kernels
RICH_S = 240.0  # until somebody's interests have moved, and the model was judged
VERSIONS = 6  # of a profile: enough to see its interests move
JUDGED = 300  # events: below, the hit rate is chance
SETTLE_S = 6.0  # of live charts and the feed in a picture
COLOURS = 256  # of a picture: a page has few, and the file shrinks to a third
MOST_BYTES = 200_000

T = TypeVar("T")


class Shot(NamedTuple):
    """One picture: of which view, how wide and high, light or dark; `{…}` names a person."""

    name: str
    view: str
    width: int = 1280
    height: int = 900
    scheme: str = "light"
    scale: float = 1.5
    click: str = ""  # what is opened first


SHOTS = (
    Shot("page", "user/{one}", height=1000),
    Shot("page-dark", "user/{one}", height=1000, scheme="dark", click=".bars summary"),
    Shot("page-map", "map"),
    Shot("page-model", "model", height=760),
    Shot("page-pair", "user/{one}?with={other}"),
    Shot("page-phone", "user/{one}", width=390, height=844, scale=2),
)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    shoot_all(parser.parse_args().folder)


def shoot_all(folder: Path) -> None:
    """Start the demo, wait until it is interesting, and write a PNG for each of SHOTS into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with demo() as url, sync_playwright() as playwright:
        one, other = interesting(url)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for shot in SHOTS:
            address = f"{url}/#/{shot.view.format(one=quote(one), other=quote(other))}"
            page = browser.new_page(
                viewport={"width": shot.width, "height": shot.height},
                color_scheme="dark" if shot.scheme == "dark" else "light",
                device_scale_factor=shot.scale,
            )
            size = write(picture(page, address, shot.click), folder / f"{shot.name}.png")
            sys.stdout.write(f"{shot.name}.png  {size / 1000:.0f} KB\n")
            page.close()
        browser.close()


@contextmanager
def demo() -> Iterator[str]:
    """The demo as people start it; its address once the page answers. Stopped as by Ctrl-C."""
    port = free_port()
    command = (sys.executable, "-m", "streamer", "demo", "--http-port", str(port))
    process = subprocess.Popen(command, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: ask(url, "/readyz"), READY_S, "the demo ready")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def interesting(url: str) -> tuple[str, str]:
    """Two people with much to show, once the model has been judged."""
    until(lambda: judged(ask(url, "/v1/quality")), RICH_S, "events that the model was judged by")
    return until(lambda: richest(url), RICH_S, "people whose interests moved")


def judged(quality: Any) -> bool:
    """Whether enough was predicted, over more than one minute."""
    enough = quality is not None and quality["cold"]["events"] + quality["warm"]["events"] >= JUDGED
    return enough and len(quality["points"]) > 1


def richest(url: str) -> tuple[str, str] | None:
    """Of those who were busy last, the one whose interests moved most and the one who has most in common with that."""
    people = [user["user_id"] for user in (ask(url, "/v1/users?n=60") or {"users": []})["users"]]
    past = {who: versions for who in people if len(versions := history(url, who)) >= VERSIONS}
    if len(past) < 2:
        return None
    one = max(past, key=lambda who: apart(past[who][1], past[who][-1]))  # the first version may tell of weeks at once
    return one, min(past.keys() - {one}, key=lambda who: apart(past[who][-1], past[one][-1]))


def history(url: str, who: str) -> list[Any]:
    """The versions of a profile that the worker remembers."""
    answer = ask(url, f"/v1/users/{quote(who, safe='')}/history")
    return list(answer["versions"]) if answer else []


def apart(version: Any, other: Any) -> float:
    """How much of the interests differs, 0 to 2."""
    one, two = ({each["tag"]: float(each["share"]) for each in each_one["interests"]} for each_one in (version, other))
    return sum(abs(one.get(tag, 0.0) - two.get(tag, 0.0)) for tag in one.keys() | two.keys())


def ask(url: str, path: str) -> Any:
    """The API's answer; None when it has none."""
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:  # noqa: S310 - our own address
            return json.load(answer)
    except OSError:
        return None


def until(condition: Callable[[], T | None], within_s: float, what: str) -> T:
    """The first true answer of `condition`, asked every second."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {within_s:g} s: {what}")
        time.sleep(1)
    return answer


def picture(page: Page, address: str, click: str) -> bytes:
    """The page at an address as PNG, a moment after it has come to rest."""
    page.goto(address)
    page.locator("main :is(h2, h3) >> visible=true").first.wait_for()
    if click:
        page.locator(click).first.click()
    page.mouse.move(0, 0)
    time.sleep(SETTLE_S)
    return page.screenshot()


def write(png: bytes, path: Path) -> int:
    """Write a picture with few colours; its bytes. Fails where it is too big for a repository."""
    Image.open(BytesIO(png)).convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path} has {size:,} bytes, more than {MOST_BYTES:,}: make the picture smaller")
    return size


if __name__ == "__main__":
    main()
