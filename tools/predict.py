"""Classify texts with a teacher's or student's folder.

python tools/predict.py models/student_model/distilled_lstm/SST-2/RUN "a warm and clever film" "two hours I want back"
"""

from collections.abc import Sequence
from dataclasses import dataclass

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.options import RuntimeOptions


@dataclass
class PredictArgs(RuntimeOptions):
    """Classify texts."""

    folder: str = field(default="", positional=True, help="folder of a model")
    texts: list[str] = field(
        default_factory=list, positional=True, nargs="*", help="texts; of a pair: two texts with a TAB between"
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(PredictArgs, argv, __doc__)
    if not args.folder or not args.texts:
        raise UserError("give a folder and at least one text: python tools/predict.py FOLDER TEXT ...")
    runtime.start(args.device)
    for line in classify(args.folder, args.texts):
        print(line)


def classify(folder: str, texts: Sequence[str]) -> list[str]:
    """`label TAB probability TAB text` for each text, or `score TAB text` where the model predicts a number."""
    from scipy.special import softmax

    from models.predictor import open_folder

    predictor = open_folder(folder)
    pairs = [text.split("\t") for text in texts]
    width = 2 if predictor.pair or (predictor.pair is None and len(pairs[0]) > 1) else 1
    for text, parts in zip(texts, pairs, strict=True):
        if len(parts) != width or not all(part.strip() for part in parts):
            raise UserError(
                f"{text!r}: {'two texts with a TAB between' if width == 2 else 'one text without a TAB'} needed"
            )
    logits = predictor.logits([parts[0] for parts in pairs], [parts[1] for parts in pairs] if width == 2 else None, 64)
    if not predictor.labels:
        return [f"{score:.4f}\t{text}" for score, text in zip(logits[:, 0], texts, strict=True)]
    shares = softmax(logits.astype("float64"), axis=1)
    return [
        f"{predictor.labels[row.argmax()]}\t{row.max():.4f}\t{text}" for row, text in zip(shares, texts, strict=True)
    ]


if __name__ == "__main__":
    run(main)
