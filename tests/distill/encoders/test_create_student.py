"""The student that the flags ask for: where its weights come from, its shape, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from paddle import nn

from distill.data.tasks import get_task
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_bert, save_bert
from distill.encoders.initialise import create_student, start_regression, student_depth
from distill.errors import UserError
from distill.options import StudentOptions
from tests.tiny import VOCAB, keep_one_token_type, make_bert_folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("berts")


@pytest.fixture(scope="module")
def folder(home):
    return make_bert_folder(home / "teacher", layers=4)


@pytest.fixture(scope="module")
def teacher(folder):
    return load_bert(folder, 2, head="stored")


@pytest.fixture(scope="module")
def general(home):
    """A narrower encoder without a head."""
    whole = make_bert_folder(home / "whole", layers=2, hidden=16, seed=1)
    save_bert(load_bert(whole), home / "general", WordPiece.from_folder(whole))
    return home / "general"


def create(folder, teacher, seed=0, max_length=32, task="SST-2", **flags):
    return create_student(
        StudentOptions(**flags), teacher, WordPiece.from_folder(folder), get_task(task), max_length, seed
    )


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_first_layers_of_the_teacher_with_its_head(folder, teacher):
    student, theirs = arrays(create(folder, teacher, student_layers=2)), arrays(teacher)
    assert all(np.array_equal(value, theirs[name]) for name, value in student.items())
    assert max(int(name.split(".")[3]) for name in student if ".layers." in name) == 1


def test_chosen_layers_of_the_teacher(folder, teacher):
    student, theirs = arrays(create(folder, teacher, student_init="2,4")), arrays(teacher)
    for i, layer in ((0, 1), (1, 3)):
        name = "bert.encoder.layers.{}.linear1.weight"
        np.testing.assert_array_equal(student[name.format(i)], theirs[name.format(layer)])


def test_random_of_any_shape_follows_the_seed(folder, teacher):
    shape = {"student_layers": 5, "student_hidden_size": 12, "student_intermediate_size": 20, "student_heads": 3}
    a, b, c = (create(folder, teacher, seed, student_init="random", **shape) for seed in (1, 1, 2))
    assert same(arrays(a), arrays(b)) and not same(arrays(a), arrays(c))
    assert (a.config.num_hidden_layers, a.config.hidden_size, a.config.num_attention_heads) == (5, 12, 3)
    assert a.bert.encoder.layers[4].linear1.weight.shape == [12, 20]


def test_a_general_distilled_folder_keeps_its_shape_and_gets_a_new_head(folder, teacher, general):
    a, b, c = (create(folder, teacher, seed, student_model_name_or_path=str(general)) for seed in (1, 1, 2))
    plain = arrays(load_bert(general))
    ours = arrays(a)
    assert all(np.array_equal(ours[f"bert.{name}"], value) for name, value in plain.items())
    assert ours["classifier.weight"].shape == (16, 2) and same(ours, arrays(b))
    assert not np.array_equal(ours["classifier.weight"], arrays(c)["classifier.weight"])
    assert a.training and a.config.id2label == {0: "0", 1: "1"}


def test_first_layers_of_another_model(folder, teacher, general):
    """As published for PKD: the first layers of a plain pre-trained BERT."""
    student = create(folder, teacher, student_model_name_or_path=str(general), student_layers=1)
    assert student.config.num_hidden_layers == 1
    plain = arrays(load_bert(general))
    name = "encoder.layers.0.linear1.weight"
    np.testing.assert_array_equal(arrays(student)[f"bert.{name}"], plain[name])


@pytest.mark.parametrize(
    ("flags", "depth"),
    [({"student_layers": 3}, 3), ({"student_init": "1,4"}, 2), ({"student_init": "random", "student_layers": 7}, 7)],
)
def test_depth_by_flags(flags, depth):
    assert student_depth(StudentOptions(**flags)) == depth


def test_depth_of_a_folder(general):
    assert student_depth(StudentOptions(student_model_name_or_path=str(general))) == 2
    assert student_depth(StudentOptions(student_model_name_or_path=str(general), student_layers=1)) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "--student_layers is needed"),
        ({"student_init": "random"}, "--student_layers is needed"),
        ({"student_init": "last", "student_layers": 2}, "--student_init last: choose first, random, or layers"),
        ({"student_init": "1,,2"}, "--student_init 1,,2: choose first"),
        ({"student_init": "1,9"}, "the teacher has no layer 9"),
        ({"student_init": "1,2", "student_layers": 3}, "2 teacher layers were chosen for a student of 3"),
        ({"student_layers": 5}, "the teacher has no layer 5"),
        ({"student_layers": 2, "student_hidden_size": 16}, "equal widths only.*--student_init random"),
        ({"student_layers": 2, "student_init": "random", "student_hidden_size": 10}, "cannot have 4 attention heads"),
        (
            {"student_init": "random", "student_model_name_or_path": "small"},
            "random draws new weights",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(folder, teacher, flags, message):
    with pytest.raises(UserError, match=message):
        create(folder, teacher, **flags)


def test_a_folder_that_differs_in_lower_casing_only_is_taken(folder, teacher, general, home, capsys):
    """As PaddleNLP's Chinese students do, beside the Chinese BERTs."""
    cased = shutil.copytree(general, home / "cased")
    settings = json.loads((cased / "tokenizer_config.json").read_text())
    (cased / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    alike = create(folder, teacher, student_model_name_or_path=str(general))
    assert capsys.readouterr().out == ""
    student = create(folder, teacher, student_model_name_or_path=str(cased))
    assert capsys.readouterr().out.splitlines() == [
        f"--student_model_name_or_path {cased}: treats capitals or accents otherwise than the teacher; the student "
        "will read as the teacher does"
    ]
    assert same(arrays(student), arrays(alike))


def test_a_folder_with_other_wordpieces_or_too_few_positions_is_refused(folder, teacher, general, home):
    other = make_bert_folder(home / "other", layers=1, vocab=(*VOCAB[:-1], "##z"))
    with pytest.raises(UserError, match="other: its wordpieces are not those of the teacher, .*teacher/vocab.txt"):
        create(folder, teacher, student_model_name_or_path=str(other))
    with pytest.raises(UserError, match="--max_seq_length 128: .*reads at most 64 tokens"):
        create(folder, teacher, student_model_name_or_path=str(general), max_length=128)
    single = keep_one_token_type(shutil.copytree(general, home / "single"))
    with pytest.raises(UserError, match="single/config.json: type_vocab_size 1, and two texts"):
        create(folder, teacher, student_model_name_or_path=str(single), task="MRPC")
    assert create(folder, teacher, student_model_name_or_path=str(single)).config.type_vocab_size == 1


def test_a_new_head_of_a_regression_starts_at_the_labels():
    head = nn.Linear(5, 1)
    weight, labels = head.weight.numpy(), np.array([1990.0, np.nan, 2010.0, 2000.0], np.float32)
    start_regression(head, np.array([np.nan]))
    assert not head.bias.numpy().any() and np.array_equal(head.weight.numpy(), weight)
    start_regression(head, labels)
    np.testing.assert_allclose(head.bias.numpy(), [2000.0])
    np.testing.assert_allclose(head.weight.numpy(), weight * np.sqrt(200 / 3), rtol=1e-6)
    start_regression(head, labels + 1)  # it is no longer new
    assert head.bias.numpy() == [2000.0]
    centred = nn.Linear(5, 1)
    start_regression(centred, np.array([-3.0, 3.0]))
    weight = centred.weight.numpy()
    start_regression(centred, np.array([-3.0, 3.0]))
    assert abs(centred.bias.numpy()) < 1e-20 and np.array_equal(centred.weight.numpy(), weight)
    constant = nn.Linear(5, 1)
    weight = constant.weight.numpy()
    start_regression(constant, np.array([3.0, 3.0]))
    assert constant.bias.numpy() == [3.0] and np.array_equal(constant.weight.numpy(), weight)
