"""Open files: how many a worker may want, and taking as many as the system grants."""

import resource
from contextlib import suppress
from typing import Final

OPEN_TABLES: Final = 256  # of a partition's RocksDB at most: it closes others
OTHER_FILES: Final = 16  # of a partition beside its tables: logs, manifest, its producer's connections
PROCESS_FILES: Final = 512  # connections to brokers and of readers, libraries


def needed(partitions: int) -> int:
    """The most that a worker with so many partitions has open."""
    return PROCESS_FILES + partitions * (OPEN_TABLES + OTHER_FILES)


def raise_limit(partitions: int) -> None:
    """Raise our soft limit to what may be needed, as far as the hard limit goes: shells start with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = needed(partitions) if hard == resource.RLIM_INFINITY else min(needed(partitions), hard)
    if soft != resource.RLIM_INFINITY and soft < want:
        with suppress(ValueError, OSError):  # macOS has a bound of its own below an infinite hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))
