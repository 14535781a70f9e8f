"""Replacing of modules: the model at rate 0 and 1, what it computes, what learns, and the schedules."""

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import BertForSequenceClassification

from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_bert, save_bert
from distill.errors import UserError
from models.module_replacing import ModuleReplacing, replacement_rate
from tests.tiny import make_bert_folder

BATCH = (
    paddle.to_tensor([[2, 40, 41, 42, 3, 0], [2, 50, 51, 3, 0, 0]]),
    paddle.to_tensor([[0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]),
    paddle.to_tensor([[1.0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("bert"), layers=6)


@pytest.fixture
def predecessor(folder):
    """6 layers, without dropout, so that train mode gives the same numbers twice."""
    model = load_bert(folder, 2)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
        if isinstance(layer, paddle.nn.MultiHeadAttention):
            layer.dropout = 0.0
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.eval()
    return model


def replacing(predecessor, rate, layers=3, **more):
    model = ModuleReplacing(predecessor, layers, rate if callable(rate) else lambda batches: rate, 1, **more)
    model.train()
    return model


def logits(model, **more):
    return model(*BATCH[:2], attention_mask=BATCH[2], **more)


def arrays(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def move(model):
    """Give the successor weights of its own."""
    for parameter in model.parameters():
        if not parameter.stop_gradient:
            parameter.set_value(parameter + 0.05 * paddle.randn(parameter.shape))


def test_at_rate_0_it_is_the_predecessor(predecessor):
    model = replacing(predecessor, 0.0)
    move(model)
    np.testing.assert_allclose(logits(model).numpy(), logits(predecessor).numpy(), atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_at_rate_1_it_is_the_extracted_successor(predecessor, folder, layers, tmp_path):
    """Which opens with PaddleNLP as a plain BERT of so many layers."""
    model = replacing(predecessor, 1.0, layers)
    move(model)
    expected = logits(model).numpy()
    save_bert(model.successor, tmp_path, WordPiece.from_folder(folder))
    plain = BertForSequenceClassification.from_pretrained(str(tmp_path))
    plain.eval()
    assert plain.config.num_hidden_layers == layers == len(plain.bert.encoder.layers)
    np.testing.assert_allclose(logits(plain).numpy(), expected, atol=1e-6)
    model.eval()
    np.testing.assert_allclose(logits(model).numpy(), expected, atol=1e-6)


def test_the_successor_starts_as_the_predecessors_first_layers(predecessor):
    model = replacing(predecessor, 0.5)
    theirs = arrays(predecessor)
    for name, value in arrays(model.successor).items():
        np.testing.assert_array_equal(value, theirs[name])


def test_only_the_drawn_branch_is_computed(predecessor):
    """One draw for each module and batch: either its layer of the successor or its two of the predecessor."""
    model, ran = replacing(predecessor, 0.5), []
    for kind, layers in (("new", model.successor.bert.encoder.layers), ("old", model.predecessor)):
        for i, layer in enumerate(layers):
            layer.register_forward_post_hook(lambda *_, name=(kind, i): ran.append(name))
    seen = set()
    for batch in range(20):
        del ran[:]
        drawn = model.draw(batch)
        logits(model)
        expected = [
            layer
            for i, replaced in enumerate(drawn)
            for layer in ([("new", i)] if replaced else [("old", 2 * i), ("old", 2 * i + 1)])
        ]
        assert ran == expected
        seen.add(tuple(drawn))
    assert len(seen) > 4  # the modules are drawn one by one, not all alike
    assert int(model.batches_seen) == 20
    model.eval()
    del ran[:]
    logits(model)
    assert ran == [("new", 0), ("new", 1), ("new", 2)] and int(model.batches_seen) == 20


def test_draws_have_the_rate_and_depend_on_seed_and_batch_alone(predecessor):
    model, same = replacing(predecessor, 0.3), replacing(predecessor, 0.3)
    draws = np.array([model.draw(i) for i in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), 0.3, atol=0.03)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.06)
    paddle.seed(99)
    np.testing.assert_array_equal([same.draw(i) for i in range(50)], draws[:50])
    other = ModuleReplacing(predecessor, 3, lambda batches: 0.3, 2)
    assert not np.array_equal([other.draw(i) for i in range(50)], draws[:50])


def test_what_is_frozen_gets_no_gradient_and_does_not_change_by_a_bit(predecessor):
    for train_embeddings in (False, True):
        model = replacing(predecessor, 0.5, train_embeddings=train_embeddings)
        optimizer = paddle.optimizer.AdamW(
            0.01, weight_decay=0.1, parameters=[p for p in model.parameters() if not p.stop_gradient]
        )
        before, trained = arrays(model), set()
        for _ in range(8):
            logits(model).square().sum().backward()
            trained |= {name for name, p in model.named_parameters() if p.grad is not None}
            optimizer.step()
            optimizer.clear_grad()
        after = arrays(model)
        changed = {name for name in before if not np.array_equal(before[name], after[name])} - {"batches_seen"}
        layers = {name for name in before if name.startswith("successor.bert.encoder.layers.")}
        own = {name for name in before if name.startswith("successor.")}
        assert changed == trained == (own if train_embeddings else layers)


def test_a_step_in_which_nothing_is_replaced_trains_nothing_and_does_not_fail(predecessor):
    model = replacing(predecessor, 0.0)
    loss = logits(model).sum()
    loss.backward()
    assert loss.stop_gradient and all(p.grad is None for p in model.parameters())


def test_the_count_of_batches_is_restored_with_the_weights(predecessor):
    model, again = replacing(predecessor, 0.5), replacing(predecessor, 0.5)
    for _ in range(3):
        logits(model)
    again.set_state_dict(model.state_dict())
    assert int(again.batches_seen) == 3
    np.testing.assert_array_equal(logits(again).numpy(), logits(model).numpy())


@pytest.mark.parametrize("layers", [4, 5, 7, 12])
def test_modules_of_unequal_size_are_refused(predecessor, layers):
    with pytest.raises(UserError, match=f"--student_layers {layers}: .*predecessor's 6 layers; choose 1, 2, 3, 6"):
        replacing(predecessor, 0.5, layers)


# Schedules


def trace(rate, steps):
    return [rate(step) for step in range(steps)]


def test_constant_rate_then_the_successor_alone():
    assert trace(replacement_rate("constant", 0.5, steps=3), 6) == [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]


def test_linear_rate_by_slope():
    """The published example: from 0.3 by 0.0006 a step, so 1 is reached at step 1167."""
    rate = replacement_rate("linear", 0.3, slope=0.0006)
    assert trace(rate, 3) == pytest.approx([0.3, 0.3006, 0.3012])
    assert rate(1166) < 1.0 == rate(1167) == rate(10**6)


def test_linear_rate_by_steps():
    assert trace(replacement_rate("linear", 0.2, steps=4), 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_a_schedule_without_an_end_is_refused(kind):
    with pytest.raises(ValueError, match="steps None"):
        replacement_rate(kind, 0.5)
    with pytest.raises(ValueError, match="choose constant"):
        replacement_rate("cosine", 0.5, steps=3)
