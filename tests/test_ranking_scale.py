"""On a real Kafka: one worker with one partition, and two with a partition each, come to rankings of the same worth."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from streamer.events import Click, Item
from streamer.pipeline.item_model import decode_model
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, deployed
from tests.worker_process import WorkerProcess

USERS, ITEMS = 150, 160
AHEAD = 6  # a step goes to one of so many items that come next
OFFERED = 20
FIRST, A_ROUND, MOST = 3600, 60, 6000  # events: before items have models, at a time after that, and in all
JUDGED = 100  # events that each mix has learned from; what a busy machine may spend on them is bounded
T0 = 1_760_000_000_000


def walks(seed: int = 3) -> list[Click]:
    """People who walk through a ring of items, a few places a step."""
    rng = Random(seed)
    at = {f"user-{n}": rng.randrange(ITEMS) for n in range(USERS)}
    people, clicks = sorted(at), []
    for n in range(MOST):
        user_id = rng.choice(people)
        at[user_id] = (at[user_id] + rng.randint(1, AHEAD)) % ITEMS
        clicks.append(Click(f"e{n}", user_id, f"item-{at[user_id]}", T0 + 1000 * n))
    return clicks


def what_may_come(clicks: Sequence[Click]) -> dict[str, set[str]]:
    """Which items each may take next."""
    place = {click.user_id: int(click.item_id.removeprefix("item-")) for click in clicks}
    return {user_id: {f"item-{(at + n) % ITEMS}" for n in range(1, AHEAD + 1)} for user_id, at in place.items()}


def behind_models(deployment: Deployment) -> int:
    """Events behind the models that owners published."""
    latest = {each.key: each.value for each in deployment.read(deployment.settings.models_topic)}
    return sum(decode_model(value).events for value in latest.values())


def boards(worker: WorkerProcess) -> float:
    """Grows with every board that a worker makes."""
    return worker.metric("streamer_stage_seconds_total", stage="board")


def judged(worker: WorkerProcess) -> int:
    """Events that a worker ranked before it learned from them."""
    return int(worker.metric("streamer_model_events_total"))


def wait_for_rankings(deployment: Deployment) -> None:
    """Wait until workers rank by the models of almost all events: those of a few wait for more."""
    sent = FIRST * 15 // 16
    deployment.until(lambda: behind_models(deployment) >= sent, lambda: f"models of {behind_models(deployment)} events")
    for _ in range(2):  # the next board may have begun before the last model came
        before = [boards(worker) for worker in deployment.workers]
        deployment.until(
            lambda: all(boards(worker) > was for worker, was in zip(deployment.workers, before, strict=True)),  # noqa: B023
            "a board",
        )


def found(deployment: Deployment, then: dict[str, set[str]]) -> float:
    """How much of what users may take next is among what they are offered first, asked of any worker."""
    worker = deployment.workers[-1]
    hits = 0
    for user_id, items in then.items():
        answer = worker.get(f"/v1/users/{user_id}/recommendations?n={OFFERED}")
        assert answer is not None
        assert answer[0] == 200, answer
        hits += len(items & {one["item_id"] for one in json.loads(answer[1])["items"]})
    return hits / (AHEAD * len(then))


def send(deployments: Sequence[Deployment], events: Sequence[Click]) -> None:
    """The same events to all, and wait until they are checkpointed."""
    for deployment in deployments:
        deployment.send(events)
    for deployment in deployments:
        deployment.wait_drained()


def test_one_partition_and_two_rank_alike(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    clicks, sent = walks(), FIRST
    with (
        deployed(kafka.brokers, tmp_path, partitions=1) as one,
        deployed(kafka.brokers, tmp_path, partitions=2) as two,
    ):
        workers = [one.worker("one"), two.worker("two-0"), two.worker("two-1")]
        for deployment in (one, two):
            deployment.send(Item(f"item-{n}", f"Item {n}", ("any",)) for n in range(ITEMS))
        for worker in workers:
            worker.wait_ready()
        send((one, two), clicks[:FIRST])
        for deployment in (one, two):
            wait_for_rankings(deployment)
        while min(map(judged, workers)) < JUDGED:
            assert sent < MOST
            send((one, two), clicks[sent : sent + A_ROUND])
            sent += A_ROUND
        then = what_may_come(clicks[:sent])
        of_one, of_two = found(one, then), found(two, then)
        assert of_one > 0.85  # without the models of the other owner .5
        assert of_two == pytest.approx(of_one, rel=0.02)
