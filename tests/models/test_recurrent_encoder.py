"""The encoder with few parameters: what it computes, its sizes, and how a student comes from a larger model."""

import dataclasses

import numpy as np
import paddle
import pytest

from distill.encoders import cpu
from distill.encoders.folder import load_bert
from distill.errors import UserError
from distill.files import read_json
from distill.tensors import load_tensors
from models.recurrent_encoder import (
    PROJECTION,
    TABLE,
    EncoderConfig,
    RecurrentEncoder,
    kept_layers,
    layer_number,
    narrowed,
    parameter_count,
    revocabularied,
    save_encoder,
)
from tests.tiny import make_bert_folder

TINY = EncoderConfig(40, 16, 2, 4, 32, max_position_embeddings=24)
XLMR = dataclasses.replace(TINY, model_type="xlm-roberta", pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5)
IDS = np.array([[2, 10, 11, 12, 3], [2, 20, 3, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.float32)


def made(config, seed=0):
    paddle.seed(seed)
    encoder = RecurrentEncoder(config)
    encoder.eval()
    return encoder


def hidden(encoder, ids=IDS, mask=MASK):
    tensors = [paddle.to_tensor(x) for x in (ids, np.zeros_like(ids), mask)]
    return encoder(*tensors).numpy()


def arrays(encoder):
    return {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}


def copied(config, state):
    encoder = made(config)
    encoder.set_state_dict(state)
    return encoder


def test_it_is_a_bert(tmp_path):
    bert = load_bert(make_bert_folder(tmp_path, layers=3))
    bert.eval()
    config = EncoderConfig(bert.config.vocab_size, 32, 3, 4, 64, max_position_embeddings=64)
    state = {name: tensor.numpy() for name, tensor in bert.state_dict().items() if not name.startswith("pooler.")}
    expected = bert(paddle.to_tensor(IDS), attention_mask=paddle.to_tensor(MASK))[0].numpy()
    found = hidden(copied(config, state))
    np.testing.assert_allclose(found[MASK == 1], expected[MASK == 1], atol=1e-5)


def test_epsilon_is_the_configs():
    """Rows so short that it decides their length."""
    none = dataclasses.replace(TINY, num_hidden_layers=0)
    state = {name: a * (1e-3 if "_embeddings" in name else 1) for name, a in arrays(made(none)).items()}
    small, large = (hidden(copied(dataclasses.replace(none, layer_norm_eps=e), state)) for e in (1e-12, 1e-4))
    assert abs(small).max() > 3 * abs(large).max()


@pytest.mark.parametrize("config", [TINY, XLMR], ids=["bert", "xlmr"])
def test_padding_changes_nothing(config):
    encoder = made(config)
    alone = hidden(encoder, IDS[1:, :3], MASK[1:, :3])
    np.testing.assert_allclose(hidden(encoder)[1, :3], alone[0], atol=1e-5)


def test_positions_of_an_xlm_roberta_begin_behind_its_padding():
    encoder = made(dataclasses.replace(XLMR, num_hidden_layers=0))
    before = hidden(encoder)
    table = encoder.embeddings.position_embeddings.weight
    table.set_value(paddle.concat([table[:2] + 5.0, table[2:]]))
    np.testing.assert_array_equal(hidden(encoder), before)
    table.set_value(paddle.concat([table[:2], 3.0 * table[2:3], table[3:]]))
    after = hidden(encoder)
    assert abs(after - before)[:, 0].max() > 1e-2
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    assert XLMR.max_length == 22 and TINY.max_length == 24


def test_two_rounds_of_one_layer_are_that_layer_twice():
    one = dataclasses.replace(TINY, num_hidden_layers=1)
    state = arrays(made(one))
    twice = state | {name.replace("layers.0", "layers.1"): a for name, a in state.items() if layer_number(name) == 0}
    np.testing.assert_array_equal(
        hidden(copied(dataclasses.replace(one, repeat=2), state)), hidden(copied(TINY, twice))
    )
    layer = copied(one, state)
    mask = (1 - paddle.to_tensor(MASK).unsqueeze([1, 2])) * -1e4
    again = layer.encoder.layers[0](paddle.to_tensor(hidden(layer)), mask).numpy()
    np.testing.assert_allclose(hidden(copied(dataclasses.replace(one, repeat=2), state)), again, atol=1e-6)


def test_rounds_take_the_layers_in_order():
    state = arrays(made(TINY))
    rounds = dict(state)
    for name, a in state.items():
        if (number := layer_number(name)) >= 0:
            rounds[name.replace(f"layers.{number}", f"layers.{number + 2}")] = a
    four = dataclasses.replace(TINY, num_hidden_layers=4)
    found = hidden(copied(dataclasses.replace(TINY, repeat=2), state))
    np.testing.assert_array_equal(found, hidden(copied(four, rounds)))


def test_gradients_of_all_rounds_add_up():
    config = dataclasses.replace(TINY, num_hidden_layers=1, repeat=2)
    state = arrays(made(config))
    twice = state | {name.replace("layers.0", "layers.1"): a for name, a in state.items() if layer_number(name) == 0}
    shared, apart = copied(config, state), copied(dataclasses.replace(config, num_hidden_layers=2, repeat=1), twice)
    weight = paddle.to_tensor(np.random.default_rng(1).normal(size=(2, 5, 16)).astype(np.float32))
    for encoder in (shared, apart):
        (encoder(*(paddle.to_tensor(x) for x in (IDS, np.zeros_like(IDS), MASK))) * weight).sum().backward()
    first, second = (layer.linear1.weight.grad.numpy() for layer in apart.encoder.layers)
    np.testing.assert_allclose(shared.encoder.layers[0].linear1.weight.grad.numpy(), first + second, atol=1e-4)


def test_a_bottleneck_is_its_product():
    config = dataclasses.replace(TINY, embedding_size=4)
    narrow = made(config)
    state = arrays(narrow)
    wide = {name: a for name, a in state.items() if name != PROJECTION} | {TABLE: state[TABLE] @ state[PROJECTION]}
    assert state[TABLE].shape == (40, 4) and "embeddings.projection.bias" not in state
    np.testing.assert_allclose(hidden(narrow), hidden(copied(TINY, wide)), atol=1e-5)


def test_arranged_for_a_cpu_it_gives_the_same_numbers():
    encoder = made(dataclasses.replace(TINY, repeat=2, embedding_size=4))
    expected = hidden(encoder)
    with cpu.arranged(encoder):
        np.testing.assert_allclose(hidden(encoder), expected, atol=1e-5)


# Sizes of the published models in millions, the pooler counted, which sentence vectors do not read.
@pytest.mark.parametrize(
    ("base", "layers", "width", "millions"),
    [
        ("xlmr", 12, None, 278.0), ("xlmr", 3, 128, 54.3), ("xlmr", 3, 256, 86.4), ("xlmr", 6, None, 235.5),
        ("xlmr", 12, 128, 118.1), ("minilm", 12, None, 117.7), ("minilm", 6, 256, 75.1), ("minilm", 3, None, 101.7),
        ("minilm", 12, 256, 85.7),
    ],
)  # fmt: skip
def test_sizes_of_the_published_models(base, layers, width, millions):
    """Counted, not allocated."""
    xlmr = EncoderConfig(250002, 768, layers, 12, 3072, "xlm-roberta", max_position_embeddings=514, type_vocab_size=1)
    minilm = EncoderConfig(250037, 384, layers, 12, 1536)
    config = dataclasses.replace(xlmr if base == "xlmr" else minilm, embedding_size=width, repeat=12 // layers)
    pooler = config.hidden_size**2 + config.hidden_size
    assert (parameter_count(config) + pooler) / 1e6 == pytest.approx(millions, abs=0.0501)


@pytest.mark.parametrize("config", [TINY, dataclasses.replace(XLMR, embedding_size=3, repeat=5, num_hidden_layers=1)])
def test_the_count_is_that_of_the_allocated(config):
    assert parameter_count(config) == sum(int(p.size) for p in made(config).parameters())


def test_kept_layers():
    state = arrays(made(TINY))
    config, kept = kept_layers(TINY, state, 1, 3)
    assert (config.num_hidden_layers, config.repeat) == (1, 3)
    assert max(map(layer_number, kept)) == 0 and all(kept[name] is state[name] for name in kept)
    embeddings, kept = kept_layers(TINY, state, 0, 3)
    assert (embeddings.num_hidden_layers, embeddings.repeat) == (0, 1)
    assert set(map(layer_number, kept)) == {-1}
    with pytest.raises(UserError, match="layers_to_keep 3: the model has 2 layers"):
        kept_layers(TINY, state, 3, 1)


def test_narrowed_by_svd_is_the_nearest_of_its_rank():
    state = arrays(made(TINY))
    config, narrow = narrowed(TINY, state, 5, "svd", 0)
    assert config.embedding_size == 5 and narrow[TABLE].shape == (40, 5) and narrow[PROJECTION].shape == (5, 16)
    u, s, v = np.linalg.svd(state[TABLE].astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(narrow[TABLE] @ narrow[PROJECTION], (u[:, :5] * s[:5]) @ v[:5], atol=1e-5)
    assert hidden(copied(config, narrow)).shape == (2, 5, 16)


def test_narrowed_at_random_follows_the_seed():
    state = arrays(made(TINY))
    tables = [narrowed(TINY, state, 5, "random", seed)[1][TABLE] for seed in (1, 1, 2)]
    assert np.array_equal(tables[0], tables[1]) and not np.array_equal(tables[0], tables[2])
    assert tables[0].dtype == np.float32 and tables[0].std() == pytest.approx(0.02, rel=0.2)
    with pytest.raises(UserError, match="embedding_size 16: the model's table has 16 columns already"):
        narrowed(TINY, state, 16, "random", 0)


def test_another_vocabulary_keeps_what_is_shared():
    state = arrays(made(TINY))
    old = [f"w{i}" for i in range(40)]
    wanted = ["w3", "new", "w39", *(f"n{i}" for i in range(500)), "w0"]
    config, changed, shared = revocabularied(TINY, state, old, wanted, 2, 7)
    assert (config.vocab_size, config.pad_token_id, shared) == (504, 2, 3)
    for here, there in ((0, 3), (2, 39), (503, 0)):
        np.testing.assert_array_equal(changed[TABLE][here], state[TABLE][there])
    drawn = changed[TABLE][3:503]
    np.testing.assert_allclose(drawn.mean(0), state[TABLE].mean(0), atol=5 * state[TABLE].std() / 500**0.5)
    np.testing.assert_allclose(drawn.std(0), state[TABLE].std(0), rtol=0.2)
    roberta = dataclasses.replace(TINY, model_type="xlm-roberta", pad_token_id=1)
    changed_roberta, _, _ = revocabularied(roberta, state, old, wanted, 0, 7)
    assert changed_roberta.position_offset == roberta.position_offset == 2  # no token moves to another position
    again = revocabularied(TINY, state, old, wanted, 2, 7)[1]
    np.testing.assert_array_equal(again[TABLE], changed[TABLE])


def test_a_plain_bert_opens_with_paddlenlp(tmp_path):
    from paddlenlp.transformers import BertModel

    encoder = made(dataclasses.replace(TINY, layer_norm_eps=1e-5))
    save_encoder(encoder, tmp_path, pooling="mean")
    plain = BertModel.from_pretrained(str(tmp_path))
    plain.eval()
    found = plain(paddle.to_tensor(IDS), attention_mask=paddle.to_tensor(MASK))[0].numpy()
    np.testing.assert_allclose(found[MASK == 1], hidden(encoder)[MASK == 1], atol=1e-5)


def test_what_is_saved(tmp_path):
    config = dataclasses.replace(TINY, embedding_size=4, repeat=3)
    encoder = made(config)
    save_encoder(encoder, tmp_path, pooling="mean")
    settings = read_json(tmp_path / "config.json")
    assert settings["architectures"] == ["RecurrentEncoder"] and settings["pooling"] == "mean"
    assert settings["repeat"] == 3 and settings["embedding_size"] == 4
    stored = load_tensors(tmp_path / "model.safetensors")
    assert stored.keys() == arrays(encoder).keys()
