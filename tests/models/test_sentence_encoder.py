"""Sentence encoders: folders of others and of our own, what the vectors depend on and what they do not."""

import json
import shutil

import numpy as np
import paddle
import pytest
import safetensors.numpy
from scipy.special import erf

from distill.encoders import inference
from distill.errors import UserError
from distill.files import read_json, write_json
from distill.pretrained import MINILM, minilm_folder
from models.recurrent_encoder import PROJECTION, TABLE, kept_layers, narrowed, parameter_count
from models.sentence_encoder import SentenceEncoder, build, load_sentence_encoder, read_folder, weights
from tests.models.folders import HEADS, make_sentence_folder, torch_weights

TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}

TEXTS = ["a good film", "the story is dull and the cast is weak", " a good film ", "is", "the music was great fun ."]


@pytest.fixture(autouse=True)
def _no_graphs(monkeypatch):
    monkeypatch.setattr(inference, "available", lambda: False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    made = {kind: make_sentence_folder(root / kind, kind) for kind in ("bert", "xlm-roberta")}
    return made | {"unit": make_sentence_folder(root / "unit", normalize=True)}


def by_hand(folder, ids):
    """The mean of the last hidden states of one text, float64, from the weights of `torch_weights`."""
    config = read_json(folder / "config.json")
    w = {name: a.astype(np.float64) for name, a in torch_weights(config, 0).items()}
    first = config["pad_token_id"] + 1 if config["model_type"] != "bert" else 0
    eps = config["layer_norm_eps"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]

    tables = ("word", "position", "token_type")
    word, position, kind = (w[f"embeddings.{name}_embeddings.weight"] for name in tables)
    x = norm(word[ids] + position[first : first + len(ids)] + kind[0], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{name}").reshape(len(ids), HEADS, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        joined = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(x.shape)
        x = norm(x + linear(joined, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x.mean(0)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_against_float64(kind, folders):
    encoder = load_sentence_encoder(folders[kind])
    vectors = encoder.encode(TEXTS, batch_size=2)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 16) and encoder.dim == 16
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, by_hand(folders[kind], encoder.tokens([text]).row(0)), atol=2e-5)


def test_the_pieces_of_an_xlm_roberta(folders):
    encoder = load_sentence_encoder(folders["xlm-roberta"], max_length=5)
    tokens = encoder.reader.tokens
    assert [tokens[i] for i in encoder.tokens(["the film zebra"]).row(0)] == ["<s>", "the", "film", "<unk>", "</s>"]
    assert len(encoder.tokens(["the film is not good at all"]).row(0)) == 5  # cut, and never padded by the file's wish


def test_order_batches_and_padding_change_nothing(folders):
    encoder = load_sentence_encoder(folders["bert"])
    whole = encoder.encode(TEXTS)
    for size in (1, 2, 5):
        np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=size), whole, atol=1e-5)
    turned = encoder.encode(TEXTS[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-5)
    np.testing.assert_allclose(whole[0], whole[2], atol=1e-6)
    assert abs(whole[0] - whole[1]).max() > 1e-2
    assert encoder.encode([]).shape == (0, 16)


def test_one_text_is_not_taken_letter_by_letter(folders):
    with pytest.raises(TypeError, match=r"a list of texts is needed, such as \[text\]"):
        load_sentence_encoder(folders["bert"]).encode("a good film")


def test_long_texts_are_cut(folders):
    encoder = load_sentence_encoder(folders["bert"])
    assert encoder.max_length == 32  # of sentence_bert_config.json
    long = " ".join(["film"] * 100)
    assert encoder.tokens([long]).lengths.tolist() == [32]
    short = load_sentence_encoder(folders["bert"], max_length=6)
    np.testing.assert_allclose(short.encode(["film film film film good"]), short.encode([long]), atol=1e-6)
    assert load_sentence_encoder(folders["bert"], max_length=500).max_length == 32


def test_the_mode_it_was_in_is_kept_and_dropout_never_acts(tmp_path):
    encoder = load_sentence_encoder(make_sentence_folder(tmp_path, drop=0.5))
    assert not encoder.training and not encoder.encoder.training
    expected = encoder.encode(TEXTS)
    encoder.train()
    np.testing.assert_array_equal(encoder.encode(TEXTS), expected)
    assert encoder.training and encoder.encoder.training


def test_poolings(folders):
    encoder = load_sentence_encoder(folders["bert"])
    tokens = encoder.tokens([TEXTS[1], TEXTS[3]])
    ids, types, mask = encoder.batch(tokens, [0, 1])
    with paddle.no_grad():
        states = encoder.encoder(ids, types, mask).numpy()
    short = states[1, : int(mask[1].sum())]
    expected = {
        "mean": short.mean(0), "mean_sqrt_len": short.sum(0) / len(short) ** 0.5, "cls": short[0], "max": short.max(0)
    }  # fmt: skip
    for pooling, vector in expected.items():
        encoder.pooling = pooling
        np.testing.assert_allclose(encoder(ids, types, mask)[1].numpy(), vector, atol=1e-5)
    encoder.normalize = True
    np.testing.assert_allclose(encoder(ids, types, mask)[1].numpy(), vector / np.linalg.norm(vector), atol=1e-5)


def test_normalised_by_the_folders_modules_unless_asked_otherwise(folders):
    unit = load_sentence_encoder(folders["unit"])
    np.testing.assert_allclose(np.linalg.norm(unit.encode(TEXTS), axis=1), 1, atol=1e-5)
    raw = load_sentence_encoder(folders["unit"], normalize=False).encode(TEXTS)
    np.testing.assert_allclose(raw, load_sentence_encoder(folders["bert"]).encode(TEXTS), atol=1e-6)
    scaled = load_sentence_encoder(folders["bert"], normalize=True).encode(TEXTS)
    np.testing.assert_allclose(scaled, unit.encode(TEXTS), atol=1e-6)


def test_the_older_layout_with_the_model_in_a_folder_of_its_own(folders, tmp_path):
    old = shutil.copytree(folders["bert"], tmp_path / "old")
    (old / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "sentence_bert_config.json"):
        (old / name).rename(old / "0_Transformer" / name)
    modules = read_json(old / "modules.json")
    modules[0]["path"] = "0_Transformer"
    modules[0]["type"] = "sentence_transformers.models.BERT.Transformer"
    write_json(old / "modules.json", modules)
    np.testing.assert_array_equal(
        load_sentence_encoder(old).encode(TEXTS), load_sentence_encoder(folders["bert"]).encode(TEXTS)
    )


@pytest.mark.parametrize("name", ["sentence_roberta_config.json", "sentence_xlm-roberta_config.json"])
def test_the_length_is_read_from_older_names_too(name, folders, tmp_path):
    folder = shutil.copytree(folders["xlm-roberta"], tmp_path / "older")
    (folder / "sentence_bert_config.json").rename(folder / name)
    changed(folder / name, max_seq_length=7)
    assert load_sentence_encoder(folder).max_length == 7
    (folder / name).unlink()
    assert load_sentence_encoder(folder).max_length == 64


def test_a_plain_model_is_averaged(folders, tmp_path):
    plain = make_sentence_folder(tmp_path / "plain", plain=True)
    encoder = load_sentence_encoder(plain)
    assert encoder.max_length == 64
    np.testing.assert_allclose(encoder.encode(TEXTS), load_sentence_encoder(folders["bert"]).encode(TEXTS), atol=1e-6)
    file = load_sentence_encoder(plain / "model.safetensors")
    np.testing.assert_array_equal(file.encode(TEXTS), encoder.encode(TEXTS))


def test_weights_of_paddlenlp(folders, tmp_path):
    """A BERT under its own names; an XLM-RoBERTa under PyTorch's names in paddle's layout, with its heads."""
    ours = weights(load_sentence_encoder(folders["bert"]).encoder)
    own = shutil.copytree(folders["bert"], tmp_path / "bert")
    state = {f"bert.{name}": a for name, a in ours.items()} | {"classifier.weight": np.zeros((16, 2), np.float32)}
    safetensors.numpy.save_file(state, own / "model.safetensors")
    xlmr = shutil.copytree(folders["xlm-roberta"], tmp_path / "xlmr")
    state = torch_weights(read_json(xlmr / "config.json"), 0)
    turned = {
        f"roberta.{name}": np.ascontiguousarray(a.T) if a.ndim == 2 and "embeddings" not in name else a
        for name, a in state.items()
    }
    safetensors.numpy.save_file(turned | {"lm_head.bias": np.zeros(3, np.float32)}, xlmr / "model.safetensors")
    for kind, folder in (("bert", own), ("xlm-roberta", xlmr)):
        found, expected = (load_sentence_encoder(path).encode(TEXTS) for path in (folder, folders[kind]))
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_student_is_saved_and_opened(kind, folders, tmp_path):
    source = read_folder(folders[kind])
    config, arrays = kept_layers(source.config, source.arrays, 1, 3)
    config, arrays = narrowed(config, arrays, 4, "svd", 0)
    student = SentenceEncoder(build(config, arrays, "here"), source.reader, 20, "max", True)
    student.save(tmp_path)
    assert all(path.is_file() for path in tmp_path.iterdir())  # a run moves up files alone
    opened = load_sentence_encoder(tmp_path)
    np.testing.assert_array_equal(opened.encode(TEXTS), student.encode(TEXTS))
    assert (opened.max_length, opened.pooling, opened.normalize, opened.encoder.config) == (20, "max", True, config)
    assert opened.digest() == student.digest() != load_sentence_encoder(folders[kind]).digest()
    assert {TABLE, PROJECTION} <= read_folder(tmp_path).arrays.keys()
    assert sum(int(p.size) for p in opened.parameters()) == parameter_count(config)


def test_without_layers_it_is_its_embeddings(folders):
    encoder = load_sentence_encoder(folders["bert"])
    ids, types, mask = encoder.batch(encoder.tokens(TEXTS[:1]), [0])
    found = encoder.without_layers()
    expected = encoder.encoder.embeddings(ids, types).mean(1).numpy()
    np.testing.assert_allclose(found.encode(TEXTS[:1]), expected, atol=1e-6)
    assert found.digest() != encoder.digest()
    encoder.pooling = "cls"  # whose embedding would be the same of every sentence
    np.testing.assert_array_equal(encoder.without_layers().encode(TEXTS[:1]), found.encode(TEXTS[:1]))


def test_the_digest_says_what_the_vectors_depend_on(folders, tmp_path):
    first = load_sentence_encoder(folders["bert"])
    assert first.digest() == load_sentence_encoder(folders["bert"]).digest()
    others = [load_sentence_encoder(folders["bert"], max_length=8), load_sentence_encoder(folders["unit"])]
    others += [load_sentence_encoder(make_sentence_folder(tmp_path / "other", seed=1))]
    words = shutil.copytree(folders["bert"], tmp_path / "words")
    lines = (words / "vocab.txt").read_text().splitlines()
    (words / "vocab.txt").write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]) + "\n")
    others.append(load_sentence_encoder(words))
    assert len({first.digest(), *(other.digest() for other in others)}) == 5


