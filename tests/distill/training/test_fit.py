import contextlib
import dataclasses
import errno
import itertools
import json
import math
import sys

import numpy as np
import paddle
import pytest
from paddle import nn

from distill.encoders import cpu
from distill.errors import UserError
from distill.options import TrainOptions
from distill.training import checkpoint
from distill.training.fit import Batches, TrainingStopped, fit
from distill.training.monitor import Run
from distill.training.optimizer import build_optimizer, mixed_precision
from tests.distill.training.tiny_run import StridedPlan, make, rows_of, train

QUICK = TrainOptions(num_train_epochs=2, learning_rate=1e-2, logging_steps=1, save_steps=0)


def options(**changes):
    return dataclasses.replace(QUICK, **changes)


def records(folder, kind):
    return [row for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if kind in row]


def largest_difference(a, b):
    return max(float((x - b.state_dict()[name]).abs().max()) for name, x in a.state_dict().items())


class Slope(nn.Layer):
    """One matrix and one bias whose gradients are the batch's mean."""

    def __init__(self):
        super().__init__()
        self.weight = self.create_parameter(
            [2, 2], default_initializer=nn.initializer.Assign(np.array([[1, -2], [3, 4]]))
        )
        self.bias = self.create_parameter([2], default_initializer=nn.initializer.Assign(np.array([1, -1])))


def fit_slope(folder, chosen, x, *, batch, scores=None, metric=None, losses=None, save=None, model=None):
    model = model or Slope()
    run = Run(folder, dataclasses.asdict(chosen))
    mean = losses or (lambda b: {"slope": (b["x"] * model.weight).sum([1, 2]).mean(), "bias": model.bias.sum()})
    evaluate = None if scores is None else lambda: {"score": next(scores)}
    plan = StridedPlan(len(x), batch)
    saved = save or (lambda path: (path / "weight").write_text(str(float(model.weight[0, 0]))))
    return model, fit(model, mean, Batches(plan, lambda i: {"x": x[i]}), chosen, run, evaluate, metric, saved), run


def test_adamw_with_clipping_decay_and_warmup_equals_numpy(tmp_path):
    x = np.random.default_rng(0).normal(0, 3, (12, 2, 2)).astype(np.float32)
    chosen = options(
        learning_rate=0.1, weight_decay=0.1, max_grad_norm=1.5, warmup_steps=2, adam_epsilon=1e-6, num_train_epochs=2
    )
    model, result, _ = fit_slope(tmp_path, chosen, x, batch=4)
    assert result.steps == 6
    w, b = np.array([[1.0, -2], [3, 4]]), np.array([1.0, -1])
    m, v = [np.zeros_like(w), np.zeros_like(b)], [np.zeros_like(w), np.zeros_like(b)]
    batches = [i for epoch in range(2) for i in StridedPlan(12, 4).epoch(epoch)]
    for step, rate in enumerate([0, 0.05, 0.1, 0.075, 0.05, 0.025]):
        gradients = [x[batches[step]].astype(np.float64).mean(0), np.ones(2)]
        norm = math.sqrt(sum((g**2).sum() for g in gradients))
        gradients = [g * min(1.0, 1.5 / norm) for g in gradients]
        w *= 1 - rate * 0.1  # the matrix decays, the bias does not
        for k, parameter in enumerate((w, b)):
            m[k] = 0.9 * m[k] + 0.1 * gradients[k]
            v[k] = 0.999 * v[k] + 0.001 * gradients[k] ** 2
            root = np.sqrt(v[k] / (1 - 0.999 ** (step + 1)))
            # paddle adds epsilon * sqrt(1 - beta2^t) to the uncorrected root, which is epsilon to the corrected one
            parameter -= rate * (m[k] / (1 - 0.9 ** (step + 1))) / (root + 1e-6)
    assert np.abs(model.weight.numpy() - w).max() < 2e-6 and np.abs(model.bias.numpy() - b).max() < 2e-6
    assert [row["lr"] for row in records(tmp_path, "lr")] == pytest.approx([0, 0.05, 0.1, 0.075, 0.05, 0.025])


def test_only_matrices_decay():
    model = make()
    optimizer = build_optimizer(model, options(learning_rate=0.5, weight_decay=0.1, max_grad_norm=0))
    before = {name: p.numpy() for name, p in model.named_parameters()}
    (sum((p * 0).sum() for p in model.parameters())).backward()
    optimizer.step()
    for name, p in model.named_parameters():
        decayed = name in ("table.weight", "head.weight", "unused.weight")
        assert np.allclose(p.numpy(), before[name] * (0.95 if decayed else 1.0), atol=1e-7), name


