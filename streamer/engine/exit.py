"""Leaving in a hurry: when state and Kafka may disagree, only a restart is safe. A supervisor sees to that."""

import logging
import os
import sys
from typing import Final, NoReturn

import structlog
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from streamer.engine.ends import Ends, How
from streamer.errors import BrokerError, StreamerError, TopicsError

log = structlog.get_logger(__name__)

SOFTWARE: Final = 70  # sysexits.h EX_SOFTWARE: a broken invariant, or a fault that we do not know
TEMPORARY: Final = 75  # EX_TEMPFAIL: start again
# The second is what a send says when its producer was found fenced by the send before it.
FENCED: Final = (ProducerFenced, IllegalOperation)

_ends: list[Ends] = []  # of the data directory that this process has


class StalledError(Exception):
    """There is work, and nothing moves: a fresh start may help where waiting did not."""


def keep_count(ends: Ends) -> None:
    """From here on `note_end` writes there."""
    _ends[:] = [ends]


def note_end(exc: BaseException | None) -> int:
    """Note how this process ends, None: in order; returns the exit code."""
    how, code = judge(exc)
    for ends in _ends:
        ends.note(how, code)
    return code


def judge(exc: BaseException | None) -> tuple[How, int]:
    """What an end is called, and its exit code."""
    if exc is None or isinstance(exc, KeyboardInterrupt):  # the latter: stopped before it began to work
        return "stopped", 0
    if isinstance(exc, StreamerError):
        lost = isinstance(exc, BrokerError) and not isinstance(exc, TopicsError)
        return "kafka" if lost else "refused", exc.exit_code
    if isinstance(exc, FENCED):
        return "fenced", TEMPORARY
    if isinstance(exc, StalledError):
        return "stalled", TEMPORARY
    return ("kafka", TEMPORARY) if isinstance(exc, KafkaError) else ("fault", SOFTWARE)


def leave(what: str, exc: BaseException) -> NoReturn:
    """End the process at once, without committing anything more; says what happened and what comes next."""
    if isinstance(exc, FENCED):
        log.error("another worker took our partition over: leaving", during=what)
    elif isinstance(exc, StreamerError):
        log.error(str(exc), during=what)
    elif isinstance(exc, StalledError):
        log.error("no progress: leaving without a commit; start the worker again", during=what, reason=str(exc))
    elif isinstance(exc, KafkaError):
        log.error("Kafka failed: leaving without a commit; start the worker again", during=what, reason=repr(exc))
    else:
        log.critical("leaving without a commit", during=what, exc_info=exc)
    code = note_end(exc)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
