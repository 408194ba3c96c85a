"""HTTP as clients see it: a real Faust app with its real web server, and a shop of people behind it."""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import ClientError, ClientSession, TCPConnector
from structlog.testing import capture_logs

from streamer.errors import SettingsError
from streamer.metrics import REGISTRY
from streamer.profile import Profile
from streamer.serving import assets, feed, stream
from streamer.serving.feed import Feed
from streamer.serving.http import faust_options, install
from streamer.serving.view import NotOwner, NotReady, Status
from streamer.settings import load
from tests.serving_site import Site, event, problem, refuse, served, status_of
from tests.serving_world import SESAME, App, Person, Shop, make_app

Serve = Callable[..., Awaitable[Site]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Site:
            return await stack.enter_async_context(served(**options))

        yield start


@pytest.fixture
async def site(serve: Serve) -> Site:
    return await serve()


class TestProfile:
    async def test_profile_is_the_published_struct(self, site: Site) -> None:
        async with site.profile_of("user-0001") as response:
            assert response.content_type == "application/json"
            answer = msgspec.json.decode(await response.read(), type=Profile)
        assert answer == site.shop.people[0].profile

    @pytest.mark.parametrize(
        "user_id",
        [
            "a/b",
            "/",
            "a%2Fb",
            "100%",
            "%",
            "%25",
            "{x}",
            "a b",
            "a+b",
            "?",
            "#",
            "ü ☃ 💶",
            "\n\t\0",
            "a\\b",
            "..x",
            "~",
        ],
    )
    async def test_any_character_may_stand_in_a_user_id(self, site: Site, user_id: str) -> None:
        site.shop.people.append(person := Person(user_id, {}))
        site.shop.act(person, "sku-cam-01", "click")
        async with site.profile_of(user_id) as response:
            assert (await response.json())["user_id"] == user_id

    async def test_id_that_is_not_utf8_is_a_bad_request(self, site: Site) -> None:
        async with site.get("/v1/users/%FF/profile") as response:
            assert (await problem(response))["type"].endswith(":bad-id")

    async def test_unknown_user_is_not_found(self, site: Site) -> None:
        async with site.profile_of("nobody") as response:
            assert response.status == 404
            assert "nobody" in (await problem(response))["detail"]

    async def test_known_version_is_not_sent_again(self, site: Site) -> None:
        async with site.profile_of("user-0001") as response:
            etag = response.headers["ETag"]
        async with site.profile_of("user-0001", headers={"If-None-Match": f'"other", {etag}'}) as response:
            assert (response.status, await response.read(), response.headers["ETag"]) == (304, b"", etag)

    async def test_new_version_is_sent(self, site: Site) -> None:
        async with site.profile_of("user-0001") as response:
            etag = response.headers["ETag"]
        site.shop.step(site.shop.people[0])
        async with site.profile_of("user-0001", headers={"If-None-Match": etag}) as response:
            assert (response.status, response.headers["ETag"] != etag) == (200, True)

    async def test_answer_says_its_age_and_who_answered(self, site: Site) -> None:
        async with site.profile_of("user-0001") as response:
            assert float(response.headers["X-Profile-Age"]) >= 0
            assert response.headers["X-Answered-By"] == site.settings.source

    async def test_recovering_worker_asks_to_come_back(self, site: Site) -> None:
        site.shop.fault = NotReady("restoring 3 of 12 partitions, 40 %", 2.6)
        async with site.profile_of("user-0001") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "3")
            assert (await problem(response))["detail"] == "restoring 3 of 12 partitions, 40 %"


