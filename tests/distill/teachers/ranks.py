"""Two ranks in one process, the second after the first: it receives what the first one has sent."""

import paddle

from distill.runtime import is_main


def two_ranks(monkeypatch):
    """Make the process one of two ranks; returns the call by which it becomes rank 0 or 1."""
    sent = []

    def broadcast(holder, src):
        if is_main():
            sent.append(list(holder))
        else:
            holder[:] = sent.pop(0)

    monkeypatch.setattr(paddle.distributed, "broadcast_object_list", broadcast)
    monkeypatch.setattr(paddle.distributed, "barrier", lambda: None)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    return lambda number: monkeypatch.setenv("PADDLE_TRAINER_ID", str(number))
