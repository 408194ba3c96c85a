"""Runs Java, and stops it when the process that wants it is gone, however that one ended.

    kafka_guard.py PARENT_PID GRACE_S COMMAND…

stdin is a pipe that the parent holds open: its end means stop. stdout gets Java's process id. stderr is the log, also
for Java. The exit code is Java's, or 128 + N when signal N ended it. A script of its own that imports nothing of ours:
it starts in 20 ms. It lives in a session of its own, so that Ctrl-C reaches the parent only.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time

LOOK_S = 1.0  # a child that the parent forked may hold the pipe open too: so look who our parent is, at this interval


def parent_is_gone(parent_pid: int) -> None:
    """Return when the parent closed the pipe or died."""
    while os.getppid() == parent_pid:
        if select.select([0], [], [], LOOK_S)[0]:
            return


def stop_after_parent(java: "subprocess.Popen[bytes]", parent_pid: int, grace_s: float) -> None:
    """Ask Java to stop; end it by force after the grace."""
    parent_is_gone(parent_pid)
    java.terminate()
    time.sleep(grace_s)  # when Java ends earlier, so does this process, and with it this thread
    sys.stderr.write(f"Kafka did not stop within {grace_s:g} s: killed\n")
    java.kill()


def main(parent_pid: int, grace_s: float, command: list[str]) -> int:
    """Run the command until it ends or the parent does."""
    java = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, close_fds=False)  # noqa: S603 - our own
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: java.terminate())
    sys.stdout.write(f"{java.pid}\n")
    sys.stdout.flush()
    threading.Thread(target=stop_after_parent, args=(java, parent_pid, grace_s), daemon=True).start()
    code = java.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
