import pytest

from distill.encoders import layer_map
from distill.errors import UserError


@pytest.mark.parametrize(
    ("student", "uniform", "skip", "last"),
    [
        (2, (0, 6, 12), (6,), (11,)),
        (3, (0, 4, 8, 12), (4, 8), (10, 11)),
        (4, (0, 3, 6, 9, 12), (3, 6, 9), (9, 10, 11)),
        (6, (0, 2, 4, 6, 8, 10, 12), (2, 4, 6, 8, 10), (7, 8, 9, 10, 11)),
        (12, tuple(range(13)), tuple(range(1, 12)), tuple(range(1, 12))),
    ],
)
def test_maps_to_a_teacher_of_12_layers(student, uniform, skip, last):
    assert layer_map.uniform(student, 12) == uniform
    assert layer_map.skip(student, 12) == skip
    assert layer_map.last(student, 12) == last


def test_one_layer_student_takes_the_ends():
    assert layer_map.uniform(1, 6) == (0, 6)


def test_last_needs_no_even_division():
    assert layer_map.last(5, 12) == (8, 9, 10, 11)


@pytest.mark.parametrize("scheme", [layer_map.uniform, layer_map.skip])
def test_uneven_division_names_the_way_out(scheme):
    with pytest.raises(UserError, match=r"5 layers .* teacher of 12: choose 1, 2, 3, 4, 6, 12 student layers, or name"):
        scheme(5, 12)


@pytest.mark.parametrize("scheme", [layer_map.uniform, layer_map.skip, layer_map.last])
@pytest.mark.parametrize("student", [0, 13])
def test_impossible_depths_are_refused(scheme, student):
    with pytest.raises(UserError, match="choose from 1 to 12 student layers"):
        scheme(student, 12)


@pytest.mark.parametrize("scheme", [layer_map.skip, layer_map.last])
def test_one_layer_student_has_nothing_below_its_last_layer(scheme):
    with pytest.raises(UserError, match="at least 2 student layers"):
        scheme(1, 12)


def test_explicit_reads_text_and_sequences():
    assert layer_map.explicit("0, 4,8,12", 4, 12) == (0, 4, 8, 12)
    assert layer_map.explicit([10, 11], 2, 12) == (10, 11)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("3;6", "--fc_layers 3;6: expected teacher layers separated by commas"),
        ("", "expected teacher layers separated by commas"),
        ("3,6", "--fc_layers 3,6: 2 teacher layers given, 3 needed"),
        ("3,6,13", "there is no teacher layer 13; choose from 0"),
        ("-1,6,9", "there is no teacher layer -1"),
        ("3,9,6", "must rise"),
        ("3,3,6", "must rise"),
    ],
)
def test_explicit_refuses(layers, message):
    with pytest.raises(UserError, match=message):
        layer_map.explicit(layers, 3, 12, flag="--fc_layers")


def test_importing_maps_does_not_import_paddle():
    import subprocess
    import sys

    code = "import sys, distill.encoders.layer_map; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
