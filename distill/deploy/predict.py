"""Texts to labels from this folder alone: NumPy, ONNX Runtime and tokenizers (jieba for Chinese words), no Paddle.

    python predict.py "a warm and clever film" "two hours i want back"     # or one text a line on standard input
    python predict.py --self_test                                          # is this folder as it was exported?

A pair is two texts with a TAB between. From Python: Predictor(folder).predict(["a text"]), or [["a", "b"]] for pairs.
Python 3.10 or later.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import itertools
import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FORMAT = 1  # of the folder
ROWS_AT_ONCE = 32
# A run of a BERT costs little beside its padding: texts of 25 tokens, sorted, took half the time of 32 at once.
TOKENS_AT_ONCE = {"bert": 256, "tokenizer": 256}
_LONGEST_WORD = 100  # characters that BERT cuts into pieces; a longer word is [UNK]
_CJK = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_SYMBOLS = "\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1"  # stand alone beside punctuation and Unicode's symbols
# Special tokens written in a text are those tokens; while it is cut into words a control character marks each.
_SPECIAL = {token: chr(i) for i, token in enumerate(("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), start=1)}
_WRITTEN = "|".join(map(re.escape, _SPECIAL))
_INNER = "[^\\s\1-\5" + "".join(f"{chr(low)}-{chr(high)}" for low, high in _CJK) + "]"
_LONE = f"(?<!{_INNER})(?:{_WRITTEN})(?!{_INNER})"


class BundleError(Exception):
    """What is wrong with the folder or a text, in one line."""


class BasicWords(dict):  # type: ignore[type-arg]
    """BERT's words of a text: a table for `str.translate`, filled as characters appear, and `str.split`."""

    def __init__(self, lowercase: bool, strip_accents: bool) -> None:
        self.lowercase, self.strip_accents = lowercase, strip_accents

    def __missing__(self, codepoint: int) -> str:
        char = chr(codepoint)
        self[codepoint] = out = "".join(map(self._character, char.lower() if self.lowercase else char))
        return out

    def _character(self, char: str) -> str:
        if _dropped(char):
            return ""
        if char.isspace():
            return " "
        cjk = any(low <= ord(char) <= high for low, high in _CJK)
        if self.strip_accents:
            char = "".join(c for c in unicodedata.normalize("NFD", char) if unicodedata.category(c) != "Mn")
        out = "".join(f" {c} " if _alone(c) else c for c in char)
        return f" {out} " if cjk else out

    def __call__(self, text: str) -> list[str]:
        spaced = text.translate(self)
        return (unicodedata.normalize("NFD", spaced) if self.strip_accents else spaced).split()


def _dropped(char: str) -> bool:
    return char not in "\t\n\r" and (char == "\ufffd" or unicodedata.category(char)[0] == "C")


def _alone(char: str) -> bool:
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char)[0] in "PS" or char in _SYMBOLS


class WordPieces:
    """From a text to the ids of its wordpieces, without special tokens around them."""

    def __init__(self, tokens: Sequence[str], lowercase: bool, strip_accents: bool) -> None:
        from tokenizers.models import WordPiece

        self.lowercase = lowercase
        self.ids = ids = {token: i for i, token in enumerate(tokens)}
        self._words = BasicWords(lowercase, strip_accents)
        self._words.update({ord(mark): f" {mark} " for mark in _SPECIAL.values()})
        cut = WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD).tokenize
        marks = {mark: [ids[token]] for token, mark in _SPECIAL.items()}
        # A corpus has few distinct words.
        known = functools.lru_cache(1 << 18)(lambda word: marks.get(word) or [piece.id for piece in cut(word)])
        unknown = [ids["[UNK]"]]
        # Longer words are not kept: they would fill a server's memory.
        self._cut = lambda word: known(word) if len(word) <= _LONGEST_WORD else unknown

    def __call__(self, text: str) -> list[int]:
        text = re.sub("[\0-\5]", "\x0e", text)  # dropped later like them, but no mark
        if "[" in text:
            text = re.sub(_WRITTEN, lambda found: _SPECIAL[found[0]], text)
            if not self.lowercase:  # looked for once more without the control characters that may stand in them
                text = "".join(c for c in text if c in _SPECIAL.values() or not _dropped(c))
                text = re.sub(_LONE, lambda found: _SPECIAL[found[0]], text)
        return list(itertools.chain.from_iterable(map(self._cut, self._words(text))))


