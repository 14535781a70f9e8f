"""BERT folders: whatever PaddleNLP 2 or 3 or PyTorch wrote is read strictly, PaddleNLP 3 folders are written.

Weights are never left at random in silence: a missing, superfluous or misshapen one is refused. A folder that is read
is never written to.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distill.errors import UserError
from distill.files import atomic_path, read_json, read_settings, write_json
from distill.pretrained import MINILM, minilm_folder
from distill.tensors import fill, load_pdparams, load_tensors, load_torch, save_tensors
from distill.tokenizer_json import read_tokenizer

if TYPE_CHECKING:
    from paddle import nn

    from distill.data.wordpiece import WordPiece

CONFIG_FILES = ("config.json", "model_config.json")
WEIGHT_FILES = ("model.safetensors", "model_state.pdparams", "pytorch_model.bin")
PROJECTIONS = "projections.safetensors"
_READERS = {".safetensors": load_tensors, ".pdparams": load_pdparams, ".bin": load_torch}

_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_SETTINGS = _SIZES + (
    "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "initializer_range", "pad_token_id", "pool_act", "layer_norm_eps", "classifier_dropout",
)  # fmt: skip
# Order of the arguments that PaddleNLP 2 wrote without their names.
_POSITIONS = {
    "BertModel": (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
        "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
        "initializer_range", "pad_token_id",
    ),
    "": ("bert", "num_classes", "dropout"),
}  # fmt: skip
_CLASSIFIER = "BertForSequenceClassification"
# Of PaddleNLP 2 and 3 and of PyTorch, as `_named_weights` leaves them.
_MLM_NAMES = (
    ("transform.", r"transform\.dense\."), ("layer_norm.", r"transform\.LayerNorm\."),
    ("decoder.weight", r"decoder_weight$"), ("decoder.bias", r"(decoder_)?bias$"),
)  # fmt: skip
# What some BERTs keep beside their weights: heads of pre-training, and projections to the width of a teacher.
_BESIDE = ("cls.", "fit_dense")


@dataclass(frozen=True)
class ModelFolder:
    """A BERT on disk: where it is and what its config says. Nothing of its weights has been read."""

    folder: Path
    weights: Path
    config_file: Path
    config: dict[str, Any]
    """The settings under PaddleNLP 3's names, those that decide the forward pass and no others."""
    architecture: str | None
    labels: tuple[str, ...] | None
    """Label names in index order; None when the config has none (or only LABEL_0, LABEL_1, ...)."""
    num_outputs: int
    """Outputs of the classification head by the config; 2 where it says nothing, as PaddleNLP and PyTorch read it."""
    prefixes: tuple[str, ...] = ("bert.",)
    """What the names of the encoder's weights may begin with."""

    def check_length(self, max_length: int) -> None:
        """Raise UserError when the model has too few positions for inputs of `max_length` tokens."""
        positions = self.config.get("max_position_embeddings", 512)
        if max_length > positions:
            raise UserError(
                f"--max_seq_length {max_length}: the model in {self.folder} reads at most {positions} tokens"
            )

    def check_pairs(self) -> None:
        """Raise UserError when the model has no token type 1, that of the second text of an input."""
        types = self.config.get("type_vocab_size", 2)
        if types < 2:
            raise UserError(
                f"{self.config_file}: type_vocab_size {types}, and two texts in one input need 2 token types; "
                "pass a BERT that has them"
            )


def find_model(path: str | Path, kinds: Sequence[str] = ("Bert",)) -> ModelFolder:
    """The model at `path`: a folder, a weight file in one, or a name that PaddleNLP downloads (`bert-base-uncased`).

    kinds: how the names of the admitted classes begin; PaddleNLP publishes BERTs under other names too.
    Raises UserError when there is none, when its config is missing or incomplete, or when it is not a BERT.
    """
    place = Path(path).expanduser()
    if place.is_file():
        if place.suffix not in _READERS:
            raise UserError(
                f"{path}: not a weight file ({', '.join(_READERS)}); pass the model's folder or its weight file"
            )
        folder, weights = place.parent, place
    else:
        folder = place if place.is_dir() else _missing(path, place, kinds)
        found = _weight_files(folder)
        if not found:
            raise UserError(
                f"{folder}: no weight file in it ({', '.join(WEIGHT_FILES)}); pass the folder of a trained model"
            )
        standard = [folder / name for name in WEIGHT_FILES if (folder / name) in found]
        if not standard and len(found) > 1:
            raise UserError(f"{folder}: several weight files ({_names(found)}); pass one of them by its path")
        weights = (standard or found)[0]
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            return _describe(folder, weights, folder / name, kinds)
    raise UserError(
        f"{folder}: neither {' nor '.join(CONFIG_FILES)} beside {weights.name}; copy the config of the model there"
    )