def test_lazy_adam_leaves_untouched_rows_alone():
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = build_optimizer(table, options(optimizer="adam", learning_rate=0.1, max_grad_norm=0))
    states = [table.weight.numpy()]
    for row in (1, 2):
        table(paddle.to_tensor([row])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        states.append(table.weight.numpy())
    # Dense Adam would move row 1 again in the second step, by its momentum.
    changed = [(a != b).any(1).nonzero()[0].tolist() for a, b in zip(states, states[1:], strict=False)]
    assert changed == [[1], [2]]


@pytest.mark.parametrize("optimizer", ["adam", "adadelta"])
def test_the_other_optimizers_train(tmp_path, optimizer):
    rate = {"adam": 0.02, "adadelta": 10.0}[optimizer]
    _, _, run = train(tmp_path, options(optimizer=optimizer, learning_rate=rate, num_train_epochs=8), dropout=0.0)
    losses = [row["loss"] for row in records(tmp_path, "loss")]
    assert np.mean(losses[-7:]) < 0.9 * np.mean(losses[:7])


@pytest.mark.parametrize("rows", [48, 51])  # 51: a last group of one batch of 3 rows
def test_accumulated_gradients_are_those_of_the_big_batch(tmp_path, rows):
    big, first, _ = train(tmp_path / "big", options(), rows=rows, batch=8, dropout=0.0)
    small = options(gradient_accumulation_steps=2)
    accumulated, second, _ = train(tmp_path / "small", small, rows=rows, batch=4, dropout=0.0)
    assert first.steps == second.steps
    assert largest_difference(big, accumulated) < 1e-6
    for a, b in zip(records(tmp_path / "big", "loss"), records(tmp_path / "small", "loss"), strict=True):
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-6)


def test_batches_of_unequal_rows_are_weighted_by_rows(tmp_path):
    x = np.arange(28, dtype=np.float32).reshape(7, 2, 2)
    fit_slope(tmp_path, options(num_train_epochs=1, gradient_accumulation_steps=2, learning_rate=1e-9), x, batch=4)
    (row,) = records(tmp_path, "loss")
    assert row["losses"]["slope"] == pytest.approx(float((x * [[1, -2], [3, 4]]).sum((1, 2)).mean()), rel=1e-5)


def test_layers_are_arranged_for_the_cpu_while_training_and_train_alike(tmp_path):
    x, curves, kinds = np.random.default_rng(0).normal(size=(40, 6)).astype("float32"), [], []
    for way in ("none", "auto"):
        paddle.seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 1))

        def losses(batch, model=model):
            kinds.append(type(model[0]))
            return {"square": (model(batch["x"]) ** 2).mean()}

        fit_slope(tmp_path / way, options(cpu_arrangement=way), x, batch=8, losses=losses, model=model,
                  save=lambda path: None)  # fmt: skip
        curves.append([row["loss"] for row in records(tmp_path / way, "loss")])
        assert type(model[0]) is nn.Linear
    assert kinds == [nn.Linear] * 10 + [cpu.Linear] * 10
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


def test_logged_losses_are_means_since_the_last_log_point(tmp_path):
    train(tmp_path / "each", options(), dropout=0.2)
    train(tmp_path / "some", options(logging_steps=3), dropout=0.2)
    each = [row["losses"]["hard"] for row in records(tmp_path / "each", "loss")]  # 7 steps an epoch
    some = {row["step"]: row["losses"]["hard"] for row in records(tmp_path / "some", "loss")}
    # every third step, and before each evaluation (epoch ends)
    expected = {3: each[0:3], 6: each[3:6], 7: each[6:7], 9: each[7:9], 12: each[9:12], 14: each[12:14]}
    assert some == {step: pytest.approx(np.mean(values)) for step, values in expected.items()}
    for row in records(tmp_path / "some", "loss"):
        assert row["loss"] == pytest.approx(sum(row["losses"].values()))
        assert row["epoch"] == pytest.approx(row["step"] / 7, abs=1e-4)


def test_max_steps_counts_over_epochs(tmp_path):
    _, result, run = train(tmp_path, options(max_steps=17, num_train_epochs=1))
    assert result.steps == 17
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["steps"] == 17 and facts["rows"] == 50 + 50 + 3 * 8
    assert set(facts["samples_per_second"]) == {"1", "2", "3"} and facts["seconds"]["student"] > 0
    assert checkpoint.steps(run.checkpoints) == [14, 17]


def test_evaluation_and_checkpoint_intervals(tmp_path):
    _, _, run = train(tmp_path, options(eval_steps=4, save_steps=5))
    assert [row["step"] for row in records(tmp_path, "dev")] == [4, 8, 12, 14]
    assert checkpoint.steps(run.checkpoints) == [10, 14]


X = np.ones((4, 2, 2), np.float32)


