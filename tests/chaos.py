"""Chaos: workers and a broker under load, watched by Prometheus with the alerts of deploy/, and what is done to them.

The alerts are those of rules.yml with all their windows and waiting times divided by SCALE: what takes an hour there
takes six minutes here. Thresholds are as they are: 60 s without a step, 5 % rejects, 14.4 times the budget. Not set off
here, only in deploy/prometheus/rules.test.yml: LagGrows, DiskFills, HitRateBelowPopularity.

A fault lasts until its alerts fire, however busy the machine.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.prometheus import Prometheus, Series, ask_range
from tests.deployment import Deployment, Feed, Record
from tests.fleet import owned, share
from tests.worker_process import WorkerProcess, until

SCALE = 10
RATE, USERS = 300.0, 49_999  # so many that what they do goes on to matter; no divisor in common with the items
REST_S = 20.0  # between two faults: graphs need some calm to show them
LATE_S = 40.0  # an outage that makes more than 14.4 % of six minutes' changes late
KILLS = 3
SHOWN_S = 4.0  # an alert that fires goes on for so long at least: graphs have a point a second
UNSAVED_S = 5.0  # at RATE each partition has something to write all the time
PATIENCE_S = 600.0
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def scaled(rules: str, factor: int) -> str:
    """Rules with all windows and waiting times divided.

    >>> scaled("expr: rate(x_total[5m]) > 60 and late_1h\\n for: 30s", 20)
    'expr: rate(x_total[15000ms]) > 60 and late_1h\\n for: 1500ms'
    """

    def divided(found: re.Match[str]) -> str:
        before, number, unit = found.groups()
        return f"{before}{int(number) * UNITS_S[unit] * 1000 // factor}ms"

    return re.sub(r"(\[|\bfor: )(\d+)([smhd])\b", divided, rules)


class Sign(NamedTuple):
    """How a fault shows: a query that falls below `level`, or rises above it."""

    query: str
    way: Literal["falls below", "rises above"]
    level: float


class Span(NamedTuple):
    """A fault that was, in Unix seconds, up to when all was well again."""

    name: str
    start_s: float
    over_s: float
    well_s: float


class Chaos:
    """Two workers, a broker of their own, events at RATE, and Prometheus."""

    def __init__(self, kafka: EmbeddedKafka, fleet: Deployment, workers: list[WorkerProcess], home: Path) -> None:
        self.kafka, self.fleet, self.workers, self._home = kafka, fleet, workers, home
        self.spans: list[Span] = []
        self.start_s = time.time()
        self.feed = Feed(fleet, RATE, users=USERS, items=300)
        self.url = ""

    @contextmanager
    def running(self, rules: str) -> Iterator[None]:
        """Prometheus and the events, inside the block."""
        file = self._home / "rules.yml"
        file.write_text(scaled(rules, SCALE), "utf-8")
        targets = [f"127.0.0.1:{worker.port}" for worker in self.workers]
        with Prometheus(self._home / "prometheus", targets, file) as prometheus:
            self.url, self.start_s = prometheus.url, time.time()
            with self.feed:
                yield

    # ---- waiting
    def wait(self, seconds: float) -> None:
        """Let time pass; workers that end are started again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.fleet.tend()
            time.sleep(0.1)

    def until_fires(self, *alerts: str) -> None:
        """Wait until each of these has fired since now."""
        since = time.time()
        missing = set(alerts)

        def fired() -> bool:
            self.fleet.tend()
            missing.difference_update(self.firing(since))
            return not missing

        until(fired, lambda: f"{missing} to fire", PATIENCE_S)
        self.wait(SHOWN_S)

    def until_well(self) -> None:
        """Wait until both workers share the partitions, hardly anything waits, and all of them commit."""
        partitions, few = self.fleet.settings.partitions, 1000

        def well() -> bool:
            self.fleet.tend()
            have = [owned(worker) for worker in self.workers]
            lag = self.series('sum(streamer_lag_records{topic=~"clicks|purchases"})', time.time() - 1)
            age_s = self.series("time() - min(streamer_checkpoint_timestamp_seconds)", time.time() - 1)
            if sum(have) != partitions or not min(have) or not lag or not age_s:
                return False
            return lag[0].last < few and age_s[0].last < UNSAVED_S

        until(well, "all to be well again", PATIENCE_S)

    # ---- what Prometheus saw
    def series(self, query: str, since_s: float, step_s: float = 1.0, until_s: float | None = None) -> list[Series]:
        """What a query said."""
        return ask_range(self.url, query, since_s, until_s or time.time(), step_s)

    def firing(self, since_s: float, until_s: float | None = None) -> set[str]:
        """Alerts that fired in a time."""
        found = self.series('ALERTS{alertstate="firing"}', since_s, 1.0, until_s)
        return {each.labels["alertname"] for each in found}

    def shows(self, sign: Sign, span: Span) -> bool:
        """Whether a fault shows as it should."""
        found = self.series(sign.query, span.start_s, 1.0, span.well_s)
        values = [value for each in found for _, value in each.points]
        return min(values) < sign.level if sign.way == "falls below" else max(values) > sign.level

    # ---- faults
    def suffer(self, fault: "Fault") -> None:
        """One fault, and the calm after it."""
        start_s = over_s = time.time()
        try:
            fault.act(self)
            over_s = time.time()
            self.until_well()
        finally:
            self.spans.append(Span(fault.name, start_s, over_s, time.time()))
        self.wait(REST_S)