def load_bert(
    path: str | Path,
    num_outputs: int | None = None,
    task_labels: Sequence[str] | None = None,
    seed: int = 0,
    head: Literal["auto", "stored", "new"] = "auto",
    kinds: Sequence[str] = ("Bert",),
) -> "nn.Layer":
    """Load a PaddleNLP BertModel (`num_outputs` None) or BertForSequenceClassification (`num_outputs` logits), float32.

    path, kinds  folder, weight file, or downloadable name, see `find_model`; PyTorch's names and layout are converted.
    task_labels  names of the outputs in index order, put into the config of a new head or of one without names.
    head         `stored`: the classification head must be in the file; `new`: it is drawn from normal(0,
                 initializer_range) by `seed`, whatever the file holds; `auto`: stored if the folder has one, new if it
                 is a plain encoder.
    A missing pooler is drawn in the same way where the head is new or not wanted. Heads of pre-training and projections
    (see `load_projections`) are left out.
    Raises UserError when a weight is missing, superfluous or misshapen, when the vocabulary is not that of the weights,
    or when a file is cut short.
    """
    found = find_model(path, kinds)
    state = _read_weights(found)
    _check_vocabulary(found, state)
    prefix = "bert." if num_outputs is not None else ""
    draw: tuple[str, ...] = ()
    if num_outputs is None:
        state = {name: array for name, array in state.items() if not name.startswith("classifier.")}
        draw = ("pooler.dense.",)
    else:
        if _head_is_new(found, state, head):
            state = {name: array for name, array in state.items() if not name.startswith("classifier.")}
            draw = ("pooler.dense.", "classifier.")
        else:
            _check_outputs(found, state, num_outputs)
    model = _build(found, num_outputs, found.labels if num_outputs is not None and not draw else None, task_labels)
    state = {name if name.startswith("classifier.") else prefix + name: array for name, array in state.items()}
    _draw(model, state, draw, seed)
    fill(model, state, found.weights)
    return model


def load_projections(path: str | Path, kinds: Sequence[str] = ("Bert",)) -> dict[str, np.ndarray]:
    """The projections `fit_dense...` to a teacher's width that a distilled model has in the file PROJECTIONS or among
    its weights, under the names and in the layout of `distill.encoders.projections`; {} without any.

    `path` and `kinds` as in `find_model`.
    """
    found = find_model(path, kinds)
    beside = found.folder / PROJECTIONS
    arrays = load_tensors(beside) if beside.is_file() else _named_weights(found)
    return {name: array for name, array in arrays.items() if name.startswith("fit_dense")}


def load_mlm_head(path: str | Path) -> dict[str, np.ndarray]:
    """The weights of a masked-LM head as `distill.encoders.masked_lm` names them; {} where there is none.

    `transform` [H, H], `layer_norm` and `decoder.bias` [V]. Raises UserError when the file holds a decoder [V, H] of
    its own: BERT's is the wordpiece table.
    """
    found = find_model(path)
    state = _named_weights(found)
    prefix = "cls.predictions."
    head = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
    for ours, theirs in _MLM_NAMES:
        for name in [name for name in head if re.match(theirs, name)]:
            head[re.sub(theirs, ours, name)] = head.pop(name)
    decoder, table = head.pop("decoder.weight", None), state.get("embeddings.word_embeddings.weight")
    if (
        decoder is not None
        and table is not None
        and not any(np.array_equal(way, table) for way in (decoder, decoder.T))
    ):
        raise UserError(f"{found.weights}: the masked-LM decoder is not the wordpiece table; pass another BERT")
    return head


def word_embeddings(path: str | Path) -> np.ndarray:
    """The wordpiece table of a BERT, float32 [vocabulary, hidden]; `path` as in `find_model`."""
    found = find_model(path)
    state = _read_weights(found)
    _check_vocabulary(found, state)
    if "embeddings.word_embeddings.weight" not in state:
        raise UserError(f"{found.weights}: no wordpiece table in it; use the config and the weights of the same model")
    return state["embeddings.word_embeddings.weight"]


