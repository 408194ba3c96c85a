"""Who is answered: tokens, certificates, other sites' pages, and how often."""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientConnectorError, ClientError, ClientSession

from streamer.errors import SettingsError
from streamer.serving.limits import CLIENTS, RateLimit
from streamer.serving.view import NotOwner
from streamer.settings import Settings, load
from tests.serving_site import Site, problem, served, status_of
from tests.serving_world import SESAME, Shop, make_app

SHOP = "https://shop.example"


class Authority:
    """A certificate authority, a worker's certificate, and settings that use them."""

    def __init__(self, home: Path) -> None:
        self._authority, self._home = trustme.CA(), home
        self._authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(home / "worker.pem")
        self._authority.cert_pem.write_to_path(home / "authority.pem")
        self.options = {"http_tls_cert": home / "worker.pem", "http_tls_key": home / "worker.pem"}
        self.mutual = {**self.options, "http_tls_client_ca": home / "authority.pem"}

    def client(self, *, signed_by: "Authority | None" = None) -> ssl.SSLContext:
        """How a client of ours connects; with a certificate where somebody signs one for it."""
        context = ssl.create_default_context(cafile=str(self._home / "authority.pem"))
        if signed_by is not None:
            signed_by._authority.issue_cert("client@shop.example").configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    return Authority(tmp_path_factory.mktemp("authority"))


async def status_with(site: Site, path: str, context: ssl.SSLContext) -> int:
    async with site.get(path, ssl=context) as response:
        return int(response.status)


class TestTls:
    async def test_worker_speaks_tls_and_nothing_else(self, authority: Authority) -> None:
        async with served(**authority.options) as site, ClientSession() as other:
            assert await status_with(site, "/v1/status", authority.client()) == 200
            with pytest.raises(ClientError):
                await other.get(site.url.replace("https", "http") + "/v1/status")
            with pytest.raises(ClientConnectorError):
                await other.get(site.url + "/v1/status")  # an authority that nobody trusts

    async def test_profiles_need_a_client_certificate_where_an_authority_is_set(self, authority: Authority) -> None:
        async with served(**authority.mutual) as site:
            assert await status_with(site, "/v1/status", authority.client(signed_by=authority)) == 200
            async with site.get("/v1/status", ssl=authority.client()) as response:
                assert response.status == 403
                assert (await problem(response))["type"].endswith(":certificate-needed")
            assert await status_with(site, "/healthz", authority.client()) == 200  # an orchestrator has none

    async def test_certificate_of_a_stranger_opens_nothing(self, authority: Authority, tmp_path: Path) -> None:
        stranger = authority.client(signed_by=Authority(tmp_path))
        async with served(**authority.mutual) as site:
            with pytest.raises(ClientError):
                await status_with(site, "/v1/status", stranger)

    async def test_certificate_does_not_stand_in_for_a_token(self, authority: Authority) -> None:
        async with served(**authority.mutual, http_token=SESAME) as site:
            assert await status_with(site, "/v1/status", authority.client(signed_by=authority)) == 401

    async def test_question_is_passed_on_with_our_own_certificate(self, authority: Authority) -> None:
        async with served(**authority.mutual) as asked, served(**authority.mutual, instance_id="owner") as owner:
            asked.shop.fault = NotOwner(3, owner.url)
            context = authority.client(signed_by=authority)
            async with asked.get("/v1/users/user-0001/history", ssl=context) as response:
                assert (await response.json())["user_id"] == "user-0001"
                assert response.headers["X-Answered-By"] == owner.settings.source

    def test_client_certificates_are_protection_enough_beyond_loopback(self, authority: Authority) -> None:
        make_app(Shop(people=1), load(http_host="0.0.0.0", **authority.mutual))
        with pytest.raises(SettingsError):
            make_app(Shop(people=1), load(http_host="0.0.0.0", **authority.options))

    @pytest.mark.parametrize("name", ["http_tls_cert", "http_tls_client_ca"])
    def test_file_that_is_no_certificate_is_named(self, authority: Authority, name: str, tmp_path: Path) -> None:
        (tmp_path / "empty.pem").touch()
        with pytest.raises(SettingsError, match=f"STREAMER_{name.upper()}=.*empty.pem"):
            make_app(Shop(people=1), load(**{**authority.mutual, name: tmp_path / "empty.pem"}))

    @pytest.mark.parametrize("alone", ["http_tls_cert", "http_tls_key", "http_tls_client_ca"])
    def test_half_of_the_tls_settings_is_a_mistake(self, alone: str, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="TLS"):
            load(**{alone: tmp_path / "some.pem"})


