"""Scores of sentence vectors: likeness as people judge it (STS), finding translations, distance to a teacher.

`encode` is a function from a list of n texts to float32 [n, H], such as that of a sentence encoder.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data.parallel import Parallel
from distill.data.readers import Rows
from distill.errors import UserError
from distill.evaluation.latency import measure
from distill.evaluation.metrics import regression
from distill.files import atomic_path, write_atomic, write_json
from distill.runtime import command, hardware, log, versions

if TYPE_CHECKING:
    from paddle import nn

Encode = Callable[[list[str]], np.ndarray]

MEAN = "mean"
_PAIR = re.compile(r"([a-z]+)-([a-z]+)")
_BLOCK = 1024  # rows of the matrix of cosines that are there at a time
_TIMED = 1000  # texts that are encoded for the speed


def sts_scores(encode: Encode, pairs: Mapping[str, Rows]) -> dict[str, dict[str, float]]:
    """{name: {'pearson', 'spearman'}} of the cosine of the two vectors with the score, for each set of pairs, such as
    `en-de` (see `distill.data.parallel.load_sts`); and `mean`, over the sets.

    A text that occurs several times is encoded once. Raises UserError for a vector that is not finite; ValueError
    without pairs.
    """
    if not pairs:
        raise ValueError("no pairs of sentences")
    number: dict[str, int] = {}
    places = {
        name: [np.array([number.setdefault(text, len(number)) for text in texts]) for texts in _columns(rows)]
        for name, rows in pairs.items()
    }
    unit = _unit(encode(list(number)))
    scores = {}
    for name, rows in pairs.items():
        first, second = places[name]
        assert rows.labels is not None
        found = regression((unit[first] * unit[second]).sum(axis=1), rows.labels)
        scores[name] = {key: found[key] for key in ("pearson", "spearman")}
    return scores | {MEAN: _mean(scores)}


def translation_accuracy(source_vectors: np.ndarray, target_vectors: np.ndarray) -> dict[str, float]:
    """{'source_to_target', 'target_to_source', 'mean'}: the share of sentences whose nearest among all n of the other
    side, by cosine, is their own translation; of several that are equally near the first counts.

    source_vectors, target_vectors: [n, H], row i of one translates row i of the other. Raises UserError for a vector
    that is not finite.
    """
    if source_vectors.shape != target_vectors.shape or not len(source_vectors):
        raise ValueError(f"vectors of n sentences and n translations: {source_vectors.shape}, {target_vectors.shape}")
    source, target = _unit(source_vectors), _unit(target_vectors)
    n = len(source)
    to_target = np.empty(n, np.int64)
    to_source, best = np.zeros(n, np.int64), np.full(n, -np.inf)
    for start in range(0, n, _BLOCK):
        cosines = source[start : start + _BLOCK] @ target.T
        to_target[start : start + len(cosines)] = cosines.argmax(axis=1)
        nearest = cosines.argmax(axis=0)
        cosine = cosines[nearest, np.arange(n)]
        better = cosine > best
        to_source[better], best[better] = start + nearest[better], cosine[better]
    forth, back = (float((found == np.arange(n)).mean()) for found in (to_target, to_source))
    return {"source_to_target": forth, "target_to_source": back, "mean": (forth + back) / 2}


def pair_vectors(encode: Encode, parallel: Parallel) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of parallel's sources and of its targets, each [n, H]; a text that occurs several times is encoded
    once."""
    number: dict[str, int] = {}
    columns = [[number.setdefault(t, len(number)) for t in texts] for texts in (parallel.sources, parallel.targets)]
    vectors = encode(list(number))
    return vectors[columns[0]], vectors[columns[1]]


def translation_scores(
    source_vectors: np.ndarray, target_vectors: np.ndarray, parallel: Parallel
) -> dict[str, dict[str, float]]:
    """{'en-de': {'source_to_target', 'target_to_source', 'mean'}, ...}, `translation_accuracy` within each language;
    and `mean`, over the languages.

    The vectors are those of `pair_vectors`. Of rows of a language that have one source, or one target, in common the
    first counts alone: a sentence shall not be missed because it is there twice.
    """
    rows: dict[str, list[int]] = {}
    seen: set[tuple[str, str, str]] = set()
    for i, (source, target, language) in enumerate(
        zip(parallel.sources, parallel.targets, parallel.languages, strict=True)
    ):
        sides = {(language, "source", source), (language, "target", target)}
        if not sides & seen:
            rows.setdefault(language, []).append(i)
            seen |= sides
    scores = {f"en-{name}": translation_accuracy(source_vectors[i], target_vectors[i]) for name, i in rows.items()}
    return scores | {MEAN: _mean(scores)}


def vector_mse(vectors: np.ndarray, teacher_vectors: np.ndarray) -> float:
    """The mean over all n x H numbers of (vectors - teacher_vectors)^2, in float64. Often reported times 100."""
    if vectors.shape != teacher_vectors.shape:
        raise ValueError(f"vectors {vectors.shape} and the teacher's {teacher_vectors.shape} cannot be compared")
    return float(np.mean((vectors.astype(np.float64) - teacher_vectors) ** 2))


