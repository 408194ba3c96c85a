"""Apache Kafka's jars: fetched once from Maven's central repository, verified on every use.

`kafka_jars.lock` names every jar with its SHA-256, size and coordinate, so nothing is resolved at run time (walking the
POMs takes 20 s) and nothing that was tampered with or cut short is ever loaded. A jar is fetched into a staging
directory, verified, then renamed into place: a cache holds good jars only, and a download that broke off goes on where
it stopped. With a complete cache there is no network access at all.

To move to another version, change KAFKA_VERSION and run
`python -m streamer.tools.kafka_jars > kafka_jars.new && mv kafka_jars.new streamer/tools/kafka_jars.lock`.
Other programs on the same version have lock files of their own: give the coordinates of their roots as arguments.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from jgo.maven import MavenContext, PythonResolver
from rich.console import Console
from rich.progress import Progress

from streamer.errors import BrokerError, DataDirError

KAFKA_VERSION = "4.1.1"  # the version that the engine's exactness was verified on, with aiokafka 0.14
ROOTS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Kafka's classes need log4j2 itself, not just slf4j. `!` keeps the binding's POM from managing versions:
    # it would bring in the client of Kafka 3.8.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3!",
)
LOCK = Path(__file__).with_suffix(".lock")
ATTEMPTS = 3  # a connection that breaks off in the middle is common, three in a row are an outage
TIMEOUT_S = 15  # to connect, and between two pieces: longer looks like a hang, and a slow line still sends something
CONNECTIONS = 4  # most jars are small, so that round trips dominate; more gain nothing

UpdateProgress = Callable[[int], None]
ProgressOfFile = Callable[[str, int], AbstractContextManager[UpdateProgress]]


class Jar(NamedTuple):
    """One line of the lock file."""

    sha256: str
    size: int
    coordinate: str

    @property
    def file_name(self) -> str:
        """As in the repository: artifact-version.jar."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def is_intact(self, path: Path) -> bool:
        """Is this very jar at `path`?"""
        try:
            if path.stat().st_size != self.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except (FileNotFoundError, NotADirectoryError):
            return False


def locked_jars(lock: Path = LOCK) -> list[Jar]:
    """All jars of a class path, in its order; default: the broker's."""
    lines = lock.read_text("utf-8").splitlines()
    return [Jar(sha256, int(size), coordinate) for sha256, size, coordinate in map(str.split, lines)]


def locked_version(lock: Path = LOCK) -> str:
    """The version of a lock file's first jar, which is the program itself."""
    return locked_jars(lock)[0].coordinate.rpartition(":")[2]


def default_cache() -> Path:
    """The platform's place for files that can be had again: $XDG_CACHE_HOME, ~/.cache or ~/Library/Caches."""
    given = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251 - the platform's convention, not a setting of ours
    if given:
        return Path(given) / "streamer"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "streamer"


def jar_dir(cache: Path | None = None, lock: Path = LOCK) -> Path:
    """Where this version's jars are kept in `cache`."""
    return (cache or default_cache()) / f"{lock.stem.removesuffix('_jars')}-{locked_version(lock)}"


def install(cache: Path | None = None, repositories: Mapping[str, str] | None = None, lock: Path = LOCK) -> list[Path]:
    """The class path of Apache Kafka, fetched and mended as needed.

    Args:
        cache: where jars are kept; default `default_cache()`.
        repositories: name to URL of the Maven repositories to ask instead of the central one.
        lock: names the jars; default: the broker's.

    Raises:
        BrokerError: jars are missing and cannot be fetched.
        DataDirError: the cache cannot be written.
    """
    home, jars = jar_dir(cache, lock), locked_jars(lock)
    paths = [home / jar.file_name for jar in jars]
    if not _broken(home, jars):
        return paths
    try:
        with exclusive(home / ".jars.lock"):
            broken = _broken(home, jars)  # again: another process may have fetched them while we waited
            if broken:
                _fetch_all(broken, home, repositories)
    except OSError as exc:
        raise DataDirError(
            f"Apache Kafka cannot be stored in {home}: {exc.strerror or exc}: free some space, make it writable, "
            "or set XDG_CACHE_HOME to a directory that is"
        ) from exc
    return paths


@contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Only one process at a time gets past here; the others wait."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def _broken(home: Path, jars: Iterable[Jar]) -> list[Jar]:
    return [jar for jar in jars if not jar.is_intact(home / jar.file_name)]


def _fetch_all(jars: list[Jar], home: Path, repositories: Mapping[str, str] | None) -> None:
    for stale in home.glob("*.aot"):  # Java's startup archive fits just the files that it was made from
        stale.unlink()
    staging = home / "staging"
    shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
    try:
        with _progress(home.name, sum(jar.size for jar in jars)) as progress_of_file:
            _in_parallel(lambda jar: _fetch(jar, home, _maven(staging, repositories, progress_of_file)), jars)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _in_parallel(fetch: Callable[[Jar], None], jars: Iterable[Jar]) -> None:
    """The first failure ends it all: without a network each jar would wait for its own time-out."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for _ in pool.map(fetch, jars):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(jar: Jar, home: Path, maven: MavenContext) -> None:
    """One jar, verified, into its place. Raises BrokerError after ATTEMPTS."""
    artifact = maven.create_dependency(jar.coordinate).artifact
    staged = maven.repo_cache / artifact.component.path_prefix / jar.file_name
    why = ""
    for _ in range(ATTEMPTS):
        staged.unlink(missing_ok=True)  # a piece of the attempt before
        try:
            fetched = artifact.resolve()
        except (OSError, RuntimeError) as exc:  # requests' errors are OSErrors; jgo raises RuntimeError on a 404
            if isinstance(exc, OSError) and exc.errno:  # the disk's own error, not one of requests
                raise
            why = str(exc)
            continue
        if jar.is_intact(fetched):
            fetched.replace(home / jar.file_name)
            return
        why = "its SHA-256 is not the locked one"
    raise BrokerError(
        f"cannot download Apache Kafka {KAFKA_VERSION}: {jar.coordinate}: {why}. It is needed once: connect this "
        f"machine to the internet and start again, or copy {home} from a machine that has it"
    )


def _maven(
    staging: Path, repositories: Mapping[str, str] | None, progress_of_file: ProgressOfFile | None = None
) -> MavenContext:
    resolver = PythonResolver(progress_callback=progress_of_file)
    remotes = dict(repositories) if repositories else None
    return MavenContext(resolver=resolver, repo_cache=staging, remote_repos=remotes, timeout=TIMEOUT_S)


@contextmanager
def _progress(what: str, total_bytes: int) -> Iterator[ProgressOfFile]:
    """A line for logs and a bar for people, on stderr: stdout is for results."""
    console = Console(stderr=True)
    console.print(f"downloading Apache {what} ({total_bytes / 1e6:.0f} MB, once)")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Apache Kafka", total=total_bytes)

        @contextmanager
        def of_file(_name: str, _size: int) -> Iterator[UpdateProgress]:
            yield lambda count: bar.advance(task, count)

        yield of_file


def resolve_lock(roots: Iterable[str] = ROOTS) -> Iterator[str]:
    """Lines of a new lock file: all jars that `roots` need at run time. Downloads POMs and jars."""
    with TemporaryDirectory() as staging:
        maven = _maven(Path(staging), None)
        inputs, transitive = maven.resolver.resolve([maven.create_dependency(root) for root in roots])
        for dependency in [*inputs, *transitive]:
            jar = dependency.artifact.resolve().read_bytes()
            name = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
            yield f"{hashlib.sha256(jar).hexdigest()} {len(jar)} {name}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in resolve_lock(sys.argv[1:] or ROOTS))
