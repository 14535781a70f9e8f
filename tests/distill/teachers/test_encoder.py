import numpy as np
import paddle
import pytest

from distill.encoders import inference
from distill.encoders.folder import load_bert
from distill.encoders.taps import Taps
from distill.errors import UserError
from distill.teachers.encoder import EncoderTeacher
from tests.tiny import make_bert_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("compiled", [True, False])
def test_its_layers_are_those_that_taps_read(compiled, folder, monkeypatch):
    monkeypatch.setattr(inference, "available", lambda: compiled)
    teacher = EncoderTeacher(folder, 16)
    batch = teacher.wordpiece.encode(["a good film", "the plot is quite dull ."], None, 16).pad([0, 1])
    model = load_bert(folder)
    model.eval()
    tensors = {name: paddle.to_tensor(value) for name, value in batch.items()}
    with Taps(model, scores=True) as taps, paddle.no_grad():
        model(tensors["input_ids"], tensors["token_type_ids"], attention_mask=tensors["mask"])
    for chosen in ((0, 1, 3), (2,)):
        found = teacher.layers(batch, chosen)
        assert len(found["hidden"]) == len(chosen)
        for layer, state in zip(chosen, found["hidden"], strict=True):
            np.testing.assert_allclose(state.numpy(), taps.hidden[layer].numpy(), atol=1e-5)
        scored = [layer for layer in chosen if layer]
        for layer, scores in zip(scored, found["scores"], strict=True):
            np.testing.assert_allclose(scores.numpy(), taps.scores[layer - 1].numpy(), atol=1e-5)


def test_digest_tells_models_apart(folder, tmp_path):
    other = make_bert_folder(tmp_path, seed=1)
    digests = [EncoderTeacher(path, length).digest for path, length in ((folder, 16), (other, 16), (folder, 8))]
    assert len(set(digests)) == 3 and EncoderTeacher(folder, 16).digest == digests[0]


def test_too_long_inputs_are_refused(folder):
    with pytest.raises(UserError, match="--max_seq_length 65: the model in .* reads at most 64 tokens"):
        EncoderTeacher(folder, 65)
