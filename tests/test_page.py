"""The explorer page in a real Chromium, against a real web server with a shop of people behind it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.serving.view import NotReady
from streamer.settings import load
from tests.serving_world import SESAME, Shop, free_port, make_app

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

api = pytest.importorskip("playwright.async_api", reason="the Python package playwright is not installed")
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM} (Debian: apt install chromium)"
)
expect = api.expect


class Visit:
    """A shop that is served, and a browser's page on it. What the browser complains about stands in `complaints`."""

    def __init__(self, page: Any, shop: Shop, port: int) -> None:
        self.page, self.shop, self.port = page, shop, port
        self.url = f"http://127.0.0.1:{port}"
        self.complaints: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._serving = AsyncExitStack()

    async def serve(self, **options: Any) -> None:
        """Start a worker, as after a restart."""
        await self._serving.enter_async_context(make_app(self.shop, load(http_port=self.port, **options)))

    async def stop(self) -> None:
        """Stop the worker."""
        await self._serving.aclose()

    async def open(self, user_id: str = "") -> None:
        """Go to the page, or to a person on it."""
        await self.page.goto(f"{self.url}/#/user/{user_id}" if user_id else self.url)

    def see(self, text: str | re.Pattern[str]) -> Any:
        """Expect a text that people can see."""
        return expect(self.page.get_by_text(text).first).to_be_visible()


@asynccontextmanager
async def visiting(people: int = 6, **context: Any) -> AsyncIterator[Visit]:
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(**context)
        page.set_default_timeout(30_000)
        visit = Visit(page, Shop(people=people), free_port())
        try:
            yield visit
        finally:
            await browser.close()
            await visit.stop()


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    expect.set_options(timeout=30_000)
    async with visiting() as one:
        yield one


async def test_page_shows_what_is_believed_about_a_person_and_why(visit: Visit) -> None:
    await visit.serve()
    await visit.open("user-0001")
    profile = visit.shop.profile("user-0001")
    assert profile is not None
    strongest = profile.interests[0]
    await expect(visit.page.get_by_role("heading", name="user-0001")).to_be_visible()
    line = visit.page.locator(".bars > li").first
    await expect(line.locator(".tag")).to_contain_text(strongest.tag)
    await expect(line.locator(".value")).to_have_text(f"{round(strongest.share * 100)}\u00a0%")
    await line.locator("summary").click()
    title = visit.shop.item(strongest.because[0].item_id).title  # type: ignore[union-attr]
    await expect(line.locator(".why li").first).to_contain_text(title)
    await expect(visit.page.locator(".totals")).to_contain_text(str(profile.activity.clicks))
    await expect(visit.page.locator(".hours i")).to_have_count(24)
    assert visit.complaints == []


async def test_change_appears_without_a_reload(visit: Visit) -> None:
    await visit.serve()
    await visit.open("user-0001")
    await visit.see("What changed last")
    profile = visit.shop.act(visit.shop.people[0], "sku-cam-01", "purchase")
    await expect(visit.page.locator(".last code")).to_have_text(profile.cause)
    await expect(visit.page.locator(".things li").first).to_contain_text("bought Two-person tent")
    assert visit.complaints == []


async def test_profile_between_two_publications_says_that_nothing_changed(visit: Visit) -> None:
    ann = visit.shop.people[0]
    ann.profile = msgspec.structs.replace(ann.profile, changed=())
    await visit.serve()
    await visit.open("user-0001")
    await visit.see("nothing since it was last published")


async def test_feed_shows_who_changes_and_opens_the_person(visit: Visit) -> None:
    await visit.serve()
    await visit.open()
    await visit.see("Pick a person")
    await visit.see("Nobody's profile has changed since you came")
    visit.shop.step(visit.shop.people[2])
    row = visit.page.locator("#feed button")
    await expect(row).to_contain_text("user-0003")
    await row.click()
    await expect(visit.page.get_by_role("heading", name="user-0003")).to_be_visible()
    await expect(row).to_have_attribute("aria-current", "true")
    assert visit.complaints == []


async def test_feed_stands_still_while_it_is_paused(visit: Visit) -> None:
    await visit.serve()
    await visit.open()
    await visit.see("Nobody's profile has changed since you came")
    await visit.page.get_by_role("button", name="Pause").click()
    visit.shop.step(visit.shop.people[2])
    await visit.see("Paused. 1 waiting.")
    await expect(visit.page.locator("#feed button")).to_have_count(0)
    await visit.page.get_by_role("button", name="Go on").click()
    await expect(visit.page.locator("#feed button")).to_have_count(1)


async def test_keyboard_alone_finds_a_person_and_the_reasons(visit: Visit) -> None:
    await visit.serve()
    await visit.open()
    await visit.page.keyboard.press("Tab")
    await visit.page.keyboard.press("Enter")  # skip to the profile
    await visit.page.keyboard.press("Tab")
    await visit.page.keyboard.type("user-0002")
    await visit.page.keyboard.press("Enter")
    await visit.see("What changed last")
    await visit.page.locator(".bars summary").first.focus()
    await visit.page.keyboard.press("Enter")
    await expect(visit.page.locator(".why").first).to_be_visible()


async def test_places_of_the_page_never_take_away_what_is_being_typed(visit: Visit) -> None:
    await visit.serve()
    await visit.open()
    field = visit.page.get_by_label("Find a person")
    await field.fill("user-00")
    await visit.page.evaluate(
        "new Promise(done => { addEventListener('hashchange', done); location.hash = '#person' })"
    )
    await expect(field).to_have_value("user-00")


async def test_hints_explain_the_words(visit: Visit) -> None:
    await visit.serve()
    await visit.open("user-0001")
    await visit.page.get_by_role("button", name="lift").click()
    await visit.see("stronger the interest is than that of people on average")
    await visit.page.keyboard.press("Escape")
    await expect(visit.page.locator("#hint-lift")).to_be_hidden()


