"""Dashboard and alerts: well-formed, and every metric and query in them is one that a worker and Prometheus know."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from streamer.tools.dashboard import grafana
from streamer.tools.dashboard.panels import rows
from streamer.tools.dashboard.values import filled, read
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.prometheus import Prometheus
from tests.deployment import Deployment, deployed, made_up
from tests.worker_process import ROOT, WorkerProcess, until

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
RULE_TESTS = [RULES.with_name(name) for name in ("rules.test.yml", "rules.days.test.yml")]
QUERIES = [query for row in rows() for panel in row.panel for query in panel.query.values()]
PANELS = [panel for panel in grafana.dashboard()["panels"] if panel["type"] != "row"]
METRIC = re.compile(r"\b(?:streamer|process|python)_[a-z0-9_]+")

register_default_plugins()  # Grafana's types know panels of every kind

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="Prometheus is not installed (Debian: apt install prometheus)",
)


def promtool(*arguments: str | Path, given: bytes | None = None) -> str:
    run = subprocess.run(["promtool", *arguments], input=given, capture_output=True, check=False)
    said = (run.stdout + run.stderr).decode()
    assert run.returncode == 0, said
    return said


# ---- the files
def test_the_dashboard_is_what_its_panels_say() -> None:
    assert grafana.main("check") == 0


def test_every_panel_has_a_description_a_unit_and_a_query() -> None:
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


def test_every_panel_asks_the_data_source_that_is_provisioned() -> None:
    provisioned = (ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8")
    assert f"uid: {grafana.SOURCE['uid']}\n" in provisioned
    assert {panel["datasource"]["uid"] for panel in PANELS} == {grafana.SOURCE["uid"]}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    everything = grafana.dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert all(0 <= panel["gridPos"]["x"] <= 24 - panel["gridPos"]["w"] for panel in everything)
    for one, other in combinations((panel["gridPos"] for panel in everything), 2):
        assert apart(one, other, "x", "w") or apart(one, other, "y", "h"), (one, other)


def apart(one: dict[str, int], other: dict[str, int], at: str, size: str) -> bool:
    return one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at]


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    ours = grafana.dashboard()
    read_back = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
    for annotation in ours["annotations"]["list"]:
        del annotation["titleFormat"]  # of Prometheus' annotations: these types know the common fields only
    assert dict(unknown("", ours, read_back)) == {}


def unknown(path: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any]]:
    """What is not there, or another, when Grafana's types have read it."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from unknown(f"{path}/{name}", value, theirs.get(name))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for n, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from unknown(f"{path}/{n}", *pair)
    elif ours != theirs:
        yield path, ours


def test_rates_look_back_as_far_as_grafana_finds_right() -> None:
    for query in QUERIES:
        assert set(re.findall(r"\[(.+?)\]", query)) <= {"$__rate_interval", "$__range", "5m", "1h", "6h", "45"}, query


@needs_prometheus
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"q{n}", "expr": filled(query, "1m", "1h")} for n, query in enumerate(QUERIES)]
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")
    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", file)


# ---- alerts
@needs_prometheus
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", *RULE_TESTS)


def test_every_alert_is_tested_and_leads_to_its_chapter_of_the_runbook() -> None:
    text = RULES.read_text("utf-8")
    alerts = re.findall(r"- alert: (\w+)", text)
    tests = "".join(file.read_text("utf-8") for file in RULE_TESTS)
    for alert in alerts:
        assert f"runbook_url: deploy/README.md#alert-{alert.lower()}\n" in text
        assert f"- alertname: {alert}\n" in tests, "fires"
    assert len(alerts) == text.count("runbook_url: ") == text.count("severity: ") - 1, "one is in the head"


@needs_prometheus
def test_the_configuration_of_prometheus_is_right() -> None:
    promtool("check", "config", RULES.with_name("prometheus.yml"))


# ---- against a worker
@pytest.fixture(scope="module")
def shop(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A worker that was killed once, and has taken events in since."""
    with deployed(kafka.brokers, tmp_path_factory.mktemp("shop")) as deployment:
        worker = deployment.worker().wait_ready()
        worker.crash()
        worker.start().wait_ready()
        events = made_up(users=20, items=10)
        deployment.send(next(events) for _ in range(200))
        deployment.wait_drained()
        yield deployment


@pytest.fixture
def worker(shop: Deployment) -> WorkerProcess:
    return shop.workers[0]


def metrics(worker: WorkerProcess) -> bytes:
    answer = worker.get("/metrics")
    assert answer is not None
    return answer[1]


def test_every_metric_of_dashboard_and_alerts_is_one_that_a_worker_has(worker: WorkerProcess) -> None:
    families = text_string_to_metric_families(metrics(worker).decode())
    have = {sample.name for family in families for sample in family.samples}
    used = {name for query in (*QUERIES, *expressions()) for name in METRIC.findall(query)}
    assert len(used) > 50
    assert used - have == set()


def expressions() -> list[str]:
    """Those of rules.yml: what stands behind `expr:`, up to the next key."""
    return re.findall(r"expr: (.*?)(?=\n +(?:for|labels|- record|- alert):)", RULES.read_text("utf-8"), re.DOTALL)


@needs_prometheus
def test_promtool_finds_nothing_to_mend_in_a_workers_metrics(worker: WorkerProcess) -> None:
    assert promtool("check", "metrics", given=metrics(worker)) == ""


def test_lag_is_told_by_topic_and_partition(worker: WorkerProcess) -> None:
    families = {family.name: family for family in text_string_to_metric_families(metrics(worker).decode())}
    for name in ("streamer_lag_records", "streamer_lag_seconds"):
        where = {(sample.labels["topic"], sample.labels["partition"]) for sample in families[name].samples}
        assert where == {(t, str(n)) for t in ("clicks", "purchases", "items", "item-signals") for n in range(3)}


def test_state_is_told_as_it_is_on_disk(worker: WorkerProcess) -> None:
    assert worker.metric("streamer_state_rows") >= 20
    assert worker.metric("streamer_disk_free_bytes") > 0
    assert worker.metric("streamer_partitions") == worker.metric("streamer_partitions_owned") == 3


def test_a_worker_that_was_killed_says_so_when_it_is_back(worker: WorkerProcess) -> None:
    ends = {how: worker.metric("streamer_ends_total", how=how) for how in ("killed", "stopped", "fenced")}
    assert ends == {"killed": 1, "stopped": 0, "fenced": 0}
    assert worker.metric("streamer_last_exit_code") == 137


@needs_prometheus
def test_every_panel_shows_something_of_a_live_worker(worker: WorkerProcess, tmp_path: Path) -> None:
    with Prometheus(tmp_path / "prometheus", [f"127.0.0.1:{worker.port}"], RULES) as prometheus:

        def silent() -> list[str]:
            return [reading.query for reading in read(prometheus.url, "15s", "1h") if not reading.values]

        until(lambda: not silent(), lambda: f"a value of {silent()}")
        assert prometheus.ask("sum(streamer_partitions_owned)")[0].last == 3
        dashboard = [
            sys.executable,
            "-m",
            "streamer",
            "dashboard",
            "--prometheus",
            prometheus.url,
            "--window",
            "15s",
            "--json",
        ]
        run = subprocess.run(dashboard, capture_output=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    assert {reading["panel"] for reading in json.loads(run.stdout)} == {panel["title"] for panel in PANELS}
