"""Three embedded brokers as one cluster, for tests that take one of them away."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.kafka_dir import HOST, DataDir, Note, any_port
from streamer.tools.kafka_jars import KAFKA_VERSION

NODES = 3
CLUSTER_ID = "dGhyZWUtYnJva2Vycy1vbg"
REPLICATED = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "min.insync.replicas": "2",
    # After a kill the others take over at once, and the killed one catches up before it is needed again.
    "replica.lag.time.max.ms": "3000",
}


class Cluster:
    """Brokers, each a controller too, as a context manager. `brokers` has the addresses of all."""

    def __init__(self, root: Path) -> None:
        ports = _ports(2 * NODES)
        clients, controllers = ports[:NODES], ports[NODES:]
        voters = ",".join(f"{n}@{HOST}:{port}" for n, port in enumerate(controllers, start=1))
        self.brokers = ",".join(f"{HOST}:{port}" for port in clients)
        self.nodes = [
            _node(root / f"broker-{n}", client, {"node.id": str(n), "controller.quorum.voters": voters}, controller)
            for n, (client, controller) in enumerate(zip(clients, controllers, strict=True), start=1)
        ]

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor(NODES) as pool:  # none answers before most of them are up
                list(pool.map(EmbeddedKafka.start, self.nodes))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for node in self.nodes:
            node.kill()  # a clean stop would hand everything over to the next that is stopped


def _ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(any_port())
    return list(ports)


def _node(path: Path, port: int, properties: Mapping[str, str], controller: int) -> EmbeddedKafka:
    path.mkdir()
    DataDir(path).save(Note(cluster_id=CLUSTER_ID, port=port, kafka=KAFKA_VERSION))
    listeners = {"listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}"}
    return EmbeddedKafka(path, port, properties={**REPLICATED, **properties, **listeners})