def save_bert(
    model: "nn.Layer", folder: str | Path, wordpiece: "WordPiece", labels: Sequence[str] | None = None
) -> None:
    """Write a BertModel or BertForSequenceClassification as a folder that PaddleNLP's `from_pretrained` opens.

    Files: model.safetensors (PaddleNLP's names), config.json (with `labels` in index order; None or () keeps those of
    `model.config`), vocab.txt, tokenizer_config.json. Each is written beside and renamed, the weights last.
    Raises UserError when the disk is full, ValueError when `labels` or the vocabulary does not fit the model.
    """
    folder = Path(folder)
    config = model.config
    if wordpiece.size != config.vocab_size:
        raise ValueError(f"vocabulary of {wordpiece.size} tokens for a model of {config.vocab_size}")
    settings = {name: getattr(config, name) for name in _SETTINGS if getattr(config, name, None) is not None}
    settings |= {"architectures": [type(model).__name__], "model_type": "bert"}
    if hasattr(model, "classifier"):
        outputs = model.classifier.weight.shape[1]
        names = list(labels) if labels else [config.id2label[i] for i in range(outputs)]
        if len(names) != outputs:
            raise ValueError(f"{len(names)} labels for {outputs} outputs")
        settings |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    write_json(folder / "config.json", settings)
    wordpiece.save(folder, model_max_length=config.max_position_embeddings)
    save_tensors(folder / "model.safetensors", model.state_dict())


def save_pdparams_beside(folder: str | Path) -> None:
    """Add model_state.pdparams and model_config.json, PaddleNLP 2's names, to a folder that `save_bert` wrote."""
    import paddle

    found = find_model(Path(folder) / "model.safetensors")
    encoder = {"init_class": "BertModel"} | {
        name: found.config[name] for name in _POSITIONS["BertModel"] if name in found.config
    }
    legacy: dict[str, Any] = encoder
    if found.architecture != "BertModel":
        legacy = {"init_args": [encoder], "init_class": found.architecture}
        legacy |= {
            name: value for name, value in read_json(found.config_file).items() if name in ("id2label", "label2id")
        }
        legacy["num_classes"] = len(legacy["id2label"])
    with atomic_path(found.folder / "model_state.pdparams") as temporary:
        state = {name: paddle.to_tensor(array) for name, array in load_tensors(found.weights).items()}
        paddle.save(state, str(temporary))
    write_json(found.folder / "model_config.json", legacy)


def flatten_config(config: dict[str, Any]) -> dict[str, Any]:
    """A PaddleNLP 2 config (`init_class`, nested `init_args`) under PaddleNLP 3's names; any other as it is."""
    if "init_class" not in config and "init_args" not in config:
        return config
    own = {name: value for name, value in config.items() if name not in ("init_args", "init_class")}
    kind = str(config.get("init_class", ""))
    positions = _POSITIONS.get(kind, _POSITIONS[""])
    flat: dict[str, Any] = {}
    for position, value in zip(positions, config.get("init_args", ()), strict=False):
        if isinstance(value, dict):
            flat |= {name: inner for name, inner in flatten_config(value).items() if name != "architectures"}
        else:
            flat[position] = value
    flat |= own
    for old, new in (("num_classes", "num_labels"), ("dropout", "classifier_dropout")):
        if old in flat:
            flat[new] = flat.pop(old)
    return flat | ({"architectures": [kind]} if kind else {})


def _weight_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _READERS and path.is_file() and not path.name.startswith(".")
    )


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _missing(path: str | Path, place: Path, kinds: Sequence[str]) -> Path:
    """The folder of a downloaded model where `place` does not exist; UserError when `path` cannot be a model's name."""
    name = str(path)
    if name == MINILM:
        return minilm_folder()
    if place.suffix in _READERS and place.parent.is_dir():
        found = _weight_files(place.parent)
        there = f"has {_names(found)}" if found else "has no weight file"
        raise UserError(f"{path}: no such file; {place.parent} {there}")
    # `models/teacher` beside a local `models` is a misspelt folder; asking the network for it would hide that.
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or (place.parent != Path(".") and place.parent.exists()):
        raise UserError(f"{path}: no such folder; pass the folder of a model, or a name that PaddleNLP knows")
    return _download(name, kinds)


