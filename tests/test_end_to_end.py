"""The whole way on a real broker: events in, profiles out, through stops, lost disks and other workers."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from streamer.events import Click, Item, Purchase
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.simulate import generate
from streamer.upstream import partition_of
from tests.deployment import Deployment, Record, assert_tells, counted, deployed, record
from tests.worker_process import WorkerProcess

WITHIN_MS = 3000
HOUR_MS = 3_600_000
PROFILE_SCHEMA = Path(__file__).parents[1] / "schemas" / "profile.schema.json"
SHELF = [Item(f"mug-{n}", f"Mug {n}", ("mug", f"glaze-{n % 2}"), price=8.5, currency="EUR") for n in range(4)]


class Shop:
    """A deployment with one worker that is up, and an hour of simulated life behind it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.worker = deployment.worker()
        deployment.send(SHELF)
        now = time.time_ns() // 1_000_000
        deployment.send(generate(1, 40, 60, 0.4, now - HOUR_MS, until_ms=now))
        self.worker.wait_ready()
        deployment.wait_caught_up()

    def restart(self, *, lose_disk: bool = False) -> None:
        """Stop the worker and start it again."""
        assert self.worker.stop() == 0, self.worker.said
        if lose_disk:
            shutil.rmtree(self.worker.data_dir)
        self.worker.start().wait_ready()


@pytest.fixture(scope="module")
def shop(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop of all tests here: each brings its own people and leaves the worker running."""
    with deployed(kafka.brokers, tmp_path_factory.mktemp("shop"), publish_within_ms=WITHIN_MS) as deployment:
        yield Shop(deployment)


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment of one's own, without a worker."""
    with deployed(kafka.brokers, tmp_path) as own:
        yield own


def clicks(user_id: str, numbers: range, item_id: str = "mug-0") -> list[Click]:
    """Clicks of one user, a second apart."""
    now = time.time_ns() // 1_000_000
    return [Click(f"{user_id}-{n}", user_id, item_id, now - 60_000 + 1000 * n) for n in numbers]


def wait_counted(deployment: Deployment, user_id: str, events: int) -> dict[str, object]:
    """The user's profile as soon as it counts so many events."""
    deployment.until(
        lambda: counted(deployment.latest_of(user_id)) >= events, f"a profile of {user_id} with {events} events"
    )
    return deployment.latest_of(user_id)


# ---- what comes out
def test_latest_profile_of_every_user_equals_an_independent_replay(shop: Shop) -> None:
    shop.deployment.check_profiles()
    truth = shop.deployment.truth()
    assert len(truth.users) > 20
    assert sum(user.purchases for user in truth.users.values()) > 20


def test_profiles_follow_their_schema(shop: Shop) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(PROFILE_SCHEMA.read_text()))
    for each in shop.deployment.profiles():
        validator.validate(json.loads(each.value))


def test_profile_has_its_user_as_key_and_the_events_partition(shop: Shop) -> None:
    for each in shop.deployment.profiles():
        assert each.key.decode() == json.loads(each.value)["user_id"]
        assert each.partition == partition_of(each.key, shop.deployment.settings.partitions)


def test_profile_is_a_cloud_event_in_binary_mode(shop: Shop) -> None:
    for each in shop.deployment.profiles():
        profile, headers = json.loads(each.value), dict(each.headers)
        headers.pop("traceparent", None)
        assert headers.pop("ce_time").decode()[:10] == time.strftime("%Y-%m-%d", time.gmtime(each.timestamp / 1000))
        assert headers == {
            "ce_specversion": b"1.0",
            "ce_id": f"{profile['user_id']}/{profile['version']}".encode(),
            "ce_source": f"/{shop.deployment.settings.app_id}".encode(),
            "ce_type": b"profile.changed.v1",
            "ce_subject": each.key,
            "content-type": b"application/json",
        }


def test_profile_goes_on_with_the_trace_of_the_event_behind_it(shop: Shop) -> None:
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    [first, second] = clicks("tracy", range(2))
    shop.deployment.send([record(first)._replace(headers=(("via", b"shop"), trace, ("tracestate", b"shop=1")))])
    wait_counted(shop.deployment, "tracy", 1)
    shop.deployment.send([second])
    wait_counted(shop.deployment, "tracy", 2)
    published = shop.deployment.profiles("tracy")
    assert published[0].headers[-2:] == [trace, ("tracestate", b"shop=1")]
    assert "traceparent" not in dict(published[-1].headers)


def test_vector_is_base64_of_as_many_floats_as_it_says(shop: Shop) -> None:
    vectors = [(profile, base64.b64decode(profile["vector"])) for profile in shop.deployment.latest().values()]
    for profile, raw in vectors:
        assert len(np.frombuffer(raw, "<f4")) == profile["vector_dim"] == shop.deployment.settings.vector_dim
        assert np.isfinite(np.frombuffer(raw, "<f4")).all()


