"""The process of one run: `python -m frcnn.benchmark.worker FOLDER/task.json`.

Closing its standard input asks it to stop: a training then finishes its step and saves. That also happens when whoever started
it is killed, so that no run stays behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from frcnn.benchmark.lock import only_one_in
from frcnn.benchmark.speed import measure_latency, measure_throughput
from frcnn.benchmark.tasks import Task
from frcnn.benchmark.training import remove_checkpoints, train_once
from frcnn.errors import UserError

RUNS = {"training": train_once, "latency": measure_latency, "throughput": measure_throughput}


def main(path: Path) -> int:
    """Does one task and writes its result, or why there is none.

    Returns:
        the exit code: 0 with a result, 1 with an error, 3 when it was asked to stop.
    """
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    task = Task.load(path)
    try:
        with only_one_in(path.parent):  # a run of a benchmark that was killed may still be saving
            result = RUNS[task.kind](task)
    except KeyboardInterrupt:
        return 3
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        task.fail(str(error))
        return 1
    except Exception as error:  # a variant that breaks must not take the others with it
        traceback.print_exc()
        task.fail(f"{type(error).__name__}: {error} (the whole of it is in {path.with_name('log.txt')})")
        return 1
    if result is None:
        return 3
    task.finish(result)
    if task.remove_checkpoint:
        remove_checkpoints(task)
    return 0


def _stop_with_the_parent() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