def report(
    folder: str | Path,
    split: str,
    encode: Encode,
    sts: Mapping[str, Rows],
    parallel: Parallel | None,
    teacher_vectors: np.ndarray | None,
    model: "nn.Layer",
    weights: str | Path,
    batch_size: int,
    seed: int | None,
) -> dict[str, Any]:
    """Score and time a finished encoder, print the means, write the results into `folder` and return them.

    split: what it is scored on, for that line. sts: as for `sts_scores`. parallel: translations to be found, or None.
    teacher_vectors: the teacher's, float32 [n, H], of parallel's sources, as the student was to match them, or None.
    seed: that of the training, None where nobody knows.

    Written are results_eval.json, results_eval.csv (a line for each pair of languages), and spearman.png, the matrix of
    languages by Spearman's correlation, when the sets are called after two languages. The JSON has size, speed and
    facts under the keys of `distill.evaluation.evaluate.write_results`, and:

    spearman, pearson   means over the sets of pairs; spearman is `metric`;  sts  both of each set
    translation_accuracy  the mean both ways, over languages;  translation  of each language
    mse                 {en, en-de, ...}: `vector_mse` of the English sentences, and of each language's translations
    command             that wrote it
    """
    folder = Path(folder)
    found = sts_scores(encode, sts)
    result: dict[str, Any] = {**found[MEAN], "sts": {name: s for name, s in found.items() if name != MEAN}}
    if parallel is not None:
        source, target = pair_vectors(encode, parallel)
        translated = translation_scores(source, target, parallel)
        result["translation_accuracy"] = translated.pop(MEAN)["mean"]
        result["translation"] = translated
        if teacher_vectors is not None:
            result["mse"] = _distances(source, target, teacher_vectors, parallel)
    texts = [text for rows in sts.values() for text in rows.text_a][:_TIMED]
    latency = measure(lambda chosen: encode([texts[i] for i in chosen]), range(len(texts)))
    result.update(
        metric="spearman",
        parameters=sum(int(p.size) for p in model.parameters()),
        bytes=Path(weights).stat().st_size,
        latency_ms=latency.milliseconds,
        samples_per_second=latency.samples_per_second,
        batch_size=batch_size,
        rows=sum(map(len, sts.values())),
        seed=seed,
        command=command(),
        hardware=hardware(),
        versions=versions(),
    )
    shown = [f"{n} {result[n]:.4f}" for n in ("spearman", "pearson", "translation_accuracy") if n in result]
    log(f"{split}: " + "  ".join(shown))
    write_atomic(folder / "results_eval.csv", _csv(result))
    if all(map(_PAIR.fullmatch, result["sts"])):
        save_heat_map(folder / "spearman.png", {name: s["spearman"] for name, s in result["sts"].items()})
    write_json(folder / "results_eval.json", result)
    return result


def save_heat_map(path: str | Path, scores: Mapping[str, float]) -> None:
    """Draw {'en-de': score, ...} as a matrix, the first sentence's language by the second's, whole or not at all.

    A pair that is not there stays empty. Raises ValueError for a name that is no pair of languages.
    """
    pairs = {}
    for name in scores:
        match = _PAIR.fullmatch(name)
        if match is None:
            raise ValueError(f"{name}: not a pair of languages such as en-de")
        pairs[name] = match.groups()
    languages = list(dict.fromkeys(language for pair in pairs.values() for language in pair))
    matrix = np.full((len(languages),) * 2, np.nan)
    for name, (first, second) in pairs.items():
        matrix[languages.index(first), languages.index(second)] = scores[name]

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 1.8 + 0.7 * len(languages)
    figure = Figure(figsize=(size + 1, size), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="viridis", vmin=min(0.0, float(np.nanmin(matrix))), vmax=1.0)
    axes.set_xticks(range(len(languages)), languages)
    axes.set_yticks(range(len(languages)), languages)
    axes.set(xlabel="second sentence", ylabel="first sentence", title="Spearman's correlation")
    for (row, column), score in np.ndenumerate(matrix):
        if not np.isnan(score):
            colour = "black" if score > 0.6 else "white"
            axes.text(column, row, f"{100 * score:.1f}", ha="center", va="center", color=colour)
    figure.colorbar(image)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _distances(
    source: np.ndarray, target: np.ndarray, teacher_vectors: np.ndarray, parallel: Parallel
) -> dict[str, float]:
    languages = np.array(parallel.languages)
    by_language = {f"en-{name}": languages == name for name in dict.fromkeys(parallel.languages)}
    return {"en": vector_mse(source, teacher_vectors)} | {
        name: vector_mse(target[rows], teacher_vectors[rows]) for name, rows in by_language.items()
    }


def _columns(rows: Rows) -> tuple[list[str], list[str]]:
    if rows.text_b is None or rows.labels is None:
        raise ValueError(f"{rows.source}: pairs of sentences with scores are needed")
    return rows.text_a, rows.text_b


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The rows with length 1, float64; rows of zeros stay."""
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise UserError(
            f"{len(broken)} of {len(vectors)} sentence vectors are not finite numbers, so there is no score: the model "
            "has diverged; train it again with a lower learning rate"
        )
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _mean(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Of each score over all entries."""
    names = next(iter(scores.values()))
    return {name: float(np.mean([entry[name] for entry in scores.values()])) for name in names}


def _csv(result: Mapping[str, Any]) -> str:
    """A line for each pair of languages; what was not measured is empty."""
    translation, mse = result.get("translation", {}), result.get("mse", {})
    names = dict.fromkeys([*result["sts"], *translation, *mse])
    text = io.StringIO()
    heads = ("pair", "pearson", "spearman", "source_to_target", "target_to_source", "mse")
    table = csv.DictWriter(text, heads, lineterminator="\n")
    table.writeheader()
    for name in names:
        both = {key: value for key, value in translation.get(name, {}).items() if key in heads}
        row = {"pair": name} | result["sts"].get(name, {}) | both
        table.writerow(row | ({"mse": mse[name]} if name in mse else {}))
    return text.getvalue()
