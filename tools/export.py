"""A finished model's folder -> a bundle that serves it without Paddle, checked at every step against the model itself.

    python tools/export.py models/student_model/kd/SST-2/RUN --data_dir data/glue_data
    python tools/export.py my_student --output_dir my_bundle --variant int8 --rows texts.txt

Teachers, students and sentence encoders go from eager Paddle to a static graph, to ONNX, and to int8 where that is
faster here. Each step answers the task's dev rows (or --rows) as the step before did, within budgets: where fp32 does
not, the export ends with exit status 1, and no bundle is left; int8 and bf16 are then left out under --variant auto.
"""

import dataclasses
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.deploy import is_bundle
from distill.errors import UserError
from distill.options import TaskOptions, option

if TYPE_CHECKING:
    import numpy as np

    from distill.data.readers import Rows
    from distill.data.tasks import Task
    from distill.deploy.export import Graph
    from distill.deploy.parity import Budget, Hop, Latency
    from distill.encoders.inference import Batch, Pass
    from models.predictor import Read

_BATCH = 32  # rows of a batch, here and in the bundle
_GOLDEN = 8  # rows that the bundle's self-test compares
_TOLERANCE = {"fp32": 1e-3, "int8": 0.1}  # of these outputs on another processor
_TIMED, _TIMED_BATCHES = 60, 5  # single rows and batches that are timed


@dataclass
class ExportArgs(TaskOptions):
    """Export a finished model."""

    folder: str = field(default="", positional=True, help="folder of a model")
    output_dir: str | None = option(None, "folder of the bundle; without it FOLDER/bundle")
    overwrite: bool = option(False, "replace a bundle in --output_dir")
    task_name: str | None = option(None, "task whose dev rows are compared; without it that of the folder's run.yaml")
    max_seq_length: int | None = option(
        None, "longest input in tokens, special tokens counted; without it that of the folder's run.yaml", low=4
    )
    rows: str | None = option(
        None, "compare these instead of dev rows: a file with a text a line, or two with a TAB between"
    )
    max_rows: int = option(1000, "compare at most so many rows, spread evenly", low=1)
    variant: str = option(
        "auto",
        "auto ships int8 where it is faster and within its budget, fp32 otherwise, and tries bf16 (Paddle Inference, "
        "where the processor has it) beside it; the others are made, or refused with exit status 1",
        choices=("auto", "fp32", "int8", "bf16"),
    )
    max_logit_difference: str | None = option(
        None,
        "budget: how far outputs may differ from the step before; a number for all, or HOP=NUMBER,... of the hops "
        "static, onnx, int8, bf16, bundle",
    )
    min_agreement: str | None = option(
        None, "budget, as above: the least share of rows with the same class; of vectors the lowest cosine"
    )
    max_metric_drop: str | None = option(None, "budget, as above: how far the task's metric may fall")
    teacher_path: str | None = option(
        None, "folder of the teacher, for its scores on the card; without it that of the folder's run.yaml"
    )
    cascade_threshold: float | None = option(
        None, "answers with at most this probability are marked as not sure, to be asked of the teacher", low=0, high=1
    )
    licence: str | None = option(None, "the licence of the weights, for the card")


@dataclass(frozen=True)
class Source:
    """A model to be exported.

    graphs: by their names in the bundle; settings, labels, save_vocabulary: as `bundle.write_bundle` takes them.
    read(rows): their lengths and batches, as `models.predictor.Read` has them. weights: the file they came from.
    named: whether the labels are the model's own, and not numbers in place of names.
    chain(passes, batch): the outputs [B, C] of the graphs' passes, one after the other.
    """

    graphs: "dict[str, Graph]"
    settings: dict[str, Any]
    labels: tuple[str, ...]
    save_vocabulary: Callable[[Path], None]
    read: "Callable[[Rows], Read]"
    weights: Path
    chain: "Callable[[Mapping[str, Pass], Batch], np.ndarray]" = lambda passes, batch: passes["model"](batch)[0]
    named: bool = True


