"""What a check found: how bad it is, what was seen, what that means and what to do about it."""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

Severity = Literal["ok", "note", "warning", "error"]

# In the order of badness. A note is worth knowing and needs nobody; a warning is trouble to come; an error is trouble.
EXIT_CODES: Final[dict[Severity, int]] = {"ok": 0, "note": 0, "warning": 1, "error": 2}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a check has to say. `check` is set by who runs it; `ok` needs neither `means` nor `do`."""

    severity: Severity
    found: str
    means: str = ""
    do: str = ""
    check: str = ""


def ok(found: str) -> Finding:
    """All is well."""
    return Finding("ok", found)


def note(found: str, means: str = "", do: str = "") -> Finding:
    """Worth knowing."""
    return Finding("note", found, means, do)


def warning(found: str, means: str, do: str) -> Finding:
    """It works now, and will not always."""
    return Finding("warning", found, means, do)


def error(found: str, means: str, do: str) -> Finding:
    """It does not work, or loses what must not be lost."""
    return Finding("error", found, means, do)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when nothing needs anybody, 1 for warnings, 2 for errors.

    >>> exit_code([ok("fine"), warning("a", "b", "c")]), exit_code([])
    (1, 0)
    """
    return max((EXIT_CODES[each.severity] for each in findings), default=0)


def many(number: int, what: str) -> str:
    """A number with its noun.

    >>> many(1, "worker"), many(2000, "worker")
    ('1 worker', '2,000 workers')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def size(count: float) -> str:
    """Bytes for people, in the largest unit that gives at least one.

    >>> size(1536 << 20), size(700)
    ('1.5 GiB', '700 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}" if count % 1 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(ms: float) -> str:
    """Milliseconds for people.

    >>> duration(7 * 86_400_000), duration(5_400_000), duration(40)
    ('7 days', '1.5 hours', '40 ms')
    """
    for unit_ms, name in ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1000, "s")):
        if ms >= unit_ms:
            return f"{ms / unit_ms:.3g} {name}"
    return f"{ms:.0f} ms"