class TestForwarding:
    async def test_question_for_another_owners_user_is_passed_on(self, serve: Serve) -> None:
        asked, owner = await serve(), await serve(instance_id="owner")
        owner.shop.people.append(person := Person("ann/a%b", {}))
        owner.shop.act(person, "sku-cam-01", "purchase")
        asked.shop.fault = NotOwner(3, owner.url)
        async with asked.profile_of("ann/a%b") as response:
            assert (await response.json())["user_id"] == "ann/a%b"
            assert response.headers["X-Answered-By"] == owner.settings.source
            assert response.headers["ETag"]

    async def test_errors_of_the_owner_are_passed_on(self, serve: Serve) -> None:
        asked, owner = await serve(), await serve()
        asked.shop.fault = NotOwner(3, owner.url)
        async with asked.profile_of("nobody") as response:
            assert (await problem(response))["type"].endswith(":unknown-user")

    async def test_token_is_passed_on(self, serve: Serve) -> None:
        asked, owner = await serve(http_token=SESAME), await serve(http_token=SESAME)
        asked.shop.fault = NotOwner(3, owner.url)
        async with asked.profile_of("user-0001", headers={"Authorization": f"Bearer {SESAME}"}) as response:
            assert response.status == 200

    async def test_address_in_the_request_line_does_not_choose_who_is_asked(self, serve: Serve) -> None:
        asked, owner, stranger = await serve(), await serve(instance_id="owner"), await serve(instance_id="stranger")
        asked.shop.fault = NotOwner(3, owner.url)
        reader, writer = await asyncio.open_connection("127.0.0.1", asked.settings.http_port)
        line = f"GET {stranger.url}/v1/users/user-0001/profile HTTP/1.1"
        writer.write(f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert f"X-Answered-By: {owner.settings.source}\r\n".encode() in answer

    async def test_two_workers_that_point_at_each_other_answer_once(self, serve: Serve) -> None:
        one, other = await serve(), await serve()
        one.shop.fault, other.shop.fault = NotOwner(3, other.url), NotOwner(3, one.url)
        async with one.profile_of("user-0001") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            await problem(response)

    @pytest.mark.parametrize("url", [None, "http://127.0.0.1:9/"])
    async def test_owner_that_is_not_there_means_try_again(self, site: Site, url: str | None) -> None:
        site.shop.fault = NotOwner(3, url)
        async with site.profile_of("user-0001") as response:
            assert response.status == 503
            assert "Retry-After" in response.headers
            await problem(response)


class TestItems:
    async def test_item_of_the_catalogue(self, site: Site) -> None:
        async with site.get("/v1/items/sku-cam-01") as response:
            assert (await response.json())["title"] == "Two-person tent"

    async def test_unknown_item_is_not_found(self, site: Site) -> None:
        async with site.get("/v1/items/none") as response:
            assert (await problem(response))["type"].endswith(":unknown-item")

    async def test_several_items_leave_out_the_unknown(self, site: Site) -> None:
        async with site.get("/v1/items?id=sku-cof-01&id=none&id=sku-cam-01") as response:
            assert [item["item_id"] for item in (await response.json())["items"]] == ["sku-cof-01", "sku-cam-01"]

    @pytest.mark.parametrize("query", ["", "?id=x" + 100 * "&id=x"])
    async def test_number_of_items_is_limited(self, site: Site, query: str) -> None:
        async with site.get("/v1/items" + query) as response:
            assert response.status == 400
            await problem(response)


class TestHealth:
    async def test_worker_that_works_is_alive_and_ready(self, site: Site) -> None:
        for path in ("/healthz", "/readyz"):
            async with site.get(path) as response:
                assert response.status == 200

    async def test_recovering_worker_is_alive_but_not_ready(self, site: Site) -> None:
        site.shop.ready = (False, "restoring 3 of 12 partitions, 40 %")
        async with site.get("/healthz") as response:
            assert response.status == 200
        async with site.get("/readyz") as response:
            assert response.status == 503
            assert "3 of 12" in (await problem(response))["detail"]

    async def test_stuck_worker_is_not_alive(self, site: Site) -> None:
        site.shop.alive = (False, "no progress for 120 s")
        async with site.get("/healthz") as response:
            assert "no progress" in (await problem(response))["detail"]

    async def test_status_is_the_struct(self, site: Site) -> None:
        async with site.get("/v1/status") as response:
            assert msgspec.json.decode(await response.read(), type=Status) == site.shop.status()


class TestErrors:
    @pytest.mark.parametrize(
        "path", ["/table", "/table/", "/router/", "/graph/", "/stats/", "/assignment/", "/performance/", "/v1", "/x"]
    )
    async def test_nothing_but_our_routes_answers(self, site: Site, path: str) -> None:
        async with site.get(path) as response:
            assert response.status == 404
            await problem(response)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
    async def test_only_reading_is_allowed(self, site: Site, method: str) -> None:
        async with site.session.request(method, site.url + "/v1/status") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
            await problem(response)

    async def test_fault_gives_a_reference_and_no_details(self, site: Site) -> None:
        site.shop.fault = RuntimeError("the state of ann")
        with capture_logs() as logs:
            async with site.profile_of("user-0001") as response:
                body = await problem(response)
        assert response.status == 500
        assert "ann" not in json.dumps(body)
        assert [entry["instance"] for entry in logs] == [body["instance"]]

    @pytest.mark.parametrize("path", ["/", "/v1/status", "/x", "/static/app.js", "/v1/users/nobody/profile"])
    async def test_every_answer_has_the_security_headers(self, site: Site, path: str) -> None:
        async with site.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "aiohttp" not in response.headers["Server"]


class TestAccess:
    async def test_profiles_need_the_token_where_one_is_set(self, serve: Serve) -> None:
        site = await serve(http_token=SESAME)
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {SESAME}"}):
            async with site.profile_of("user-0001", headers=given) as response:
                assert (response.status, "Bearer" in response.headers["WWW-Authenticate"]) == (401, True)
                await problem(response)
        async with site.profile_of("user-0001", headers={"Authorization": f"Bearer {SESAME}"}) as response:
            assert response.status == 200

    @pytest.mark.parametrize("path", ["/v1/changes", "/v1/status", "/v1/items?id=x", "/v1/items/x"])
    async def test_everything_under_v1_needs_the_token(self, serve: Serve, path: str) -> None:
        site = await serve(http_token=SESAME)
        async with site.get(path) as response:
            assert response.status == 401

    @pytest.mark.parametrize("path", ["/", "/static/app.js", "/healthz", "/readyz", "/metrics"])
    async def test_what_holds_nothing_personal_needs_no_token(self, serve: Serve, path: str) -> None:
        site = await serve(http_token=SESAME)
        async with site.get(path) as response:
            assert response.status == 200

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:6066", "127.0.0.1.evil.example", "[", ""])
    async def test_loopback_answers_only_to_its_own_names(self, site: Site, host: str) -> None:
        async with site.profile_of("user-0001", headers={"Host": host}) as response:
            assert response.status == 421
            await problem(response)

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:80", "profiles.example"])
    async def test_own_names_are_answered(self, serve: Serve, host: str) -> None:
        site = await serve(advertised_url="https://profiles.example/")
        async with site.get("/v1/status", headers={"Host": host}) as response:
            assert response.status == 200

    async def test_worker_does_not_start_where_anyone_could_read_profiles(self) -> None:
        with pytest.raises(SettingsError, match="STREAMER_HTTP_TOKEN"):
            make_app(Shop(people=1), load(http_host="0.0.0.0"))

    @pytest.mark.parametrize(("host", "token"), [("0.0.0.0", SESAME), ("::1", ""), ("localhost", "")])
    async def test_worker_starts_behind_a_token_or_on_loopback(self, host: str, token: str) -> None:
        make_app(Shop(people=1), load(http_host=host, http_token=token))

    async def test_app_that_would_listen_elsewhere_is_refused(self) -> None:
        with pytest.raises(ValueError, match="faust_options"):
            install(App("shop", broker="kafka://127.0.0.1:9", datadir=tempfile.gettempdir()), Shop(people=1), load())

    def test_other_workers_are_told_the_advertised_url(self) -> None:
        assert faust_options(load(advertised_url="https://a.example"))["canonical_url"] == "https://a.example"
        assert faust_options(load(http_host="::1", http_port=80))["canonical_url"] == "http://[::1]:80"


class TestChanges:
    async def test_stream_of_a_user_has_all_changes_of_that_user_only(self, site: Site) -> None:
        ann, bob = site.shop.people[:2]
        async with site.get(f"/v1/changes?user={ann.user_id}") as response:
            assert response.content_type == "text/event-stream"
            sent = [site.shop.step(person) for person in (ann, bob, ann)]
            got = [await event(response), await event(response)]
        assert [one["id"] for one in got] == [f"{ann.user_id}/{profile.version}" for profile in (sent[0], sent[2])]
        assert msgspec.json.decode(got[1]["data"], type=Profile) == sent[2]

    async def test_stream_of_all_is_a_sample_that_says_what_it_left_out(self, site: Site) -> None:
        async with site.get("/v1/changes?rate=2") as response:
            for _ in range(7):
                site.shop.step()
            names = [(await event(response))["event"] for _ in range(3)]
        assert names == ["skipped", "profile", "profile"]

    async def test_silent_stream_has_heartbeats(self, serve: Serve) -> None:
        site = await serve(heartbeat_s=0.01)
        async with site.get("/v1/changes") as response:
            assert await event(response) == {"": "still here"}

    async def test_slow_reader_is_dropped_and_told_so(self, site: Site) -> None:
        ann = site.shop.people[0]
        async with site.get(f"/v1/changes?user={ann.user_id}") as response:
            for _ in range(feed.QUEUE + 1):
                site.shop.step(ann)
            rest = (await response.read()).decode()
        assert rest.count("event: profile") == feed.QUEUE
        assert rest.rstrip().splitlines()[-2] == "event: dropped"

    async def test_reader_whose_user_moves_gets_what_was_published_before(self, site: Site) -> None:
        ann = site.shop.people[0]
        async with site.get(f"/v1/changes?user={ann.user_id}") as response:
            sent = [site.shop.step(ann) for _ in range(3)]
            site.shop.feed.move_users()
            got = [await event(response) for _ in range(3)]
            rest = (await response.read()).decode()
        assert [one["id"] for one in got] == [f"{ann.user_id}/{profile.version}" for profile in sent]
        assert "event: dropped" in rest

    async def test_number_of_streams_is_limited(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream, "MAX_STREAMS", 1)
        async with site.get("/v1/changes"), site.get("/v1/changes") as second:
            assert second.status == 503
            await problem(second)

    async def test_stream_that_was_left_makes_room(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream, "MAX_STREAMS", 1)
        site = await serve(heartbeat_s=0.01)
        async with site.get("/v1/changes"):
            pass
        async with asyncio.timeout(30):
            while await status_of(site, "/v1/changes") != 200:
                pass

    async def test_streams_end_when_the_worker_stops(self) -> None:
        async with ClientSession() as session:
            async with served() as site:
                response = await session.get(site.url + "/v1/changes")
            async with asyncio.timeout(30):
                await response.read()

    async def test_stream_of_another_owners_user_is_passed_on(self, serve: Serve) -> None:
        asked, owner = await serve(), await serve()
        asked.shop.follow = refuse(NotOwner(1, owner.url))  # type: ignore[method-assign]
        async with asked.get("/v1/changes?user=user-0001") as response:
            sent = owner.shop.step(owner.shop.people[0])
            assert (await event(response))["id"] == f"user-0001/{sent.version}"

    async def test_number_of_streams_that_are_passed_on_is_limited(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "MAX_STREAMS", 1)
        asked, owner = await serve(), await serve(instance_id="owner")
        asked.shop.follow = refuse(NotOwner(1, owner.url))  # type: ignore[method-assign]
        path = "/v1/changes?user=user-0001"
        async with asked.get(path), asked.get(path) as second:
            assert (second.status, second.headers["X-Answered-By"]) == (503, asked.settings.source)
            await problem(second)

    async def test_streams_that_are_passed_on_hold_no_question_up(self, serve: Serve) -> None:
        asked, owner = await serve(), await serve()
        asked.shop.fault = NotOwner(1, owner.url)
        asked.shop.follow = refuse(asked.shop.fault)  # type: ignore[method-assign]
        async with AsyncExitStack() as stack, ClientSession(connector=TCPConnector(limit=0)) as session:
            for _ in range(stream.MAX_STREAMS):
                await stack.enter_async_context(session.get(f"{asked.url}/v1/changes?user=user-0001"))
            async with session.get(f"{asked.url}/v1/users/user-0001/profile") as response:
                assert response.status == 200

    async def test_streams_that_are_passed_on_end_when_the_worker_stops(self, serve: Serve) -> None:
        owner = await serve()
        async with asyncio.timeout(30) as limit, ClientSession() as session:
            async with served() as asked:
                asked.shop.follow = refuse(NotOwner(1, owner.url))  # type: ignore[method-assign]
                response = await session.get(asked.url + "/v1/changes?user=user-0001")
            with pytest.raises(ClientError):
                await response.read()
        assert not limit.expired()  # Faust's web server swallows being cancelled

    @pytest.mark.parametrize("rate", ["0", "-1", "x", "1001", "1.5", "٣", "9" * 400])
    async def test_rate_out_of_bounds_is_a_bad_request(self, site: Site, rate: str) -> None:
        async with site.get(f"/v1/changes?rate={quote(rate)}") as response:
            assert response.status == 400
            await problem(response)


class TestFeed:
    def test_rate_lets_so_many_through_in_a_second(self) -> None:
        now = [0.0]
        source = Feed(clock=lambda: now[0])
        with source.everyone(10) as reader:
            for step in range(100):
                now[0] = step / 20  # 5 seconds at 20 changes a second
                source.publish("ann", step, b"{}")
        assert reader.skipped == 100 - 10 - 49  # the first second's tokens, then 10 a second for 4.95 s

    async def test_slow_reader_keeps_what_fits_and_no_more(self) -> None:
        source = Feed()
        with source.user("ann") as reader:
            for version in range(feed.QUEUE + 5):
                source.publish("ann", version, b"{}")
            got = [await reader.next(1) for _ in range(feed.QUEUE)]
            source.publish("ann", 999, b"{}")
            assert await reader.next(0.01) is None
        assert reader.ended == "slow"
        assert [change.version for change in got if change] == list(range(feed.QUEUE))


class TestMetrics:
    async def test_requests_are_counted_by_pattern_never_by_id(self, site: Site) -> None:
        labels = {"route": "/v1/users/{id}/profile", "status": "404"}
        before = REGISTRY.get_sample_value("streamer_http_requests_total", labels) or 0
        for path in ("/v1/users/personal-a/profile", "/v1/users/personal-b/profile", "/personal-c"):
            await status_of(site, path)
        assert REGISTRY.get_sample_value("streamer_http_requests_total", labels) == before + 2
        async with site.get("/metrics") as response:
            assert "personal" not in await response.text()

    async def test_build_and_process_are_told(self, site: Site) -> None:
        async with site.get("/metrics") as response:
            text = await response.text()
        assert 'streamer_build_info{version="' in text
        assert "process_resident_memory_bytes" in text

    @pytest.mark.skipif(
        not shutil.which("promtool"), reason="promtool is not installed (Debian: apt install prometheus)"
    )
    async def test_promtool_finds_nothing_to_mend(self, site: Site) -> None:
        await status_of(site, "/v1/status")
        async with site.get("/metrics") as response:
            text = await response.read()
        check = partial(subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True)
        run = await asyncio.to_thread(check)
        assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


class TestPageFiles:
    async def test_page_and_all_its_files_are_served(self, site: Site) -> None:
        for name, asset in assets.load().items():
            async with site.get(f"/static/{name}") as response:
                assert (await response.read(), response.content_type) == (asset.body, asset.content_type)

    async def test_known_file_is_not_sent_again(self, site: Site) -> None:
        async with site.get("/") as response:
            etag = response.headers["ETag"]
        async with site.get("/", headers={"If-None-Match": etag}) as response:
            assert (response.status, await response.read()) == (304, b"")

    @pytest.mark.parametrize(
        "path", ["/static/..%2Fhttp.py", "/static/../http.py", "/static/", "/static/.", "/static/none.js"]
    )
    async def test_other_files_do_not_exist(self, site: Site, path: str) -> None:
        async with site.get(path) as response:
            assert response.status == 404

    def test_page_has_nothing_inline_and_nothing_from_elsewhere(self) -> None:
        class Strict(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                given = dict(attrs)
                assert not [name for name in given if name == "style" or name.startswith("on")]
                assert tag not in ("style", "iframe", "object")
                assert tag != "script" or given.get("src")
                for name in {"src", "href"} & set(given):
                    assert str(given[name]).startswith(("/static/", "#"))

        Strict().feed(assets.load()["index.html"].body.decode())
