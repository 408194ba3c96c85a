"""A small shop on a real Kafka, a worker that knows its people, and a browser that looks at the worker's page."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from streamer.events import Click, Item, Purchase
from streamer.tools.visits import Simulation
from tests.deployment import Deployment
from tests.worker_process import until

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000  # what takes longer is broken, however busy the machine
MINUTE = 60_000
SHELF = {
    "tent-1": ("Two-person tent", ("tent", "outdoor")),
    "tent-2": ("Tunnel tent", ("tent", "outdoor")),
    "stove": ("Gas stove", ("stove", "outdoor")),
    "mill": ("Hand grinder", ("coffee", "kitchen")),
    "kettle": ("Pour-over kettle", ("coffee", "kitchen")),
    "beans": ("Espresso beans", ("coffee", "kitchen")),
}
STORIES = {
    "ada": ("tent-1", "tent-2", "tent-1", "stove", "tent-2", "mill"),
    "grace": ("mill", "kettle", "beans", "mill", "beans", "stove"),
}
STRANGE_IDS = ("a/b", "<b>x</b>", "100%?#", "ü ☃", "a-user-id-that-goes-on-and-on-" * 3)


class Town:
    """People of known taste and a crowd around them, their worker, and what they do next."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._numbers = itertools.count()
        self.worker = deployment.worker()
        self.url = f"http://127.0.0.1:{self.worker.port}"
        now_ms = int(time.time() * 1000)
        crowd = Simulation(1, 30, 60, now_ms - 2 * 86_400_000)
        deployment.send(Item(item_id=item, title=title, tags=tags) for item, (title, tags) in SHELF.items())
        deployment.send(crowd.catalogue())
        deployment.send(crowd.events(0.005, now_ms - MINUTE))
        deployment.send(self._click(who, item, now_ms) for who, items in STORIES.items() for item in items)
        deployment.send(self._click(who, "tent-1", now_ms) for who in STRANGE_IDS)
        self.worker.wait_ready()
        for who in (*STORIES, *STRANGE_IDS):
            self.profile(who)

    async def acts(self, who: str, item: str, *, buys: bool = False) -> str:
        """Somebody looks at an item, or buys it, now; the event's id."""
        event = self._click(who, item, int(time.time() * 1000))
        if buys:
            event = Purchase(event_id=event.event_id, user_id=who, item_id=item, ts=event.ts, price=80, currency="EUR")
        await asyncio.to_thread(self._deployment.send, [event])
        return event.event_id

    def profile(self, who: str) -> Any:
        """The profile as the API has it."""
        return self.ask(f"/v1/users/{quote(who, safe='')}/profile")

    def ask(self, path: str) -> Any:
        """What the API answers, once it does."""
        return until(lambda: self._ask(path), f"an answer to {path}")

    def _ask(self, path: str) -> Any:
        answer = self.worker.get(path)
        return json.loads(answer[1]) if answer is not None and answer[0] == 200 else None

    def _click(self, who: str, item: str, ts: int) -> Click:
        return Click(event_id=f"e{next(self._numbers)}", user_id=who, item_id=item, ts=ts)


@contextmanager
def town_on(brokers: str, root: Path) -> Iterator[Town]:
    """A town with topics of its own; its worker ends with the context."""
    deployment = Deployment(brokers, root, publish_within_ms=1000)  # what is no news goes out soon all the same
    try:
        yield Town(deployment)
    finally:
        deployment.close()


class Visit:
    """A page of a browser on the town's worker. What the browser complains about stands in `complaints`."""

    def __init__(self, page: Any, town: Town, expect: Callable[[Any], Any]) -> None:
        self.page, self.town, self._expect = page, town, expect
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: Any) -> None:
        failed_answer = message.text.startswith("Failed to load resource")  # what the page makes of it is tested
        if message.type == "error" and not failed_answer:
            self.complaints.append(message.text)

    async def open(self, view: str = "") -> None:
        """Go to a view of the page: `user/ada`, `map`."""
        await self.page.goto(f"{self.town.url}/#/{view}")

    async def see(self, text: str | re.Pattern[str]) -> None:
        """Expect a text that people can see."""
        await self._expect(self.page.get_by_text(text).first).to_be_visible()

    async def settle(self) -> None:
        """Wait until the view is there and waits for nothing."""
        await self._expect(self.page.locator("main :is(h2, h3) >> visible=true").first).to_be_visible()
        await self._expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    async def lightness(self, selector: str) -> float:
        """How light an element's background is, 0 to 1."""
        colour = await self.page.locator(selector).evaluate("(node) => getComputedStyle(node).backgroundColor")
        return sum(int(n) for n in re.findall(r"\d+", colour)[:3]) / 765

    async def answers(self, path: str, **answer: Any) -> None:
        """From now on this is what the API answers at `path` (a glob); `{}` to let it answer again by itself."""
        await self.page.unroute(path)
        if answer:
            await self.page.route(path, lambda route: route.fulfill(**answer))


def problem(status: int, detail: str, kind: str = "test") -> dict[str, Any]:
    """An answer of the API that is an error."""
    body = {"type": f"urn:streamer:problem:{kind}", "status": status, "detail": detail}
    return {"status": status, "headers": {"Retry-After": "1"}, "content_type": "application/problem+json", "json": body}


@asynccontextmanager
async def visiting(browser: Any, town: Town, expect: Any, **context: Any) -> AsyncIterator[Visit]:
    """A page in a fresh context of the browser."""
    async with await browser.new_context(**context) as fresh:
        page = await fresh.new_page()
        page.set_default_timeout(PATIENCE_MS)
        yield Visit(page, town, expect)
