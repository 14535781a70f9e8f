"""A fine-tuned BERT as a teacher: checked before it teaches, run without gradient, its outputs kept on disk."""

import dataclasses
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
import paddle
from paddle import Tensor, nn

from distill.data.pairs import PairLayout, Pairs
from distill.data.readers import Rows, shortened
from distill.data.tasks import Task, label_complaint
from distill.data.wordpiece import Encoded, WordPiece
from distill.encoders import inference
from distill.encoders.cpu import split_heads
from distill.encoders.folder import ModelFolder, find_model, load_bert, save_bert
from distill.encoders.inference import BERT_INPUTS
from distill.encoders.taps import Reading, scaled_scores
from distill.errors import UserError
from distill.files import read_json, sha256, write_json
from distill.options import TeacherOptions
from distill.runtime import barrier, from_main, is_main, log, rank, world_size
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
    summary,
)
from distill.tensors import fill, load_tensors

_PAIRS = "pairs"  # the key of a BertForPairs' own settings in config.json


class Teacher:
    """A BERT classifier (or regressor) of a folder, in eval mode.

    folder      model folder or a weight file in one, see `encoders.folder.find_model`
    task        its number of outputs is checked here, labels and quality by `check`; None: whatever the folder holds
    max_length  longest input in tokens

    weights     the weight file that was read
    model       PaddleNLP BertForSequenceClassification;  wordpiece its tokenizer;  labels its label names or None
    digest      SHA-256 of weights, settings, vocabulary and max_length: equal digests give equal outputs

    Raises UserError when the folder is not a sound BERT with a classification head, or has other outputs than the task.
    """

    _inputs = BERT_INPUTS

    def __init__(self, folder: str | Path, task: Task | None, max_length: int, options: TeacherOptions) -> None:
        found = find_model(folder)
        found.check_length(max_length)
        if task is not None and task.pair:
            found.check_pairs()
        outputs = task.num_outputs if task is not None else found.num_outputs
        self._adopt(found, load_bert(found.weights, outputs, head="stored"), task, options, [max_length])
        self.max_length = max_length

    def _adopt(
        self, found: ModelFolder, model: nn.Layer, task: Task | None, options: TeacherOptions, reading: list[Any]
    ) -> None:
        """Take the model of a folder for a teacher; reading: what its outputs depend on besides the folder's files."""
        self.folder, self.weights = found.folder, found.weights
        self.task, self.options, self.model = task, options, model
        self.model.eval()
        for parameter in self.model.parameters():
            parameter.stop_gradient = True
        self.wordpiece = WordPiece.from_folder(found.folder)
        self.labels = found.labels
        inference.require(options.forward_precision)
        content = [sha256(found.weights), found.config, self.wordpiece.digest(), *reading]
        self.digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self._passes: dict[tuple[tuple[int, ...], tuple[int, ...]], inference.Pass] = {}

    @functools.cached_property
    def _way(self) -> str:
        """How the teacher runs: `eager`, `compiled`, `bf16`, or `gpu`, which rounds otherwise than a CPU (TF32). Found
        out once for a cache: outputs of the first two agree to 1e-5, not to the bit."""
        if paddle.get_device() != "cpu":
            return "gpu"
        if self.options.forward_precision == "bf16":
            return "bf16"
        if not inference.available():
            return "eager"
        note = Path(self.options.cache_dir).expanduser() / f"{self.digest[:16]}.json"

        def noted() -> str:
            if not note.exists():
                layer = Reading(self.model, (), ())
                ways = {
                    "eager": inference.eager(layer, BERT_INPUTS),
                    "compiled": inference.compiled(layer, BERT_INPUTS),
                }
                batch = inference.sample(self.model.config.vocab_size, 32, min(self.max_length, 32))
                write_json(note, {"way": inference.faster(ways, batch)})
            return str(read_json(note)["way"])

        way: str = from_main(noted)  # another run may be writing its own note
        return way

    def _pass(self, hidden: tuple[int, ...], scores: tuple[int, ...]) -> inference.Pass:
        """The pass that gives logits, these layers' hidden states, then their queries, then their keys."""
        if (hidden, scores) not in self._passes:
            layer, way = Reading(self.model, hidden, scores), self._way
            if way in ("eager", "gpu"):
                made = inference.eager(layer, self._inputs)
            else:
                made = inference.compiled(layer, self._inputs, "bf16" if way == "bf16" else "fp32")
            self._passes[hidden, scores] = made
        return self._passes[hidden, scores]

    def encode(self, rows: Rows) -> Encoded:
        """The rows as this teacher reads them."""
        return self.wordpiece.encode(rows.text_a, rows.text_b, self.max_length)

    def _pad(self, encoded: Encoded, indices: np.ndarray, widest: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """A batch of the chosen rows, as wide as for a row of the extents `widest`."""
        return encoded.pad(indices, self.wordpiece.pad_id, None if widest is None else int(widest[0]))

    def check(self, rows: Rows) -> dict[str, float]:
        """Refuse a teacher that would teach the wrong thing: labels in another order, or no better than chance.

        rows: labelled dev rows of `task`. Returns what was measured: accuracy, majority (share of the largest class),
        MCC, rows; or pearson, rows. Raises UserError; with `options.skip_teacher_check` it prints the line and goes on.
        """
        if self.task is None:
            raise ValueError("a teacher without a task cannot be checked")
        if not self.task.regression:
            complaint = label_complaint(self.labels, self.task) if self.labels else None
            self._complain(complaint and f"the teacher {complaint}")
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
        exact = inference.compiled(Reading(self.model, (), ()), self._inputs)
        expected = np.concatenate([exact(self._pad(encoded, rows))[0] for rows in batches])
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
        heads = self.model.config.num_attention_heads
        with paddle.no_grad():
            return scaled_scores(*(split_heads(paddle.to_tensor(x), heads) for x in (queries, keys))).numpy()

    def outputs(
        self, encoded: Encoded, outputs: Sequence[str] = ("logits",), rows: np.ndarray | None = None
    ) -> CachedOutputs:
        """The outputs (names as in `forward`) of every row, from the cache, which is filled first where it lacks some.

        rows: indices of those that will be asked for, without them all: the others do not go into the cache.

        Under paddle.distributed.launch the ranks share the filling, so all of them must call this. The batches are
        planned over the whole request: an interrupted filling gives the same bits as any other. What does not fit
        into `options.cache_limit_gb` is computed whenever it is asked for. Raises UserError when the disk is full.
        """
        parsed = self._parse(outputs)
        root = Path(self.options.cache_dir).expanduser()
        folder = root / f"{self.digest[:16]}-{self._way}"
        everything = requests = Requests.of(encoded.keys(), encoded.extents)
        if rows is not None:
            requests = Requests.of(encoded.keys()[rows], encoded.extents[rows])
            requests = dataclasses.replace(requests, first=np.asarray(rows)[requests.first])
        stores = [Store(folder / output.name, output) for output in parsed]
        unfinished = Unfinished(folder, requests, parsed)

        def decide() -> tuple[np.ndarray, list[np.ndarray], float]:
            for store in stores:
                store.tidy()
            positions = [store.find(requests.keys) for store in stores]
            missing = np.array(positions) < 0
            absent = missing.any(axis=0)
            begun = unfinished.begun()
            begun = absent if begun is None else begun | absent
            plan = self._admitted(requests, parsed, missing, begun, root, unfinished.size)
            if plan:
                unfinished.begin(begun)
            return missing, plan, stores[0].seconds(positions[0][~absent])

        # Another run may add to the cache meanwhile, and ranks that counted by themselves would share out other rows.
        missing, plan, saved = from_main(decide)
        absent = missing.any(axis=0)
        started = time.perf_counter()
        todo = sum(int(absent[batch].sum()) for batch in plan)
        if plan:
            self._fill(encoded, requests, stores, missing, plan)
            barrier()
            if is_main():
                unfinished.end()
        if plan or not is_main():
            for store in stores:
                store.open()
        seconds = time.perf_counter() - started
        distinct, found = len(absent), int((~absent).sum())
        hit_rate = found / distinct if distinct else 1.0
        log(summary(len(requests.inverse), distinct, found, hit_rate, todo, seconds, saved))

        def compute(indices: np.ndarray, widest: np.ndarray) -> dict[str, np.ndarray]:
            return self._forward(self._pad(encoded, indices, widest), parsed)

        return CachedOutputs([Column(store, everything) for store in stores], encoded.extents, hit_rate, compute)

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
        each = [4 * output.sizes(requests.extents) + 16 + (8 if output.ragged else 0) for output in outputs]
        cost = np.sum([np.where(absent, size, 0) for absent, size in zip(missing, each, strict=True)], axis=0)
        absent = missing.any(axis=0)
        needed = [rows for rows in requests.batches(begun) if absent[rows].any()]
        for number, rows in enumerate(needed):
            room -= int(cost[rows].sum()) + SEGMENT_OVERHEAD * len(outputs)
            if room < 0:
                left = sum(int(absent[late].sum()) for late in needed[number:])
                log(
                    f"teacher cache: {left:,} rows do not fit into {root} (--cache_limit_gb "
                    f"{self.options.cache_limit_gb:g}); they are computed each time they are needed; "
                    "delete the folder or raise the limit"
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
                batch = self._forward(self._pad(encoded, requests.first[rows]), outputs)
                seconds = time.perf_counter() - start
                for writer, output, lacking in zip(writers, outputs, missing, strict=True):
                    kept = np.flatnonzero(lacking[rows])
                    if len(kept):
                        keys, extents = requests.keys[rows][kept], requests.extents[rows][kept]
                        share = len(kept) / len(lacking[rows])
                        writer.add(keys, batch[output.kind][kept], extents, seconds * share)
                bar.update(int(absent[rows].sum()))
            for writer in writers:
                writer.flush()

    _names = "logits, cls, cls:0,2, hidden:0,3,6 or scores:3,6"

    def _shapes(self, layers: int) -> dict[str, tuple[int, ...]]:
        """The shape of a row of each kind of output, of so many layers; see `cache.Output`."""
        hidden, heads = self.model.config.hidden_size, self.model.config.num_attention_heads
        return {"cls": (layers, hidden), "hidden": (layers, -1, hidden), "scores": (layers, heads, -1, -1)}

    def _parse(self, names: Sequence[str]) -> list[Output]:
        layers = self.model.config.num_hidden_layers
        found: list[Output] = []
        for name in names:
            kind, _, listed = name.partition(":")
            chosen = tuple(map(int, listed.split(","))) if re.fullmatch(r"\d+(,\d+)*", listed) else ()
            if name == "cls":
                chosen = tuple(range(layers + 1))
            shapes = self._shapes(len(chosen)) if chosen else {"logits": (self.model.classifier.weight.shape[1],)}
            if kind not in shapes or (listed and not chosen):
                raise ValueError(f"no output {name!r}: {self._names}")
            low = 0 if kind in ("cls", "hidden") else 1
            if any(not low <= layer <= layers for layer in chosen):
                raise UserError(f"{name}: the teacher in {self.folder} has the layers {low} to {layers}")
            if kind in {output.kind for output in found}:
                raise ValueError(f"{kind} is asked for twice")
            found.append(Output(kind, chosen, shapes[kind]))
        return found


class BertForPairs(nn.Layer):
    """A BERT that reads pairs as `distill.data.pairs` lays them out: dropout and a linear layer over its pooled states.

    pooling: `mean` of the last states over real tokens, [CLS] and [SEP] counted, or `cls`, BERT's pooler. The linear
    layer's weights are normal(0, initializer_range) by `seed`.
    """

    def __init__(self, bert: nn.Layer, num_outputs: int, pooling: str = "mean", seed: int = 0) -> None:
        super().__init__()
        self.bert, self.config, self.pooling = bert, bert.config, pooling
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)
        self.classifier = nn.Linear(self.config.hidden_size, num_outputs)
        noise = np.random.default_rng(seed).normal(0.0, self.config.initializer_range, self.classifier.weight.shape)
        fill(self.classifier, {"weight": noise.astype(np.float32), "bias": np.zeros(num_outputs, np.float32)}, "")

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor | None = None, *, attention_mask: Tensor
    ) -> Tensor:
        """Logits [B, C]; ids, types, positions and mask [B, L]."""
        hidden, pooled = self.bert(input_ids, token_type_ids, position_ids, attention_mask)[:2]
        if self.pooling == "mean":
            shares = attention_mask / attention_mask.sum(axis=1, keepdim=True)
            pooled = paddle.matmul(shares.unsqueeze(1), hidden).squeeze(1)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


