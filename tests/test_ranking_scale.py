"""On a real Kafka: one worker with one partition and two with a partition each come to the same rankings."""

import json
from pathlib import Path
from random import Random

import pytest

from streamer.events import Click, Item
from streamer.pipeline.item_model import decode_model
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, deployed
from tests.worker_process import until

USERS, ITEMS, EVENTS = 300, 240, 9000
AHEAD = 6  # a step goes to one of so many items that come next
T0 = 1_760_000_000_000


def walks(seed: int = 3) -> tuple[list[Click], dict[str, set[str]]]:
    """People who walk through a ring of items, a few places a step; and which items each may take next."""
    rng = Random(seed)
    at = {f"user-{n}": rng.randrange(ITEMS) for n in range(USERS)}
    clicks = []
    for n in range(EVENTS):
        user_id = rng.choice(sorted(at))
        at[user_id] = (at[user_id] + rng.randint(1, AHEAD)) % ITEMS
        clicks.append(Click(f"e{n}", user_id, f"item-{at[user_id]}", T0 + 1000 * n))
    ahead = range(1, AHEAD + 1)
    return clicks, {user_id: {f"item-{(place + n) % ITEMS}" for n in ahead} for user_id, place in at.items()}


def learned(deployment: Deployment) -> int:
    """Events behind the models that owners published."""
    latest = {each.key: each.value for each in deployment.read(deployment.settings.models_topic)}
    return sum(decode_model(value).events for value in latest.values())


def precision(deployment: Deployment, clicks: list[Click], then: dict[str, set[str]]) -> float:
    """How much of what is offered first is what users may take next, once the workers know of all events."""
    deployment.send(Item(f"item-{n}", f"Item {n}", ("any",)) for n in range(ITEMS))
    deployment.send(clicks)
    deployment.wait_drained()
    deployment.until(lambda: learned(deployment) == EVENTS, lambda: f"models of {learned(deployment)} events")
    boards = {worker.pid: worker.metric("streamer_stage_seconds_total", stage="board") for worker in deployment.workers}
    for worker in deployment.workers:
        for _ in range(2):  # the next board may have begun before the last model came
            before = boards[worker.pid]
            until(lambda: worker.metric("streamer_stage_seconds_total", stage="board") > before, "a board")  # noqa: B023
            boards[worker.pid] = worker.metric("streamer_stage_seconds_total", stage="board")
    offered = {user_id: first(deployment, user_id) for user_id in then}
    return sum(len(offered[user_id] & items) for user_id, items in then.items()) / (AHEAD * len(then))


def first(deployment: Deployment, user_id: str) -> set[str]:
    """What a user is offered first, asked of any worker."""
    answer = deployment.workers[-1].get(f"/v1/users/{user_id}/recommendations?n={AHEAD}&exclude=none")
    assert answer is not None
    assert answer[0] == 200, answer
    return {one["item_id"] for one in json.loads(answer[1])["items"]}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_partition_and_two_rank_alike(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    clicks, then = walks()
    found = []
    for partitions in (1, 2):
        with deployed(kafka.brokers, tmp_path / str(partitions), partitions=partitions) as deployment:
            for n in range(partitions):
                deployment.worker(f"w{n}").wait_ready()
            found.append(precision(deployment, clicks, then))
    one, two = found
    assert one > 0.6  # by chance it were .025
    assert two == pytest.approx(one, rel=0.02)
