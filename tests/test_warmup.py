"""What a worker compiles before it is ready: all that it will ever need."""

import subprocess
import sys
from pathlib import Path

# In a process of its own: here other tests compiled what they like. The evaluation runs the worker's own pipeline.
PROGRAM = """
import sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from streamer.engine.warmup import compile_kernels
from streamer.settings import load
from streamer.tools.evaluate import Options, run
from tests.test_evaluate import some_lines

def compiled():
    ours = ("streamer.engine", "streamer.model", "streamer.pipeline")
    modules = [module for name, module in sys.modules.items() if name.startswith(ours)]
    kernels = {k for m in modules for k in vars(m).values() if isinstance(k, Dispatcher)}
    return {(k.py_func.__module__, k.py_func.__name__, signature) for k in kernels for signature in k.signatures}

settings = load(cache_users=10_000, partitions=2)
compile_kernels(settings)
before = compiled()
path = Path(sys.argv[1])
path.write_bytes(b"\\n".join(some_lines(800)))
run(settings, [path], Options(shuffle_ties=False, repeats=False, limit=None))
for module, name, _ in compiled() - before:
    print("compiled", module, name)
"""
# Inlined into others; compiled alone only where the evaluation calls them itself, with what they call.
OF_THE_EVALUATION = {
    "bucket",
    "look_at",
    "_fade",
    "_weigh",
    "utilities",
    "place",
    "put",
    "lookup_all",
    "ranks",
    "_comma",
}


def test_once_a_worker_is_ready_it_compiles_nothing(tmp_path: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, str(tmp_path / "events.jsonl")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    late = [line.split() for line in done.stdout.splitlines() if line.startswith("compiled ")]
    assert [(module, name) for _, module, name in late if name not in OF_THE_EVALUATION] == []
