"""Predictions of a model for a whole split, and the result file they end in."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from distill.data.tasks import Task
from distill.data.wordpiece import Encoded
from distill.encoders import inference
from distill.encoders.inference import evaluating
from distill.evaluation.latency import Latency, measure
from distill.evaluation.metrics import score
from distill.evaluation.predictions import Predictions, save_predictions
from distill.files import write_json
from distill.runtime import hardware, log, versions

Forward = Callable[[dict[str, Tensor]], Tensor]


# From about here on the half second that a graph takes to make is earned back.
_MANY_TOKENS = 200_000


class BertForward:
    """The `forward` of `predict` for a PaddleNLP BertForSequenceClassification; gradients flow through its logits."""

    def __init__(self, model: nn.Layer) -> None:
        self.model = model

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(batch["input_ids"], batch["token_type_ids"], attention_mask=batch["mask"])
        return logits


def bert_forward(model: nn.Layer) -> BertForward:
    """The `forward` of `predict` for a PaddleNLP BertForSequenceClassification."""
    return BertForward(model)


def predict(forward: Forward, encoded: Encoded, batch_size: int, pad_id: int = 0) -> np.ndarray:
    """Logits [n, C] float32 of all rows, in row order.

    `forward` gets `Encoded.pad(...)` as tensors (input_ids, token_type_ids, mask, lengths), rows of similar length
    together, and returns logits [B, C]; it runs without gradient. Its model must be in eval mode (see `evaluating`);
    a BERT is put into it. With many rows to read on a CPU a BERT is run by Paddle Inference; the rows alone decide, so
    that a run that is continued gets the same bits.
    Raises ValueError without rows.
    """
    if not len(encoded):
        raise ValueError("no rows to predict")
    order = np.argsort(encoded.lengths, kind="stable")
    run = _fixed(forward, encoded)
    parts = []
    with paddle.no_grad():
        for start in range(0, len(order), batch_size):
            batch = encoded.pad(order[start : start + batch_size], pad_id=pad_id)
            parts.append(run(batch))
    ordered = np.concatenate(parts)
    logits_by_row = np.empty_like(ordered)
    logits_by_row[order] = ordered
    return logits_by_row


def _fixed(forward: Forward, encoded: Encoded) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """`forward` from arrays to logits [B, C] float32, with the weights its model has now."""
    if isinstance(forward, BertForward):
        layer = inference.Classifier(forward.model)
        # Arranged for the CPU as in training, so that a model scores the same there and afterwards.
        run = inference.eager(layer, inference.BERT_INPUTS)
        if encoded.lengths.sum() >= _MANY_TOKENS and inference.available():
            run = inference.compiled(layer, inference.BERT_INPUTS)
        return lambda batch: run(batch)[0].astype("float32")

    def general(batch: dict[str, np.ndarray]) -> np.ndarray:
        logits = forward({name: paddle.to_tensor(value) for name, value in batch.items()})
        return logits.astype("float32").numpy()

    return general


class Scores(dict[str, float]):
    """Scores by their names; `predictions` holds what they were computed from, by split."""

    def __init__(self) -> None:
        super().__init__()
        self.predictions: dict[str, Predictions] = {}


def evaluate_splits(
    predict_split: Callable[[Any], np.ndarray], splits: Mapping[str, tuple[Any, np.ndarray]], task: Task
) -> Scores:
    """Scores of the dev splits {name: (rows as the model reads them, labels)}.

    Those of the first split have their plain names, those of a further one (MNLI's dev_mismatched) its ending, such as
    accuracy_mismatched.
    """
    scores = Scores()
    for number, (name, (encoded, labels)) in enumerate(splits.items()):
        ending = f"_{name.removeprefix('dev_')}" if number else ""
        scores.predictions[name] = found = Predictions(predict_split(encoded), labels)
        scores |= {key + ending: value for key, value in score(found.logits, labels, task).items()}
    return scores


def report(
    folder: str | Path,
    dev_scores: Callable[[], Scores],
    answer: Callable[[Sequence[int]], object],
    rows: int,
    task: Task,
    model: nn.Layer,
    weights: str | Path,
    batch_size: int,
    seed: int | None,
) -> dict[str, Any]:
    """Evaluate and time a finished model, write its predictions (see `save_predictions`) and results_eval.json (see
    `write_results`) into `folder`, print the scores.

    dev_scores: returns what `evaluate_splits` does for this model.
    answer: takes numbers of dev rows, 0 to rows - 1, and returns when their logits are there, from the text on.
    seed: that of the training, None where nobody knows.
    """
    with evaluating(model):
        scores = dev_scores()
        latency = measure(answer, range(rows))
    log(f"{task.name} dev: " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    save_predictions(folder, scores.predictions)
    path = Path(folder) / "results_eval.json"
    return write_results(path, scores, task.metric, model, weights, latency, rows, batch_size, seed)


def write_results(
    path: str | Path,
    metrics: dict[str, float],
    metric: str,
    model: nn.Layer,
    weights: str | Path,
    latency: Latency,
    rows: int,
    batch_size: int,
    seed: int | None,
) -> dict[str, Any]:
    """Write results_eval.json, whole or not at all, and return its content.

    The keys of the original suite come first: accuracy, MCC, precision, recall, f_1 (null where the task has no such
    score), modelSize (the weight file, '57.42 MB', 1 MB = 10^6 bytes) and reasoningTime, which is samples per second
    over the whole split, 2 decimals. Then all of `metrics`; metric, the key of `metrics` by which models are compared;
    parameters; bytes (the weight file); latency_ms {p50, p95, p99, mean} of one row at a time; samples_per_second at
    batch_size; rows; seed; hardware; versions.

    `weights` is the file that holds the model's weights. Raises UserError when the file cannot be written.
    """
    size = Path(weights).stat().st_size
    result: dict[str, Any] = {name: metrics.get(name) for name in ("accuracy", "MCC", "precision", "recall", "f_1")}
    result["modelSize"] = f"{size / 1e6:.2f} MB"
    result["reasoningTime"] = round(latency.samples_per_second, 2)
    result.update(metrics)
    result.update(
        metric=metric,
        parameters=sum(int(p.size) for p in model.parameters()),
        bytes=size,
        latency_ms=latency.milliseconds,
        samples_per_second=latency.samples_per_second,
        batch_size=batch_size,
        rows=rows,
        seed=seed,
        hardware=hardware(),
        versions=versions(),
    )
    write_json(path, result)
    return result
