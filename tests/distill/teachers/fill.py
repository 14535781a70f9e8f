"""Fill a teacher's cache: FOLDER CACHE ROWS OUTPUTS [SECONDS]. Alone or as one of several ranks.

How the teacher runs is fixed, so that all caches have the same bits. Every batch becomes a segment, so that a kill or a
second rank meets many of them. With SECONDS the process kills itself that long after the first one; a slow machine can
then neither miss the filling nor see it end first.
"""

import os
import signal
import sys
import threading
import time

from distill.runtime import before_paddle, rank, start

before_paddle()

import numpy as np  # noqa: E402

from distill.data.wordpiece import Encoded  # noqa: E402
from distill.encoders import inference  # noqa: E402
from distill.options import TeacherOptions  # noqa: E402
from distill.teachers import cache  # noqa: E402
from distill.teachers.teacher import Teacher  # noqa: E402


def rows(n: int, seed: int = 0) -> Encoded:
    """n rows of 4 to 20 tokens; one in ten occurs twice."""
    rng = np.random.default_rng(seed)
    distinct = [rng.integers(5, 100, length).tolist() for length in rng.integers(4, 21, n - n // 10)]
    return Encoded.from_rows(distinct + distinct[: n // 10])


def main(folder: str, cache_dir: str, n: str, outputs: str, kill_after: str = "") -> None:
    start("cpu")
    cache.SEGMENT_SECONDS, cache.BATCH_TOKENS = 0.0, 64
    inference.faster = lambda ways, batch: "compiled"
    teacher = Teacher(folder, None, 64, TeacherOptions(cache_dir=cache_dir))
    forward = teacher._forward

    def slow(*args):
        if len(calls) == 1 and kill_after:
            threading.Timer(float(kill_after), os.kill, (os.getpid(), signal.SIGKILL)).start()
        if kill_after:
            time.sleep(0.1)
        calls.append(0)
        return forward(*args)

    calls: list[int] = []
    teacher._forward = slow
    found = teacher.outputs(rows(int(n)), outputs.split("+"))
    print(f"rank {rank()}: {len(calls)} batches, {found.live} rows not cached", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
