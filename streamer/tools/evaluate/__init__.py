"""`streamer evaluate`: prequential scores of the pipeline that the worker runs, over event lines, without Kafka."""

import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.settings import Settings
from streamer.tools.evaluate.report import Report, report
from streamer.tools.evaluate.run import Evaluation, Options, ordered
from streamer.tools.lines import read
from streamer.tools.load import ITEMS
from streamer.tools.replay import BadLines

__all__ = ["Options", "Report", "run"]

MOVE_EVERY = 500  # lines between two moves of the bar


def run(settings: Settings, files: Sequence[Path], options: Options) -> Report:
    """Test and learn the lines of all files, in their order; `settings.partitions` workers share the users.

    Bad lines are named on stderr and skipped. Raises EventFileError.
    """
    console = Console(stderr=True)
    bad = BadLines(console)

    lines = chain.from_iterable(read(path, partial(bad, path)) for path in files)
    with tempfile.TemporaryDirectory() as directory, _progress(console) as progress:
        bar = progress.add_task("evaluate", total=_events(files, options.limit) if console.is_terminal else None)
        evaluation = Evaluation(settings, Path(directory), options)
        try:
            for line in ordered(lines, options):
                evaluation.feed(line)
                if evaluation.events % MOVE_EVERY == 0:
                    progress.update(bar, completed=evaluation.events)
            return report(evaluation)
        finally:
            evaluation.close()
            bad.close()


def _events(files: Sequence[Path], limit: int | None) -> int:
    """How many there will be: a first pass over the files."""
    count = sum(line.topic != ITEMS for path in files for line in read(path, lambda _: None))
    return count if limit is None else min(count, limit)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
