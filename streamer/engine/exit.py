"""Leaving in a hurry: when state and Kafka may disagree, only a restart is safe. A supervisor sees to that."""

import logging
import os
import sys
from typing import Final, NoReturn

import structlog
from aiokafka.errors import KafkaError, ProducerFenced

from streamer.errors import StreamerError

log = structlog.get_logger(__name__)

SOFTWARE: Final = 70  # sysexits.h EX_SOFTWARE: a broken invariant, or a fault that we do not know
TEMPORARY: Final = 75  # EX_TEMPFAIL: start again


class StalledError(Exception):
    """There is work, and nothing moves: a fresh start may help where waiting did not."""


def leave(what: str, exc: BaseException) -> NoReturn:
    """End the process at once, without committing anything more; says what happened and what comes next."""
    if isinstance(exc, ProducerFenced):
        log.error("another worker took our partition over: leaving", during=what)
        code = TEMPORARY
    elif isinstance(exc, StreamerError):
        log.error(str(exc), during=what)
        code = exc.exit_code
    elif isinstance(exc, StalledError):
        log.error("no progress: leaving without a commit; start the worker again", during=what, reason=str(exc))
        code = TEMPORARY
    elif isinstance(exc, KafkaError):
        log.error("Kafka failed: leaving without a commit; start the worker again", during=what, reason=repr(exc))
        code = TEMPORARY
    else:
        log.critical("leaving without a commit", during=what, exc_info=exc)
        code = SOFTWARE
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
