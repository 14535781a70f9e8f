"""The file of --config: an INI with the sections and keys of the published configs, and some of this project's own.

Every key of it is known, fits and has an effect on the model that it names, or is refused by its name.
"""

import configparser
import dataclasses
import difflib
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from distill import naming
from distill.errors import NotThere, UserError
from distill.options import TrainOptions
from distill.pretrained import MINILM

FOLDER = Path(__file__).resolve().parent / "config"
RUNS = naming.ROOT / "models" / "student_model" / "multistage"
TEACHERS = naming.ROOT / "models" / "teacher_model"
DATASET_TYPES = (
    "ParallelSentences", "parallel_all_emb_dataset", "parallel_all_distill_dataset", "parallel_separate_dataset",
)  # fmt: skip
NEEDED = object()


@dataclasses.dataclass(frozen=True)
class Method:
    """A model by its name in [model] model_name.

    learns: `embeddings` (of the assistant, its layers removed), `assistant` (its vectors, of both languages) or
        `teacher` (its vectors of the English sentences, for both languages).
    beside: what acts beside the squared errors: `mcl`, `bool`, `ce`.
    """

    learns: Literal["embeddings", "assistant", "teacher"]
    bottleneck: bool = False
    recurrent: bool = False
    beside: Literal["mcl", "bool", "ce"] | None = None

    @property
    def formatters(self) -> tuple[str, ...]:
        """The published names of what a batch of it holds; those for MCL stand in its ablations' configs too."""
        if self.learns != "teacher":
            return ("mse_seprate_formatter",)
        own = () if self.beside == "mcl" else ("mse_formatter",)
        return own + (("teacher_sim_formatter",) if self.recurrent else ())


METHODS = {
    "mul_mse": Method("teacher"),
    "bottle_distill": Method("embeddings", bottleneck=True),
    "rec_distill": Method("assistant", recurrent=True),
    "rec_bottle_distill": Method("assistant", bottleneck=True, recurrent=True),
    "rec_mcl": Method("teacher", recurrent=True, beside="mcl"),
    "rec_bottle_mcl": Method("teacher", bottleneck=True, recurrent=True, beside="mcl"),
    "rec_bottle_mse": Method("teacher", bottleneck=True, recurrent=True),
    "rec_bottle_bool": Method("teacher", bottleneck=True, recurrent=True, beside="bool"),
    "rec_bottle_ce": Method("teacher", bottleneck=True, recurrent=True, beside="ce"),
}


