"""The project around the code: locks, licence, changelog, Makefile, image and compose file say the same things."""

import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import streamer
from streamer.settings import Settings

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("dev", "worker", "build")


def lock_text(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")


def locked(name: str) -> dict[str, set[str]]:
    """The versions of every package in a lock; several where platforms differ."""
    versions: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", lock_text(name), re.MULTILINE):
        versions.setdefault(package, set()).add(version)
    return versions


def wanted(*extras: str) -> list[Requirement]:
    texts = list(PYPROJECT["project"]["dependencies"])
    for extra in extras:
        texts += PYPROJECT["project"]["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def excluded() -> set[str]:
    lines = (ROOT / "requirements" / "worker-excludes.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_hashes_and_name_no_host_and_no_path(name: str) -> None:
    text = lock_text(name)
    entries = re.split(r"^(?=[a-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--index|--extra-index|--find-links|/home|/tmp", text)


def test_the_development_lock_has_every_dependency_in_a_version_that_will_do() -> None:
    versions = locked("dev")
    for requirement in wanted("dev"):
        found = versions[canonicalize_name(requirement.name)]
        assert any(requirement.specifier.contains(version) for version in found), requirement


def test_the_image_has_what_the_worker_needs_in_the_versions_that_were_tested() -> None:
    worker, dev = locked("worker"), locked("dev")
    needed = {canonicalize_name(requirement.name) for requirement in wanted("otel")}
    assert needed - worker.keys() == excluded()
    assert {package: dev[package] for package in worker} == worker


def test_the_build_lock_has_the_build_requirements() -> None:
    group = PYPROJECT["dependency-groups"]["build"]
    assert group == PYPROJECT["build-system"]["requires"]
    assert {Requirement(text).name for text in group} <= locked("build").keys()


def test_the_licence_is_what_the_metadata_says() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)[0]
    assert newest in {"Unreleased", streamer.__version__}


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """The result of a command; variables of a surrounding make do not reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, check=False)


def test_make_alone_tells_what_there_is_to_make() -> None:
    result = run("make")
    phony = re.findall(r"^\.PHONY: (help .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert set(phony.split()) == set(re.findall(r"^make (\S+)", result.stdout, re.MULTILINE))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh checkout as far as `make install` looks at it."""
    (tmp_path / "requirements").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements/dev.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_an_old_python_is_refused_with_its_version_and_the_next_step(checkout: Path) -> None:
    old = program(checkout / "old" / "python3", 'if [ "$1" = --version ]; then echo Python 3.9.2; fi; exit 1')
    for newer in ("python3.11", "python3.12", "python3.13"):
        program(checkout / "old" / newer, "exit 127")
    path = f"{old.parent}:{os.environ['PATH']}"
    result = run("make", "install", f"PYTHON={old}", cwd=checkout, PATH=path)
    assert result.returncode != 0
    assert f"needs Python 3.11 or newer, and {old} is Python 3.9.2" in result.stderr
    assert "make PYTHON=" in result.stderr
    assert not (checkout / ".venv").exists()


def test_an_install_that_was_cut_short_starts_afresh(checkout: Path) -> None:
    left_over = checkout / ".venv" / "lib" / "half-written"
    # A Python whose venv has a pip that fails, as without network; then one whose pip is content.
    stand_in = 'rm -rf .venv; mkdir -p .venv/bin .venv/lib; cp "$(dirname "$0")/pip" .venv/bin/python'
    makes = f'if [ "$1" = -m ]; then {stand_in}; fi'
    python = program(checkout / "bin" / "python3", makes)
    program(checkout / "bin" / "pip", "touch .venv/lib/half-written; exit 1")
    assert run("make", "install", f"PYTHON={python}", cwd=checkout).returncode != 0
    assert left_over.exists()
    assert not (checkout / ".venv" / "installed").exists()
    program(checkout / "bin" / "pip", 'case "$*" in *open*) cat .venv/installed;; esac')
    assert run("make", "install", f"PYTHON={python}", cwd=checkout).returncode == 0
    assert not left_over.exists()
    assert run("make", "--question", "install", cwd=checkout).returncode == 0


def test_a_checkout_that_was_moved_is_installed_again(checkout: Path) -> None:
    program(checkout / ".venv" / "bin" / "python", "cat .venv/installed")
    (checkout / ".venv" / "installed").write_text(f"{checkout}\n", encoding="utf-8")
    assert run("make", "--question", "install", cwd=checkout).returncode == 0
    moved = checkout.rename(checkout.with_name("moved"))
    assert run("make", "--question", "install", cwd=moved).returncode == 1


def test_every_line_of_the_image_passes_the_linter() -> None:
    result = run(BIN / "hadolint", "deploy/Dockerfile")
    assert (result.returncode, result.stdout) == (0, "")


@cache
def compose() -> dict[str, Any]:
    """The compose file as Docker Compose understands it, with the demo's profile."""
    result = run(BIN / "docker-compose", "--profile", "demo", "config", "--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


WORKERS = ("worker-1", "worker-2")


def test_compose_starts_workers_when_kafka_is_healthy_and_the_topics_are_made() -> None:
    services = compose()["services"]
    assert services.keys() == {"kafka", "topics", *WORKERS, "prometheus", "grafana", "shoppers"}
    assert {name for name, service in services.items() if service.get("profiles")} == {"shoppers"}
    for worker in WORKERS:
        conditions = {name: needed["condition"] for name, needed in services[worker]["depends_on"].items()}
        assert conditions == {"kafka": "service_healthy", "topics": "service_completed_successfully"}


def test_compose_keeps_data_in_volumes_that_no_two_services_share() -> None:
    config = compose()
    volumes = [
        volume["source"]
        for service in config["services"].values()
        for volume in service.get("volumes", [])
        if volume["type"] == "volume"
    ]
    assert sorted(volumes) == sorted(config["volumes"])


def test_compose_mounts_files_that_are_there() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or (Path(volume["source"]).exists() and volume["read_only"])


def test_compose_has_prometheus_ask_every_worker() -> None:
    targets = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    assert f"targets: [{', '.join(f'{worker}:6066' for worker in WORKERS)}]" in targets


def test_compose_publishes_ports_on_this_machine_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_compose_sets_only_settings_that_exist() -> None:
    known = {f"STREAMER_{name.upper()}" for name in Settings.model_fields}
    for service in compose()["services"].values():
        assert {name for name in service.get("environment", {}) if name.startswith("STREAMER_")} <= known
