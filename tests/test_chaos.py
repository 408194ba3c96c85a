"""Chaos, watched by Prometheus: every fault shows, every alert fires that should, and no event is lost.

`make chaos ARGS="--minutes 30"` goes round after round, and leaves graphs in `--pictures`.
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.engine.warmup import compile_kernels
from streamer.settings import load
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.prometheus import is_installed
from tests.chaos import FAULTS, REST_S, Chaos
from tests.chaos_pictures import draw
from tests.deployment import deployed
from tests.fleet import check, share
from tests.worker_process import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
# What the machine alone can set off: it may be slow, and others may fill its disk.
MACHINE = {"FreshnessBurnsFast", "FreshnessBurns", "FreshnessBurnsSlowly", "DiskFills"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(24 * 3600),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # kafka-python's, when one is refused
    pytest.mark.skipif(not is_installed(), reason="Prometheus is not installed (Debian: apt install prometheus)"),
]


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where graphs go."""
    directory = Path(request.config.getoption("--pictures") or tmp_path / "pictures").absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[Chaos]:
    """Two workers that share the partitions of a broker of their own."""
    compile_kernels(load())  # else each worker does, for as long as many faults take
    options = {
        "partitions": 6,
        "publish_within_ms": 5000,
        "seen_ids": 1,
        "stall_ms": 180_000,  # a restore hangs until its alerts fire
    }
    with EmbeddedKafka(tmp_path / "kafka") as kafka, deployed(kafka.brokers, tmp_path, **options) as fleet:
        fleet.ends = []
        workers = [fleet.worker(f"w{n}") for n in range(2)]
        share(fleet, *workers)
        yield Chaos(kafka, fleet, workers, tmp_path)


def test_every_fault_shows_and_sets_off_its_alerts(
    chaos: Chaos, pictures: Path, request: pytest.FixtureRequest
) -> None:
    minutes = float(request.config.getoption("--minutes"))
    with chaos.running(RULES.read_text("utf-8")):
        try:
            chaos.until_well()
            chaos.wait(REST_S)
            assert chaos.firing(chaos.start_s) <= MACHINE
            suffered = []
            for fault in itertools.cycle(FAULTS):
                if len(suffered) >= len(FAULTS) and time.time() > chaos.start_s + 60 * minutes:
                    break
                chaos.suffer(fault)
                suffered.append(fault)
        finally:
            drawn = draw(chaos, pictures)
            (pictures / "faults.txt").write_text(told(chaos), "utf-8")
        for fault, span in zip(suffered, chaos.spans, strict=True):
            assert chaos.firing(span.start_s, span.well_s) >= fault.alerts, fault.name
            assert chaos.shows(fault.sign, span), fault.name
    check(chaos.fleet)
    assert all(path.stat().st_size > 10_000 for path in drawn)


def told(chaos: Chaos) -> str:
    """A line a fault: when, how long, until all was well, and which alerts fired meanwhile."""
    return "".join(
        f"{span.start_s - chaos.start_s:6.0f} s  {span.name:14} {span.over_s - span.start_s:5.0f} s,"
        f" well after {span.well_s - span.over_s:4.0f} s: "
        f"{', '.join(sorted(chaos.firing(span.start_s, span.well_s))) or 'no alert'}\n"
        for span in chaos.spans
    )