class Words:
    """From a text to the ids of its words in a vocabulary: Chinese ones as jieba cuts them, others as BERT does."""

    def __init__(self, tokens: Sequence[str], language: str) -> None:
        self.ids = {token: i for i, token in enumerate(tokens)}
        self._unknown = self.ids["[UNK]"]
        if language == "zh":
            import jieba

            jieba.setLogLevel("WARNING")
            self._words: Callable[[str], list[str]] = jieba.lcut
        else:
            self._words = BasicWords(True, True)

    def __call__(self, text: str) -> list[int]:
        return [self.ids.get(word, self._unknown) for word in self._words(text) if not word.isspace()]


def quota_threads() -> int:
    """Whole cores of a container's quota (cgroup v2), which ONNX Runtime does not see; 0 where it is not the limit."""
    try:
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
    except (OSError, ValueError):  # no such file, or `max`
        return 0
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, quota // period) if quota // period < processors else 0


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Of ONNX Runtime on a CPU; threads: 0 for all cores that there are for it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads or quota_threads(), 3
    # Without VNNI sums of int8 products overflow 16 bits; there the weights become unsigned, elsewhere nothing changes.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Its fused kernel takes two or three times as long as the addition and the normalisation that it replaces.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    return options


def parts(lengths: Sequence[int], most_rows: int, most_tokens: float = math.inf) -> Iterator[list[int]]:
    """Numbers of rows of similar length, to be run at once: at most so many, and with their padding at most so many
    tokens, where it is more than one row."""
    part: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and (len(part) == most_rows or (len(part) + 1) * lengths[row] > most_tokens):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


