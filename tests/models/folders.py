"""Tiny sentence encoders in the layout of sentence-transformers, written independently of the code that reads them."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from tests.tiny import VOCAB

WIDTH, HEADS = 16, 4


def make_sentence_folder(
    path, kind="bert", layers=2, vocab=VOCAB, seed=0, mean=True, normalize=False, plain=False, drop=0.0, width=WIDTH
):
    """Random weights under PyTorch's names in its layout, of a BERT (vocab.txt) or an XLM-RoBERTa (tokenizer.json).

    plain: without modules.json. Returns the folder.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": kind, "architectures": ["BertModel" if kind == "bert" else "XLMRobertaModel"],
        "vocab_size": len(vocab), "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "intermediate_size": 2 * width, "hidden_act": "gelu", "type_vocab_size": 2 if kind == "bert" else 1,
        "max_position_embeddings": 64 if kind == "bert" else 66, "pad_token_id": 0 if kind == "bert" else 1,
        "layer_norm_eps": 1e-12 if kind == "bert" else 1e-5, "hidden_dropout_prob": drop,
        "attention_probs_dropout_prob": drop,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(torch_weights(config, seed), folder / "model.safetensors", {"format": "pt"})
    if kind == "bert":
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab))
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    else:
        _subwords(vocab).save(str(folder / "tokenizer.json"))
    if not plain:
        kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
        paths = ["", "1_Pooling", "2_Normalize"]
        modules = [
            {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
            for i, kind in enumerate(kinds)
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        modes = {"cls_token": not mean, "mean_tokens": mean, "max_tokens": False, "mean_sqrt_len_tokens": False}
        settings = {f"pooling_mode_{name}": on for name, on in modes.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": width} | settings))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    return folder


def torch_weights(config, seed):
    rng = np.random.default_rng(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for layer in range(config["num_hidden_layers"]):
        linear = {
            "attention.self.query": (width, width), "attention.self.key": (width, width),
            "attention.self.value": (width, width), "attention.output.dense": (width, width),
            "intermediate.dense": (inner, width), "output.dense": (width, inner),
        }  # fmt: skip
        for name, shape in linear.items():
            shapes |= {f"encoder.layer.{layer}.{name}.weight": shape, f"encoder.layer.{layer}.{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"encoder.layer.{layer}.{name}.{part}": (width,) for part in ("weight", "bias")}
    made = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in made:
        if "LayerNorm.weight" in name:
            made[name] = 1 + made[name] / 3
    return made


def _subwords(vocab):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {token: i for i, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", *vocab[4:]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    tokenizer.enable_padding(length=40, pad_id=1, pad_token="<pad>")  # as some published ones have it
    return tokenizer
