"""The one training loop. A recipe hands it a model, a function from a batch to named losses, and batches.

    run = Run(args.output_dir, settings(args), args.overwrite, cosmetic(args))
    result = fit(student, losses, Batches(plan, load), args, run, dev_metrics, task.metric, save_student)
    ...                                  # evaluate the best model, which is in run.best_dir
    run.finish()

Killed at any instant and started again by the same command, a run ends with the weights and metrics it would have had:
order, learning rate and random numbers are functions of (seed, step, rank), and a checkpoint holds the rest.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from paddle import Tensor, nn

from distill import files, runtime
from distill.encoders import cpu
from distill.errors import UserError
from distill.options import TrainOptions
from distill.training import checkpoint
from distill.training.monitor import Progress, Run, Signals
from distill.training.optimizer import build_optimizer, mixed_precision
from distill.training.schedule import learning_rate


class TrainingStopped(UserError):
    """Training cannot go on: a loss, a weight or a dev score is not a finite number."""


class Plan(Protocol):
    """Which rows each batch holds, e.g. `distill.data.batching.BucketBatches`; as many batches on every rank."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int, /) -> Sequence[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Batches:
    """A plan, and the function from one batch's row indices to its dict (NumPy arrays become tensors)."""

    plan: Plan
    load: Callable[[np.ndarray], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class FitResult:
    """best_metrics: dev scores of the model in run.best_dir, that of step best_step; steps: all that were trained."""

    best_metrics: dict[str, float]
    best_step: int
    steps: int
    stopped_early: bool


@dataclasses.dataclass
class _State:
    """What the loop remembers from step to step besides weights and optimizer; kept in each checkpoint."""

    ranks: int
    batches: int
    step: int = 0
    rows: int = 0
    best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    best_step: int = 0
    evaluations_since_best: int = 0
    stopped_early: bool = False
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of the losses, since the last log point
    summed: int = 0
    scaler: dict[str, Any] = dataclasses.field(default_factory=dict)


class _NamedLosses(nn.Layer):
    """Model and losses as one layer, whose forward DataParallel can follow."""

    def __init__(self, model: nn.Layer, losses: Callable[[dict[str, Any]], dict[str, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self._call = (losses,)  # in a tuple: a layer would be registered, and its weights counted twice

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self._call[0](batch)


def fit(
    model: nn.Layer,
    losses: Callable[[dict[str, Any]], dict[str, Tensor]],
    batches: Batches,
    options: TrainOptions,
    run: Run,
    evaluate: Callable[[], dict[str, float]] | None,
    metric: str | None,
    save: Callable[[Path], None],
) -> FitResult:
    """Train `model` on the sum of the named `losses` and keep the best in run.best_dir.

    model: holds everything that is trained or has state (projections too: wrap them with the student in a LayerList).
    losses: batch -> {name: scalar tensor}, each a mean over the batch's rows; the same names in each step. The batches
        of one step (of several ranks, of gradient accumulation) count by their rows, so it is the joined batch's step.
    evaluate: called on rank 0 with the model in eval mode; -> {name: dev score}. None: only the latest model is kept.
    metric: the score to be maximised (the first of equals wins); None: the latest model is kept.
    save: writes the model into the empty folder it is given, which lies beside run.best_dir and replaces it when whole.

    Returns at once when the run's checkpoint is that of the last step. Afterwards the model holds the last weights.
    On a CPU the layers of `model` calculate as `distill.encoders.cpu` arranges them, unless options.cpu_arrangement is
    `none`.
    Raises TrainingStopped when a loss, weight or score is not finite; UserError for flags that cannot work, a damaged
    checkpoint or a full disk; SystemExit (143, 130) after SIGTERM or Ctrl-C, when the state is saved.
    """
    rank, world = runtime.rank(), runtime.world_size()
    accumulation = options.gradient_accumulation_steps
    steps_per_epoch = math.ceil(len(batches.plan) / accumulation)
    total = options.max_steps if options.max_steps > 0 else steps_per_epoch * options.num_train_epochs
    rate = learning_rate(
        options.learning_rate, total, options.warmup_steps, options.warmup_proportion, options.scheduler
    )
    optimizer = build_optimizer(model, options)
    autocast, scaler = mixed_precision(options.amp)
    state = _resume(_State(world, len(batches.plan)), run, model, optimizer, scaler)
    layer: nn.Layer = _NamedLosses(model, losses)
    if world > 1:
        layer = paddle.DataParallel(layer, find_unused_parameters=True)
    run.begin(state.step, metric)
    plan: Sequence[np.ndarray] = ()
    stopping = False
    if evaluate is None:
        metric = None

    arranged = cpu.arranged(model) if options.cpu_arrangement == "auto" else contextlib.nullcontext()
    progress = Progress(total, state.step)
    with Signals() as signals, contextlib.closing(run), contextlib.closing(progress), arranged:
        model.train()
        while state.step < total and not state.stopped_early and not stopping:
            started = time.perf_counter()
            epoch, position = divmod(state.step, steps_per_epoch)
            if position == 0 or not plan:
                plan = batches.plan.epoch(epoch)
                rows = _sum_over_ranks(np.array([len(indices) for indices in plan], dtype=np.int64))
            group = range(position * accumulation, min((position + 1) * accumulation, len(plan)))
            step_rows = int(rows[group.start : group.stop].sum())

            # One step: the gradients of the group's batches add up, each weighted by its share of the rows.
            optimizer.set_lr(rate(state.step))
            means: Any = 0.0
            for i in group:
                runtime.seed_all(_seed(options.seed, state.step, i, rank))
                with run.timer("data"):
                    batch = _as_tensors(batches.load(plan[i]))
                share = len(plan[i]) / step_rows
                joined = world == 1 or i == group[-1]  # ranks exchange gradients once a step
                with run.timer("student"), contextlib.nullcontext() if joined else layer.no_sync():
                    with autocast():
                        named = layer(batch)
                    parts = paddle.stack([loss.astype("float32").reshape([]) for loss in named.values()])
                    loss = parts.sum() * (share * world)  # DataParallel takes the mean over ranks
                    (scaler.scale(loss) if scaler else loss).backward()
                    means = means + parts.detach() * share
            with run.timer("student"):
                if scaler:
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    optimizer.step()
                # Not to zero: a parameter that a step does not use must not move by what its moments remember.
                optimizer.clear_grad(set_to_zero=False)
                here = np.append(means.numpy().astype(np.float64), signals.received != 0)
                *values, signalled = _sum_over_ranks(here).tolist()
            by_name, stopping = dict(zip(named, values, strict=True)), signalled > 0
            _require_finite({f"loss {name}": value for name, value in by_name.items()}, state.step + 1, run)
            run.count(epoch + 1, step_rows, time.perf_counter() - started)
            state.step += 1
            state.rows += step_rows
            state.sums = {name: state.sums.get(name, 0.0) + value for name, value in by_name.items()}
            state.summed += 1
            progress.update(state.step, sum(values))

            final, epoch_share = state.step == total, state.step / steps_per_epoch
            epoch_ended = final or state.step % steps_per_epoch == 0
            evaluating = final or _due(state.step, options.eval_steps, epoch_ended)
            saving = epoch_ended or stopping or _due(state.step, options.save_steps, epoch_ended)
            if evaluating or state.step % options.logging_steps == 0:
                logged = {name: value / state.summed for name, value in state.sums.items()}
                run.record(state.step, epoch_share, loss=sum(logged.values()), losses=logged, lr=rate(state.step - 1))
                state.sums, state.summed = {}, 0
            if evaluating or saving:
                _require_finite_weights(model, state.step, run)
            if evaluating:
                scores = _evaluate(model, evaluate, state.step, run)
                if scores:
                    run.record(state.step, epoch_share, dev=scores)
                _keep_best(scores, metric, save, state, run)
                state.stopped_early = not final and 0 < options.early_stopping_patience <= state.evaluations_since_best
            if saving or state.stopped_early:
                _save(state, run, model, optimizer, scaler)
        if stopping or signals.received:
            runtime.log(f"stopped at step {state.step} of {total}, everything is saved; the same command continues")
            raise SystemExit(128 + (signals.received or signal.SIGTERM))
    return FitResult(state.best_metrics, state.best_step, state.step, state.stopped_early)


def _due(step: int, interval: int, epoch_ended: bool) -> bool:
    """Whether something happens after this step: every `interval` steps, or at epoch ends when that is 0."""
    return step % interval == 0 if interval else epoch_ended


def _as_tensors(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: paddle.to_tensor(value) if isinstance(value, np.ndarray) else value for name, value in batch.items()}


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _sum_over_ranks(array: np.ndarray) -> np.ndarray:
    if runtime.world_size() == 1:
        return array
    tensor = paddle.to_tensor(array)
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def _resume(state: _State, run: Run, model: nn.Layer, optimizer: paddle.optimizer.Optimizer, scaler: Any) -> _State:
    """The state of the newest whole checkpoint, weights and optimizer put back; `state` itself where there is none."""
    path = runtime.from_main(lambda: checkpoint.newest(run.checkpoints))
    if path is None:
        return state
    saved = _State(**checkpoint.load_state(path))
    if saved.ranks != state.ranks:
        raise UserError(
            f"{path}: trained on {saved.ranks} device(s), now {state.ranks}; use as many, or another --output_dir"
        )
    if saved.batches != state.batches:
        changed = f"{saved.batches} batches an epoch, now {state.batches}: the rows changed"
        raise UserError(f"{path}: {changed}; choose another --output_dir")
    checkpoint.restore(path, model, optimizer)
    if scaler:
        scaler.load_state_dict(saved.scaler)
    runtime.log(f"continuing from {path}")
    return saved


def _save(state: _State, run: Run, model: nn.Layer, optimizer: paddle.optimizer.Optimizer, scaler: Any) -> None:
    if scaler:
        facts = scaler.state_dict()
        state.scaler = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in facts.items()}

    def write() -> None:
        checkpoint.save(run.checkpoints, state.step, model, optimizer, dataclasses.asdict(state))
        run.write_facts(steps=state.step, rows=state.rows)

    runtime.from_main(write)


def _evaluate(
    model: nn.Layer, evaluate: Callable[[], dict[str, float]] | None, step: int, run: Run
) -> dict[str, float]:
    """Dev scores from rank 0, the same on every rank."""
    if evaluate is None:
        return {}

    def scores_of_main() -> dict[str, float]:
        model.eval()
        with run.timer("evaluation"), paddle.no_grad():
            scores = {name: float(value) for name, value in evaluate().items()}
        model.train()
        return scores

    scores: dict[str, float] = runtime.from_main(scores_of_main)
    _require_finite({f"dev {name}": value for name, value in scores.items()}, step, run)
    return scores


def _keep_best(
    scores: dict[str, float], metric: str | None, save: Callable[[Path], None], state: _State, run: Run
) -> None:
    """Save the model when its score is above the best so far."""
    state.evaluations_since_best += 1
    if metric is not None and state.best_step and scores[metric] <= state.best_metrics[metric]:
        return
    state.best_metrics, state.best_step, state.evaluations_since_best = scores, state.step, 0

    def write() -> None:
        # The checkpoint that says so comes after: killed here, the run resumes before this step and saves the same.
        unfinished = checkpoint.beside(run.best_dir)
        with files.disk_errors(run.best_dir):
            unfinished.mkdir(parents=True)
            save(unfinished)
            checkpoint.replace_folder(unfinished, run.best_dir)

    runtime.from_main(write)


def _require_finite(values: dict[str, float], step: int, run: Run) -> None:
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        saved = checkpoint.steps(run.checkpoints)
        last = f"the last good checkpoint is {run.checkpoints / f'step-{saved[-1]}'}" if saved else "no checkpoint yet"
        raise TrainingStopped(f"stopped at step {step}: {', '.join(wrong)}; {last}; try a lower --learning_rate")


def _require_finite_weights(model: nn.Layer, step: int, run: Run) -> None:
    """A gradient can be infinite where the loss is not; the weights it spoils must not be saved."""
    spoilt = [name for name, weight in model.named_parameters() if not bool(paddle.isfinite(weight).all())]
    _require_finite({f"weight {name}": math.nan for name in spoilt[:3]}, step, run)