def save_pair_bert(
    model: BertForPairs, folder: str | Path, wordpiece: WordPiece, labels: Sequence[str], layout: PairLayout
) -> None:
    """Write what `save_bert` does, and into config.json how the model pools and how long its texts may be."""
    save_bert(model, folder, wordpiece, labels)
    config = Path(folder) / "config.json"
    write_json(config, read_json(config) | pair_settings(model.pooling, layout))


def pair_settings(pooling: str, layout: PairLayout) -> dict[str, Any]:
    """What config.json says of a BertForPairs besides what it says of any BERT."""
    return {
        "architectures": [BertForPairs.__name__],
        _PAIRS: {"pooling": pooling, "lengths": [layout.first, layout.second]},
    }


def load_pair_bert(path: str | Path, num_outputs: int | None = None) -> tuple[BertForPairs, PairLayout]:
    """The model and the layout that `save_pair_bert` wrote; `path` as in `find_model`.

    num_outputs: what the head must have; None: whatever it has. Raises UserError for another kind of model.
    """
    found = find_model(path)
    own = read_json(found.config_file).get(_PAIRS)
    if own is None:
        raise UserError(
            f"{found.folder}: was trained to read pairs in another layout; train it by run_classifier_bipartition.py"
        )
    if num_outputs not in (None, found.num_outputs):
        raise UserError(f"{found.folder}: its head has {found.num_outputs} outputs, the task needs {num_outputs}")
    model = BertForPairs(load_bert(found.weights), found.num_outputs, own["pooling"])
    head = {name: array for name, array in load_tensors(found.weights).items() if name.startswith("classifier.")}
    fill(model.classifier, {name.removeprefix("classifier."): array for name, array in head.items()}, found.weights)
    return model, PairLayout(*own["lengths"])


