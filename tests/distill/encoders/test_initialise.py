import numpy as np
import paddle
import pytest
from paddlenlp.transformers import BertConfig, BertForSequenceClassification

from distill.encoders.initialise import build_student, student_config
from distill.encoders.taps import Taps
from distill.errors import UserError
from tests.tiny import make_bert_folder

IDS = paddle.to_tensor([[2, 40, 41, 42, 3], [2, 50, 51, 3, 0]])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = make_bert_folder(tmp_path_factory.mktemp("bert"), labels=("no", "yes"))
    model = BertForSequenceClassification.from_pretrained(str(folder))
    model.eval()
    return model


def arrays(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_first_layers_continue_where_the_teachers_were(teacher):
    student = build_student(teacher, layers=2)
    assert type(student) is type(teacher) and student.training
    student.eval()
    with Taps(student) as ours, Taps(teacher) as theirs, paddle.no_grad():
        student(IDS)
        teacher(IDS)
    for i in range(3):
        np.testing.assert_array_equal(ours.hidden[i].numpy(), theirs.hidden[i].numpy())
    assert student.config.num_hidden_layers == 2 and student.config.id2label == {0: "no", 1: "yes"}
    np.testing.assert_array_equal(student.classifier.weight.numpy(), teacher.classifier.weight.numpy())


def test_all_layers_make_a_copy(teacher):
    assert same(arrays(build_student(teacher)), arrays(teacher))


def test_chosen_layers_are_copied_in_their_order(teacher):
    ours, theirs = arrays(build_student(teacher, init="layers", layer_indices=(3, 1))), arrays(teacher)
    for name in theirs:
        if ".layers.0." in name:
            np.testing.assert_array_equal(ours[name], theirs[name.replace(".layers.0.", ".layers.2.")])
            np.testing.assert_array_equal(ours[name.replace(".layers.0.", ".layers.1.")], theirs[name])
        elif ".layers." not in name:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_random_is_fixed_by_the_seed_and_leaves_paddles_state(teacher):
    paddle.seed(7)
    expected = paddle.rand([3]).numpy()
    paddle.seed(7)
    a = arrays(build_student(teacher, layers=2, init="random", seed=1))
    np.testing.assert_array_equal(paddle.rand([3]).numpy(), expected)
    b = arrays(build_student(teacher, layers=2, init="random", seed=1))
    c = arrays(build_student(teacher, layers=2, init="random", seed=2))
    assert same(a, b) and not same(a, c)
    assert not np.array_equal(a["classifier.weight"], teacher.classifier.weight.numpy())


def test_random_may_have_other_widths(teacher):
    student = build_student(teacher, layers=1, init="random", hidden_size=12, intermediate_size=20, heads=3)
    assert student.bert.encoder.layers[0].linear1.weight.shape == [12, 20]
    assert student(IDS).shape == [2, 2]


def test_the_student_is_independent_of_the_teacher(teacher):
    before = arrays(teacher)
    student = build_student(teacher, layers=2)
    optimizer = paddle.optimizer.SGD(1.0, parameters=student.parameters())
    student(IDS).sum().backward()
    optimizer.step()
    assert same(arrays(teacher), before)
    assert not np.array_equal(student.classifier.bias.numpy(), before["classifier.bias"])
    assert teacher.config.num_hidden_layers == 3 and not teacher.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 4}, "the teacher has no layer 4 to copy: its layers are 1 to 3"),
        ({"init": "layers", "layer_indices": (0, 2)}, "the teacher has no layer 0"),
        ({"init": "layers"}, "needs the list of teacher layers"),
        ({"init": "layers", "layer_indices": (1, 2), "layers": 3}, "2 teacher layers were chosen for a student of 3"),
        ({"layer_indices": (1, 2)}, "but init is 'first'"),
        ({"init": "last"}, "choose first, layers or random"),
        ({"layers": 0}, "num_hidden_layers 0: must be at least 1"),
        ({"layers": 2, "hidden_size": 16}, "hidden_size 16 differs from the teacher's 32.*init 'random'"),
    ],
)
def test_what_cannot_be_built_is_refused(teacher, arguments, message):
    with pytest.raises(UserError, match=message):
        build_student(teacher, **arguments)


def test_student_config_keeps_what_is_not_given():
    teacher = BertConfig(num_labels=3)
    config = student_config(teacher, layers=4, hidden_size=312, intermediate_size=1200)
    sizes = (config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads)
    assert sizes == (4, 312, 1200, 12)
    assert (config.vocab_size, config.num_labels) == (teacher.vocab_size, 3)
    assert (teacher.num_hidden_layers, teacher.hidden_size) == (12, 768)


def test_feed_forward_width_follows_the_hidden_size():
    assert student_config(BertConfig(), hidden_size=384).intermediate_size == 1536


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(UserError, match="hidden size 100 cannot have 12 attention heads: choose 1, 2, 4, 5, 10"):
        student_config(BertConfig(), hidden_size=100)