class Fault(NamedTuple):
    """What is done, which alerts it sets off, and how it shows besides."""

    name: str
    act: Callable[[Chaos], None]
    alerts: frozenset[str]
    sign: Sign


def kill_again_and_again(chaos: Chaos) -> None:
    """kill -9 as soon as a new run has begun, some times over."""
    worker, since = chaos.workers[0], time.time()
    while "CrashLoop" not in chaos.firing(since):
        for _ in range(KILLS):
            before = killed(worker)
            worker.crash()
            chaos.fleet.until(lambda before=before: killed(worker) > before, "a new run")
        chaos.fleet.until(lambda: worker.metric_if_it_answers("streamer_ends_total") is not None, "an answer")
        chaos.wait(REST_S / 4)  # Prometheus sees it, and judges


def killed(worker: WorkerProcess) -> int:
    """How often it was killed, as its own note says."""
    note = json.loads((worker.data_dir / "ends.json").read_bytes())
    return int(note["counts"].get("killed", 0))


def freeze(chaos: Chaos) -> None:
    """SIGSTOP, for longer than the session: others take over, and it is fenced when it wakes."""
    worker = chaos.workers[1]
    worker.freeze()
    chaos.until_fires("WorkerDown")
    share(chaos.fleet, chaos.workers[0])
    worker.wake()


def hang_in_restore(chaos: Chaos) -> None:
    """A restart that hangs before it restores anything."""
    worker = chaos.workers[0]
    worker.fail_at("restoring", "hold")
    worker.crash()
    chaos.until_fires("NoProgress", "RestoreStuck")
    worker.let_go()


def restart_broker(chaos: Chaos) -> None:
    """A clean stop, a while without, and a hard one later."""
    chaos.kafka.stop()
    chaos.wait(REST_S)
    chaos.kafka.start()
    chaos.until_well()
    chaos.kafka.kill()
    chaos.wait(REST_S / 2)
    chaos.kafka.start()


def stop_all_workers(chaos: Chaos) -> None:
    """SIGTERM for all, and nobody starts them for a while."""
    for worker in chaos.workers:
        worker.ask_to_stop()
    chaos.until_fires("PartitionsWithoutWorker")
    chaos.wait(LATE_S)
    for worker in chaos.workers:
        assert worker.exit_code() == 0, worker.said
        worker.start()
    chaos.until_fires("FreshnessBurnsFast")


def send_what_nobody_can_read(chaos: Chaos) -> None:
    """A producer whose new version forgot a field."""
    since = time.time()
    while "RejectsSpike" not in chaos.firing(since):
        chaos.fleet.send([Record("clicks", b"user-1", b'{"event_id": "bad"}')] * 50)
        chaos.wait(0.5)


UP, READY = 'sum(up{job="streamer"})', "sum(streamer_ready)"
EVENTS = "sum(rate(streamer_events_total[5s])) or vector(0)"
FAULTS = (
    Fault("kill -9", kill_again_and_again, frozenset({"CrashLoop"}), Sign(UP, "falls below", 2)),
    Fault("frozen", freeze, frozenset({"WorkerDown"}), Sign(UP, "falls below", 2)),
    Fault("restore hangs", hang_in_restore, frozenset({"NoProgress", "RestoreStuck"}), Sign(READY, "falls below", 2)),
    Fault("broker away", restart_broker, frozenset(), Sign(EVENTS, "falls below", RATE / 10)),
    Fault(
        "no workers",
        stop_all_workers,
        frozenset({"PartitionsWithoutWorker", "FreshnessBurnsFast"}),
        Sign(UP, "falls below", 1),
    ),
    Fault(
        "bad records",
        send_what_nobody_can_read,
        frozenset({"RejectsSpike"}),
        Sign("sum(rate(streamer_rejected_total[5s]))", "rises above", 10),
    ),
)