class TestOtherSites:
    async def test_page_of_another_site_may_read_only_where_that_is_set(self) -> None:
        async with served() as closed, served(http_cors=f"{SHOP}, https://b.example") as opened:
            for site, allowed in ((closed, None), (opened, SHOP)):
                async with site.get("/v1/status", headers={"Origin": SHOP}) as response:
                    assert response.headers.get("Access-Control-Allow-Origin") == allowed
            async with opened.get("/v1/status", headers={"Origin": "https://evil.example"}) as response:
                assert "Access-Control-Allow-Origin" not in response.headers

    async def test_browser_may_ask_whether_it_may_without_the_token(self) -> None:
        asks = {
            "Origin": SHOP,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "Authorization, Last-Event-ID",
        }
        async with served(http_cors=SHOP, http_token=SESAME) as site:
            async with site.session.options(site.url + "/v1/users/user-0001/profile", headers=asks) as response:
                assert response.status == 200
                assert "AUTHORIZATION" in response.headers["Access-Control-Allow-Headers"].upper()
            async with site.get("/v1/users/user-0001/profile", headers={"Origin": SHOP}) as response:
                assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, SHOP)

    @pytest.mark.parametrize("origins", ["shop.example", "https://shop.example/", "https://*"])
    def test_what_is_no_origin_is_a_mistake(self, origins: str) -> None:
        with pytest.raises(SettingsError, match="STREAMER_HTTP_CORS"):
            load(http_cors=origins)


class TestRate:
    def test_client_gets_its_rate_and_a_second_of_it_at_once(self) -> None:
        now = [0.0]
        limit = RateLimit(10, clock=lambda: now[0])
        admitted = 0
        for step in range(1000):
            now[0] = step / 100  # ten seconds of a hundred questions each
            admitted += limit.wait_s("ann") == 0
        assert admitted == 10 + 99

    def test_whoever_waits_as_told_is_answered(self) -> None:
        now = [0.0]
        limit = RateLimit(0.5, clock=lambda: now[0])
        assert limit.wait_s("ann") == 0
        assert limit.wait_s("bob") == 0
        wait = limit.wait_s("ann")
        assert wait == pytest.approx(2)
        now[0] += wait
        assert limit.wait_s("ann") == 0

    def test_table_of_clients_is_bounded(self) -> None:
        limit = RateLimit(1, clock=lambda: 0.0)
        for client in range(CLIENTS + 5):
            limit.wait_s(str(client))
        assert limit.wait_s("0") == 0
        assert limit.wait_s(str(CLIENTS)) > 0

    async def test_too_many_questions_are_told_when_to_come_back(self) -> None:
        async with served(http_rate=1) as site:
            statuses = [await status_of(site, "/v1/status") for _ in range(3)]
            assert 429 in statuses
            async with site.get("/v1/status") as response:
                assert int(response.headers["Retry-After"]) >= 1
                await problem(response)
            assert await status_of(site, "/healthz") == 200

    async def test_whoever_guesses_tokens_is_slowed_down_whatever_they_say_of_themselves(self) -> None:
        async with served(http_rate=1, http_token=SESAME) as site:
            guess = {"Authorization": "Bearer guess", "X-Streamer-Forwarded": "1"}
            assert {await status_of(site, "/v1/status", headers=guess) for _ in range(4)} == {401, 429}

    async def test_token_that_is_no_utf8_is_a_guess_like_any_other(self) -> None:
        async with served(http_rate=1, http_token=SESAME) as site:
            request = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            request += b"X-Streamer-Forwarded: \xff\r\nAuthorization: Bearer \xff\r\n\r\n"
            statuses = []
            for _ in range(4):
                reader, writer = await asyncio.open_connection("127.0.0.1", site.settings.http_port)
                writer.write(request)
                statuses.append((await reader.read()).split()[1])
                writer.close()
            assert set(statuses) == {b"401", b"429"}

    @pytest.mark.parametrize("token", ["", SESAME])
    async def test_client_that_says_it_is_a_worker_is_counted(self, token: str) -> None:
        async with served(http_rate=1, http_token=token) as site:
            asked = {"Authorization": f"Bearer {SESAME}", "X-Streamer-Forwarded": "1"}
            assert {await status_of(site, "/v1/status", headers=asked) for _ in range(4)} == {200, 429}

    async def test_what_a_worker_passes_on_is_counted_there_only(self) -> None:
        async with served(http_token=SESAME) as asked, served(http_rate=0.1, http_token=SESAME) as owner:
            asked.shop.fault = NotOwner(3, owner.url)
            for _ in range(4):
                async with asked.profile_of("user-0001", headers={"Authorization": f"Bearer {SESAME}"}) as response:
                    assert response.status == 200


async def test_what_cannot_be_read_is_refused_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as site:
        with caplog.at_level(logging.DEBUG):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.settings.http_port)
            writer.write(
                b"GET /v1/users/ann/profile HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\0\r\n\r\n" % SESAME.encode()
            )
            assert b" 400 " in await reader.readline()
            writer.close()
    assert SESAME not in caplog.text
    assert "ann" not in caplog.text


def test_every_way_to_open_the_door_is_closed_by_default() -> None:
    settings: Settings = load()
    assert (settings.http_host, settings.http_cors) == ("127.0.0.1", "")