def whole(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise ValueError(f"a whole number from {low} on is needed")
        return int(text)

    return read


def number(low: float, high: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("a number is needed") from None
        if not low <= value <= high or (above and value == low) or value == float("inf"):
            upper = f" to {high:g}" if high < float("inf") else ""
            raise ValueError(f"a number {'above' if above else 'from'} {low:g}{upper} is needed")
        return value

    return read


def one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{' or '.join(allowed)} is read here")
        return text

    return read


def text(value: str) -> str:
    if not value:
        raise ValueError("it is empty")
    return value


def texts(value: str) -> tuple[str, ...]:
    return tuple(text(value).split())


# (what reads the value, default); NEEDED: the key must be there, None: it may be absent.
KEYS: dict[str, dict[str, tuple[Callable[[str], Any], Any]]] = {
    "logging": {"identifier": (text, NEEDED)},
    "train": {
        "epoch": (whole(1), NEEDED),
        "batch_size": (whole(1), NEEDED),
        "shuffle": (one_of("True"), "True"),
        "reader_num": (one_of("0"), "0"),
        "use_embedding_cache": (one_of("True"), "True"),
    },
    "eval": {
        "batch_size": (whole(1), 64),
        "evaluator": (one_of("TED_STS_Evaluator"), "TED_STS_Evaluator"),
        "reader_num": (one_of("0"), "0"),
    },
    "test": {
        "batch_size": (whole(1), 64),
        "evaluator": (one_of("STS_Evaluator"), "STS_Evaluator"),
        "reader_num": (one_of("0"), "0"),
    },
    "data": {
        "max_seq_length": (whole(4), 128),
        "data_dir": (text, NEEDED),
        "train_dataset_type": (one_of(*DATASET_TYPES), DATASET_TYPES[0]),
        "train_formatter": (text, None),
        "teacher_path": (text, NEEDED),
        "train_files": (texts, NEEDED),
        "dev_files": (texts, ()),
        "test_files": (texts, ()),
        "max_sentences": (whole(1), None),
        "max_characters": (whole(1), None),
        "sts_dir": (text, NEEDED),
        "sts_languages": (texts, NEEDED),
    },
    "model": {
        "model_name": (one_of(*METHODS), NEEDED),
        "student_model_path": (text, NEEDED),
        "vocab_path": (text, None),
        "emb_ckp_path": (text, None),
        "repeat": (whole(1), None),
        "layers_to_keep": (whole(1), None),
        "scale": (number(0, above=True), None),
        "embedding_size": (whole(1), None),
        "embedding_init": (one_of("random", "svd"), None),
        "vocab_size": (whole(1), None),
        "pad_token_id": (whole(0), None),
        "hidden_size": (whole(1), None),
        "max_position_embeddings": (whole(1), None),
        "type_vocab_size": (whole(1), None),
        "layer_norm_eps": (number(0, above=True), None),
        "hidden_dropout_prob": (number(0, 1), None),
    },
    "output": {"output_time": (whole(1), 1000)},
    "optim": {
        "optimizer": (one_of("multilingual"), "multilingual"),
        "lr_scheduler": (one_of("multilingual"), "multilingual"),
        "warmup_rate": (number(0, 1), 0.1),
        "learning_rate": (number(0, above=True), NEEDED),
        "max_grad_norm": (number(0), 1.0),
        "delete_old": (one_of("True"), "True"),
        "update_scheduler": (one_of("step"), "step"),
    },
}
SHAPE = (
    "vocab_size", "pad_token_id", "hidden_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps",
)  # fmt: skip
# Names of places, whose content a run compares instead, and what cannot change a student.
COSMETIC = (
    "logging.identifier", "data.data_dir", "data.teacher_path", "data.train_files", "data.dev_files",
    "data.test_files", "data.sts_dir", "model.student_model_path", "model.vocab_path", "model.emb_ckp_path",
    "test.batch_size",
)  # fmt: skip


class Config:
    """The settings of a file: config["model", "repeat"], None where an optional one is absent.

    path: the file; name: the run's identifier; method: what its model_name stands for.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _find(path)
        self._values = _read(self.path)
        self.name: str = self["logging", "identifier"]
        self.method = METHODS[self["model", "model_name"]]
        self._check()

    def __getitem__(self, key: tuple[str, str]) -> Any:
        return self._values[key]

    def settings(self) -> dict[str, Any]:
        """What run.yaml keeps."""
        return {f"{section}.{key}": value for (section, key), value in self._values.items()}

    def options(self, seed: int) -> TrainOptions:
        """The settings of the training loop."""
        interval = self["output", "output_time"]
        return TrainOptions(
            num_train_epochs=self["train", "epoch"],
            batch_size=self["train", "batch_size"],
            eval_batch_size=self["eval", "batch_size"],
            learning_rate=self["optim", "learning_rate"],
            weight_decay=0.01,
            warmup_proportion=self["optim", "warmup_rate"],
            max_grad_norm=self["optim", "max_grad_norm"],
            logging_steps=interval,
            save_steps=interval,
            eval_steps=interval,
            seed=seed,
        )

    def folder(self, logdir: str | None) -> Path:
        """The run's folder: --logdir, or one named after the identifier."""
        return Path(logdir).expanduser() if logdir else RUNS / self.name

    def place(self, section: str, key: str, run: Path) -> Path | str:
        """Where the model or vocabulary that a key names is: at that path, else beside the folder `run`, else among
        this project's own models. Raises NotThere where it is nowhere."""
        value = self[section, key]
        given = Path(value).expanduser()
        if value == MINILM:
            return value
        if given.exists():
            return given
        beside = (run.parent, RUNS, TEACHERS)
        for folder in beside:
            if (folder / given).exists():
                return folder / given
        places = ", ".join(str(folder) for folder in dict.fromkeys(beside))
        raise NotThere(
            f"{self.path}: [{section}] {key} = {value}: no such folder, neither here nor in {places}; "
            "an earlier stage makes it, or it is to be downloaded (see README.md)"
        )

    def files(self, key: str, data_dir: str | None) -> list[Path]:
        """The data files that a key's patterns name, below --data_dir or [data] data_dir, each once. Raises UserError
        for a pattern that names none."""
        root, found = self.data_dir(data_dir), dict[Path, None]()
        for pattern in self["data", key]:
            # Not Path.glob, which takes no absolute pattern.
            paths = glob.glob(os.path.join(glob.escape(str(root)), os.path.expanduser(pattern)), recursive=True)
            matching = sorted(map(Path, paths))
            if not matching:
                raise UserError(
                    f"{self.path}: [data] {key} = {pattern}: no such file in {root}; pass the folder of the data by "
                    "--data_dir"
                )
            found |= dict.fromkeys(matching)
        return list(found)

    def data_dir(self, given: str | None) -> Path:
        """--data_dir, else the config's: from here, else from the project's folder."""
        path = Path(given or self["data", "data_dir"]).expanduser()
        root = path if path.exists() or given else naming.ROOT / path
        if not root.is_dir():
            raise UserError(f"{path}: no such folder; pass the folder of the data by --data_dir")
        return root

    def _refuse(self, section: str, key: str, why: str) -> None:
        raise UserError(f"{self.path}: [{section}] {key} = {self[section, key]}: {why}")

    def _check(self) -> None:
        """Refuse keys that the model needs and has not, and that it has and does not read."""
        method, name = self.method, self["model", "model_name"]
        narrow = name == "bottle_distill"
        read = {
            "repeat": method.recurrent,
            "layers_to_keep": method.recurrent,
            "embedding_size": method.bottleneck,
            "embedding_init": narrow,
            "emb_ckp_path": method.recurrent and method.learns == "teacher" or name == "rec_bottle_distill",
            "scale": method.beside == "ce",
        }
        optional = {"embedding_init", "scale"} | ({"emb_ckp_path"} if name == "rec_mcl" else set())
        for key, wanted in read.items():
            if self["model", key] is None and wanted and key not in optional:
                raise UserError(f"{self.path}: [model] {key} is missing; {name} needs it")
            if self["model", key] is not None and not wanted:
                self._refuse("model", key, f"{name} does not read it; remove the line")
        formatter = self["data", "train_formatter"]
        if formatter not in (None, *method.formatters):
            self._refuse("data", "train_formatter", f"{name} takes {' or '.join(method.formatters)}")
        if "en" not in self["data", "sts_languages"]:
            self._refuse("data", "sts_languages", "en must be among them")
        if any(part in self.name for part in "/\\ "):
            self._refuse("logging", "identifier", "it names a folder: no blanks, no slashes")


def _find(path: str | Path) -> Path:
    for place in (Path(path).expanduser(), FOLDER / path, FOLDER.parent / path):
        if place.is_file():
            return place
    shipped = ", ".join(sorted(str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*.config")))
    raise UserError(f"--config {path}: no such file; shipped in {FOLDER.name}/: {shipped}")


def _read(path: Path) -> dict[tuple[str, str], Any]:
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"), strict=True)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except configparser.MissingSectionHeaderError as error:
        raise UserError(f"{path}:{error.lineno}: a line before the first [section]") from None
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        what = f"key {error.option}" if isinstance(error, configparser.DuplicateOptionError) else "section"
        raise UserError(f"{path}:{error.lineno}: [{error.section}] {what} stands there a second time") from None
    except configparser.ParsingError as error:
        raise UserError(f"{path}:{error.errors[0][0]}: expected `key = value`") from None
    if parser.defaults():
        raise UserError(f"{path}: section [DEFAULT]; write each key in its own section")
    for section in parser.sections():
        _require_known(path, f"section [{section}]", section, KEYS)
        for key in parser[section]:
            _require_known(path, f"[{section}] key {key}", key, KEYS[section])
    values: dict[tuple[str, str], Any] = {}
    for section, keys in KEYS.items():
        for key, (read, default) in keys.items():
            given = parser.get(section, key, fallback=None)
            if given is None:
                if default is NEEDED:
                    raise UserError(f"{path}: [{section}] {key} is missing")
                values[section, key] = default
                continue
            try:
                values[section, key] = read(given)
            except ValueError as error:
                raise UserError(f"{path}: [{section}] {key} = {given}: {error}") from None
    return values


def _require_known(path: Path, what: str, name: str, known: dict[str, Any]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=1)
        raise UserError(f"{path}: {what} is unknown{f'; did you mean {close[0]}?' if close else ''}")
