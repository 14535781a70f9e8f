"""A folder that serves a model without Paddle, and the card that says what it is.

model.onnx          any batch, any length (document.onnx beside it where second texts are read apart)
labels.json         names of the classes in index order, [] for numbers and vectors
settings.json       what predict.py must know: see `write_bundle`
vocab.txt, ...      the tokenizer's files
predict.py          Predictor and a command line, see distill/deploy/predict.py, of which it is a copy
golden.json         a few rows with their tokens and outputs, and SHA-256 of the files: predict.py --self_test
requirements.txt    what predict.py imports, in the versions that it was tested with here
README.md           the card
paddle/             the same model as a static graph of Paddle; nothing above needs it
"""

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill import runtime
from distill.deploy import predict
from distill.encoders.inference import STATIC_SUFFIXES
from distill.errors import UserError
from distill.files import disk_errors, read_json, sha256, write_atomic, write_json

PADDLE = "paddle"
"""The folder of the static graphs in a bundle."""

Row = str | list[str]
"""One text or two."""


def write_bundle(
    folder: Path,
    graphs: Mapping[str, Path],
    static: Mapping[str, Path],
    settings: Mapping[str, Any],
    labels: Sequence[str],
    save_vocabulary: Callable[[Path], None],
    rows: Sequence[Row],
    tolerance: float,
) -> predict.Predictor:
    """Fill the new `folder`, all but the card, and open it.

    graphs: ONNX files by their names in the bundle (`model`, `document`); static: prefixes of Paddle's. They are moved.
    settings: kind (`classes`, `number`, `vectors`); reads (`bert`: wordpieces in BERT's frame, `pieces`: bare ones,
        `words`, `tokenizer`: what a tokenizer.json says, `apart`: each text in a frame of its own); max_length (apart:
        max_lengths of both); pair (None: either); pad_id; precision; of words language; cascade_threshold if any.
    rows, tolerance: what --self_test compares, and how much its outputs may differ on another machine.

    Raises UserError when the disk is full or the bundle cannot read its own rows.
    """
    with disk_errors(folder):
        for name, path in graphs.items():
            path.rename(folder / f"{name}.onnx")
        (folder / PADDLE).mkdir()
        for name, prefix in static.items():
            for suffix in STATIC_SUFFIXES:
                Path(f"{prefix}{suffix}").rename(folder / PADDLE / f"{name}{suffix}")
        save_vocabulary(folder)
        shutil.copyfile(predict.__file__, folder / "predict.py")
    own = dict(settings)
    packages = ["numpy", "onnxruntime"]
    if settings["reads"] in ("bert", "pieces", "apart"):
        tokenizer = read_json(folder / "tokenizer_config.json")
        own["wordpiece"] = {"lowercase": tokenizer["do_lower_case"], "strip_accents": tokenizer["strip_accents"]}
    packages += ["tokenizers"] if settings["reads"] != "words" else []
    packages += ["jieba"] if settings.get("language") == "zh" else []
    versions = {name: importlib.metadata.version(name) for name in packages}
    write_atomic(folder / "requirements.txt", "".join(f"{name}=={version}\n" for name, version in versions.items()))
    write_json(folder / "labels.json", list(labels))
    write_json(folder / "settings.json", {"format": predict.FORMAT} | own)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "requirements.txt")
    try:
        predictor = predict.Predictor(folder, runtime.threads())
        golden = {
            "rows": list(rows),
            "ids": [predictor.encode(row) for row in rows],
            "outputs": predictor.logits(rows).tolist(),
            "tolerance": tolerance,
            "sha256": {name: sha256(folder / name) for name in names if name != "predict.py"},
        }
    except predict.BundleError as error:
        raise UserError(f"the bundle does not work: {error}") from None
    write_json(folder / "golden.json", golden)
    return predictor


def megabytes(*paths: Path) -> float:
    """Size of files together, 1 MB = 10^6 bytes."""
    return sum(path.stat().st_size for path in paths) / 1e6


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def card(
    name: str,
    facts: Mapping[str, str],
    scores: str,
    hops: str,
    sizes: str,
    limits: Sequence[str],
    licence: str | None,
    example: Row,
) -> str:
    """The model card, Markdown.

    name: of the model; facts: lines about data, teacher and method by their names; scores, hops, sizes: tables;
    example: a row that the model reads.
    """
    stated = licence or (
        "Not stated. The weights come from the teacher's and from the rows it was trained on, so their terms hold: ask "
        "before you pass the model on."
    )
    return f"""# {name}

{chr(10).join(f"- {key}: {value}" for key, value in facts.items())}

## Use

```shell
pip install -r requirements.txt
python predict.py --self_test
python predict.py < texts.txt
```

Two texts of one row are separated by a TAB. From Python, with this folder's path:

```python
from predict import Predictor

Predictor("FOLDER").predict([{json.dumps(example, ensure_ascii=False)}])
```

## Scores

{scores}

## The way here

{hops}

## Sizes

{sizes}

## Limits

{chr(10).join(f"- {limit}" for limit in limits)}

## Licence

{stated}
"""