async def test_unknown_person_appears_with_the_first_event(visit: Visit) -> None:
    await visit.serve()
    gone = visit.shop.people.pop()
    await visit.open(gone.user_id)
    await visit.see(f"Nobody called “{gone.user_id}” yet")
    visit.shop.people.append(gone)
    visit.shop.step(gone)
    await expect(visit.page.get_by_role("heading", name=gone.user_id, exact=True)).to_be_visible()


@pytest.mark.parametrize("user_id", ["a/b", "<b>x</b>", "100%", "ü ☃", "a b"])
async def test_any_id_can_be_looked_up(visit: Visit, user_id: str) -> None:
    await visit.serve()
    visit.shop.people[0].user_id = user_id
    visit.shop.step(visit.shop.people[0])
    await visit.open()
    await visit.page.get_by_label("Find a person").fill(user_id)
    await visit.page.get_by_role("button", name="Show", exact=True).click()
    await expect(visit.page.get_by_role("heading", name=user_id, exact=True)).to_be_visible()
    assert visit.complaints == []


async def test_recovering_worker_is_told_and_then_the_profile_comes(visit: Visit) -> None:
    visit.shop.ready = (False, "restoring 3 of 12 partitions, 40 %")
    await visit.serve()
    await visit.open("user-0001")
    await visit.see("Not yet")
    await expect(visit.page.get_by_role("alert")).to_contain_text("restoring 3 of 12 partitions, 40 %")
    await expect(visit.page.locator("#health")).to_have_text("recovering")
    visit.shop.ready = (True, "ready")
    await expect(visit.page.get_by_role("heading", name="user-0001")).to_be_visible()
    await expect(visit.page.get_by_role("alert")).to_be_hidden()


async def test_page_says_that_the_worker_is_gone_and_comes_back_by_itself(visit: Visit) -> None:
    await visit.serve()
    await visit.open("user-0001")
    await visit.see("What changed last")
    await visit.stop()
    await expect(visit.page.get_by_role("alert")).to_contain_text("does not answer")
    await expect(visit.page.get_by_role("heading", name="user-0001")).to_be_visible()
    missed = visit.shop.step(visit.shop.people[0])
    await visit.serve()
    await expect(visit.page.get_by_role("alert")).to_be_hidden()
    await expect(visit.page.locator(".last code")).to_have_text(missed.cause)
    live = visit.shop.step(visit.shop.people[0])
    await expect(visit.page.locator(".last code")).to_have_text(live.cause)


async def test_slow_answer_shows_that_it_loads(visit: Visit) -> None:
    await visit.serve()
    answer = asyncio.Event()

    async def slowly(route: Any) -> None:
        await answer.wait()
        await route.continue_()

    await visit.page.route("**/profile", slowly)
    await visit.open("user-0001")
    await expect(visit.page.locator("#profile")).to_have_attribute("aria-busy", "true")
    answer.set()
    await visit.see("What changed last")
    await expect(visit.page.locator("#profile")).to_have_attribute("aria-busy", "false")


async def test_failing_answer_can_be_asked_for_again(visit: Visit) -> None:
    visit.shop.fault = RuntimeError("out of order")
    await visit.serve()
    await visit.open("user-0001")
    await visit.see("That did not work")
    visit.shop.fault = None
    await visit.page.get_by_role("button", name="Try again").click()
    await visit.see("What changed last")


async def test_move_to_another_worker_is_waited_for(visit: Visit) -> None:
    visit.shop.fault = NotReady("This user's partition is moving to another worker.", 1)
    await visit.serve()
    await visit.open("user-0001")
    await visit.see("Not yet")
    visit.shop.fault = None
    await visit.see("What changed last")


async def test_token_opens_a_locked_worker(visit: Visit) -> None:
    await visit.serve(http_token=SESAME)
    await visit.open("user-0001")
    await visit.see("This worker shows profiles only to those who have its token.")
    await visit.page.get_by_label("Access token").fill(SESAME)
    await visit.page.get_by_role("button", name="Open").click()
    await visit.see("What changed last")
    await expect(visit.page.get_by_role("alert")).to_be_hidden()
    visit.shop.step(visit.shop.people[1])
    await expect(visit.page.locator("#feed button")).to_contain_text("user-0002")


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1280, 1920])
async def test_nothing_runs_out_of_the_window(width: int) -> None:
    async with visiting(viewport={"width": width, "height": 800}) as visit:
        visit.shop.people[0].user_id = "a-user-id-that-goes-on-and-on-" * 3
        visit.shop.step(visit.shop.people[0])
        await visit.serve()
        await visit.open(visit.shop.people[0].user_id)
        await visit.see("What changed last")
        assert await visit.page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_in_light_and_dark(scheme: str) -> None:
    async with visiting(color_scheme=scheme) as visit:
        await visit.serve()
        await visit.open("user-0001")
        await visit.see("What changed last")
        pairs = await visit.page.evaluate(COLOURS)
    assert [contrast(*pair) >= 4.5 for pair in pairs] == [True] * len(pairs)
    assert (luminance(pairs[0][1]) < 0.1) == (scheme == "dark")


# Colours of texts and of what they stand on, from the page itself.
COLOURS = """() => {
  const on = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? on(element.parentElement) : colour;
  };
  return ["body", ".note", "h3", ".lift", ".item", ".legend .hint", "#feed-note", "a[href]", "#pause", ".value"]
    .map((name) => document.querySelector(name)).map((element) => [getComputedStyle(element).color, on(element)]);
}"""


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of `rgb(r, g, b)`."""
    channels = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG 2.2), 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