def test_a_graph_gives_the_same_vectors(folders, monkeypatch):
    monkeypatch.undo()
    if not inference.available():
        pytest.skip("no graphs on this processor")
    encoder = load_sentence_encoder(folders["bert"])
    expected = encoder.encode(TEXTS)
    made = []
    compiled = inference.compiled
    monkeypatch.setattr(inference, "compiled", lambda *args: (made.append(args), compiled(*args))[1])
    encoder.fix()
    for some in (TEXTS, TEXTS[:2]):
        np.testing.assert_allclose(encoder.encode(some), expected[: len(some)], atol=1e-5)
    assert len(made) == 1


@pytest.fixture
def broken(folders, tmp_path):
    """broken(kind): a copy of a folder to be spoilt."""
    return lambda kind="bert": shutil.copytree(folders[kind], tmp_path / kind)


def changed(path, **settings):
    write_json(path, read_json(path) | settings)


def line(folder):
    with pytest.raises(UserError) as error:
        load_sentence_encoder(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_refused(broken, tmp_path):
    assert line(tmp_path / "none").endswith("none: no such folder; pass the folder of a sentence encoder")
    folder = broken()
    for settings, why in (
        ({"model_type": "gpt2"}, "describes gpt2, which is neither a BERT nor an XLM-RoBERTa"),
        ({"hidden_size": 18}, "hidden_size 18 is no multiple"),
        ({"num_hidden_layers": None}, "num_hidden_layers is None"),
        ({"hidden_act": "gelu_new"}, "hidden_act gelu_new; gelu or relu is read"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type relative_key"),
        ({"num_hidden_layers": 3}, "model.safetensors: weights missing: encoder.layers.2"),
        ({"num_hidden_layers": 1}, "model.safetensors: weights too many: encoder.layers.1"),
        ({"vocab_size": 90}, f"weights of another shape: {TABLE} [106, 16], the model's is [90, 16]"),
        ({"max_position_embeddings": 30}, "embeddings.position_embeddings.weight [64, 16]"),
    ):
        original = (folder / "config.json").read_text()
        changed(folder / "config.json", **settings)
        assert why in line(folder)
        (folder / "config.json").write_text(original)
    modules = read_json(folder / "modules.json")
    dense = {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    write_json(folder / "modules.json", [*modules, dense])
    assert "modules Transformer, Pooling, Dense; Transformer, Pooling[, Normalize] are read" in line(folder)
    write_json(folder / "modules.json", {"a": 1})
    assert "modules.json: not a list of modules" in line(folder)
    write_json(folder / "modules.json", modules)
    changed(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=True)
    assert "pooling cls_token and mean_tokens; one of mean" in line(folder)
    changed(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=False, pooling_mode_mean_tokens=False)
    assert "pooling none; one of mean" in line(folder)
    (folder / "1_Pooling" / "config.json").unlink()
    assert line(folder).endswith("1_Pooling/config.json: no such file")
    write_json(folder / "1_Pooling" / "config.json", [])
    assert "1_Pooling/config.json: not a JSON object" in line(folder)
    for length in ("long", 0, -1, 12.0, True):
        changed(folder / "sentence_bert_config.json", max_seq_length=length)
        write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
        assert f"sentence_bert_config.json: max_seq_length is {length}; a whole number from 3 on" in line(folder)
    changed(folder / "config.json", pooling="median", normalize=False)
    assert line(folder).endswith("config.json: pooling median; one of mean, mean_sqrt_len, cls, max is read")


def test_missing_and_damaged_files_are_refused(broken):
    folder = broken("xlm-roberta")
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(json.dumps({"model": 3}))
    assert "tokenizer.json: not a tokenizer" in line(folder)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json: no such file" in line(folder)
    (folder / "tokenizer.json").write_text(tokenizer)
    changed(folder / "sentence_bert_config.json", do_lower_case=True)
    assert "do_lower_case with a tokenizer that keeps capitals" in line(folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    assert "truncated, or not a safetensors file" in line(folder)
    (folder / "model.safetensors").unlink()
    assert "no weight file in it" in line(folder)


def test_a_vocabulary_that_is_too_large_is_refused(broken):
    folder = broken()
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text() + "more\n")
    assert "a vocabulary of 107 tokens for a model of 106" in line(folder)


def test_nothing_is_written_into_the_folder(folders):
    before = {path: path.stat().st_mtime_ns for path in folders["bert"].rglob("*")}
    load_sentence_encoder(folders["bert"]).encode(TEXTS)
    assert {path: path.stat().st_mtime_ns for path in folders["bert"].rglob("*")} == before


def test_minilm_by_its_name():
    try:
        minilm_folder()
    except UserError as error:
        pytest.skip(str(error))
    encoder = load_sentence_encoder(MINILM)
    assert (encoder.pooling, encoder.normalize, encoder.max_length, encoder.dim) == ("mean", True, 256, 384)
    vectors = encoder.encode(["A man is playing a guitar.", "Someone plays the guitar.", "The stock market fell."])
    cosines = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    assert cosines[0, 1] > 0.7 and abs(cosines[0, 2]) < 0.2


def test_subwords_are_the_same_however_their_file_is_laid_out(broken):
    folder = broken("xlm-roberta")
    path, before = folder / "tokenizer.json", read_folder(folder).reader.digest()
    content = json.loads(path.read_text()) | {"truncation": TRUNCATION}
    path.write_text(json.dumps(content, indent=1))
    assert read_folder(folder).reader.digest() == before
    content["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(content))
    assert read_folder(folder).reader.digest() != before