def test_interest_is_explained_by_recent_items_that_carry_it(shop: Shop) -> None:
    shop.deployment.send(clicks("eve", range(2), "mug-1"))
    profile = wait_counted(shop.deployment, "eve", 2)
    interests = {each["tag"]: each["because"] for each in profile["interests"]}
    assert interests.keys() == {"mug", "glaze-1"}
    assert [(each["item_id"], each["kind"]) for each in interests["mug"]] == [("mug-1", "click")]


def test_first_profile_names_the_event_behind_it(shop: Shop) -> None:
    shop.deployment.send(clicks("first", range(1)))
    profile = wait_counted(shop.deployment, "first", 1)
    assert profile["cause"] == "first-0"
    assert profile["changed"][0]["what"] == "first_profile"


def test_silent_user_gets_no_message(shop: Shop) -> None:
    shop.deployment.send(clicks("silent", range(1)))
    wait_counted(shop.deployment, "silent", 1)
    for n in range(3):  # others go on until their small changes were published: whoever is due was looked at
        shop.deployment.send(clicks("loud", range(20 * n, 20 * n + 20)))
        wait_counted(shop.deployment, "loud", 20 * n + 20)
    assert len(shop.deployment.profiles("silent")) == 1


def test_same_profile_stands_on_the_topic_and_in_the_api(shop: Shop) -> None:
    shop.deployment.send(clicks("seen", range(3)))
    published = wait_counted(shop.deployment, "seen", 3)
    answer = shop.worker.get("/v1/users/seen/profile")
    assert answer is not None
    status, body = answer
    served = json.loads(body)
    assert status == 200
    assert served["activity"] == published["activity"]
    assert served["recent_items"] == published["recent_items"]
    assert served["version"] == published["version"]


# ---- small changes
def test_small_change_is_held_back_and_published_in_time(shop: Shop) -> None:
    shop.deployment.send(clicks("calm", range(60)))
    before = wait_counted(shop.deployment, "calm", 60)
    [(partition, offset)] = shop.deployment.send(clicks("calm", range(60, 61)))
    after = wait_counted(shop.deployment, "calm", 61)
    topic = shop.deployment.settings.topic("clicks")
    [click] = [r for r in shop.deployment.read(topic) if (r.partition, r.offset) == (partition, offset)]
    assert after["version"] == before["version"] + 1
    assert [change["what"] for change in after["changed"]] == ["activity"]
    assert after["cause"] == "calm-60"
    assert after["published_at"] - click.timestamp >= WITHIN_MS // 2


def test_small_change_survives_stops_and_moves_until_it_is_published(deployment: Deployment) -> None:
    first = deployment.worker("first")
    deployment.send([*SHELF, *clicks("calm", range(60))])
    first.wait_ready()
    wait_counted(deployment, "calm", 60)
    deployment.send(clicks("calm", range(60, 61)))
    deployment.wait_drained()
    first.kill()
    second = deployment.worker("second").wait_ready()
    deployment.until(
        lambda: second.metric("streamer_held_profiles") == 1, "the change held back, restored from the changelog"
    )
    assert second.stop() == 0
    second.start().wait_ready()
    deployment.until(
        lambda: second.metric("streamer_held_profiles") == 1, "the change held back, kept in the local state"
    )
    assert counted(deployment.latest_of("calm")) == 60


