"""Labels and probabilities of texts, by a student's or teacher's folder, or by a bundle, which needs no paddle.

    python tools/predict.py my_student "a warm and clever film" "two hours I want back"
    python tools/predict.py my_bundle --input reviews.csv --text_column review --output labels.jsonl

A bundle is what tools/export.py writes. --input is a file of any size, or - for standard input: .txt has a text a line,
of pairs two with a TAB between; .tsv and .csv have a header, .jsonl has keys. A file is checked as a whole before its
first row is classified. The output has the rows in their order, a line for each: `label TAB probability TAB text`
(`score TAB text` of a model that predicts a number), after a header where the input has one, or as .jsonl with the
probabilities of all labels.
"""

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.deploy import is_bundle
from distill.errors import UserError
from distill.files import text_output
from distill.options import RuntimeOptions, option

if TYPE_CHECKING:
    import numpy as np

Row = Sequence[str]
"""One text, or two."""

INPUTS, OUTPUTS = ("txt", "tsv", "csv", "jsonl"), ("tsv", "jsonl")
_CHUNK = 4096  # rows in memory at a time, sorted by length among each other
_SPACED = str.maketrans("\t\r\n", "   ")  # what would end a column or a line of the output


@dataclass
class PredictArgs(RuntimeOptions):
    """Classify texts."""

    folder: str = field(default="", positional=True, help="folder of a model, or a bundle")
    texts: list[str] = field(
        default_factory=list, positional=True, nargs="*", help="texts; of a pair: two texts with a TAB between"
    )
    input: str | None = option(None, "file of texts in place of them; - is standard input")
    input_format: str | None = option(None, "of --input; without it as its suffix says, txt of -", choices=INPUTS)
    text_column: str | None = option(None, "tsv, csv, jsonl: name of the text's column; text, sentence, ... are found")
    text_pair_column: str | None = option(None, "the same of the second text, for pairs")
    output: str | None = option(None, "file to write, whole or not at all, or a device; without it standard output")
    output_format: str | None = option(
        None, "of the output; without it as --output's suffix says, otherwise tsv", choices=OUTPUTS
    )
    max_seq_length: int | None = option(
        None, "longest input of a BERT in tokens; without it that of its run.yaml, or 128", low=4
    )
    batch_size: int = option(32, "rows a batch", alias="eval_batch_size", low=1)


@dataclass
class Model:
    """A model as answers to rows, a dictionary each: "label", "score" (its probability) and "probabilities", or "score"
    alone of one that predicts numbers, or "vector". pair: whether it reads two texts, None: either.

    many(rows): called once with the first of many rows, it finds the fastest way here.
    """

    pair: bool | None
    answers: Callable[[Sequence[Row]], list[dict[str, Any]]]
    many: Callable[[Sequence[Row]], None] = lambda rows: None


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(PredictArgs, argv, __doc__)
    if not args.folder or bool(args.texts) == bool(args.input):
        raise UserError(
            "give a folder, and texts or --input: python tools/predict.py FOLDER TEXT ..., or FOLDER --input FILE"
        )
    output_format = format_of(args)
    printed = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # of what others print
        model = open_model(args.folder, args.batch_size, args.max_seq_length, args.device)
        known = args.input is None or Path(args.input).is_file()
        count = sum(1 for _ in rows(args, model.pair)) if known else None
        with text_output(args.output, printed) as out:
            for line in lines(model, rows(args, model.pair), output_format, has_header(args), count):
                out.write(f"{line}\n")


def classify(folder: str, texts: Sequence[str]) -> list[str]:
    """The lines that are printed for these texts."""
    model = open_model(folder)
    return list(lines(model, rows(PredictArgs(texts=list(texts)), model.pair), "tsv", False, len(texts)))


def format_of(args: PredictArgs) -> str:
    """The output's format. Raises UserError when nothing tells it, or the output would replace the input."""
    if args.output is None or args.output_format:
        found = args.output_format or "tsv"
    else:
        found = Path(args.output).suffix.removeprefix(".").lower()
        if found not in OUTPUTS:
            raise UserError(f"--output {args.output}: the suffix does not tell the format; use .tsv or .jsonl")
    if args.output and args.input and Path(args.output).resolve() == Path(args.input).resolve():
        raise UserError(f"--output {args.output}: is the input; name another file")
    return found


def open_model(folder: str, batch_size: int = 32, max_length: int | None = None, device: str = "auto") -> Model:
    """The model of a bundle, without paddle, or of any other folder, which reads as many tokens as in its training when
    max_length is None. Raises UserError when there is none."""
    if not is_bundle(folder):
        return _folder(folder, batch_size, max_length, device)
    if device == "gpu":
        raise UserError("--device gpu: a bundle runs on the CPU; leave it out")
    if max_length is not None:
        raise UserError(
            f"--max_seq_length {max_length}: a bundle reads as many tokens as its export settled; leave it out"
        )
    return _bundle(folder, batch_size)


def _bundle(folder: str, batch_size: int) -> Model:
    from distill.deploy.predict import BundleError, Predictor

    try:
        predictor = Predictor(folder)
        if predictor.settings.get("precision") == "int8":  # whose outputs depend on the processor
            predictor.self_test()
    except BundleError as error:
        raise UserError(str(error)) from None
    return Model(
        predictor.pair, lambda rows: predictor.predict([row[0] if len(row) == 1 else row for row in rows], batch_size)
    )