def _download(name: str, kinds: Sequence[str]) -> Path:
    """Fetch a model into PaddleNLP's own cache; the folder there, completed to one that `find_model` reads."""
    try:
        from paddlenlp import transformers
        from paddlenlp.utils.download import resolve_file_path

        urls = {
            kind: getattr(transformers, f"{kind}Model").pretrained_resource_files_map["model_state"] for kind in kinds
        }
        kind = next((kind for kind in kinds if name in urls[kind]), "Bert")
        url = urls[kind].get(name)
        weights = resolve_file_path(name, [url] if url else ["model.safetensors", "model_state.pdparams"])
        if weights is None:
            raise OSError("PaddleNLP's server has no such model")
        folder = Path(weights).parent
        if not any((folder / file).is_file() for file in CONFIG_FILES):
            # Of its own models PaddleNLP keeps the settings in its code.
            settings = getattr(transformers, f"{kind}Config").from_pretrained(name).to_dict()
            write_json(
                folder / "config.json", {key: settings[key] for key in _SETTINGS if settings.get(key) is not None}
            )
        if not (folder / "vocab.txt").is_file():
            getattr(transformers, f"{kind}Tokenizer").from_pretrained(name).save_pretrained(str(folder))
        return folder
    except UserError:
        raise
    except Exception as error:  # the download raises whatever its many backends raise
        reason = re.split(r"(?<=[.'])\s", str(error).strip().split("\n")[0])[0] or type(error).__name__
        raise UserError(
            f"{name}: no such folder, and cannot download it ({reason}); pass a local folder with the model"
        ) from None


def _describe(folder: Path, weights: Path, config_file: Path, kinds: Sequence[str]) -> ModelFolder:
    config = flatten_config(read_settings(config_file))
    architecture = (config.get("architectures") or [None])[0]
    kind = next((kind for kind in kinds if str(architecture or kind).startswith(kind)), None)
    if kind is None or config.get("model_type", kind.lower()) not in [kind.lower() for kind in kinds]:
        what = architecture or config["model_type"]
        raise UserError(f"{config_file}: describes {what}, not a BERT; pass the folder of a BERT")
    if architecture is not None:
        architecture = "Bert" + str(architecture).removeprefix(kind)
    for name in _SIZES:
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise UserError(f"{config_file}: {name} is {config.get(name, 'missing')}; a whole number above 0 is needed")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(f"{config_file}: hidden_size {config['hidden_size']} is no multiple of num_attention_heads")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(
            f"{config_file}: only absolute positions are supported, not {config['position_embedding_type']}"
        )
    labels = _labels(config_file, config.get("id2label"))
    kept = {name: config[name] for name in _SETTINGS if config.get(name) is not None}
    outputs = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
    prefixes = tuple(f"{kind.lower()}." for kind in kinds)
    return ModelFolder(folder, weights, config_file, kept, architecture, labels, outputs, prefixes)


def _labels(config_file: Path, id2label: Any) -> tuple[str, ...] | None:
    if id2label is None:
        return None
    try:
        names = {int(index): str(label) for index, label in id2label.items()}
        labels = tuple(names[i] for i in range(len(names)))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{config_file}: id2label does not name the outputs 0, 1, ...; mend it") from None
    return None if all(re.fullmatch(r"LABEL_\d+", label) for label in labels) else labels


def _read_weights(found: ModelFolder) -> dict[str, np.ndarray]:
    """The weights of encoder and classification head, see `_named_weights`."""
    return {name: array for name, array in _named_weights(found).items() if not name.startswith(_BESIDE)}


def _named_weights(found: ModelFolder) -> dict[str, np.ndarray]:
    """All weights as float32 under PaddleNLP's names without `bert.`."""
    state: dict[str, np.ndarray] = {}
    raw = _READERS[found.weights.suffix](found.weights)
    torch_names = any(re.match(r"(\w+\.)?encoder\.layer\.\d", name) for name in raw)
    for name, array in raw.items():
        for prefix in found.prefixes:
            name = name.removeprefix(prefix)
        if name == "embeddings.position_ids":
            continue
        if torch_names:
            name, array = from_torch(name, array)
        state[name] = np.asarray(array, np.float32, order="C")
    return state


