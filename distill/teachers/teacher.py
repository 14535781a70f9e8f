"""A fine-tuned BERT as a teacher: checked before it teaches, run without gradient, its outputs kept on disk."""

import functools
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.readers import Rows
from distill.data.tasks import Task
from distill.data.wordpiece import Encoded, WordPiece
from distill.encoders import inference
from distill.encoders.cpu import split_heads
from distill.encoders.folder import find_model, load_bert
from distill.encoders.inference import BERT_INPUTS
from distill.encoders.taps import Reading, scaled_scores
from distill.errors import UserError
from distill.files import read_json, sha256, write_json
from distill.options import TeacherOptions
from distill.runtime import is_main, log, rank, world_size
from distill.teachers.cache import (
    SEGMENT_OVERHEAD,
    CachedOutputs,
    Column,
    Output,
    Requests,
    Store,
    Unfinished,
    Writer,
    folder_bytes,
)


class Teacher:
    """A BERT classifier (or regressor) of a folder, in eval mode.

    folder      model folder or a weight file in one, see `encoders.folder.find_model`
    task        its number of outputs is checked here, labels and quality by `check`; None: whatever the folder holds
    max_length  longest input in tokens

    model       PaddleNLP BertForSequenceClassification;  wordpiece its tokenizer;  labels its label names or None
    digest      SHA-256 of weights, settings, vocabulary and max_length: equal digests give equal outputs

    Raises UserError when the folder is not a sound BERT with a classification head, or has other outputs than the task.
    """

    def __init__(self, folder: str | Path, task: Task | None, max_length: int, options: TeacherOptions) -> None:
        found = find_model(folder)
        self.folder, self.task, self.max_length, self.options = found.folder, task, max_length, options
        found.check_length(max_length)
        outputs = task.num_outputs if task is not None else found.num_outputs
        self.model = load_bert(found.weights, outputs, head="stored")
        self.model.eval()
        for parameter in self.model.parameters():
            parameter.stop_gradient = True
        self.wordpiece = WordPiece.from_folder(found.folder)
        self.labels = found.labels
        inference.require(options.forward_precision)
        content = [sha256(found.weights), found.config, self.wordpiece.digest(), max_length]
        self.digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self._passes: dict[tuple[tuple[int, ...], tuple[int, ...]], inference.Pass] = {}

    @functools.cached_property
    def _way(self) -> str:
        """How the teacher runs: `eager`, `compiled` or `bf16`. Found out once for a cache: outputs of the first two
        agree to 1e-5, not to the bit."""
        if self.options.forward_precision == "bf16":
            return "bf16"
        if not inference.available():
            return "eager"
        note = Path(self.options.cache_dir).expanduser() / f"{self.digest[:16]}.json"
        if is_main() and not note.exists():
            layer = Reading(self.model, (), ())
            ways = {"eager": inference.eager(layer, BERT_INPUTS), "compiled": inference.compiled(layer, BERT_INPUTS)}
            batch = inference.sample(self.model.config.vocab_size, 32, min(self.max_length, 32))
            write_json(note, {"way": inference.faster(ways, batch)})
        _barrier()
        return str(read_json(note)["way"])

    def _pass(self, hidden: tuple[int, ...], scores: tuple[int, ...]) -> inference.Pass:
        """The pass that gives logits, these layers' hidden states, then their queries, then their keys."""
        if (hidden, scores) not in self._passes:
            layer, way = Reading(self.model, hidden, scores), self._way
            if way == "eager":
                made = inference.eager(layer, BERT_INPUTS)
            else:
                made = inference.compiled(layer, BERT_INPUTS, "bf16" if way == "bf16" else "fp32")
            self._passes[hidden, scores] = made
        return self._passes[hidden, scores]

    def encode(self, rows: Rows) -> Encoded:
        """The rows as this teacher reads them."""
        return self.wordpiece.encode(rows.text_a, rows.text_b, self.max_length)

    def check(self, rows: Rows) -> dict[str, float]:
        """Refuse a teacher that would teach the wrong thing: labels in another order, or no better than chance.

        rows: labelled dev rows of `task`. Returns what was measured: accuracy, majority (share of the largest class),
        MCC, rows; or pearson, rows. Raises UserError; with `options.skip_teacher_check` it prints the line and goes on.
        """
        if self.task is None:
            raise ValueError("a teacher without a task cannot be checked")
        if not self.task.regression:
            self._complain(_check_label_names(self.labels, self.task))
        cached = self.outputs(self.encode(rows))
        batches = [np.arange(i, min(i + 64, len(rows))) for i in range(0, len(rows), 64)]
        logits = np.concatenate([cached.batch(indices)["logits"] for indices in batches])
        if self.options.forward_precision == "bf16":
            self._compare_precisions(self.encode(rows), logits, batches[:4])
        if self.task.regression:
            figures, complaint = _check_regression(logits[:, 0], rows)
        else:
            figures, complaint = _check_classes(logits, rows, self.task)
        self._complain(complaint)
        return figures

    def _compare_precisions(self, encoded: Encoded, logits: np.ndarray, batches: Sequence[np.ndarray]) -> None:
        exact = inference.compiled(Reading(self.model, (), ()), BERT_INPUTS)
        expected = np.concatenate([exact(encoded.pad(rows, self.wordpiece.pad_id))[0] for rows in batches])
        found = logits[: len(expected)]
        line = f"bf16: on {len(expected)} rows the teacher's logits differ from fp32's by at most"
        line += f" {np.abs(found - expected).max():.2g}"
        if expected.shape[1] > 1:
            line += f", {(found.argmax(1) == expected.argmax(1)).mean():.1%} of its answers are the same".replace(
                "%", " %"
            )
        log(line)

    def _complain(self, complaint: str | None) -> None:
        if complaint and not self.options.skip_teacher_check:
            raise UserError(
                f"{self.folder}: {complaint}; pass another teacher, or --skip_teacher_check to go on with it"
            )
        if complaint:
            log(f"teacher check skipped: {complaint}")

    def forward(self, batch: dict[str, np.ndarray], outputs: Sequence[str] = ("logits",)) -> dict[str, np.ndarray]:
        """Outputs of one padded batch (`Encoded.pad`), float32, computed now; shapes as in `CachedOutputs.batch`.

        outputs: `logits`; `cls` (every layer's first token, 0 the embeddings) or `cls:2,4`; `hidden:0,3,6`;
        `scores:3,6` (before softmax, scaled, without the padding mask). Padding is 0.
        """
        return self._forward(batch, self._parse(outputs))

    def _forward(self, batch: dict[str, np.ndarray], outputs: Sequence[Output]) -> dict[str, np.ndarray]:
        hidden = tuple(
            sorted({layer for output in outputs if output.kind in ("cls", "hidden") for layer in output.layers})
        )
        scored = tuple(sorted({layer for output in outputs if output.kind == "scores" for layer in output.layers}))
        logits, *rest = self._pass(hidden, scored)(batch)
        states = dict(zip(hidden, rest, strict=False))
        queries = dict(zip(scored, rest[len(hidden) :], strict=False))
        keys = dict(zip(scored, rest[len(hidden) + len(scored) :], strict=True))
        mask = batch["mask"]
        padded = not mask.all()
        found = {}
        for output in outputs:
            if output.kind == "logits":
                found["logits"] = logits
            elif output.kind == "cls":
                found["cls"] = np.stack([states[layer][:, 0] for layer in output.layers], axis=1)
            elif output.kind == "hidden":
                found["hidden"] = value = np.stack([states[layer] for layer in output.layers], axis=1)
                if padded:
                    value *= mask[:, None, :, None]
            else:
                found["scores"] = value = np.stack(
                    [self._scores(queries[layer], keys[layer]) for layer in output.layers], axis=1
                )
                if padded:
                    value *= (mask[:, :, None] * mask[:, None, :])[:, None, None]
        return found

    def _scores(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """[B, L, H] projections to scores [B, heads, L, L]."""
        import paddle

        heads = self.model.config.num_attention_heads
        with paddle.no_grad():
            return scaled_scores(*(split_heads(paddle.to_tensor(x), heads) for x in (queries, keys))).numpy()

    def outputs(self, encoded: Encoded, outputs: Sequence[str] = ("logits",)) -> CachedOutputs:
        """The outputs (names as in `forward`) of every row, from the cache, which is filled first where it lacks some.

        Under paddle.distributed.launch the ranks share the filling, so all of them must call this. The batches are
        planned over the whole request: an interrupted filling gives the same bits as any other. What does not fit
        into `options.cache_limit_gb` is computed whenever it is asked for. Raises UserError when the disk is full.
        """
        parsed = self._parse(outputs)
        root = Path(self.options.cache_dir).expanduser()
        folder = root / f"{self.digest[:16]}-{self._way}"
        requests = Requests.of(encoded.keys(), encoded.lengths)
        stores = [Store(folder / output.name, output) for output in parsed]
        if is_main():
            for store in stores:
                store.tidy()
        _barrier()  # damaged segments and left-overs are gone before anybody counts
        if not is_main():
            for store in stores:
                store.open()
        positions = [store.find(requests.keys) for store in stores]
        missing = np.array(positions) < 0
        absent = missing.any(axis=0)
        saved = stores[0].seconds(positions[0][~absent])
        del positions
        unfinished = Unfinished(folder, requests, parsed)
        begun = unfinished.begun()
        begun = absent if begun is None else begun | absent
        plan = self._admitted(requests, parsed, missing, begun, root, unfinished.size)
        _barrier()  # and everybody has counted before the first file is added
        started = time.perf_counter()
        todo = sum(int(absent[rows].sum()) for rows in plan)
        if plan:
            if is_main():
                unfinished.begin(begun)
            self._fill(encoded, requests, stores, missing, plan)
            _barrier()
            if is_main():
                unfinished.end()
            for store in stores:
                store.open()
        seconds = time.perf_counter() - started
        distinct, found = len(absent), int((~absent).sum())
        hit_rate = found / distinct if distinct else 1.0
        log(_summary(len(encoded), distinct, found, hit_rate, todo, seconds, saved))

        def compute(indices: np.ndarray, width: int) -> dict[str, np.ndarray]:
            return self._forward(encoded.pad(indices, self.wordpiece.pad_id, width), parsed)

        return CachedOutputs([Column(store, requests) for store in stores], encoded.lengths, hit_rate, compute)

    def _admitted(
        self,
        requests: Requests,
        outputs: Sequence[Output],
        missing: np.ndarray,
        begun: np.ndarray,
        root: Path,
        extra: int,
    ) -> list[np.ndarray]:
        """Of the rows `begun` the batches that lack some, as many as fit into the cache beside `extra` bytes."""
        room = self.options.cache_limit_gb * 1e9 - folder_bytes(root) - extra - SEGMENT_OVERHEAD
        each = [4 * output.sizes(requests.lengths) + 16 + (8 if output.ragged else 0) for output in outputs]
        cost = np.sum([np.where(absent, size, 0) for absent, size in zip(missing, each, strict=True)], axis=0)
        absent = missing.any(axis=0)
        needed = [rows for rows in requests.batches(begun) if absent[rows].any()]
        for number, rows in enumerate(needed):
            room -= int(cost[rows].sum()) + SEGMENT_OVERHEAD * len(outputs)
            if room < 0:
                left = sum(int(absent[late].sum()) for late in needed[number:])
                log(
                    f"teacher cache: {left:,} rows do not fit into {root} (--cache_limit_gb "
                    f"{self.options.cache_limit_gb:g}); they are computed each time they are needed"
                )
                return needed[:number]
        return needed

    def _fill(
        self,
        encoded: Encoded,
        requests: Requests,
        stores: Sequence[Store],
        missing: np.ndarray,
        plan: Sequence[np.ndarray],
    ) -> None:
        """Compute this rank's batches, each whole whatever it lacks: its values then depend on the request alone."""
        from tqdm import tqdm

        mine = plan[rank() :: world_size()]
        writers = [Writer(store) for store in stores]
        outputs = [store.output for store in stores]
        absent = missing.any(axis=0)
        terminal = sys.stderr.isatty()
        with tqdm(
            total=sum(int(absent[rows].sum()) for rows in mine), desc="teacher", unit=" rows", unit_scale=True,
            leave=False, disable=not is_main(), delay=1 if terminal else 60, mininterval=0.2 if terminal else 60,
        ) as bar:  # fmt: skip
            for rows in mine:
                start = time.perf_counter()
                batch = self._forward(encoded.pad(requests.first[rows], self.wordpiece.pad_id), outputs)
                seconds = time.perf_counter() - start
                for writer, output, lacking in zip(writers, outputs, missing, strict=True):
                    kept = np.flatnonzero(lacking[rows])
                    if len(kept):
                        keys, lengths = requests.keys[rows][kept], requests.lengths[rows][kept]
                        share = len(kept) / len(lacking[rows])
                        writer.add(keys, batch[output.kind][kept], lengths, seconds * share)
                bar.update(int(absent[rows].sum()))
            for writer in writers:
                writer.flush()

    def _parse(self, names: Sequence[str]) -> list[Output]:
        config = self.model.config
        hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
        found: list[Output] = []
        for name in names:
            match = re.fullmatch(r"(logits)|(cls)|(cls|hidden|scores):(\d+(?:,\d+)*)", name)
            if match is None:
                raise ValueError(f"no output {name!r}: logits, cls, cls:0,2, hidden:0,3,6 or scores:3,6")
            kind = match[1] or match[2] or match[3]
            chosen = tuple(map(int, match[4].split(","))) if match[4] else ()
            if kind == "cls" and not chosen:
                chosen = tuple(range(layers + 1))
            low = 1 if kind == "scores" else 0
            if any(not low <= layer <= layers for layer in chosen):
                raise UserError(f"{name}: the teacher in {self.folder} has the layers {low} to {layers}")
            if kind in {output.kind for output in found}:
                raise ValueError(f"{kind} is asked for twice")
            shape = {
                "logits": (self.model.classifier.weight.shape[1],),
                "cls": (len(chosen), hidden),
                "hidden": (len(chosen), -1, hidden),
                "scores": (len(chosen), heads, -1, -1),
            }[kind]
            found.append(Output(kind, chosen, shape))
        return found


def _barrier() -> None:
    if world_size() > 1:
        import paddle

        paddle.distributed.barrier()


def _summary(asked: int, distinct: int, found: int, hit_rate: float, done: int, seconds: float, saved: float) -> str:
    among = f" ({distinct:,} distinct)" if distinct != asked else ""
    line = f"teacher cache: {asked:,} rows asked{among}, {found:,} found ({hit_rate:.1%})".replace("%", " %")
    if done:
        line += f", {done:,} computed in {seconds:.1f} s ({done / seconds:,.0f} rows/s)"
    return line + (f", {saved:.1f} s saved" if found else "")


def _check_label_names(stored: tuple[str, ...] | None, task: Task) -> str | None:
    """A complaint when the names say another order or other labels; numbers on one side only say nothing."""
    if stored is None or stored == task.labels:
        return None
    have, want = ([label.casefold() for label in labels] for labels in (stored, task.labels))
    if have == want or all(map(str.isdigit, have)) != all(map(str.isdigit, want)):
        return None
    what = "labels in another order" if sorted(have) == sorted(want) else "other labels"
    return f"the teacher has {what} ({', '.join(stored)}) than {task.name} ({', '.join(task.labels)})"


def _labelled(rows: Rows, valid: Any) -> np.ndarray:
    if rows.labels is None or not valid(rows.labels).any():
        raise UserError(f"{rows.source}: no labels to check the teacher on")
    return np.flatnonzero(valid(rows.labels))


def _check_classes(logits: np.ndarray, rows: Rows, task: Task) -> tuple[dict[str, float], str | None]:
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix, matthews_corrcoef

    kept = _labelled(rows, lambda labels: labels >= 0)
    assert rows.labels is not None
    labels, guesses = rows.labels[kept], logits[kept].argmax(axis=1)
    accuracy = float((labels == guesses).mean())
    majority = float(np.bincount(labels).max() / len(labels))
    mcc = float(matthews_corrcoef(labels, guesses))
    figures = {"accuracy": accuracy, "majority": majority, "MCC": mcc, "rows": float(len(labels))}
    if task.metric == "MCC":
        score, chance, text = mcc, 0.0, f"MCC {mcc:.3f} on {len(labels):,} dev rows, chance is 0"
    else:
        score, chance = accuracy, majority
        text = f"accuracy {accuracy:.3f} on {len(labels):,} dev rows, the commonest label alone gives {majority:.3f}"
    if score > chance:
        return figures, None
    counts = confusion_matrix(labels, guesses, labels=range(len(task.labels)))
    truth, meant = linear_sum_assignment(-counts)
    permuted = float(counts[truth, meant].sum() / len(labels))
    if permuted > max(accuracy, majority) + 0.05:
        order = ", ".join(task.labels[i] for i in np.argsort(meant))
        text += f"; with its outputs read as ({order}) accuracy is {permuted:.3f}: its labels are in another order"
    return figures, f"no better than chance: {text}"


def _check_regression(scores: np.ndarray, rows: Rows) -> tuple[dict[str, float], str | None]:
    from scipy.stats import pearsonr

    kept = _labelled(rows, lambda labels: ~np.isnan(labels))
    assert rows.labels is not None
    labels, scores = rows.labels[kept].astype(np.float64), scores[kept].astype(np.float64)
    constant = len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(scores) == 0
    pearson = 0.0 if constant else float(pearsonr(scores, labels)[0])
    figures = {"pearson": pearson, "rows": float(len(labels))}
    # Unrelated numbers correlate by chance up to about two standard errors.
    chance = 2 / math.sqrt(max(len(labels) - 1, 1))
    if pearson > chance:
        return figures, None
    return (
        figures,
        f"no better than chance: Pearson {pearson:.3f} on {len(labels):,} dev rows, chance reaches {chance:.3f}",
    )
