import numpy as np
import paddle
import pytest
from paddlenlp.transformers import BertForSequenceClassification, BertModel

from distill.encoders.taps import Taps
from tests.tiny import make_bert_folder

HEADS, LAYERS = 4, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def classifier(folder):
    model = BertForSequenceClassification.from_pretrained(str(folder))
    model.eval()
    return model


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 100, (3, 7))
    mask = (np.arange(7) < np.array([[7], [4], [2]])).astype("float32")
    types = (np.arange(7) >= 3).astype("int64") * np.ones((3, 1), "int64")
    return {
        "input_ids": paddle.to_tensor(ids * mask.astype("int64")),
        "token_type_ids": paddle.to_tensor(types),
        "attention_mask": paddle.to_tensor(mask),
    }


def hooks(model):
    layers = model.sublayers(include_self=True)
    return sum(len(x._forward_post_hooks) + len(x._forward_pre_hooks) for x in layers)


def test_hidden_states_are_those_of_paddlenlp(classifier, batch):
    with Taps(classifier) as taps, paddle.no_grad():
        classifier(**batch)
    expected = classifier.bert(**batch, output_hidden_states=True, return_dict=True).hidden_states
    assert len(taps.hidden) == len(expected) == LAYERS + 1
    for ours, theirs in zip(taps.hidden, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_scores_and_values_reproduce_each_layers_own_attention(classifier, batch):
    own = []
    attentions = [layer.self_attn for layer in classifier.bert.encoder.layers]
    handles = [
        x.register_forward_post_hook(lambda layer, inputs, out: own.append(out[0] if isinstance(out, tuple) else out))
        for x in attentions
    ]
    with Taps(classifier, scores=True, qkv=True) as taps, paddle.no_grad():
        classifier(**batch)
    for handle in handles:
        handle.remove()
    padding = (1 - batch["attention_mask"].numpy().astype("float64"))[:, None, None, :] * -1e4
    assert len(taps.scores) == len(taps.values) == len(own) == LAYERS
    for scores, values, attention, output in zip(taps.scores, taps.values, attentions, own, strict=True):
        assert scores.shape == [3, HEADS, 7, 7]
        assert values.shape == [3, HEADS, 7, 8]
        x = scores.numpy().astype("float64") + padding
        weights = np.exp(x - x.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ values.numpy()).transpose(0, 2, 1, 3).reshape(3, 7, 32)
        expected = mixed @ attention.out_proj.weight.numpy() + attention.out_proj.bias.numpy()
        np.testing.assert_allclose(output.numpy(), expected, atol=2e-6)


def test_scores_carry_no_padding_mask_and_are_scaled(classifier, batch):
    with Taps(classifier, scores=True, qkv=True) as taps, paddle.no_grad():
        classifier(**batch)
    for scores, q, k in zip(taps.scores, taps.queries, taps.keys, strict=True):
        expected = q.numpy().astype("float64") @ k.numpy().transpose(0, 1, 3, 2) / np.sqrt(8)
        np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_softmax_of_masked_scores_is_paddlenlps_attention(classifier, batch):
    with Taps(classifier, scores=True) as taps, paddle.no_grad():
        out = classifier(**batch, output_attentions=True, return_dict=True)
    padding = (1 - batch["attention_mask"]).unsqueeze([1, 2]) * -1e4
    for scores, weights in zip(taps.scores, out.attentions, strict=True):
        np.testing.assert_array_equal(paddle.nn.functional.softmax(scores + padding).numpy(), weights.numpy())


def test_a_plain_bert_model_and_the_model_itself_is_not_changed(folder, batch):
    model = BertModel.from_pretrained(str(folder))
    model.eval()
    before = model(**batch)[0].numpy()
    with Taps(model, scores=True, qkv=True) as taps:
        during = model(**batch)[0].numpy()
    np.testing.assert_array_equal(before, during)
    np.testing.assert_array_equal(taps.hidden[-1].numpy(), before)
    assert hooks(model) == 0


def test_gradients_flow_in_train_mode(classifier, batch):
    classifier.train()
    with Taps(classifier, scores=True, qkv=True) as taps:
        sequence = classifier.bert(**batch)[0]
    np.testing.assert_array_equal(taps.hidden[-1].numpy(), sequence.numpy())  # the same pass, dropout included
    (taps.scores[1] ** 2).mean().backward(retain_graph=True)
    layers = classifier.bert.encoder.layers
    for weight in (layers[1].self_attn.q_proj.weight, layers[1].self_attn.k_proj.weight, layers[0].linear1.weight):
        assert np.abs(weight.grad.numpy()).max() > 0
    assert layers[1].self_attn.v_proj.weight.grad is None and layers[2].linear1.weight.grad is None
    (taps.values[1] ** 2).mean().backward()
    assert np.abs(layers[1].self_attn.v_proj.weight.grad.numpy()).max() > 0


def test_the_gradient_of_a_tapped_hidden_state_is_exact(classifier, batch):
    with Taps(classifier) as taps:
        classifier(**batch)
    (taps.hidden[2] ** 2).sum().backward()
    table = classifier.bert.embeddings.word_embeddings.weight
    ours = table.grad.numpy()
    table.clear_grad()
    states = classifier.bert(**batch, output_hidden_states=True, return_dict=True).hidden_states
    (states[2] ** 2).sum().backward()
    np.testing.assert_array_equal(ours, table.grad.numpy())
    assert np.abs(ours).max() > 0


def test_no_gradient_under_no_grad(classifier, batch):
    with Taps(classifier, scores=True) as taps, paddle.no_grad():
        classifier(**batch)
    assert all(x.stop_gradient for x in taps.hidden + taps.scores)


def test_hooks_are_removed_even_after_an_exception(classifier, batch):
    with pytest.raises(ZeroDivisionError), Taps(classifier, scores=True, qkv=True):
        assert hooks(classifier) > 0
        classifier(**batch)
        raise ZeroDivisionError
    assert hooks(classifier) == 0


def test_the_last_pass_is_what_is_read(classifier, batch):
    with Taps(classifier, scores=True) as taps, paddle.no_grad():
        classifier(**{k: v[:1] for k, v in batch.items()})
        assert taps.scores[0].shape[0] == 1
        classifier(**batch)
    assert len(taps.hidden) == LAYERS + 1 and len(taps.scores) == LAYERS
    assert taps.hidden[0].shape[0] == taps.scores[0].shape[0] == 3


def test_what_was_not_asked_for_is_empty(classifier, batch):
    with Taps(classifier, hidden=False, scores=True) as taps, paddle.no_grad():
        classifier(**batch)
    assert taps.hidden == taps.queries == taps.keys == taps.values == ()
    assert len(taps.scores) == LAYERS


def test_two_models_are_read_side_by_side(classifier, folder, batch):
    other = make_student(folder)
    with Taps(classifier) as a, Taps(other) as b, paddle.no_grad():
        classifier(**batch)
        other(**batch)
    assert len(a.hidden) == LAYERS + 1 and len(b.hidden) == 3


def make_student(folder):
    model = BertForSequenceClassification.from_pretrained(str(folder), num_hidden_layers=2)
    model.eval()
    return model


def test_a_model_without_a_bert_is_refused():
    with pytest.raises(TypeError, match="Linear is not a PaddleNLP BertModel"):
        Taps(paddle.nn.Linear(2, 2))
