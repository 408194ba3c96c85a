"""The explorer page in a real Chromium, on a real worker and Kafka. Faults of the API are put in by the browser."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from streamer.tools.kafka import EmbeddedKafka
from tests.page_world import CHROMIUM, FLAGS, PATIENCE_MS, SHELF, STRANGE_IDS, Town, Visit, problem, town_on, visiting

api = pytest.importorskip("playwright.async_api", reason="the Python package playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="axe-playwright-python is not installed")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM} (Debian: apt install chromium)"),
    pytest.mark.asyncio(loop_scope="module"),
]
expect = api.expect
VIEWS = ("", "user/ada", "user/ada?with=grace", "user/nobody", "map", "model", "worker")


@pytest.fixture(scope="module")
def town(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town_on(kafka.brokers, tmp_path_factory.mktemp("town")) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    expect.set_options(timeout=PATIENCE_MS)
    async with api.async_playwright() as playwright:
        one = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        await one.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(town: Town, browser: Any) -> AsyncIterator[Visit]:
    """A visit after which the browser has nothing to complain of: no error, no breach of the content policy."""
    async with visiting(browser, town, expect) as one:
        yield one
    assert one.complaints == []


async def test_page_shows_what_is_believed_about_a_person_and_why(visit: Visit) -> None:
    async with visit.page.expect_response("**/v1/users/ada/profile") as response:
        await visit.open("user/ada")
    profile = await (await response.value).json()
    strongest = profile["interests"][0]
    await expect(visit.page.get_by_role("heading", name="ada", exact=True)).to_be_visible()
    line = visit.page.locator(".bars > li").first
    await expect(line.locator(".tag")).to_contain_text(strongest["tag"])
    await expect(line.locator(".value")).to_have_text(f"{round(100 * strongest['share'])}\u00a0%")
    await line.locator("summary").click()
    await expect(line.locator(".why li").first).to_contain_text("Tunnel tent")
    await expect(visit.page.locator(".totals")).to_contain_text(str(profile["activity"]["clicks"]))
    await expect(visit.page.locator(".hours i")).to_have_count(24)


async def test_address_leads_back_to_the_reasons_that_were_open(visit: Visit) -> None:
    await visit.open("user/ada")
    await visit.page.locator(".bars summary").nth(1).click()
    await expect(visit.page.locator(".bars details[open]")).to_have_count(1)
    tag = await visit.page.locator(".bars details[open] .tag").text_content()
    await visit.page.reload()
    await expect(visit.page.locator(".bars details[open] .tag")).to_have_text(tag or "no tag")


async def test_change_appears_without_a_reload(visit: Visit) -> None:
    await visit.open("user/ada")
    await visit.see("What changed last")
    cause = await visit.town.acts("ada", "tent-1", buys=True)
    await expect(visit.page.locator(".last code")).to_have_text(cause)
    await expect(visit.page.locator(".things li").first).to_contain_text("bought Two-person tent")


async def test_titles_are_filled_in_when_they_can_be_had(visit: Visit) -> None:
    await visit.answers("**/v1/items?*", **problem(503, "not now"))
    await visit.open("user/grace")
    latest = visit.page.locator(".things .item").first
    await expect(latest).to_have_text("stove")
    await visit.answers("**/v1/items?*")
    await expect(latest).to_have_text("Gas stove")


async def test_feed_shows_who_changes_and_opens_the_person(visit: Visit) -> None:
    await visit.open()
    await visit.see("Pick a person")
    await visit.see("Nobody's profile has changed since you came")
    await visit.town.acts("new-in-feed", "mill")
    row = visit.page.locator("#feed button", has_text="new-in-feed")
    await row.click()
    await expect(visit.page.get_by_role("heading", name="new-in-feed")).to_be_visible()
    await expect(row).to_have_attribute("aria-current", "true")


async def test_feed_stands_still_while_it_is_paused(visit: Visit) -> None:
    await visit.open()
    await visit.see("Nobody's profile has changed since you came")
    await visit.page.get_by_role("button", name="Pause").click()
    await visit.town.acts("new-in-pause", "mill")
    await visit.see("Paused. 1 waiting.")
    await expect(visit.page.locator("#feed button")).to_have_count(0)
    await visit.page.get_by_role("button", name="Go on").click()
    await expect(visit.page.locator("#feed button")).to_have_count(1)


async def test_keyboard_alone_finds_a_person_and_the_reasons(visit: Visit) -> None:
    await visit.open()
    await visit.page.get_by_label("Find a person").focus()
    await visit.page.keyboard.type("grace")
    await visit.page.keyboard.press("Enter")
    await visit.see("What changed last")
    await visit.page.locator(".bars summary").first.focus()
    await visit.page.keyboard.press("Enter")
    await expect(visit.page.locator(".why").first).to_be_visible()


async def test_skip_link_leads_to_the_content_and_leaves_the_address(visit: Visit) -> None:
    await visit.open("worker")
    await visit.see("This worker")
    await visit.page.keyboard.press("Tab")
    await visit.page.keyboard.press("Enter")
    await expect(visit.page.locator("#main")).to_be_focused()
    assert visit.page.url.endswith("#/worker")


async def test_words_explain_themselves(visit: Visit) -> None:
    await visit.open("user/ada")
    await visit.page.get_by_role("button", name="lift").click()
    await visit.see("stronger the interest is than that of people on average")
    await visit.page.keyboard.press("Escape")
    await expect(visit.page.locator("#tip")).to_be_hidden()


async def test_unknown_person_appears_with_the_first_event(visit: Visit) -> None:
    await visit.open("user/late")
    await visit.see("Nobody called “late” yet")
    await visit.town.acts("late", "mill")
    await expect(visit.page.get_by_role("heading", name="late", exact=True)).to_be_visible()


async def test_any_id_can_be_looked_up(visit: Visit) -> None:
    await visit.open()
    for user_id in STRANGE_IDS:
        await visit.page.get_by_label("Find a person").fill(user_id)
        await visit.page.get_by_role("button", name="Show", exact=True).click()
        await expect(visit.page.get_by_role("heading", name=user_id, exact=True)).to_be_visible()


async def test_field_suggests_people_while_one_types(visit: Visit) -> None:
    await visit.open()
    field = visit.page.get_by_label("Find a person")
    await field.press_sequentially("gra")
    await expect(visit.page.get_by_role("option", name="grace", exact=True)).to_be_visible()
    await field.press("ArrowDown")
    await expect(visit.page.get_by_role("option", selected=True)).to_have_text("grace")
    await field.press("Enter")
    await expect(visit.page.get_by_role("heading", name="grace", exact=True)).to_be_visible()
    await expect(visit.page.get_by_role("option")).to_have_count(0)


async def test_suggestions_are_not_needed_to_find_a_person(visit: Visit) -> None:
    await visit.answers("**/v1/users?*", **problem(503, "not now"))
    await visit.open()
    field = visit.page.get_by_label("Find a person")
    await field.fill("grace")
    await field.press("Enter")
    await expect(visit.page.get_by_role("heading", name="grace", exact=True)).to_be_visible()


async def test_interests_are_shown_as_they_moved(visit: Visit) -> None:
    await visit.town.acts("mover", "mill")
    await visit.open("user/mover")
    await expect(visit.page.locator(".bars .tag").first).to_contain_text(re.compile("coffee|kitchen"))
    await visit.town.acts("mover", "tent-1", buys=True)
    lines = visit.page.locator(".moves")
    await expect(lines.get_by_role("img")).to_have_attribute("aria-label", re.compile("tent from 0\u00a0% to [1-9]"))
    await lines.get_by_text("As a table").click()
    await expect(lines.locator("tbody tr")).to_have_count(2)


async def test_what_may_come_next_is_told_with_its_reasons(visit: Visit) -> None:
    await visit.open("user/ada")
    offer = visit.page.locator(".next li").first
    answer = visit.town.ask("/v1/users/ada/recommendations?n=6")["items"][0]
    await expect(offer.locator(".title")).to_have_text(answer["title"])
    await offer.locator("summary").click()
    voices = offer.locator(".experts li")
    await expect(voices).to_have_count(sum(share >= 0.01 for share in answer["experts"].values()))
    await expect(voices.first.locator(".value")).to_have_text(f"{round(max(answer['experts'].values()) * 100)}\u00a0%")
    title = SHELF[answer["because"][0]["item_id"]][0]
    await expect(offer.locator(".why li").first).to_contain_text(title)


async def test_map_shows_who_is_into_what_and_leads_to_people(visit: Visit) -> None:
    await visit.open("map")
    found = visit.town.ask("/v1/map?n=2000")
    await expect(visit.page.locator(".plane circle")).to_have_count(len(found["points"]))
    who, top = found["points"][0]["user_id"], found["points"][0]["top"]
    await visit.page.get_by_role("button", name=top, exact=True).click()
    assert visit.page.url.endswith(f"#/map?{urlencode({'tag': top})}")
    chosen = visit.page.locator(".plane circle.chosen")
    await expect(chosen).to_have_count(sum(point["top"] == top for point in found["points"]))
    await visit.page.get_by_role("link", name=who, exact=True).click()
    await expect(visit.page.get_by_role("heading", name=who, exact=True)).to_be_visible()


async def test_map_can_be_looked_at_closer(visit: Visit) -> None:
    await visit.open("map")
    dots = visit.page.locator(".plane circle")
    places = "(dots) => dots.map((dot) => parseFloat(dot.style.getPropertyValue('--x')))"
    await expect(dots.first).to_be_attached()
    before = await dots.evaluate_all(places)
    await visit.page.get_by_role("button", name="Closer").click()
    after = await dots.evaluate_all(places)
    assert max(after) - min(after) == pytest.approx(1.6 * (max(before) - min(before)), rel=0.01)


async def test_model_is_held_against_popularity(visit: Visit) -> None:
    scores = {"log_loss": 5.0, "expected": 0.2, "popularity_log_loss": 6.0}
    warm = {"events": 300, "hit_rate": 0.3, "popularity_hit_rate": 0.1, **scores}
    cold = {"events": 100, "hit_rate": 0.1, "popularity_hit_rate": 0.1, **scores}
    points = [{"at": minute * 60_000, "cold": cold, "warm": warm} for minute in (1, 2)]
    judged = visit.town.ask("/v1/quality") | {"cold": cold, "warm": warm, "points": points}
    await visit.answers("**/v1/quality", json=judged)
    await visit.open("model")
    await visit.see("the model is right 2.5 times as often")
    await expect(visit.page.locator("tbody tr").last).to_contain_text("everyone400")
    await expect(visit.page.get_by_role("img")).to_have_attribute("aria-label", re.compile("popularity from 10"))
    await expect(visit.page.locator(".experts li")).to_have_count(len(judged["weights"]))


async def test_two_people_stand_side_by_side(visit: Visit) -> None:
    await visit.open("user/ada")
    await visit.page.get_by_label("Put beside").fill("grace")
    async with visit.page.expect_response("**/v1/users/grace/profile") as response:
        await visit.page.get_by_role("button", name="Compare", exact=True).click()
    share = _share(await (await response.value).json(), "coffee")
    row = visit.page.locator(".mirror li", has=visit.page.get_by_text("coffee", exact=True))
    await expect(row.locator(".value").last).to_have_text(f"{round(share * 100)}\u00a0%")
    await expect(row.locator(".value").first).not_to_have_text("0\u00a0%")
    await expect(visit.page.locator("p.common b")).to_contain_text("%")
    await visit.see("Both came across")
    assert "ada?with=grace" in visit.page.url


def _share(profile: Any, tag: str) -> float:
    return next((each["share"] for each in profile["interests"] if each["tag"] == tag), 0.0)


async def test_worker_tells_how_far_it_has_read(visit: Visit) -> None:
    await visit.open("worker")
    await expect(visit.page.locator(".partitions tbody tr")).to_have_count(3)
    await expect(visit.page.locator(".partitions tbody")).to_contain_text("clicks")
    await expect(visit.page.locator(".card")).to_have_count(4)
    await expect(visit.page.locator(".card .stroke").first).to_have_attribute("d", re.compile(r"^M[^L]+L"))


async def test_charts_keep_the_last_minutes_over_a_reload(visit: Visit) -> None:
    await visit.open("worker")
    line = visit.page.locator(".card .stroke").first
    await expect(line).to_have_attribute("d", re.compile(r"^M[^L]+L[^L]+L"))
    await visit.page.reload()
    await expect(line).to_have_attribute("d", re.compile(r"M[^M]+L[^M]+M?"))


async def test_recovering_worker_is_told_and_then_the_profile_comes(visit: Visit) -> None:
    await visit.answers("**/v1/status", json={**RECOVERING, "started_at": 1})
    await visit.answers("**/profile", **problem(503, "restoring 3 of 12 partitions, 40 %"))
    await visit.open("user/ada")
    await visit.see("Not yet")
    await expect(visit.page.get_by_role("alert")).to_contain_text("restoring 3 of 12 partitions, 40 %")
    await expect(visit.page.locator("#health")).to_have_text("recovering")
    await visit.answers("**/v1/status")
    await visit.answers("**/profile")
    await expect(visit.page.get_by_role("heading", name="ada", exact=True)).to_be_visible()
    await expect(visit.page.get_by_role("alert")).to_be_hidden()


async def test_first_event_between_the_answer_and_the_stream_is_shown(visit: Visit) -> None:
    late = asyncio.Event()

    async def hold(route: Any) -> None:
        await late.wait()
        await route.continue_()

    await visit.page.route("**/v1/changes?user=*", hold)
    await visit.open("user/between")
    await visit.see("Nobody called “between” yet")
    await visit.town.acts("between", "mill")
    await asyncio.to_thread(visit.town.profile, "between")
    late.set()
    await visit.see("What changed last")


async def test_page_says_that_the_worker_is_gone_and_comes_back_by_itself(visit: Visit) -> None:
    await visit.open("user/patient")
    await visit.town.acts("patient", "mill")
    await visit.see("What changed last")
    await asyncio.to_thread(visit.town.worker.stop)
    await expect(visit.page.get_by_role("alert")).to_contain_text("does not answer")
    await expect(visit.page.get_by_role("heading", name="patient", exact=True)).to_be_visible()
    await asyncio.to_thread(visit.town.worker.start().wait_ready)
    await expect(visit.page.get_by_role("alert")).to_be_hidden()
    cause = await visit.town.acts("patient", "tent-1", buys=True)
    await expect(visit.page.locator(".last code")).to_have_text(cause)


async def test_slow_answer_shows_that_it_loads(visit: Visit) -> None:
    answer = asyncio.Event()

    async def slowly(route: Any) -> None:
        await answer.wait()
        await route.continue_()

    await visit.page.route("**/profile", slowly)
    await visit.open("user/ada")
    await expect(visit.page.locator("#person")).to_have_attribute("aria-busy", "true")
    answer.set()
    await visit.see("What changed last")
    await expect(visit.page.locator("#person")).to_have_attribute("aria-busy", "false")


async def test_failing_answer_can_be_asked_for_again(visit: Visit) -> None:
    await visit.answers("**/profile", **problem(500, "The worker could not answer; its log says why."))
    await visit.open("user/ada")
    await visit.see("That did not work")
    await visit.answers("**/profile")
    await visit.page.get_by_role("button", name="Try again").click()
    await visit.see("What changed last")


@pytest.mark.parametrize(("path", "view"), [("recommendations*", "user/ada"), ("map*", "map"), ("quality", "model")])
async def test_part_that_fails_says_so_and_can_be_asked_for_again(visit: Visit, path: str, view: str) -> None:
    await visit.answers(f"**/v1/**/{path}", **problem(500, "The worker could not answer; its log says why."))
    await visit.open(view)
    await visit.see("The worker could not answer; its log says why.")
    await visit.answers(f"**/v1/**/{path}", **problem(404, "This worker does not do that."))
    await visit.page.get_by_role("button", name="Try again").click()
    await visit.see("This worker does not do that.")
    await expect(visit.page.get_by_role("button", name="Try again")).to_have_count(0)


async def test_token_opens_a_locked_worker(visit: Visit) -> None:
    async def locked(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer open sesame":
            await route.continue_()
        else:
            await route.fulfill(**problem(401, "Send the token."))

    await visit.page.route("**/v1/**", locked)
    await visit.open("user/ada")
    await visit.see("This worker shows profiles only to those who have its token.")
    await visit.page.get_by_label("Access token").fill("open sesame")
    await visit.page.get_by_role("button", name="Open").click()
    await visit.see("What changed last")
    await expect(visit.page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_to_complain_of(town: Town, browser: Any, scheme: str) -> None:
    async with visiting(browser, town, expect, color_scheme=scheme, reduced_motion="reduce") as visit:
        for view in VIEWS:
            await visit.open(view)
            await visit.settle()
            found = await axe.Axe().run(visit.page)
            assert found.violations_count == 0, f"{view or 'overview'}: {found.generate_report()}"
        assert (await visit.lightness("body") < 0.5) == (scheme == "dark")


async def test_nothing_runs_out_of_the_window(visit: Visit) -> None:
    for view in (*VIEWS, f"user/{STRANGE_IDS[-1]}"):
        await visit.open(view)
        await visit.settle()
        for width in (320, 390, 768, 1024, 1920):
            await visit.page.set_viewport_size({"width": width, "height": 800})
            assert await visit.page.evaluate("document.documentElement.scrollWidth") == width, (view, width)


async def test_nothing_moves_for_those_who_ask_for_it(town: Town, browser: Any) -> None:
    async with visiting(browser, town, expect, reduced_motion="reduce") as visit:
        await visit.open("user/ada")
        await visit.see("What changed last")
        assert await visit.page.evaluate(MOVING) == 0


RECOVERING = {
    "version": "0", "ready": False, "reason": "restoring 3 of 12 partitions, 40 %", "events_total": 0,
    "profiles_total": 0, "rejected_total": 0, "users_cached": 0, "lag_records": 0, "lag_seconds": 0.0,
    "partitions": [{"partition": 0, "state": "restoring", "topics": []}],
}  # fmt: skip

# How many elements have a transition or an animation.
MOVING = """() => [...document.querySelectorAll("*")].map((element) => getComputedStyle(element))
  .filter(({ transitionDuration: s, animationName }) => parseFloat(s) > 0 || animationName !== "none").length"""
