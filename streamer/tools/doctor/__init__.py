"""`streamer doctor`: what is wrong with a deployment, and what to do about it. Looks, and changes nothing.

A check is a function from settings to findings and a line in `CHECKS`. One that fails or hangs is a finding itself and
stops no other.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from streamer.errors import BrokerError, StreamerError
from streamer.settings import Settings
from streamer.tools.doctor import access, cluster, flow, limits, machine
from streamer.tools.doctor.finding import Finding, error, exit_code, note, warning

__all__ = ["CHECKS", "Check", "Finding", "examine", "exit_code"]

TIMEOUT_S: Final = 30.0  # for one check; twice what the slowest waits for by itself


class Check(NamedTuple):
    """One thing to look at. `asks_broker`: it has nothing to say where no broker answers."""

    name: str
    look: Callable[[Settings], Iterable[Finding]]
    asks_broker: bool = True


# In the order in which they are told: what explains others comes first.
CHECKS: Final = (
    Check("variables", access.variables, asks_broker=False),
    Check("tls", access.tls, asks_broker=False),
    Check("broker", cluster.broker),
    Check("apis", cluster.apis),
    Check("clock", cluster.clock),
    Check("topics", cluster.topics),
    Check("partitions", cluster.partitions),
    Check("limits", limits.limits),
    Check("keys", flow.keys),
    Check("producers", flow.producers),
    Check("group", flow.group),
    Check("disk", machine.data_directory, asks_broker=False),
    Check("lock", machine.lock, asks_broker=False),
    Check("descriptors", machine.descriptors, asks_broker=False),
    Check("memory", machine.memory, asks_broker=False),
    Check("kernels", machine.kernels, asks_broker=False),
    Check("http", access.http, asks_broker=False),
)


def examine(settings: Settings, checks: Sequence[Check] = CHECKS, *, timeout_s: float = TIMEOUT_S) -> Iterator[Finding]:
    """Findings of all checks, as they come. After a broker that does not answer, nothing else is asked of it."""
    without_broker: list[str] = []
    broker_answers = True
    for check in checks:
        if check.asks_broker and not broker_answers:
            without_broker.append(check.name)
            continue
        findings = list(_look(check, settings, timeout_s))
        broker_answers &= check.name != "broker" or not _fails(findings)
        yield from (msgspec.structs.replace(each, check=check.name) for each in findings)
    if without_broker:
        left_out = note(f"not looked at, without a broker: {', '.join(without_broker)}")
        yield msgspec.structs.replace(left_out, check="broker")


def _fails(findings: Iterable[Finding]) -> bool:
    return not any(each.severity in ("ok", "warning") for each in findings)


def _look(check: Check, settings: Settings, timeout_s: float) -> list[Finding]:
    """What a check finds, in a thread of its own: one that hangs is left behind."""
    findings: list[Finding] = []

    def run() -> None:
        try:
            findings.extend(check.look(settings))
        except Exception as exc:
            findings.append(_failed(exc))

    thread = threading.Thread(target=run, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not thread.is_alive():
        return findings
    hangs = warning(f"no answer within {timeout_s:.0f} s", "a broker or a disk hangs", "look at its load and its log")
    return [*findings, hangs]


def _failed(exc: Exception) -> Finding:
    refused = type(exc.__cause__).__name__
    if "AuthorizationFailed" in refused:
        return note(
            f"this user may not look ({refused})",
            "the check could not be made; the worker itself may be fine",
            "allow Describe and DescribeConfigs on cluster, topics and group, or have an administrator run the doctor",
        )
    if isinstance(exc, StreamerError):
        means = "no worker can start" if isinstance(exc, BrokerError) else "a worker would stop with it"
        return error(str(exc), f"{means} (exit code {exc.exit_code})", "mend this first, then run the doctor again")
    return warning(f"the check itself failed: {exc!r}", "nothing is known of what it looks at", "please report it")