_TORCH_NAMES = (
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
    (r"^embeddings\.LayerNorm\.", "embeddings.layer_norm."),
    (r"^encoder\.layer\.(\d+)\.", r"encoder.layers.\1."),
    (r"attention\.self\.query\.", "self_attn.q_proj."),
    (r"attention\.self\.key\.", "self_attn.k_proj."),
    (r"attention\.self\.value\.", "self_attn.v_proj."),
    (r"attention\.output\.dense\.", "self_attn.out_proj."),
    (r"attention\.output\.LayerNorm\.", "norm1."),
    (r"intermediate\.dense\.", "linear1."),
    (r"(\.\d+\.)output\.dense\.", r"\1linear2."),
    (r"(\.\d+\.)output\.LayerNorm\.", r"\1norm2."),
)


def from_torch(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """PyTorch keeps the weight of a linear layer as [out, in], paddle as [in, out]."""
    for pattern, replacement in _TORCH_NAMES:
        name = re.sub(pattern, replacement, name)
    linear = array.ndim == 2 and not name.startswith("embeddings.")
    return name, array.T if linear else array


def _check_vocabulary(found: ModelFolder, state: dict[str, np.ndarray]) -> None:
    table = state.get("embeddings.word_embeddings.weight")
    if table is None:
        return
    rows, said = len(table), found.config["vocab_size"]
    if rows != said:
        raise UserError(
            f"{found.config_file}: vocab_size {said}, but the embedding in {found.weights.name} has {rows} rows; "
            "use the config and the weights of the same model"
        )
    vocabulary, whole = found.folder / "vocab.txt", found.folder / "tokenizer.json"
    if vocabulary.is_file():
        with open(vocabulary, encoding="utf-8", errors="replace") as lines:
            tokens = sum(1 for _ in lines)
    elif whole.is_file():
        vocabulary, tokens = whole, len(read_tokenizer(whole)[0])
    else:
        return
    if tokens != rows:
        raise UserError(
            f"{vocabulary}: {tokens} tokens, but the embedding in {found.weights.name} has {rows} rows; "
            "copy the vocabulary that the model was trained with"
        )


def _head_is_new(found: ModelFolder, state: dict[str, np.ndarray], head: str) -> bool:
    if head == "new":
        return True
    stored = "classifier.weight" in state or "classifier.bias" in state
    if found.architecture == _CLASSIFIER or (stored and found.architecture is None):
        return False
    if head == "stored":
        kind = found.architecture or "a plain encoder"
        raise UserError(f"{found.weights}: {kind} without a classification head; fine-tune it on the task first")
    return True


def _check_outputs(found: ModelFolder, state: dict[str, np.ndarray], num_outputs: int) -> None:
    weight = state.get("classifier.weight")
    if weight is not None and weight.shape[-1] != num_outputs:
        raise UserError(
            f"{found.weights}: its head has {weight.shape[-1]} outputs, the task needs {num_outputs}; "
            "pass a model that was fine-tuned on this task, or an encoder without a head"
        )


def _build(
    found: ModelFolder, outputs: int | None, stored: Sequence[str] | None, wanted: Sequence[str] | None
) -> "nn.Layer":
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification, BertModel

    config = BertConfig(**found.config)
    if outputs is not None:
        names = stored or wanted or [f"LABEL_{i}" for i in range(outputs)]
        if len(names) != outputs:
            raise UserError(
                f"{found.config_file}: id2label names {len(names)} labels for {outputs} outputs of the head; mend it"
            )
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
    try:
        return BertModel(config) if outputs is None else BertForSequenceClassification(config)
    except AttributeError:
        activation = found.config.get("hidden_act")
        raise UserError(f"{found.config_file}: hidden_act {activation!r} is not an activation of paddle") from None


def _draw(model: "nn.Layer", state: dict[str, np.ndarray], layers: Sequence[str], seed: int) -> None:
    """Add new weights to `state` for those of `layers` of which it has none."""
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    rng = np.random.default_rng(seed)
    for layer in layers:
        names = [name for name in needed if layer in name]
        if not any(name in state for name in names):
            for name in names:
                noise = rng.normal(0.0, model.config.initializer_range, needed[name]).astype(np.float32)
                state[name] = noise if name.endswith(".weight") else np.zeros_like(noise)
