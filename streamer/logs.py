"""Logs on standard error: text for people, one JSON object a line for machines. Standard output belongs to results.

Lines of Faust, aiokafka and kafka-python take the same form. The two Kafka clients retry for ever and log each attempt,
some with a traceback: of each, one line passes in five seconds.
"""

import logging
import sys
import time
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, Processor

from streamer.errors import StreamerError
from streamer.settings import Settings

REPEAT_S = 5.0  # often enough to see that it goes on, seldom enough to read what else happens
# Above this level each library tells what an operator can act on; below it, how it works inside.
LEVELS = {
    "kafka": logging.ERROR,
    "aiokafka": logging.WARNING,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "aiohttp": logging.WARNING,
    "numba": logging.WARNING,
    "asyncio": logging.WARNING,
}
_RETRYING = ("kafka", "aiokafka")
_for_machines = False


def configure(settings: Settings) -> None:
    """Send all logs to standard error in the form and from the level that the settings name. May be called again."""
    global _for_machines
    _for_machines = settings.log_format == "json"
    shared = _shared(for_machines=_for_machines)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Calm())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_render(for_machines=_for_machines),
            ],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(settings.log_level)
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(max(level, logging.root.level))


def report(error: StreamerError) -> None:
    """Say why the program ends, on standard error: a log line for machines, plain words for people."""
    if _for_machines:
        structlog.get_logger(__name__).error(str(error), exit_code=error.exit_code)
    else:
        sys.stderr.write(f"error: {error}\n")


class Calm(logging.Filter):
    """Lets one line of each retrying library pass in `REPEAT_S` seconds: the next ones tell the same in other words.

    Of their tracebacks only the exception is kept: the rest shows the library's loop, not what is wrong. What they say
    of a healthy first start is dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is printed."""
        library = record.name.partition(".")[0]
        if library not in _RETRYING:
            return True
        if _is_of_first_start(record):
            return False
        if record.exc_info and record.exc_info[1] is not None:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]!r}", ()
        record.exc_info = record.exc_text = None
        now = self._clock()
        if now - self._passed_at.get(library, -REPEAT_S) < REPEAT_S:
            return False
        self._passed_at[library] = now
        return True


def _is_of_first_start(record: logging.LogRecord) -> bool:
    """A new broker makes its topic of group offsets when a group first asks, and says "not available" until then."""
    line = record.getMessage()
    return line.startswith("Group Coordinator Request failed") and "CoordinatorNotAvailable" in line


def _shared(*, for_machines: bool) -> list[Processor]:
    """What every line gets, ours or a library's. Machines get UTC, people the time of their wall."""
    stamp = structlog.processors.TimeStamper(
        fmt="iso" if for_machines else "%H:%M:%S", utc=for_machines, key="timestamp"
    )
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        stamp,
        structlog.processors.StackInfoRenderer(),
    ]


def _without_logger(_logger: object, _method: str, line: EventDict) -> EventDict:
    line.pop("logger", None)
    return line


def _render(*, for_machines: bool) -> list[Processor]:
    if for_machines:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [
        _without_logger,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
