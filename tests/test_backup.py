"""`streamer backup` and `streamer restore`: a copy of a running worker's state, and a start from it."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamer.engine import backup_service
from streamer.engine.backup import MANIFEST, begin, copy, put_back, read_manifest
from streamer.engine.backup_service import ask
from streamer.engine.store import Store, set_aside, shared_cache
from streamer.errors import DataDirError, SettingsError, StateError, StreamerError
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Feed, assert_prefix, deployed
from tests.worker_process import WorkerProcess, environment

SOME = 500  # events


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(kafka.brokers, tmp_path, publish_within_ms=1000, seen_ids=1) as own:
        yield own


def settings_of(deployment: Deployment, process: WorkerProcess, **others: object) -> Settings:
    return load(**{**deployment.settings.model_dump(), "data_dir": process.data_dir, **others})


def assert_prefixes(deployment: Deployment, backup: Path) -> None:
    """Every partition of a backup equals its changelog up to the offset that the manifest names."""
    shutil.copytree(backup, copy := backup.with_name("looked-at"))
    logs = deployment.read(deployment.settings.changelog_topic)
    for n, offset in read_manifest(backup).offsets.items():
        store = Store(copy / str(n), shared_cache(8))
        assert store.next_offset == offset
        store.close()
        assert_prefix(copy / str(n), [each for each in logs if each.partition == n])


def test_worker_that_lost_its_disk_starts_from_a_backup_that_was_taken_under_load(
    deployment: Deployment, tmp_path: Path
) -> None:
    process = deployment.worker().wait_ready()
    settings = settings_of(deployment, process)
    with Feed(deployment, rate=300):
        deployment.wait_progress(SOME)
        manifest = ask(settings, tmp_path / "backup")
        deployment.wait_progress(SOME)
    assert sorted(manifest.offsets) == list(range(settings.partitions))
    deployment.wait_caught_up()
    assert process.stop() == 0
    shutil.rmtree(process.data_dir)
    done = put_back(settings, tmp_path / "backup")
    assert done.restored == tuple(range(settings.partitions))
    process.start().wait_ready()
    changelog = deployment.read(settings.changelog_topic)
    behind = [each for each in changelog if each.offset >= manifest.offsets[each.partition]]
    assert 0 < process.metric("streamer_restore_rows_total") <= len(behind) < len(changelog)
    deployment.check_profiles()
    assert process.stop() == 0
    assert deployment.check_stores() == settings.partitions
    assert_prefixes(deployment, tmp_path / "backup")


def test_tables_are_links_on_the_same_file_system(deployment: Deployment, tmp_path: Path) -> None:
    process = deployment.worker().wait_ready()
    with Feed(deployment, rate=300):
        deployment.wait_progress(SOME)
        ask(settings_of(deployment, process), tmp_path / "backup")
    tables = list((tmp_path / "backup").glob("*/*.sst"))
    assert tables
    assert all(table.stat().st_nlink > 1 for table in tables)
    assert process.stop() == 0


def test_what_the_worker_cannot_do_is_said_and_it_goes_on(deployment: Deployment, tmp_path: Path) -> None:
    process = deployment.worker().wait_ready()
    settings = settings_of(deployment, process)
    with pytest.raises(StreamerError, match="is not empty"):
        ask(settings, process.data_dir)
    with pytest.raises(StreamerError, match="no backup can be written"):
        ask(settings, tmp_path / "nowhere" / "backup")
    ask(settings, tmp_path / "backup")
    with pytest.raises(DataDirError, match="in use by another worker"):
        put_back(settings, tmp_path / "backup")
    with Feed(deployment, rate=300):
        deployment.wait_progress(SOME)
    deployment.check_profiles()
    assert process.stop() == 0


async def test_a_slow_copy_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slowly(source: Path, to: Path) -> None:
        begun.set()
        assert may_end.wait(30)
        copy(source, to)

    monkeypatch.setattr(backup_service, "copy", slowly)
    store = Store(tmp_path / "0", shared_cache(8))
    store.write([(b"uann", b"row")], 7)
    partition: Any = SimpleNamespace(number=0, store=store, txn_lock=asyncio.Lock())
    copying = asyncio.create_task(backup_service._copy(partition, tmp_path / "copied"))
    assert await asyncio.to_thread(begun.wait, 30)
    async with asyncio.timeout(30), partition.txn_lock:
        store.write([(b"ubob", b"later")], 9)
    may_end.set()
    assert await copying == 7
    store.close()
    copied = Store(tmp_path / "copied", shared_cache(8))
    assert (copied.next_offset, copied.get(b"uann"), copied.get(b"ubob")) == (7, b"row", None)
    copied.close()
    assert set(await asyncio.to_thread(os.listdir, tmp_path)) == {"0", "copied"}


def test_backup_that_is_not_whole_is_none(tmp_path: Path) -> None:
    partial = begin(tmp_path / "backup")
    (partial / "0").mkdir()
    with pytest.raises(StateError, match="not a whole one"):
        put_back(load(data_dir=tmp_path / "w"), partial)
    assert begin(tmp_path / "backup") == partial
    assert list(partial.iterdir()) == [], "what is left of an attempt is taken away"


@pytest.fixture
def backup(deployment: Deployment, tmp_path: Path) -> Path:
    """A backup of a worker that has stopped since."""
    process = deployment.worker("source").wait_ready()
    with Feed(deployment, rate=300):
        deployment.wait_progress(SOME)
        ask(settings_of(deployment, process), tmp_path / "backup")
        deployment.wait_progress(SOME)
    assert process.stop() == 0
    return tmp_path / "backup"


def test_backup_goes_only_where_it_belongs(deployment: Deployment, backup: Path, tmp_path: Path) -> None:
    source = deployment.workers[0]
    with pytest.raises(SettingsError, match="STREAMER_APP_ID"):
        put_back(settings_of(deployment, source, app_id="another"), backup)
    with pytest.raises(SettingsError, match="STREAMER_PARTITIONS"):
        put_back(settings_of(deployment, source, partitions=4), backup)
    newer = json.loads((backup / MANIFEST).read_text()) | {"format": 99}
    (backup / MANIFEST).write_text(json.dumps(newer))
    with pytest.raises(StateError, match="use that version"):
        put_back(settings_of(deployment, source), backup)


def test_state_that_reaches_further_is_left_alone(deployment: Deployment, backup: Path) -> None:
    source = deployment.workers[0]
    done = put_back(settings_of(deployment, source), backup)
    assert (done.restored, done.kept) == ((), (0, 1, 2))


def test_commands_do_it_too(deployment: Deployment, backup: Path, tmp_path: Path) -> None:
    place, settings = tmp_path / "restored", deployment.settings
    ours = environment(topic_prefix=settings.topic_prefix, partitions=settings.partitions, data_dir=place)
    command = [sys.executable, "-m", "streamer"]
    done = subprocess.run([*command, "restore", backup], env=ours, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3 partitions are back in")
    alone = subprocess.run([*command, "backup", tmp_path / "b"], env=ours, capture_output=True, text=True, check=False)
    assert alone.returncode == DataDirError.exit_code
    assert "no worker answers" in alone.stderr


def test_of_what_is_moved_aside_only_the_newest_is_kept(tmp_path: Path) -> None:
    kept = []
    for content in ("first", "second", "third"):
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / content).touch()
        kept = [set_aside(tmp_path / "7")]
    (tmp_path / "71.unused-1").mkdir()
    assert sorted(tmp_path.glob("7.*")) == kept
    assert [path.name for path in kept[0].iterdir()] == ["third"]