def test_the_best_is_kept_and_the_first_of_equals_wins(tmp_path):
    chosen = options(num_train_epochs=5)
    model, result, run = fit_slope(tmp_path, chosen, X, batch=4, scores=iter([0.1, 0.7, 0.3, 0.7, 0.6]), metric="score")
    assert result == dataclasses.replace(result, best_metrics={"score": 0.7}, best_step=2, steps=5, stopped_early=False)
    second = 1 - 0.01 - 0.008  # Adam on a constant gradient moves by the learning rate
    assert float((run.best_dir / "weight").read_text()) == pytest.approx(second, abs=1e-5)
    assert float(model.weight[0, 0]) < second  # the model itself goes on to the last step


def test_early_stopping(tmp_path):
    chosen = options(num_train_epochs=9, early_stopping_patience=2)
    scores = iter([0.5, 0.4, 0.6, 0.6, 0.2, 0.9])
    _, result, run = fit_slope(tmp_path, chosen, X, batch=4, scores=scores, metric="score")
    assert (result.stopped_early, result.steps, result.best_step, result.best_metrics) == (True, 5, 3, {"score": 0.6})
    # The same command does not go on: the checkpoint knows.
    _, again, _ = fit_slope(tmp_path, chosen, X, batch=4, scores=iter([]), metric="score")
    assert again == result


@pytest.mark.parametrize("scores", [None, [0.9, 0.1]])
def test_without_a_metric_the_latest_is_kept(tmp_path, scores):
    model, result, run = fit_slope(tmp_path, options(), X, batch=4, scores=scores and iter(scores))
    assert result.best_step == 2 and result.best_metrics == ({"score": 0.1} if scores else {})
    assert float((run.best_dir / "weight").read_text()) == pytest.approx(float(model.weight[0, 0]))


def test_evaluation_is_in_eval_mode_and_training_goes_on_in_train_mode(tmp_path):
    modes = []
    model = Slope()

    def losses(batch):
        modes.append(("train", model.training))
        return {"slope": (batch["x"] * model.weight).mean()}

    run = Run(tmp_path, {})
    plan = Batches(StridedPlan(4, 4), lambda i: {"x": X[i]})
    fit(
        model,
        losses,
        plan,
        options(),
        run,
        lambda: modes.append(("eval", model.training)) or {"s": 1.0},
        "s",
        lambda p: None,
    )
    assert modes == [("train", True), ("eval", False)] * 2


def test_a_complete_run_is_not_trained_again(tmp_path):
    model, result, _ = train(tmp_path, options())
    metrics = (tmp_path / "metrics.jsonl").read_bytes()

    def untouchable(other):
        other.forward = None

    again, repeated, _ = train(tmp_path, options(), before=untouchable)
    assert repeated == result and largest_difference(model, again) == 0
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    x = X.repeat(2, 0)
    x[5] = np.inf
    with pytest.raises(TrainingStopped) as error:
        fit_slope(tmp_path, options(save_steps=1), x, batch=1)
    step = 1 + [int(i[0]) for i in StridedPlan(8, 1).epoch(0)].index(5)
    line = str(error.value)
    assert line.startswith(f"stopped at step {step}: loss slope is ") and "bias" not in line and "\n" not in line
    assert f"last good checkpoint is {tmp_path / 'checkpoints' / f'step-{step - 1}'}" in line
    assert isinstance(error.value, UserError)


def test_a_spoilt_weight_is_never_saved(tmp_path):
    model = Slope()

    def losses(batch):  # the loss is 0, its gradient 0 * inf
        return {"root": paddle.sqrt((model.weight - model.weight.detach()) * 0).sum() + 0 * model.bias.sum()}

    with pytest.raises(TrainingStopped, match="stopped at step 1: weight weight is nan; no checkpoint yet"):
        fit_slope(tmp_path, options(max_grad_norm=0, save_steps=1), X, batch=4, losses=losses, model=model)
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "best").exists()


def test_a_score_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(TrainingStopped, match="stopped at step 1: dev score is nan"):
        fit_slope(tmp_path, options(), X, batch=4, scores=iter([math.nan]), metric="score")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_the_path_of_mixed_precision_runs_and_resumes(tmp_path, amp, monkeypatch):
    """On a CPU paddle itself turns the casts and the scaler off, so the result is that of full precision; that each
    step takes the path is seen by what it calls, in its order."""
    called = []

    def as_if_on_gpu(flag):
        with monkeypatch.context() as patch:
            patch.setattr(paddle, "get_device", lambda: "gpu:0")
            autocast, scaler = mixed_precision(flag)
        assert autocast.keywords == {"level": "O1", "dtype": {"bf16": "bfloat16", "fp16": "float16"}[flag]}

        @contextlib.contextmanager
        def noted():
            called.append("casts")
            with autocast():
                yield
            called.append("end of casts")

        for name in ("scale", "step", "update", "load_state_dict") if scaler else ():
            own = getattr(scaler, name)
            setattr(scaler, name, lambda *given, name=name, own=own: called.append(name) or own(*given))
        return noted, scaler

    def watched(model):
        model.register_forward_pre_hook(lambda layer, given: called.append("forward") if layer.training else None)

    full, _, _ = train(tmp_path / "full", options())
    monkeypatch.setattr("distill.training.fit.mixed_precision", as_if_on_gpu)
    mixed, _, run = train(tmp_path / "mixed", options(amp=amp), before=watched)
    assert largest_difference(full, mixed) == 0
    step = ["casts", "forward", "end of casts", *(["scale", "step", "update"] if amp == "fp16" else [])]
    assert called == 14 * step
    checkpoint.remove_folder(run.checkpoints / "step-14")
    called.clear()
    resumed, _, _ = train(tmp_path / "mixed", options(amp=amp), before=watched)
    assert largest_difference(full, resumed) == 0
    assert called == [*(["load_state_dict"] if amp == "fp16" else []), *(7 * step)]