class Predictor:
    """The model of a folder that tools/export.py wrote; without `folder` that of the folder this file is in.

    threads: of ONNX Runtime, 0 for all cores.
    settings, labels: the content of settings.json and labels.json (no labels: it predicts numbers or vectors).
    pair: whether a row is two texts; None where it may be either.

    Raises BundleError when a file is missing or damaged, and for rows that the model cannot read.
    """

    def __init__(self, folder: str | Path | None = None, threads: int = 0) -> None:
        self.folder = Path(folder or Path(__file__).resolve().parent)
        self.settings: dict[str, Any] = self._json("settings.json")
        if self.settings.get("format") != FORMAT:
            raise BundleError(f"{self.folder / 'settings.json'}: not of a bundle that this predict.py reads")
        self.labels: list[str] = self._json("labels.json")
        self.pair: bool | None = self.settings["pair"]
        self._read = self._reader()
        self._threads = threads
        self._model = self._session("model.onnx")
        self._document = self._session("document.onnx") if self.settings["reads"] == "apart" else None
        outputs = self._model.get_outputs()[0].shape[-1]
        if self.labels and outputs != len(self.labels):
            raise BundleError(f"{self.folder / 'labels.json'}: {len(self.labels)} labels, the model has {outputs}")

    def predict(self, rows: Sequence[Any], batch_size: int | None = None) -> list[dict[str, Any]]:
        """A dictionary for each row, in the rows' order; a row is a text or a pair [a, b]. batch_size: as in `logits`.

        Classes: "label", "score" (its probability) and "probabilities" {label: probability}, and where settings.json
        has a cascade_threshold "sure": whether the score is above it. Numbers: "score". Vectors: "vector".
        """
        return self._named(self.logits(rows, batch_size))

    def logits(self, rows: Sequence[Any], batch_size: int | None = None) -> np.ndarray:
        """The model's outputs, float32 [n, outputs], in the rows' order; rows of similar length share a batch.

        batch_size: of batches with so many rows; without it of at most ROWS_AT_ONCE rows and TOKENS_AT_ONCE tokens.
        """
        items = [self.encode(row) for row in rows]
        found = np.empty((len(items), self._model.get_outputs()[0].shape[-1]), np.float32)
        reads = self.settings["reads"]
        most = TOKENS_AT_ONCE.get(reads, math.inf) if batch_size is None else math.inf
        lengths = [len(item[0]) if reads in TOKENS_AT_ONCE else sum(map(len, item)) for item in items]
        for chosen in parts(lengths, batch_size or ROWS_AT_ONCE, most):
            found[chosen] = self._run([items[i] for i in chosen])
        return found

    def documents(self, texts: Sequence[str], batch_size: int = 32) -> list[np.ndarray]:
        """Of a model that reads its two texts apart: what it keeps of second texts, each [N, D], for `match`."""
        kept: list[np.ndarray] = []
        for start in range(0, len(texts), batch_size):
            items = [self._framed(text, self.settings["max_lengths"][1]) for text in texts[start : start + batch_size]]
            states, _ = self._kept(items)
            kept += [state[: len(ids)] for state, ids in zip(states, items, strict=True)]
        return kept

    def match(self, query: str, documents: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """As `predict`, for one first text with each of the `documents` that were kept."""
        width = max(map(len, documents))
        states = np.stack([np.pad(kept, ((0, width - len(kept)), (0, 0))) for kept in documents])
        mask = (np.arange(width) < np.array([[len(kept)] for kept in documents])).astype(np.float32)
        return self._named(self._scores([self._framed(query, self.settings["max_lengths"][0])], states, mask))

    def encode(self, row: Any) -> list[list[int]]:
        """What the model reads of a row: [ids, token types], or the ids of each text where these are read apart."""
        texts = [row] if isinstance(row, str) else list(row) if isinstance(row, (list, tuple)) else []
        if not all(isinstance(text, str) for text in texts) or len(texts) not in (1, 2):
            raise BundleError(f"{row!r}: not a text, nor a pair of texts")
        if self.pair is not None and self.pair != (len(texts) == 2):
            raise BundleError(f"{row!r}: {'a pair of texts' if self.pair else 'one text'} is needed")
        reads = self.settings["reads"]
        if reads == "apart":
            return [self._framed(text, most) for text, most in zip(texts, self.settings["max_lengths"], strict=True)]
        most = self.settings["max_length"]
        if reads == "tokenizer":
            ids = self._read(texts[0])
            return [ids, [0] * len(ids)]
        if reads != "bert":  # a text of which nothing is left is read as one unknown token
            return [self._read(text)[:most] or [self._ids["[UNK]"]] for text in texts]
        if len(texts) == 1:
            ids = self._framed(texts[0], most)
            return [ids, [0] * len(ids)]
        a, b = map(self._read, texts)
        room = most - 3  # the longer text loses its end first; of equal ones the second does
        keep = min(len(a), room - len(b) if len(b) <= room // 2 else room - room // 2)
        a, b = a[:keep], b[: room - keep]
        first = [self._ids["[CLS]"], *a, self._ids["[SEP]"]]
        second = [*b, self._ids["[SEP]"]]
        return [first + second, [0] * len(first) + [1] * len(second)]

    def self_test(self) -> str:
        """Whether files, tokens and outputs are those of the export, as a line; BundleError says what is not."""
        golden = self._json("golden.json")
        for name, expected in golden["sha256"].items():
            path = self.folder / name
            if not path.is_file():
                raise BundleError(f"{path}: missing; copy the bundle again")
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                raise BundleError(f"{path}: not the file that was exported (SHA-256 differs); copy the bundle again")
        if [self.encode(row) for row in golden["rows"]] != golden["ids"]:
            raise BundleError(f"{self.folder}: texts are cut into other tokens than at export; compare the versions")
        found, expected = self.logits(golden["rows"]), np.array(golden["outputs"], np.float32)
        difference = float(np.abs(found - expected).max())
        if not difference <= golden["tolerance"]:
            most = golden["tolerance"]
            raise BundleError(
                f"{self.folder}: outputs differ from those at export by {difference:.2g}, above {most:g}; "
                "export the model again, on such a machine"
            )
        return f"self-test passed: {len(found)} rows, outputs differ from those at export by at most {difference:.1g}"

    def _reader(self) -> Callable[[str], list[int]]:
        s = self.settings
        if s["reads"] == "tokenizer":
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_str(self._text("tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.enable_truncation(s["max_length"])
            return lambda text: tokenizer.encode(text.strip()).ids
        name = "words.txt" if s["reads"] == "words" else "vocab.txt"
        tokens = self._text(name).removesuffix("\n").split("\n")
        found = Words(tokens, s["language"]) if s["reads"] == "words" else WordPieces(tokens, **s["wordpiece"])
        self._ids = found.ids
        return found

    def _framed(self, text: str, most: int) -> list[int]:
        return [self._ids["[CLS]"], *self._read(text)[: most - 2], self._ids["[SEP]"]]

    def _run(self, items: Sequence[list[list[int]]]) -> np.ndarray:
        if self._document is not None:
            states, mask = self._kept([item[1] for item in items])
            return self._scores([item[0] for item in items], states, mask)
        columns = [_padded(column, self.settings["pad_id"]) for column in zip(*items, strict=True)]
        (ids, mask), (second, second_mask) = columns[0], columns[-1]
        if self.settings["reads"] in ("bert", "tokenizer"):
            feed = {"input_ids": ids, "token_type_ids": (second * mask).astype(np.int64), "mask": mask}
        else:
            feed = {"ids": ids, "lengths": mask.sum(axis=1).astype(np.int64)}
            if len(columns) == 2:
                feed |= {"ids_b": second, "lengths_b": second_mask.sum(axis=1).astype(np.int64)}
        return self._model.run(None, feed)[0]

    def _tower(self, texts: Sequence[list[int]], side: int) -> dict[str, np.ndarray]:
        """Inputs for texts read apart: the last token, [SEP], has the last position that there is."""
        ids, mask = _padded(texts, self.settings["pad_id"])
        positions = np.tile(np.arange(ids.shape[1]), (len(texts), 1))
        positions[np.arange(len(texts)), [len(text) - 1 for text in texts]] = self.settings["max_lengths"][side] - 1
        return {"input_ids": ids, "positions": positions, "mask": mask}

    def _kept(self, documents: Sequence[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        assert self._document is not None
        feed = self._tower(documents, 1)
        return self._document.run(None, feed)[0], feed["mask"]

    def _scores(self, queries: Sequence[list[int]], states: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feed = self._tower(queries, 0) | {"document": states, "mask_b": mask}
        return self._model.run(None, {value.name: feed[value.name] for value in self._model.get_inputs()})[0]

    def _named(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        if self.settings["kind"] == "vectors":
            return [{"vector": row} for row in outputs.tolist()]
        if not self.labels:
            return [{"score": row[0]} for row in outputs.tolist()]
        shares = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        threshold = self.settings.get("cascade_threshold")
        named = []
        for best, row in zip(shares.argmax(axis=1).tolist(), shares.tolist(), strict=True):
            found = {"label": self.labels[best], "score": row[best]}
            found["probabilities"] = dict(zip(self.labels, row, strict=True))
            named.append(found if threshold is None else found | {"sure": row[best] > threshold})
        return named

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        path = self.folder / name
        if not path.is_file():
            raise BundleError(f"{path}: missing; copy the bundle again")
        try:
            options = session_options(self._threads)
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library has no exception of its own
            why = str(error).splitlines()[0][:160]
            raise BundleError(f"{path}: truncated, or not an ONNX model ({why}); copy the bundle again") from None

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{self.folder / name}: cannot be read ({error}); copy the bundle again") from None

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._text(name))
        except json.JSONDecodeError:
            raise BundleError(f"{self.folder / name}: not valid JSON; copy the bundle again") from None


def _padded(rows: Sequence[list[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [B, longest] filled up with `pad`, and float32 [B, longest], 1 at what is real."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    filled = np.full(real.shape, pad, np.int64)
    filled[real] = list(itertools.chain.from_iterable(rows))
    return filled, real.astype(np.float32)


def _lines(predictor: Predictor, texts: Sequence[str]) -> Iterator[str]:
    rows = [text.split("\t") for text in texts]
    found = predictor.predict([row[0] if len(row) == 1 else row for row in rows])
    for text, answer in zip(texts, found, strict=True):
        if "vector" in answer:
            yield json.dumps(answer["vector"])
        else:
            yield "\t".join([*([answer["label"]] if "label" in answer else []), f"{answer['score']:.4f}", text])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Predict with the model of this folder; without texts, of stdin's.")
    parser.add_argument("texts", nargs="*", help="texts; of a pair: two texts with a TAB between")
    parser.add_argument("--folder", default=Path(__file__).resolve().parent, help="of the bundle; this file's without")
    parser.add_argument("--self_test", action="store_true", help="compare the folder with what was exported")
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whatever the locale; bytes of an argument come out as they are
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        predictor = Predictor(args.folder)
        if args.self_test:
            print(predictor.self_test())
            return 0
        if predictor.settings.get("precision") == "int8":  # whose outputs depend on the processor
            predictor.self_test()
        lines = args.texts or io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="\n")
        texts = (line.rstrip("\r\n") for line in lines)
        while part := list(itertools.islice(texts, 256)):
            for line in _lines(predictor, part):
                print(line)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (BundleError, UnicodeDecodeError) as error:
        why = error if isinstance(error, BundleError) else f"standard input is not UTF-8 text ({error})"
        print(f"error: {why}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