def test_small_change_is_published_by_the_worker_that_took_over(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    with deployed(kafka.brokers, tmp_path, publish_within_ms=WITHIN_MS) as deployment:
        first = deployment.worker("first")
        deployment.send([*SHELF, *clicks("calm", range(60))])
        first.wait_ready()
        wait_counted(deployment, "calm", 60)
        deployment.send(clicks("calm", range(60, 61)))
        deployment.wait_drained()
        first.kill()
        deployment.worker("second").wait_ready()
        assert wait_counted(deployment, "calm", 61)["cause"] == "calm-60"
        deployment.check_profiles()


# ---- repeats
def test_repeats_are_dropped_within_a_batch_and_across_batches_and_restarts(shop: Shop) -> None:
    deployment = shop.deployment
    deployment.send([*clicks("twice", range(5)), *clicks("twice", range(5))])
    wait_counted(deployment, "twice", 5)
    deployment.send(clicks("twice", range(5)))
    deployment.wait_drained()
    shop.restart()
    deployment.send(clicks("twice", range(7)))
    assert counted(wait_counted(deployment, "twice", 7)) == 7
    assert deployment.truth().users["twice"].duplicates == 15
    assert shop.worker.metric("streamer_events_total", type="click", outcome="duplicate") == 5


# ---- restarts
def test_restart_goes_on_from_local_state(shop: Shop) -> None:
    shop.deployment.send(
        [
            *clicks("stay", range(10)),
            Purchase("stay-p", "stay", "mug-2", clicks("", range(1))[0].ts, price=3, currency="EUR"),
        ]
    )
    shop.deployment.wait_drained()
    versions = len(shop.deployment.profiles("stay"))
    shop.restart()
    assert shop.worker.metric("streamer_restore_rows_total") == 0
    shop.deployment.send(clicks("stay", range(10, 30)))
    assert wait_counted(shop.deployment, "stay", 31)["version"] > versions
    shop.deployment.check_profiles()


def test_lost_disk_is_restored_from_the_changelog(shop: Shop) -> None:
    deployment = shop.deployment
    deployment.wait_caught_up()
    before = deployment.latest()
    shop.restart(lose_disk=True)
    assert shop.worker.metric("streamer_restore_rows_total") >= len(before)
    assert deployment.latest() == before
    deployment.send([Click(f"back-{user_id}", user_id, "mug-3", time.time_ns() // 1_000_000) for user_id in before])
    deployment.check_profiles()


def test_local_state_equals_the_changelog(shop: Shop) -> None:
    shop.deployment.wait_drained()
    assert shop.worker.stop() == 0
    assert shop.deployment.check_stores() == shop.deployment.settings.partitions
    shop.worker.start().wait_ready()


# ---- the catalogue
def test_item_described_just_before_its_first_event_brings_its_tags(shop: Shop) -> None:
    items = [Item(f"new-{n}", f"New {n}", (f"new-tag-{n}",)) for n in range(300)]
    now = time.time_ns() // 1_000_000
    shop.deployment.send(items)
    shop.deployment.send([Click(f"n-{n}", f"new-user-{n}", f"new-{n}", now) for n in range(300)])
    shop.deployment.wait_caught_up()
    latest = shop.deployment.latest()
    without = [n for n in range(300) if [i["tag"] for i in latest[f"new-user-{n}"]["interests"]] != [f"new-tag-{n}"]]
    assert without == []


def test_deleted_item_is_forgotten_and_histories_keep_its_name(shop: Shop) -> None:
    deployment = shop.deployment
    deployment.send([Item("fad", "A fad", ("fad",)), Click("f-1", "fan", "fad", time.time_ns() // 1_000_000)])
    wait_counted(deployment, "fan", 1)
    listed = shop.worker.metric("streamer_items")
    deployment.send([Record("items", b"fad", None)])
    deployment.until(lambda: shop.worker.metric("streamer_items") == listed - 1, "the item forgotten")
    deployment.send([Click("f-2", "late-fan", "fad", time.time_ns() // 1_000_000)])
    late = wait_counted(deployment, "late-fan", 1)
    assert late["interests"] == []
    assert late["recent_items"][0]["item_id"] == "fad"
    models = [r for r in deployment.read(deployment.settings.models_topic) if r.key == b"fad"]
    assert any(r.value is None for r in models)


# ---- backlogs
def test_backlog_on_a_single_partition_is_worked_off(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """All that one checkpoint says goes to one partition: more than one record takes."""
    with deployed(kafka.brokers, tmp_path, partitions=1, publish_within_ms=1000) as deployment:
        deployment.send(SHELF)
        deployment.send(
            Click(f"c-{n}", f"user-{n % 500}", f"mug-{n % 4}", 1_760_000_000_000 + n) for n in range(40_000)
        )
        deployment.worker().wait_ready()
        deployment.wait_drained()


# ---- several deployments
def test_deployments_under_other_prefixes_share_a_broker_and_a_disk_but_nothing_else(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with deployed(kafka.brokers, tmp_path) as here, deployed(kafka.brokers, tmp_path) as there:
        process = here.worker(data_dir=tmp_path / "data")
        here.send([*SHELF, *clicks("ann", range(3))])
        process.wait_ready()
        wait_counted(here, "ann", 3)
        assert process.stop() == 0
        process = there.worker(data_dir=tmp_path / "data")
        there.send([*SHELF, *clicks("ann", range(5))])
        process.wait_ready()
        assert counted(wait_counted(there, "ann", 5)) == 5


# ---- several workers
def test_two_workers_share_the_partitions_and_each_answers_for_its_own(deployment: Deployment) -> None:
    one, two = deployment.worker("one"), deployment.worker("two")
    deployment.send([*SHELF, *(each for n in range(12) for each in clicks(f"user-{n}", range(3)))])
    deployment.until(lambda: owned(one) + owned(two) == 3 and min(owned(one), owned(two)) == 1, "the partitions shared")
    deployment.wait_caught_up()
    for user_id, user in deployment.truth().users.items():
        bodies = [
            json.loads(answer[1]) for worker in (one, two) if (answer := worker.get(f"/v1/users/{user_id}/profile"))
        ]
        for body in bodies:
            assert_tells(body, user)
    assert one.stop() == two.stop() == 0
    assert deployment.check_stores() >= deployment.settings.partitions


def owned(worker: WorkerProcess) -> float:
    """Partitions that a worker owns; 0 while it does not answer."""
    answer = worker.get("/readyz")
    return worker.metric("streamer_partitions_owned") if answer is not None and answer[0] == 200 else 0
