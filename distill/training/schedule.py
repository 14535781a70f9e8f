"""The learning rate as a pure function of the step: a resumed run needs no scheduler state."""

from collections.abc import Callable


def learning_rate(
    peak: float, total_steps: int, warmup_steps: int = 0, warmup_proportion: float = 0.0, kind: str = "linear"
) -> Callable[[int], float]:
    """A function from the step (0 is the first) to its learning rate.

    For w = `warmup_steps`, or int(warmup_proportion * total_steps) when that is 0, and at most `total_steps`:
    step < w: peak * step / w (so the first step has rate 0, as in BERT's own optimizer); afterwards `constant`: peak;
    `linear`: peak * (total - step) / (total - w), which would reach 0 one step after the last.
    Source: BERT (Devlin et al. 2019, appendix A.2): warm-up, then linear decay. Raises ValueError for another kind.
    """
    if kind not in ("linear", "constant"):
        raise ValueError(f"unknown schedule: {kind}")
    warmup = min(warmup_steps or int(warmup_proportion * total_steps), total_steps)

    def rate(step: int) -> float:
        if step < warmup:
            return peak * step / warmup
        if kind == "constant" or step >= total_steps:
            return peak if kind == "constant" else 0.0
        return peak * (total_steps - step) / (total_steps - warmup)

    return rate