def _folder(folder: str, batch_size: int, max_length: int | None, device: str) -> Model:
    runtime.start(device)
    from models.predictor import open_folder, trained_pair

    predictor = open_folder(folder, max_length)
    logits = predictor.logits

    def answers(rows: Sequence[Row]) -> list[dict[str, Any]]:
        return named(predictor.labels, logits(*columns(rows), batch_size))

    def many(rows: Sequence[Row]) -> None:
        nonlocal logits
        logits = predictor.fastest(*columns(rows), batch_size)

    pair = trained_pair(folder) if predictor.pair is None else predictor.pair
    return Model(pair, answers, many)


def named(labels: Sequence[str], logits: "np.ndarray") -> list[dict[str, Any]]:
    """What a bundle says, from logits [n, outputs]; labels: () for regression."""
    from scipy.special import softmax

    if not labels:
        return [{"score": score} for score in logits[:, 0].tolist()]
    shares = softmax(logits.astype("float64"), axis=1)
    return [
        {"label": labels[best], "score": row[best], "probabilities": dict(zip(labels, row, strict=True))}
        for best, row in zip(shares.argmax(axis=1).tolist(), shares.tolist(), strict=True)
    ]


def columns(rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
    """The first texts of the rows, and the second ones where there are."""
    return [row[0] for row in rows], [row[1] for row in rows] if len(rows[0]) == 2 else None


def rows(args: PredictArgs, pair: bool | None) -> Iterator[Row]:
    """The texts, one after the other, in constant memory; pair: whether there must be two a row, None: as the first
    row has them. Raises UserError naming the file and the row that does not fit."""
    if args.input is None:
        return _split(((repr(text), text) for text in args.texts), pair)
    name = "standard input" if args.input == "-" else args.input
    stream = sys.stdin.buffer if args.input == "-" else None
    kind = _input_format(args)
    found = _split(_lines(name, stream), pair) if kind == "txt" else _table(args, pair, name, kind, stream)
    first = next(found, None)
    if first is None:
        raise UserError(f"{name}: no rows in it")
    return itertools.chain([first], found)


def has_header(args: PredictArgs) -> bool:
    return args.input is not None and _input_format(args) in ("tsv", "csv")


def _input_format(args: PredictArgs) -> str:
    if args.input_format or args.input in (None, "-"):
        return args.input_format or "txt"
    found = Path(args.input).suffix.removeprefix(".").lower()
    if found not in INPUTS:
        raise UserError(f"{args.input}: the suffix does not tell the format; use --input_format {'|'.join(INPUTS)}")
    return found


def _lines(name: str, stream: BinaryIO | None) -> Iterator[tuple[str, str]]:
    """Where each line stands, and its text. The last ones may be empty."""
    from distill.data.readers import numbered_lines

    empty = None
    for number, line in numbered_lines(name, stream):
        if not line.strip():
            empty = empty or number
        elif empty:
            raise UserError(f"{name}:{empty}: the text is empty; fill it or remove the line")
        else:
            yield f"{name}:{number}", line


def _split(texts: Iterable[tuple[str, str]], pair: bool | None) -> Iterator[Row]:
    """The rows of texts, each after where it stands; the two of a pair have a TAB between."""
    for where, text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"{where}: not UTF-8 text")
        row = [part.strip() for part in text.split("\t")]
        pair = len(row) > 1 if pair is None else pair
        if len(row) != 1 + pair or not all(row):
            raise UserError(f"{where}: {'two texts with a TAB between' if pair else 'one text without a TAB'} needed")
        yield row


def _table(args: PredictArgs, pair: bool | None, name: str, kind: str, stream: BinaryIO | None) -> Iterator[Row]:
    from distill.data.readers import stream_columns
    from distill.data.tasks import text_columns

    chosen: list[str] = []

    def choose(names: Sequence[str]) -> Sequence[str]:
        first, second = text_columns(names, args.text_column, args.text_pair_column, name)
        if pair is not None and pair != (second is not None):
            flags = "--text_column and --text_pair_column" if pair else "--text_column"
            raise UserError(f"{name}: the model reads {'two texts' if pair else 'one text'}; name it with {flags}")
        chosen.extend([first] if second is None else [first, second])
        return chosen

    for number, row in stream_columns(name, choose, kind=kind, stream=stream):
        if not all(row):
            empty = chosen[row.index("")]
            raise UserError(f"{name}:{number}: the text in '{empty}' is empty; fill it or remove the row")
        yield row


def lines(
    model: Model, texts: Iterator[Row], output_format: str, header: bool, count: int | None = None
) -> Iterator[str]:
    """The output's lines, in the order of the rows; count: how many there will be, for the bar."""
    from tqdm import tqdm

    spell = _object if output_format == "jsonl" else _line
    with tqdm(total=count, desc="predicting", unit=" rows", leave=False, delay=1) as bar:
        for number in itertools.count():
            part = list(itertools.islice(texts, _CHUNK))
            if not part:
                return
            if number == 0 and len(part) == _CHUNK:
                model.many(part)
            found = model.answers(part)
            if number == 0 and output_format == "tsv":
                yield from _head(found[0], len(part[0]), header)
            yield from map(spell, part, found)
            bar.update(len(part))


def _head(answer: dict[str, Any], width: int, wanted: bool) -> list[str]:
    if "vector" in answer:
        raise UserError("the model gives vectors; write them with --output_format jsonl")
    named = ["label", "probability"] if "label" in answer else ["score"]
    return ["\t".join([*named, *("text", "text_pair")[:width]])] if wanted else []


def _line(row: Row, answer: dict[str, Any]) -> str:
    named = [answer["label"]] if "label" in answer else []
    return "\t".join([*named, f"{answer['score']:.4f}", *(text.translate(_SPACED) for text in row)])


def _object(row: Row, answer: dict[str, Any]) -> str:
    texts = dict(zip(("text", "text_pair"), row, strict=False))
    return json.dumps(texts | answer, ensure_ascii=False)


if __name__ == "__main__":
    run(main)