def test_a_full_disk_stops_the_run_which_then_continues_to_the_same_end(tmp_path, monkeypatch):
    whole, _, _ = train(tmp_path / "whole", options(save_steps=3))
    save_tensors = checkpoint.save_tensors

    def full(path, tensors):
        if "step-9" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_tensors(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full)
        with pytest.raises(UserError, match="step-9: the disk is full"):
            train(tmp_path / "run", options(save_steps=3))
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [6, 7]
    continued, _, _ = train(tmp_path / "run", options(save_steps=3))
    assert largest_difference(whole, continued) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_save_that_fails_leaves_the_former_best(tmp_path):
    def save(path):
        (path / "weight").write_text("half")
        if (tmp_path / "best").exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="best: the disk is full"):
        fit_slope(tmp_path, options(), X, batch=4, scores=iter([0.1, 0.2]), metric="score", save=save)
    assert (tmp_path / "best" / "weight").read_text() == "half" and checkpoint.steps(tmp_path / "checkpoints") == [1]


def test_a_truncated_newest_checkpoint_costs_only_its_steps(tmp_path, capsys):
    chosen = options(save_steps=2)
    whole, _, _ = train(tmp_path / "whole", chosen)

    train(tmp_path / "run", chosen)
    weights = tmp_path / "run" / "checkpoints" / "step-14" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    capsys.readouterr()
    continued, _, _ = train(tmp_path / "run", chosen)
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "step-14/weights.safetensors (100 bytes of" in first and second.endswith("step-12")
    assert largest_difference(whole, continued) == 0
    for path in (tmp_path / "run" / "checkpoints").glob("*/weights.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="step-14/weights.safetensors .* no whole one beside it"):
        train(tmp_path / "run", chosen)


def test_other_rows_or_ranks_are_refused(tmp_path):
    train(tmp_path, options())
    with pytest.raises(UserError, match="7 batches an epoch, now 8: the rows changed"):
        train(tmp_path, options(), rows=60)
    path = tmp_path / "checkpoints" / "step-14" / "state.json"
    path.write_text(path.read_text().replace('"ranks": 1', '"ranks": 4'))
    with pytest.raises(UserError, match=r"trained on 4 device\(s\), now 1"):
        train(tmp_path, options())


def test_random_numbers_depend_on_the_step_alone(tmp_path):
    """Dropout and augmentation of a step are the same whatever ran before it."""
    first, _, _ = train(tmp_path / "a", options(eval_steps=3))
    second, _, _ = train(tmp_path / "b", options(), before=lambda model: paddle.rand([7]))
    assert largest_difference(first, second) == 0


def test_the_loop_adds_few_calls_a_step(tmp_path):
    """Counted, since a busy machine stretches seconds: calls of functions, Python's and C's, in 40 steps more."""
    ids, labels = rows_of(8)
    runs = itertools.count()

    def bare(steps):
        model = make()
        model.train()
        optimizer = build_optimizer(model, options())
        for _ in range(steps):
            noise = paddle.to_tensor(np.zeros((8, 3), np.float32))
            logits = model(paddle.to_tensor(ids)) + noise
            loss = nn.functional.cross_entropy(logits, paddle.to_tensor(labels)) + 0.1 * (logits**2).mean()
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()

    def loop(steps):
        chosen = options(max_steps=steps, num_train_epochs=1, logging_steps=1000, eval_steps=1000)
        train(tmp_path / str(next(runs)), chosen, rows=2400, batch=8)

    def calls(work, steps):
        count = 0

        def heard(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(heard)
        try:
            work(steps)
        finally:
            sys.setprofile(None)
        return count

    def per_step(work):
        work(1)  # what is done once in a process
        return (calls(work, 50) - calls(work, 10)) / 40

    assert per_step(loop) - per_step(bare) < 700
