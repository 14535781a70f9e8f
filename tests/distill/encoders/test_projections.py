import numpy as np
import paddle
import pytest
import safetensors.numpy

from distill.encoders.folder import PROJECTIONS
from distill.encoders.projections import Projections, create_projections, of_layers
from distill.errors import UserError

HIDDEN = [paddle.to_tensor(np.random.default_rng(i).normal(size=(2, 3, 4)).astype("float32")) for i in range(3)]


def arrays(projections):
    return {name: value.numpy() for name, value in projections.state_dict().items()}


def create(wanted="auto", stored=None, widths=(4, 6), own_embedding=True):
    return create_projections(wanted, stored or {}, "student", 2, *widths, own_embedding, 7)


@pytest.mark.parametrize(
    ("kind", "own", "used"),
    [
        ("per_layer", True, ["fit_denses.0", "fit_denses.1", "fit_denses.2"]),
        ("per_layer", False, ["fit_denses.0", "fit_denses.1", "fit_denses.2"]),
        ("shared", True, ["fit_dense_embedding", "fit_dense", "fit_dense"]),
        ("shared", False, ["fit_dense", "fit_dense", "fit_dense"]),
    ],
)
def test_which_map_serves_which_layer(kind, own, used):
    projections = Projections(kind, 2, 4, 6, own)
    weights = arrays(projections)
    assert {name.rpartition(".")[0] for name in weights} == set(used)
    for state, out, name in zip(HIDDEN, projections(HIDDEN), used, strict=True):
        expected = state.numpy() @ weights[f"{name}.weight"] + weights[f"{name}.bias"]
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert len(projections.parameters()) == 2 * len(set(used))


def test_seed_fixes_them_and_paddles_state_stays():
    paddle.seed(1)
    expected = paddle.rand([2]).numpy()
    paddle.seed(1)
    a, b, c = (arrays(Projections("per_layer", 1, 4, 6, seed=seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(paddle.rand([2]).numpy(), expected)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["fit_denses.0.weight"], c["fit_denses.0.weight"])


@pytest.mark.parametrize("kind", ["per_layer", "shared"])
def test_saved_and_loaded(kind, tmp_path):
    made = Projections(kind, 2, 4, 6, own_embedding=True, seed=1)
    made.save(tmp_path)
    stored = safetensors.numpy.load_file(tmp_path / PROJECTIONS)
    again = create(stored=stored)
    assert again.kind == kind
    for name, array in arrays(made).items():
        np.testing.assert_array_equal(array, arrays(again)[name])


def test_auto_follows_the_keys_then_the_widths():
    shared, per_layer = (arrays(Projections(kind, 2, 4, 6)) for kind in ("shared", "per_layer"))
    assert create(stored=shared).kind == "shared"
    assert create(stored=per_layer).kind == "per_layer"
    assert create(stored=shared | per_layer).kind == "per_layer"
    assert create().kind == "per_layer"
    assert create(own_embedding=False).kind == "shared"
    assert create(widths=(6, 6)) is None
    assert create("shared", widths=(6, 6)).kind == "shared"


def test_those_of_chosen_layers_follow_their_layers():
    made = arrays(Projections("per_layer", 5, 4, 6, seed=1)) | arrays(Projections("shared", 5, 4, 6, seed=1))
    found = arrays(create(stored=of_layers(made, (2, 5))))
    for ours, theirs in enumerate((0, 2, 5)):
        for part in ("weight", "bias"):
            np.testing.assert_array_equal(found[f"fit_denses.{ours}.{part}"], made[f"fit_denses.{theirs}.{part}"])
    np.testing.assert_array_equal(of_layers(made, (2, 5))["fit_dense.weight"], made["fit_dense.weight"])


def test_of_two_kinds_the_other_can_be_chosen(capsys):
    shared, per_layer = (arrays(Projections(kind, 2, 4, 6)) for kind in ("shared", "per_layer"))
    found = create(stored=shared | per_layer)
    assert "those per_layer are used; --projection shared takes the others" in capsys.readouterr().out
    np.testing.assert_array_equal(arrays(found)["fit_denses.1.weight"], per_layer["fit_denses.1.weight"])
    other = create("shared", stored=shared | per_layer)
    np.testing.assert_array_equal(arrays(other)["fit_dense.weight"], shared["fit_dense.weight"])
    assert capsys.readouterr().out == ""


def test_one_shared_map_starts_that_of_the_embeddings():
    shared = arrays(Projections("shared", 2, 4, 6, seed=1))
    found = arrays(create(stored=shared))
    np.testing.assert_array_equal(found["fit_dense_embedding.weight"], shared["fit_dense.weight"])


@pytest.mark.parametrize(
    ("wanted", "stored", "line"),
    [
        ("auto", Projections("shared", 2, 4, 9), "student: its projections are 4x9, 4x6 is needed: new ones are drawn"),
        ("per_layer", Projections("shared", 2, 4, 6), "student: its projections are shared, not per_layer: new ones"),
    ],
)
def test_what_does_not_fit_is_drawn_and_said(wanted, stored, line, capsys):
    found = create(wanted, arrays(stored))
    assert line in capsys.readouterr().out
    expected = arrays(Projections(found.kind, 2, 4, 6, True, 7))
    assert all(np.array_equal(array, expected[name]) for name, array in arrays(found).items())


def test_too_few_layers_are_refused():
    with pytest.raises(UserError, match="student: weights missing: fit_denses.2.weight"):
        create(stored=arrays(Projections("per_layer", 1, 4, 6)))
