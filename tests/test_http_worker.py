"""The API of a real worker on a real broker, asked as strangers ask."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import ClientSession

from streamer.engine.app import run_worker
from streamer.errors import SettingsError
from streamer.events import Click, Item
from streamer.profile import Activity, Profile
from streamer.recommendation import Quality, Recommendations, SimilarItems
from streamer.serving.view import FoundUsers, History, InterestMap
from streamer.settings import load
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.simulate import generate
from tests.deployment import Deployment, deployed
from tests.serving_site import event
from tests.worker_process import WorkerProcess

HOUR_MS = 3_600_000


class Worker:
    """A worker that knows some people, and questions to it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.process: WorkerProcess = deployment.worker(http_rate=0)
        now = time.time_ns() // 1_000_000
        deployment.send(generate(3, 30, 40, 0.5, now - HOUR_MS, until_ms=now))
        deployment.send([Item("mug", "Mug", ("mug", "kitchen")), Item("jug", "Jug", ("jug", "kitchen"))])
        self.process.wait_ready()
        deployment.wait_caught_up()

    def ask(self, path: str, kind: type[Any] = dict) -> Any:
        """What a path answers."""
        answer = self.process.get(path)
        assert answer is not None, self.process.said
        assert answer[0] == 200, answer
        return msgspec.json.decode(answer[1], type=kind)

    def click(self, user_id: str, item_id: str, number: int) -> None:
        """Something happens that is worth a new version, and is published."""
        before = len(self.deployment.profiles(user_id))
        self.deployment.send([Click(f"{user_id}-{number}", user_id, item_id, time.time_ns() // 1_000_000)])
        self.deployment.until(lambda: len(self.deployment.profiles(user_id)) > before, f"a profile of {user_id}")


@pytest.fixture(scope="module")
def worker(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with deployed(kafka.brokers, tmp_path_factory.mktemp("http"), publish_within_ms=1000) as deployment:
        yield Worker(deployment)


def test_schemathesis_finds_nothing_that_the_api_does_not_keep_to(worker: Worker, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("st")), "run", f"http://127.0.0.1:{worker.process.port}/openapi.json"]
    options = "--checks all --phases coverage,fuzzing,stateful --max-examples 4 --workers 2 --seed 1 --no-color"
    left_out = ["--exclude-path", "/v1/changes"]  # a stream has no end to wait for
    run = subprocess.run([*command, *options.split(), *left_out], cwd=tmp_path, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout.decode() + run.stderr.decode() + worker.process.said


def test_somebody_who_opens_the_page_finds_somebody(worker: Worker) -> None:
    newest = worker.ask("/v1/users?n=5", FoundUsers)
    assert (len(newest.users), newest.more) == (5, True)
    assert [user.as_of for user in newest.users] == sorted((user.as_of for user in newest.users), reverse=True)
    for user in newest.users:
        assert worker.ask(f"/v1/users/{quote(user.user_id)}/profile", Profile).as_of == user.as_of


def test_users_are_found_by_how_their_ids_begin_in_all_partitions(worker: Worker) -> None:
    for number, name in enumerate(("zoe-1", "zoe-2", "zoe-10", "zo", "zoë")):
        worker.click(name, "mug", number)
    found = worker.ask("/v1/users?prefix=zoe", FoundUsers)
    assert ([user.user_id for user in found.users], found.more) == (["zoe-1", "zoe-10", "zoe-2"], False)
    assert worker.ask("/v1/users?prefix=zoe&n=2", FoundUsers).more


def test_history_has_every_version_since_the_first_it_remembers(worker: Worker) -> None:
    for number, item in enumerate(("mug", "jug", "mug", "mug")):
        worker.click("eve", item, number)
    history = worker.ask("/v1/users/eve/history", History)
    published = [msgspec.json.decode(each.value, type=Profile) for each in worker.deployment.profiles("eve")]
    assert [version.version for version in history.versions] == [profile.version for profile in published]
    assert history.since == published[0].published_at
    assert [i.tag for i in history.versions[-1].interests] == [i.tag for i in published[-1].interests]


def test_recommendations_and_likenesses_name_items_of_the_catalogue(worker: Worker) -> None:
    user = worker.ask("/v1/users?n=1", FoundUsers).users[0].user_id
    offered = worker.ask(f"/v1/users/{quote(user)}/recommendations?n=7", Recommendations)
    assert len(offered.items) == 7
    assert sum(item.score for item in offered.items) <= 1 + 1e-9
    alike = worker.ask(f"/v1/items/{offered.items[0].item_id}/similar?n=3", SimilarItems)
    ids = "&".join(f"id={item.item_id}" for item in (*offered.items, *alike.items))
    assert len(worker.ask(f"/v1/items?{ids}")["items"]) == len(offered.items) + len(alike.items)


def test_map_places_users_among_the_tags_that_they_have(worker: Worker) -> None:
    whole = worker.ask("/v1/map", InterestMap)
    assert whole.users == len(whole.points) > 20
    tags = {tag.tag for tag in whole.tags}
    for point in whole.points:
        profile = worker.ask(f"/v1/users/{quote(point.user_id)}/profile", Profile)
        assert point.top in tags & {interest.tag for interest in profile.interests}
    assert len(worker.ask("/v1/map?n=5", InterestMap).points) <= 5


def test_quality_is_told(worker: Worker) -> None:
    assert worker.ask("/v1/quality", Quality).weights


async def test_stream_that_broke_off_goes_on_where_it_was(worker: Worker) -> None:
    path = f"http://127.0.0.1:{worker.process.port}/v1/changes?user=ada"
    async with ClientSession() as session:
        async with session.get(path) as response:
            await asyncio.to_thread(worker.click, "ada", "mug", 0)
            first = await event(response)
        await asyncio.to_thread(worker.click, "ada", "jug", 1)
        async with session.get(path, headers={"Last-Event-ID": first["id"]}) as response:
            assert (await event(response))["id"] == "ada/2"
        async with session.get(path, headers={"Last-Event-ID": "ada/0"}) as response:
            assert [(await event(response))["id"] for _ in range(2)] == ["ada/1", "ada/2"]
        async with session.get(path, headers={"Last-Event-ID": "ada/7"}) as response:
            assert (await event(response))["event"] == "gap"


def test_worker_that_anyone_could_read_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="STREAMER_HTTP_TOKEN"):
        run_worker(load(data_dir=tmp_path, http_host="0.0.0.0"))


def test_any_worker_answers_for_any_user_and_none_is_wrong_while_they_move(worker: Worker) -> None:
    users = [user.user_id for user in worker.ask("/v1/users?n=6", FoundUsers).users]
    truth = {user: worker.ask(f"/v1/users/{quote(user)}/profile", Profile).activity for user in users}
    other = worker.deployment.worker("other", http_rate=0, instance_id="other")
    while not _has_partitions(other):
        for process in (worker.process, other):
            assert {_told(process, user, truth[user]) for user in users} <= {"right", "wait"}
    worker.process.wait_ready()
    for process in (worker.process, other):
        assert {_told(process, user, truth[user]) for user in users} == {"right"}
    assert other.stop() == 0, other.said
    worker.process.wait_ready()


def _has_partitions(process: WorkerProcess) -> bool:
    answer = process.get("/readyz")
    return answer is not None and answer[0] == 200 and process.metric("streamer_partitions_owned") > 0


def _told(process: WorkerProcess, user_id: str, activity: Activity) -> str:
    """Whether a worker tells the truth of a user, asks to wait, or is not there yet."""
    answer = process.get(f"/v1/users/{quote(user_id)}/profile")
    if answer is None or answer[0] == 503:
        return "wait"
    profile = msgspec.json.decode(answer[1], type=Profile)
    return "right" if answer[0] == 200 and profile.activity == activity else f"{answer}"