class PairTeacher(Teacher):
    """A BertForPairs as a teacher: as `Teacher`, but for what it reads and gives.

    layout  that of the folder; `fixed`: with every column of padding. Rows are `Pairs`.

    Its outputs are `logits` and, between the tokens of the two texts, scores before softmax, scaled, without mask:
    `first_to_second:1,2` [B, layers, heads, La, Lb], queries of the first text and keys of the second, and
    `second_to_first:1,2` [B, layers, heads, Lb, La]. Padding is 0; in a fixed layout it has scores of its own.

    Raises UserError when the folder holds another kind of model, or has other outputs than the task.
    """

    _inputs = BERT_INPUTS | {"positions": (2, "int64")}
    _names = "logits, first_to_second:1,2 or second_to_first:1,2"

    def __init__(self, folder: str | Path, task: Task | None, options: TeacherOptions, fixed: bool = False) -> None:
        found = find_model(folder)
        model, layout = load_pair_bert(folder, task.num_outputs if task is not None else None)
        self.layout = dataclasses.replace(layout, fixed=fixed)
        self.max_length = layout.joint
        found.check_length(self.max_length)
        found.check_pairs()
        self._adopt(found, model, task, options, [dataclasses.astuple(self.layout), model.pooling])

    def encode(self, rows: Rows) -> Pairs:
        """The rows as this teacher reads them."""
        return self.layout.encode(self.wordpiece, rows)

    def _pad(self, encoded: Encoded, indices: np.ndarray, widest: np.ndarray | None = None) -> dict[str, np.ndarray]:
        assert isinstance(encoded, Pairs)
        widths = None if widest is None or self.layout.fixed else widest[1:]
        return encoded.lay_out(indices, self.wordpiece.pad_id, widths)

    def _shapes(self, layers: int) -> dict[str, tuple[int, ...]]:
        heads = self.model.config.num_attention_heads
        first, second = (self.layout.first - 2, self.layout.second - 2) if self.layout.fixed else (-2, -3)
        return {"first_to_second": (layers, heads, first, second), "second_to_first": (layers, heads, second, first)}

    def _forward(self, batch: dict[str, np.ndarray], outputs: Sequence[Output]) -> dict[str, np.ndarray]:
        layers = tuple(sorted({layer for output in outputs for layer in output.layers}))
        logits, *rest = self._pass((), layers)(batch)
        queries, keys = (dict(zip(layers, part, strict=True)) for part in (rest[: len(layers)], rest[len(layers) :]))
        width = batch["input_ids_a"].shape[1]
        first, second = slice(1, width - 1), slice(width, -1)  # the tokens' columns
        sides = {"first_to_second": (first, second), "second_to_first": (second, first)}
        found = {}
        for output in outputs:
            if output.kind == "logits":
                found["logits"] = logits
                continue
            mine, theirs = sides[output.kind]
            found[output.kind] = values = np.stack(
                [self._scores(queries[layer][:, mine], keys[layer][:, theirs]) for layer in output.layers], axis=1
            )
            if not self.layout.fixed:
                mask = batch["mask"]
                values *= (mask[:, mine, None] * mask[:, None, theirs])[:, None, None]
        return found


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
    if majority == 1:
        what = f"all {len(labels):,} dev rows have the label {task.labels[labels[0]]}, which says nothing of a teacher"
        return figures, f"{what}, whichever it is"
    counts = confusion_matrix(labels, guesses, labels=range(len(task.labels)))
    truth, meant = linear_sum_assignment(-counts)
    permuted = float(counts[truth, meant].sum() / len(labels))
    if permuted > max(accuracy, majority) + 0.05:
        order = shortened(task.labels[i] for i in np.argsort(meant))
        text += f"; with its outputs read as ({order}) accuracy is {permuted:.3f}: its labels are in another order"
    return figures, f"no better than chance: {text}; was it fine-tuned on this task?"


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
        f"no better than chance: Pearson {pearson:.3f} on {len(labels):,} dev rows, chance reaches {chance:.3f}; "
        "was it fine-tuned on this task?",
    )
