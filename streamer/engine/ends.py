"""How the runs of a worker ended, kept in its data directory: a process that ends takes its own counters with it.

One small file, written when a run begins and when it ends. A run that left no end was killed, or lost its power.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from streamer import metrics

How = Literal["stopped", "fenced", "stalled", "kafka", "fault", "refused", "killed"]
KILLED_CODE: Final = 137  # what a shell says of kill -9
FILE: Final = "ends.json"


class Note(msgspec.Struct, frozen=True):
    """What the file holds. `last_code`: the exit code of the run before; None while a run goes on."""

    last_code: int | None = 0
    counts: dict[str, int] = {}

    def ended(self, how: How, code: int) -> "Note":
        """One end more."""
        return Note(code, {**self.counts, how: self.counts.get(how, 0) + 1})


class Ends:
    """The file of one data directory, which the caller has locked. A run begins when this is made."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        note = self._read()
        self._note = note.ended("killed", KILLED_CODE) if note.last_code is None else note
        self._write(Note(None, self._note.counts))

    def tell(self) -> None:
        """Into the metrics, once."""
        metrics.LAST_EXIT_CODE.set(self._note.last_code or 0)
        for how in get_args(How):
            metrics.ENDS.labels(how).inc(self._note.counts.get(how, 0))

    def note(self, how: How, code: int) -> None:
        """The run ends."""
        self._write(self._note.ended(how, code))

    def _read(self) -> Note:
        with suppress(OSError, msgspec.MsgspecError):  # none yet, or cut off by a full disk: count anew
            return msgspec.json.decode(self._path.read_bytes(), type=Note)
        return Note()

    def _write(self, note: Note) -> None:
        draft = self._path.with_suffix(".new")
        with suppress(OSError):  # no worker fails for the sake of a count
            draft.write_bytes(msgspec.json.encode(note))
            draft.replace(self._path)
