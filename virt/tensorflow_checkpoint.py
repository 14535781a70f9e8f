"""A BERT of Google's release, a TensorFlow checkpoint with config and vocabulary, as a folder that PaddleNLP opens."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import PairLayout
from distill.data.words import read_vocabulary
from distill.encoders.folder import flatten_config
from distill.errors import UserError
from distill.files import read_settings, sha256, write_atomic, write_json
from distill.runtime import from_main
from distill.teachers.teacher import pair_settings
from distill.tensors import save_tensors
from distill.training.checkpoint import beside, replace_folder
from virt.args import PairOptions

_NAMES = (
    (r"^bert/", "bert."),
    (r"embeddings/(word|position|token_type)_embeddings$", r"embeddings.\1_embeddings.weight"),
    (r"embeddings/LayerNorm/", "embeddings.layer_norm."),
    (r"encoder/layer_(\d+)/", r"encoder.layers.\1."),
    (r"attention/self/query/", "self_attn.q_proj."),
    (r"attention/self/key/", "self_attn.k_proj."),
    (r"attention/self/value/", "self_attn.v_proj."),
    (r"attention/output/dense/", "self_attn.out_proj."),
    (r"attention/output/LayerNorm/", "norm1."),
    (r"intermediate/dense/", "linear1."),
    (r"output/dense/", "linear2."),
    (r"output/LayerNorm/", "norm2."),
    (r"pooler/dense/", "pooler.dense."),
    (r"(kernel|gamma)$", "weight"),
    (r"beta$", "bias"),
)


def is_prefix(path: str) -> bool:
    """Whether a path is that of a TensorFlow checkpoint, which is several files: PATH.index, PATH.data-..."""
    return Path(f"{Path(path).expanduser()}.index").is_file()


def converted(flag: str, prefix: str, args: PairOptions) -> Path:
    """The folder, below --cache_dir, of the BERT of a TensorFlow checkpoint; converted the first time.

    A classification head in it is that of the published teacher, whose texts are as long as the flags say. flag: what
    named the checkpoint, for messages. Raises UserError where tensorflow cannot be imported, and when a file is missing
    or not a BERT's.
    """
    if args.bert_config_file is None or args.vocab_file is None:
        raise UserError(f"{flag} {prefix}: a TensorFlow checkpoint; give its --bert_config_file and --vocab_file too")
    if args.lengths is None and flag == "--init_checkpoint_teacher":
        raise UserError(
            f"{flag} {prefix}: it does not say how long the texts were that it was trained with; give "
            "--max_seq_length_query and --max_seq_length_doc"
        )
    files = (f"{Path(prefix).expanduser()}.index", args.bert_config_file, args.vocab_file)
    config, tokens = flatten_config(read_settings(args.bert_config_file)), read_vocabulary(args.vocab_file)
    reading = f"{args.pooling_strategy} {args.lengths}"
    content = hashlib.sha256("".join([*map(sha256, files), reading]).encode()).hexdigest()
    folder = Path(args.cache_dir).expanduser() / "converted" / content[:16]

    def convert() -> None:
        if folder.exists():
            return
        weights = paddle_weights(_read(flag, prefix))
        if not any(name.startswith("bert.") for name in weights):
            raise UserError(f"{flag} {prefix}: holds no BERT (no variable begins with bert/)")
        own: dict[str, Any] = {"architectures": ["BertModel"]}
        if "classifier.bias" in weights and args.lengths is not None:
            own = pair_settings(args.pooling_strategy, PairLayout(*args.lengths))
            own["id2label"] = {i: f"LABEL_{i}" for i in range(len(weights["classifier.bias"]))}
        unfinished = beside(folder)
        write_json(unfinished / "config.json", config | own | {"model_type": "bert"})
        write_atomic(unfinished / "vocab.txt", "".join(f"{token}\n" for token in tokens))
        save_tensors(unfinished / "model.safetensors", weights)
        replace_folder(unfinished, folder)

    from_main(convert)  # every rank would clear away the unfinished folder of the others
    return folder


def paddle_weights(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables of encoder and head under PaddleNLP's names, without the optimizer's.

    TensorFlow keeps a linear layer's weight as [in, out], as paddle does, but the published head as [out, in].
    """
    weights = {}
    for name, array in variables.items():
        if name == "output_weights":
            weights["classifier.weight"] = array.T
        elif name == "output_bias":
            weights["classifier.bias"] = array
        elif name.startswith("bert/") and not re.search(r"/(adam_[mv]|Adam(_1)?)$", name):
            for pattern, replacement in _NAMES:
                name = re.sub(pattern, replacement, name)
            weights[name] = array
    return weights


def _read(flag: str, prefix: str) -> dict[str, np.ndarray]:
    try:
        import tensorflow
    except ImportError:
        raise UserError(
            f"{flag} {prefix}: a TensorFlow checkpoint, which needs tensorflow to be converted: `pip install "
            "tensorflow-cpu` in an environment of its own with this project, once; or pass a folder with these weights"
        ) from None
    reader = tensorflow.train.load_checkpoint(str(Path(prefix).expanduser()))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