def require_folder(folder: str) -> None:
    """Raises UserError where there is none."""
    if not folder:
        raise UserError("give the folder of a model: python tools/export.py FOLDER --data_dir ...")
    if not Path(folder).exists():
        raise UserError(f"{folder}: no such folder; give that of a finished model")
    if is_bundle(folder):
        raise UserError(f"{folder}: a bundle already; give the folder of the model that it was made of")


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the folder of the bundle. A hop beyond its budget is printed and ends the process with status 1."""
    args = parse(ExportArgs, argv, __doc__)
    require_folder(args.folder)
    from distill.deploy import parity

    budgets = parity.budgets(args.max_logit_difference, args.min_agreement, args.max_metric_drop)
    runtime.start("cpu")
    from distill.data.readers import Rows
    from distill.encoders import inference
    from distill.files import disk_errors
    from distill.training import checkpoint
    from models.predictor import read_run

    if args.variant == "bf16":
        inference.require("bf16")
    target = Path(args.output_dir or Path(args.folder) / "bundle").expanduser().resolve()
    if target.is_mount():
        raise UserError(f"--output_dir {target}: a mount, which cannot be exchanged as a whole; choose a folder in it")
    checkpoint.recover_folder(target)
    if target.exists() and not is_bundle(target):
        raise UserError(f"--output_dir {target}: exists and is no bundle; choose another folder")
    if target.exists() and not args.overwrite:
        raise UserError(f"--output_dir {target}: holds a bundle; choose another folder or pass --overwrite")
    run_settings = read_run(args.folder)
    task, rows = load_real_rows(args, run_settings)
    source = open_source(args, run_settings, rows)
    if source.settings["kind"] == "vectors" and rows.text_b is not None:  # each text has a vector of its own
        rows = Rows([*rows.text_a, *rows.text_b], None, None, rows.source)
    if task is not None and source.settings["kind"] != "vectors":
        source = with_labels(args.folder, source, task)
    place = checkpoint.beside(target)
    try:
        with disk_errors(target):
            place.mkdir(parents=True)
        export(source, rows, task, args, budgets, place)
        checkpoint.replace_folder(place, target)
    except parity.ParityError as error:
        print(f"error: {error}; no bundle was written", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    runtime.log(f"written: {target}")
    return target


def load_real_rows(args: ExportArgs, run_settings: Mapping[str, Any]) -> "tuple[Task | None, Rows]":
    """The rows to compare, with their task where they are its dev rows: that of the flags, else that of the run."""
    import numpy as np

    from distill.data.readers import read_unlabelled
    from distill.data.tasks import load_rows, load_task

    task = None
    if args.rows:
        path = Path(args.rows)
        if path.suffix.lower() in (".csv", ".jsonl"):
            raise UserError(f"--rows {path}: a text a line is read, or two with a TAB between; save it as .txt")
        pair = path.is_file() and b"\t" in path.read_bytes().partition(b"\n")[0]
        rows = read_unlabelled(path, pair)
    else:
        which = ("task_name", "train_file", "dev_file", "test_file")
        names = [f.name for f in dataclasses.fields(TaskOptions) if f.name != "max_seq_length"]
        given = {f.name: getattr(args, f.name) for f in dataclasses.fields(args) if f.name in names}
        given = {name: value for name, value in given.items() if value not in (None, False)}
        if not given.keys() & set(which):
            given = {name: run_settings[name] for name in names if name in run_settings} | given
        if not any(given.get(name) for name in which):
            raise UserError(f"{args.folder}: no run.yaml says its task; pass --task_name and --data_dir, or --rows")
        options = TaskOptions(**given)
        try:
            task = load_task(options)
            rows = load_rows(options, task, task.dev_splits[0])
        except UserError as error:
            raise UserError(f"{error} (dev rows are compared at each step; --rows FILE compares others)") from None
    if len(rows) > args.max_rows:
        rows = rows.take(np.linspace(0, len(rows) - 1, args.max_rows).astype(int))
    return task, rows


def with_labels(folder: str, source: Source, task: "Task") -> Source:
    """The source, whose classes take the task's names where they have none.

    Raises UserError when they are not those of the task, in its order.
    """
    from distill.data.tasks import label_complaint

    if complaint := label_complaint(source.labels, task, source.named):
        raise UserError(f"{folder}: {complaint}; --task_name names the task that it was trained for")
    return source if source.named else dataclasses.replace(source, labels=task.labels)


def open_source(args: ExportArgs, run_settings: Mapping[str, Any], rows: "Rows") -> Source:
    """The model of the folder, of whatever kind it is. Raises UserError when it does not read rows such as `rows`."""
    from distill.files import read_json
    from models.predictor import trained_pair

    folder, pair = Path(args.folder), rows.text_b is not None
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    longest = args.max_seq_length or run_settings.get("max_seq_length")
    if "pairs" in config:
        raise UserError(
            f"{folder}: reads pairs in a layout of its own, which a bundle does not make; export its student"
        )
    if "dual_encoder" in config:
        source = open_dual_encoder(folder)
    elif config.get("model_type") == "bilstm":
        source = open_bilstm(folder)
    elif "pooling" in config or (folder / "modules.json").is_file():
        source = open_sentence_encoder(folder, longest)
    else:
        source = open_bert(folder, longest, args.max_seq_length is not None, pair)
    reads_pairs = source.settings["pair"]
    if args.rows and source.settings["reads"] == "bert" and (trained := trained_pair(folder)) is not None:
        reads_pairs = trained
    if source.settings["kind"] != "vectors" and reads_pairs != pair:
        needed, there = ("two texts" if two else "one text" for two in (reads_pairs, pair))
        raise UserError(f"{folder}: reads {needed}, rows of {rows.source} have {there}")
    own = source.settings.get("max_length") or sum(source.settings["max_lengths"]) - 1
    if args.max_seq_length not in (None, own):
        raise UserError(f"--max_seq_length {args.max_seq_length}: {folder} reads {own} tokens; leave the flag out")
    if args.cascade_threshold is not None:
        if source.settings["kind"] != "classes":
            raise UserError("--cascade_threshold: only classes have a probability; leave it out for this model")
        source.settings["cascade_threshold"] = args.cascade_threshold
    return source


def open_bert(folder: Path, longest: int | None, asked: bool, pair: bool) -> Source:
    from distill.data.wordpiece import WordPiece
    from distill.deploy.export import Graph
    from distill.encoders.folder import find_model
    from models.predictor import open_folder

    found = find_model(folder)
    if asked and longest:
        found.check_length(longest)
    if pair:
        found.check_pairs()
    length = min(longest or 128, found.config.get("max_position_embeddings", 512))
    model = open_folder(folder, length)
    wordpiece = WordPiece.from_folder(found.folder)
    settings = {
        "kind": "classes" if model.labels else "number",
        "reads": "bert",
        "max_length": length,
        "pair": pair,
        "pad_id": wordpiece.pad_id,
    }
    graphs, read = {"model": Graph(model.layer, model.inputs)}, _reading(model.read)
    return Source(graphs, settings, model.labels, wordpiece.save, read, model.weights, named=model.named)


def open_bilstm(folder: Path) -> Source:
    from distill.deploy.export import Graph
    from models import bilstm
    from models.predictor import open_folder

    model, (_, reader) = open_folder(folder), bilstm.load_student(folder)
    lengths = {"ids": "lengths"} | ({"ids_b": "lengths_b"} if model.pair else {})
    settings = {
        "kind": "classes" if model.labels else "number",
        "reads": "pieces" if reader.reads == "wordpieces" else "words",
        "language": reader.language,
        "max_length": reader.max_length,
        "pair": model.pair,
        "pad_id": reader.vocabulary.pad_id,
    }
    graphs = {"model": Graph(model.layer, model.inputs, lengths)}
    return Source(graphs, settings, model.labels, reader.save, _reading(model.read), model.weights)


def open_sentence_encoder(folder: Path, longest: int | None) -> Source:
    from distill.data.wordpiece import WordPiece
    from distill.deploy.export import Graph
    from distill.encoders.inference import BERT_INPUTS
    from models.predictor import Read
    from models.sentence_encoder import load_sentence_encoder, read_folder

    model = load_sentence_encoder(folder, longest)
    settings = {
        "kind": "vectors",
        "reads": "bert" if isinstance(model.reader, WordPiece) else "tokenizer",
        "max_length": model.max_length,
        "pair": False,
        "pad_id": model.reader.pad_id,
    }

    def read(rows: "Rows") -> Read:
        encoded = model.tokens(rows.text_a)
        return Read(encoded.lengths, lambda chosen: encoded.pad(chosen, model.reader.pad_id))

    graphs = {"model": Graph(model, BERT_INPUTS)}
    return Source(graphs, settings, (), model.reader.save, read, read_folder(folder).weights)


def open_dual_encoder(folder: Path) -> Source:
    """Two graphs: one keeps what is known of documents, the other reads a query and scores it against them."""
    from paddle import Tensor, nn

    from distill.data.pairs import PairLayout
    from distill.data.wordpiece import WordPiece
    from distill.deploy.export import Graph
    from distill.encoders.folder import find_model
    from models.dual_encoder import SCORING_INPUTS, TOWER_INPUTS, DualEncoder, Pooled, Tower, load_dual_encoder
    from models.predictor import Read

    class Head(nn.Layer):
        def __init__(self, model: DualEncoder) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: Tensor, positions: Tensor, mask: Tensor, document: Tensor, mask_b: Tensor | None = None
        ) -> Tensor:
            return self.model.score(self.model.query_states(input_ids, mask, positions), mask, document, mask_b)

    model, wordpiece = load_dual_encoder(folder), WordPiece.from_folder(folder)
    if model.config.plain_mean:
        raise UserError(f"{folder}: trained with --plain_mean its answer depends on padding; a bundle has no fixed one")
    assert model.lengths is not None and model.labels is not None
    layout = PairLayout(*model.lengths)
    settings = {
        "kind": "classes" if model.labels else "number",
        "reads": "apart",
        "max_lengths": list(model.lengths),
        "pair": True,
        "pad_id": wordpiece.pad_id,
    }

    def read(rows: "Rows") -> Read:
        pairs = layout.encode(wordpiece, rows)
        return Read(pairs.lengths, lambda chosen: pairs.lay_out(chosen, wordpiece.pad_id))

    def chain(passes: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        query, document = ({name: batch[f"{name}_{side}"] for name in TOWER_INPUTS} for side in "ab")
        states = passes["document"](document)[0]
        return passes["model"](query | {"document": states, "mask_b": batch["mask_b"]})[0]

    # A graph has no inputs that it does not read: one vector of each text needs no mask.
    further = ("document",) if isinstance(model, Pooled) else ("document", "mask_b")
    head = TOWER_INPUTS | {name: SCORING_INPUTS[name] for name in further}
    graphs = {"document": Graph(Tower(model, "document"), TOWER_INPUTS), "model": Graph(Head(model), head)}
    return Source(graphs, settings, model.labels, wordpiece.save, read, find_model(folder).weights, chain)


def _reading(read: "Callable[[Sequence[str], Sequence[str] | None], Read]") -> "Callable[[Rows], Read]":
    return lambda rows: read(rows.text_a, rows.text_b)


def export(
    source: Source, rows: "Rows", task: "Task | None", args: ExportArgs, budgets: "Mapping[str, Budget]", place: Path
) -> None:
    """Fill `place` with the bundle. Raises ParityError for a hop beyond its budget."""
    import numpy as np

    from distill.deploy import bundle, export, parity
    from distill.encoders import inference
    from distill.evaluation.metrics import score
    from distill.files import write_atomic
    from tools.terminal import show

    def metric(outputs: np.ndarray) -> float:
        return score(outputs, np.asarray(rows.labels), task)[task.metric]

    def run(open_pass: "Callable[[str], Pass]") -> "Callable[[Batch], np.ndarray]":
        passes = {name: open_pass(name) for name in source.graphs}
        return lambda batch: source.chain(passes, batch)

    read, kind = source.read(rows), source.settings["kind"]
    order = np.argsort(read.lengths, kind="stable")
    cuts = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    gate = parity.Gate(
        [(chosen, read.batch(chosen)) for chosen in cuts], kind, metric if task and kind != "vectors" else None, budgets
    )
    runtime.log(f"export: each step answers {len(rows)} rows")
    work = place / "work"
    work.mkdir()

    gate.answer("dygraph", run(lambda name: inference.eager(source.graphs[name].layer, source.graphs[name].inputs)))
    for name, graph in source.graphs.items():
        inference.save_static(graph.layer, graph.inputs, work / name)
    must(gate.answer("static", run(lambda name: inference.open_static(work / name)), "dygraph"))
    defaults = parity.defaults_of_numbers(gate.outputs["static"]) if kind == "number" else parity.DEFAULTS
    asked = (args.max_logit_difference, args.min_agreement, args.max_metric_drop)
    gate.budgets = parity.budgets(*asked, defaults)
    for name, graph in source.graphs.items():
        export.save_onnx(work / name, work / f"{name}.onnx", graph)
    must(gate.answer("onnx", run(lambda name: export.open_onnx(work / f"{name}.onnx")), "static"))

    refused: dict[str, str] = {}  # variants with the reason why they are not used
    if args.variant in ("auto", "int8"):
        try:
            for name in source.graphs:
                export.quantise(work / f"{name}.onnx", work / f"{name}.int8.onnx")
            breach = gate.answer("int8", run(lambda name: export.open_onnx(work / f"{name}.int8.onnx")), "onnx")
        except UserError as error:
            breach = str(error)
        refused |= {"int8": breach} if breach else {}
    if args.variant == "bf16" or (args.variant == "auto" and inference.available() and runtime.has_bfloat16()):
        breach = gate.answer("bf16", run(lambda name: inference.open_static(work / name, "bf16")), "static")
        refused |= {"bf16": breach} if breach else {}
    must(refused.get(args.variant))

    timed = np.linspace(0, len(rows) - 1, min(_TIMED, len(rows))).astype(int)
    some = cuts[:: -(-len(cuts) // _TIMED_BATCHES)]
    singles = [read.batch(np.array([row])) for row in timed]
    batches = [(len(chosen), read.batch(chosen)) for chosen in some]
    latencies = {}
    for by_paddle in (True, False):  # apart: see `parity.latencies`
        runs = {name: run for name, run in gate.runs.items() if by_paddle == (name not in ("onnx", "int8"))}
        latencies |= parity.latencies(runs, singles, batches)
    for name, exact in (("int8", "onnx"), ("bf16", "static")):
        if name in gate.hops and (slower := slowness(latencies[name], latencies[exact])):
            if args.variant == "auto":
                refused.setdefault(name, slower)
            else:
                runtime.log(f"{name}: {slower}; it is used as --variant {name} asks for it")
    for name, why in refused.items():
        runtime.log(f"{name} is not used, fp32 is: {why}")
    shipped = "int8" if "int8" in gate.hops and "int8" not in refused else "onnx"
    bfloat16 = "bf16" in gate.hops and "bf16" not in refused
    own = {"precision": "int8" if shipped == "int8" else "fp32", "paddle_precision": "bf16" if bfloat16 else "fp32"}

    if source.settings["reads"] == "apart" and shipped == "int8":
        # Scales depend on the padding, and in training the padding of texts that are read apart stands inside of them.
        wider = defaults | {"bundle": defaults["bf16"]}
        gate.budgets["bundle"] = parity.budgets(*asked, wider)["bundle"]
    texts: list[Any] = (
        rows.text_a if rows.text_b is None else list(map(list, zip(rows.text_a, rows.text_b, strict=True)))
    )
    tolerance = _TOLERANCE[own["precision"]]
    if kind == "number" and own["precision"] == "int8":  # of whatever size they are
        tolerance *= float(np.ptp(gate.outputs["static"]))
    golden = [texts[i] for i in np.linspace(0, len(rows) - 1, min(_GOLDEN, len(rows))).astype(int)]
    ending = ".int8.onnx" if shipped == "int8" else ".onnx"
    predictor = bundle.write_bundle(
        place,
        {name: work / f"{name}{ending}" for name in source.graphs},
        {name: work / name for name in source.graphs},
        source.settings | own,
        source.labels,
        source.save_vocabulary,
        golden,
        tolerance,
    )
    shutil.rmtree(work)
    must(gate.add("bundle", predictor.logits(texts, _BATCH), shipped))
    latencies |= parity.latencies(
        {"bundle": predictor.logits},
        [[texts[row]] for row in timed],
        [(len(chosen), [texts[row] for row in chosen]) for chosen in some],
    )
    steps = steps_table(gate.hops, latencies, task.metric if task and kind != "vectors" else None)
    show(steps)
    write_atomic(place / "README.md", card(args, source, rows, steps, own["precision"], refused, place, texts[0]))


def must(breach: str | None) -> None:
    """Raises ParityError of a breach."""
    from distill.deploy.parity import ParityError

    if breach:
        raise ParityError(breach)


def slowness(variant: "Latency", exact: "Latency") -> str | None:
    """In what the variant is slower than fp32; None when in nothing."""
    found = []
    for how, now, was in (
        ("row alone", variant.single, exact.single),
        (f"row in batches of {_BATCH}", variant.batched, exact.batched),
    ):
        if now > was:
            found.append(f"{now:.3g} ms a {how}, fp32 takes {was:.3g} ms")
    return "; ".join(found) or None


def steps_table(hops: "Mapping[str, Hop]", latencies: "Mapping[str, Latency]", metric: str | None) -> str:
    """The hops in a table, one a line; metric: the name of their score, if they have one."""
    from distill.deploy.bundle import table

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    lines = []
    for name, hop in hops.items():
        line = [
            name,
            hop.before or "",
            shown(hop.difference if hop.before else None, ".1e"),
            shown(hop.agreement, ".4f"),
        ]
        line += [shown(hop.metric, ".4f")] if metric else []
        lines.append([*line, shown(latencies[name].single, ".3f"), shown(latencies[name].batched, ".3f")])
    head = ["step", "held against", "outputs differ by", "agreement", *([metric] if metric else [])]
    return table([*head, "ms a row alone", f"ms a row in batches of {_BATCH}"], lines)


def card(
    args: ExportArgs,
    source: Source,
    rows: "Rows",
    steps: str,
    precision: str,
    refused: Mapping[str, str],
    place: Path,
    example: Any,
) -> str:
    """The model card of the bundle in `place`."""
    from distill.deploy import bundle
    from distill.files import read_json
    from models.predictor import read_run

    def content(folder: Path, name: str) -> dict[str, Any]:
        return read_json(folder / name) if (folder / name).is_file() else {}

    folder = Path(args.folder)
    found, results = content(folder, "run.json"), content(folder, "results_eval.json")
    run_settings = read_run(folder)
    teacher_path = args.teacher_path or run_settings.get("teacher_path") or run_settings.get("data.teacher_path")
    teacher = content(Path(teacher_path).expanduser(), "results_eval.json") if teacher_path else {}
    script = re.fullmatch(r"(\w+)/\w+\.py", found.get("script", ""))
    data = Path(run_settings["train_file"]).name if run_settings.get("train_file") else found.get("task")
    rows_seen = f", {found['train_rows']:,} training rows" if "train_rows" in found else ""
    lengths = source.settings.get("max_lengths") or [source.settings["max_length"]]
    reads = f"{'two texts' if source.settings['pair'] else 'one text'}, of {' and '.join(map(str, lengths))} tokens"
    facts = {
        "Data": f"{data}{rows_seen}" if data else "not recorded",
        "Method": f"`{script[0]}`" if script else "not recorded",
        "Teacher": Path(teacher_path).name if teacher_path else "none recorded",
        "Reads": reads,
        "Predicts": ", ".join(source.labels) or {"number": "a number", "vectors": "a vector"}[source.settings["kind"]],
        "Precision": "; ".join([precision, *(f"not {name}, because {why}" for name, why in refused.items())]),
    }
    if (threshold := source.settings.get("cascade_threshold")) is not None:
        facts["Cascade"] = f"an answer with a probability of at most {threshold:g} is not sure; ask the teacher"
    hardware = runtime.hardware()
    limits = [
        "A longer text is cut off at the end, without a word.",
        "Scores are those of rows like the ones it was trained on; of other texts they say nothing.",
        f"Times were measured at the export: {hardware['processor']}, threads: {runtime.threads()}. Those of `bundle` "
        "are from text to answer, the others from ids.",
        "golden.json holds some of the compared rows as they are.",
    ]
    if source.settings["kind"] == "classes":
        limits.append("Probabilities are the softmax of the outputs; nobody has calibrated them here.")
    if precision == "int8":
        limits.append("In int8 a row's outputs depend a little on the rows that share its batch.")
    graphs = [place / f"{name}.onnx" for name in source.graphs]
    sizes = {
        "weights as trained": bundle.megabytes(source.weights),
        " + ".join(path.name for path in graphs): bundle.megabytes(*graphs),
        f"{bundle.PADDLE}/": bundle.megabytes(*(place / bundle.PADDLE).iterdir()),
    }
    return bundle.card(
        f"{data or folder.resolve().name}, {script[1] if script else 'exported'}",
        facts,
        scores_table(results, teacher, content(folder, "control.json")),
        f"{len(rows)} rows, each step held against an earlier one.\n\n{steps}",
        bundle.table(["file", "size"], [[name, f"{size:.1f} MB"] for name, size in sizes.items()]),
        limits,
        args.licence,
        example,
    )


def scores_table(results: Mapping[str, Any], teacher: Mapping[str, Any], control: Mapping[str, Any]) -> str:
    """The scores of a model beside its teacher's, from their results_eval.json, and what its control.json says."""
    from distill.deploy.bundle import table

    metric = results.get("metric")
    if metric is None:
        return "Nobody has recorded scores of this model."
    both = (("this model", results), ("its teacher", teacher))
    lines = [
        [name, f"{found[metric]:.4f}", f"{found['bytes'] / 1e6:.1f} MB"] for name, found in both if metric in found
    ]
    if control:
        lines.append(["the same student on the labels alone", f"{control['second']:.4f}", ""])
    scores = table(["as trained", f"dev {metric}", "weights"], lines) + f"\n\n{results['rows']} dev rows."
    if control:
        seeds = ", ".join(map(str, control["seeds"]))
        scores += (
            f" With its teacher {control['first']:.4f}, without {control['second']:.4f} (seeds {seeds}), a difference "
            f"of {control['mean']:+.4f}, 95 % interval {control['low']:+.4f} to {control['high']:+.4f}: "
            f"{control['verdict']}."
        )
    return scores


if __name__ == "__main__":
    run(main)
