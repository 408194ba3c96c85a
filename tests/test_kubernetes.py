"""The manifests in deploy/kubernetes: valid, and parts that name each other fit. No cluster was asked."""

import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from streamer.engine.topics import topic_specs
from streamer.settings import Settings, load
from tests.test_project import ROOT, run

MANIFESTS = ROOT / "deploy" / "kubernetes"
KUBERNETES = "1.30"  # the oldest that we look at
CUSTOM = {
    "monitoring.coreos.com/v1": {"ServiceMonitor", "PrometheusRule"},
    "keda.sh/v1alpha1": {"ScaledObject"},
}  # their schemas are not ours
PARTS = ("base", "prometheus", "keda")


def kustomization(part: str) -> dict[str, Any]:
    return yaml.safe_load((MANIFESTS / part / "kustomization.yaml").read_text(encoding="utf-8"))


def documents(*parts: str) -> list[dict[str, Any]]:
    """All that the kustomizations list, as it stands in the files."""
    paths = [MANIFESTS / part / name for part in parts for name in kustomization(part)["resources"]]
    return [document for path in paths for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (each for each in documents(*PARTS) if each["kind"] == kind)
    return found


def worker() -> dict[str, Any]:
    (container,) = of_kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
    return container


def setting_variables() -> dict[str, str]:
    lines = (MANIFESTS / "base" / "settings.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("document", documents(*PARTS), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_every_manifest_follows_the_schema_of_its_kind(document: dict[str, Any]) -> None:
    if document["apiVersion"] in CUSTOM:
        assert document["kind"] in CUSTOM[document["apiVersion"]]
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_every_file_is_in_a_kustomization() -> None:
    for part in PARTS:
        there = {path.name for path in (MANIFESTS / part).glob("*.yaml")} - {"kustomization.yaml"}
        assert there == set(kustomization(part)["resources"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders, and is not here")
def test_an_overlay_with_both_components_renders_to_valid_manifests(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "kubernetes")
    overlay = {
        "resources": ["../kubernetes/base"],
        "components": ["../kubernetes/prometheus", "../kubernetes/keda"],
        "images": [{"name": "streamer", "newName": "registry.example/streamer", "newTag": "1.0"}],
    }
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    result = run("kubectl", "kustomize", str(tmp_path / "shop"))
    assert (result.returncode, result.stderr) == (0, "")
    rendered = [each for each in yaml.safe_load_all(result.stdout) if each["apiVersion"] not in CUSTOM]
    assert len(rendered) == len(documents("base")) + 1  # the generated settings
    for each in rendered:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    (policy,) = (each for each in rendered if each["kind"] == "NetworkPolicy")
    assert policy["spec"] == of_kind("NetworkPolicy")["spec"]  # labels of all objects would shut its peers out


def test_only_settings_that_exist_are_set_and_they_do_not_fight() -> None:
    known = {f"STREAMER_{name.upper()}" for name in Settings.model_fields}
    named = {each["name"] for each in worker()["env"] if each["name"].startswith("STREAMER_")}
    assert named | setting_variables().keys() <= known
    load(**{name.removeprefix("STREAMER_").lower(): value for name, value in setting_variables().items()})


def test_each_pod_is_a_static_member_under_its_own_name_that_others_can_reach() -> None:
    stateful = of_kind("StatefulSet")["spec"]
    values = {each["name"]: each.get("value") for each in worker()["env"]}
    assert values["STREAMER_INSTANCE_ID"] == "$(POD_NAME)"
    assert (
        values["STREAMER_ADVERTISED_URL"] == f"http://$(POD_NAME).{stateful['serviceName']}.$(POD_NAMESPACE).svc:6066"
    )
    (headless,) = (each for each in documents("base") if each.get("spec", {}).get("clusterIP") == "None")
    assert headless["metadata"]["name"] == stateful["serviceName"]


def test_a_pod_that_is_updated_is_back_before_its_session_ends() -> None:
    pod = of_kind("StatefulSet")["spec"]["template"]["spec"]
    start_s = 30  # scheduling, a cached image, kernels from disk
    assert (
        int(setting_variables()["STREAMER_SESSION_TIMEOUT_MS"])
        >= (pod["terminationGracePeriodSeconds"] + start_s) * 1000
    )


def test_a_worker_has_time_to_drain_and_to_start() -> None:
    pod, probe = of_kind("StatefulSet")["spec"]["template"]["spec"], worker()["startupProbe"]
    assert pod["terminationGracePeriodSeconds"] > 30
    assert probe["periodSeconds"] * probe["failureThreshold"] * 1000 >= load().broker_wait_ms + 120_000


def test_nothing_runs_as_root_or_writes_beside_its_volumes() -> None:
    for kind in ("StatefulSet", "Job"):
        pod = of_kind(kind)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            rules = container["securityContext"]
            assert rules["readOnlyRootFilesystem"]
            assert not rules["allowPrivilegeEscalation"]
            assert rules["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_selectors_find_the_pods_and_ports_that_are_there() -> None:
    labels = of_kind("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in worker()["ports"]}
    services = [each for each in documents("base") if each["kind"] == "Service"]
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    monitor = of_kind("ServiceMonitor")["spec"]
    everywhere = kustomization("base")["labels"][0]["pairs"]
    found = [
        each
        for each in services
        if monitor["selector"]["matchLabels"].items() <= (each["metadata"]["labels"] | everywhere).items()
    ]
    assert len(found) == 1
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in found[0]["spec"]["ports"]}
    assert everywhere[monitor["jobLabel"]] == "streamer"


def test_the_rules_are_those_of_prometheus_itself() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    assert of_kind("PrometheusRule")["spec"] == yaml.safe_load(rules), "run `make fix`"


def test_workers_are_scaled_by_the_lag_of_their_own_group_up_to_one_a_partition() -> None:
    scaled, variables = of_kind("ScaledObject")["spec"], setting_variables()
    settings = load(partitions=variables["STREAMER_PARTITIONS"])
    assert scaled["scaleTargetRef"] == {"kind": "StatefulSet", "name": of_kind("StatefulSet")["metadata"]["name"]}
    assert scaled["maxReplicaCount"] == settings.partitions
    trigger = scaled["triggers"][0]["metadata"]
    assert trigger["bootstrapServers"] == variables["STREAMER_BROKERS"]
    assert trigger["consumerGroup"] == settings.group_id
    assert trigger["topic"] in {spec.name for spec in topic_specs(settings)}


def test_the_health_check_of_the_image_tells_a_worker_from_none() -> None:
    check = ROOT / "deploy" / "healthcheck.py"
    result = run(shutil.which("python3") or "python3", check, STREAMER_HTTP_PORT="1")
    assert result.returncode == 1
    assert "no answer" in result.stderr


def test_the_image_is_built_from_files_that_its_build_may_see() -> None:
    copied = [
        source
        for line in (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in allowed), source
