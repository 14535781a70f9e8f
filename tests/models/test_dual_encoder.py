"""Each type against the formula in float64, padding, symmetry, folders, graphs."""

from pathlib import Path

import numpy as np
import paddle
import pytest
import safetensors.numpy
from paddle import nn
from paddle.static import InputSpec

from distill.data.wordpiece import WordPiece
from distill.encoders import inference
from distill.encoders.folder import load_bert
from distill.encoders.initialise import build_student
from distill.errors import UserError
from distill.files import read_json, write_json
from models.dual_encoder import (
    MODEL_TYPES,
    SCORING_INPUTS,
    TOWER_INPUTS,
    DualEncoder,
    Scoring,
    Tower,
    create_dual_encoder,
    load_dual_encoder,
    model_digest,
    save_dual_encoder,
)
from tests.tiny import VOCAB, make_bert_folder

HIDDEN, LAYERS = 32, 3
SHORT = {"poly_first_m": 4, "colbert_dim": 6}  # below the lengths of the tests' texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert_folder(tmp_path_factory.mktemp("bert"), layers=LAYERS, hidden=HIDDEN)


def create(folder: Path, model_type: str, num_outputs: int = 3, **settings: object) -> DualEncoder:
    settings = SHORT | settings
    model = create_dual_encoder(model_type, load_bert(folder), num_outputs, seed=1, **settings)
    model.eval()
    return model


def texts(rows: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of rows of different lengths, the first and the last token real, padding between them, and the mask."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, len(VOCAB), (rows, width))
    mask = np.ones((rows, width), np.float32)
    for row in range(1, rows):
        mask[row, rng.integers(2, width) : width - 1] = 0
    return ids * mask.astype(np.int64), mask


def pairs(rows: int = 4, width_a: int = 9, width_b: int = 21, seed: int = 0) -> dict[str, paddle.Tensor]:
    (ids_a, mask_a), (ids_b, mask_b) = texts(rows, width_a, seed), texts(rows, width_b, seed + 1)
    batch = {"input_ids_a": ids_a, "mask_a": mask_a, "input_ids_b": ids_b, "mask_b": mask_b}
    return {name: paddle.to_tensor(value) for name, value in batch.items()}


def compact(ids: paddle.Tensor, mask: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """The same rows with their padding at the end, four more of it, and each token's former position."""
    order = np.argsort(1 - mask.numpy(), axis=1, kind="stable")
    moved = [np.pad(np.take_along_axis(x.numpy(), order, 1), ((0, 0), (0, 4))) for x in (ids, mask)]
    return *(paddle.to_tensor(x) for x in moved), paddle.to_tensor(np.pad(order, ((0, 0), (0, 4))))


def run(model: DualEncoder, batch: dict[str, paddle.Tensor]) -> np.ndarray:
    with paddle.no_grad():
        return model(batch).numpy()


def hidden(model: DualEncoder, batch: dict[str, paddle.Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For query and document the encoder's states and the mask, float64."""
    with paddle.no_grad():
        return [
            (
                model.encoder(batch[f"input_ids_{x}"], attention_mask=batch[f"mask_{x}"])[0].numpy().astype("float64"),
                batch[f"mask_{x}"].numpy().astype("float64"),
            )
            for x in "ab"
        ]


def weights(model: DualEncoder) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype("float64") for name, value in model.state_dict().items()}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0)


def four(u: np.ndarray, v: np.ndarray, power: int = 1) -> np.ndarray:
    return np.concatenate([u, v, np.abs(u - v), np.maximum(u, v) ** power])


def read(q: np.ndarray, d: np.ndarray) -> np.ndarray:
    return softmax(q @ d.T / np.sqrt(HIDDEN)) @ d


@pytest.mark.parametrize("squared_max", [False, True])
@pytest.mark.parametrize("resnet_predict", [False, True])
def test_late_fusion_is_the_attention_in_both_directions(folder, resnet_predict, squared_max):
    """As written, with four matrix products, on the real tokens of each row alone."""
    model, batch = create(folder, "late_fusion", resnet_predict=resnet_predict, squared_max=squared_max), pairs()
    (a, mask_a), (b, mask_b) = hidden(model, batch)
    w, expected = weights(model), []
    for row in range(4):
        q, d = a[row][mask_a[row] > 0], b[row][mask_b[row] > 0]
        x = four(mean(read(q, d)), mean(read(d, q)), 1 + squared_max)
        if resnet_predict:
            x = x @ w["residual.weight"] + w["residual.bias"] + x
            expected.append(x @ w["classifier.weight"] + w["classifier.bias"])
        else:
            expected.append(x @ w["classifier.1.weight"] + w["classifier.1.bias"])
    np.testing.assert_allclose(run(model, batch), expected, atol=1e-5)


def test_the_plain_mean_takes_padding_in(folder):
    model, batch = create(folder, "late_fusion", plain_mean=True), pairs()
    (a, mask_a), (b, mask_b) = hidden(model, batch)
    w = weights(model)
    for row, logits in enumerate(run(model, batch)):
        q, d = a[row][mask_a[row] > 0], b[row][mask_b[row] > 0]
        x = four(mean(read(a[row], d)), mean(read(b[row], q)))
        np.testing.assert_allclose(logits, x @ w["classifier.1.weight"] + w["classifier.1.bias"], atol=1e-5)
    assert np.abs(run(create(folder, "late_fusion"), batch) - run(model, batch)).max() > 1e-3


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("model_type", ["sbert", "bi_encoder", "poly"])
def test_types_with_one_vector_of_the_query(folder, model_type, pooling):
    model, batch = create(folder, model_type, pooling=pooling), pairs()
    (a, mask_a), (b, mask_b) = hidden(model, batch)
    w = weights(model)

    def pooled(states: np.ndarray) -> np.ndarray:
        if pooling == "mean":
            return mean(states)
        return np.tanh(states[0] @ w["encoder.pooler.dense.weight"] + w["encoder.pooler.dense.bias"])

    for row, logits in enumerate(run(model, batch)):
        q, d = a[row][mask_a[row] > 0], b[row][mask_b[row] > 0]
        x = {
            "sbert": lambda q=q, d=d: four(pooled(q), pooled(d)),
            "bi_encoder": lambda q=q, d=d: np.concatenate([pooled(q), pooled(d)]),
            "poly": lambda q=q, d=d: read(pooled(q), d[:4]),
        }[model_type]()
        np.testing.assert_allclose(logits, x @ w["classifier.1.weight"] + w["classifier.1.bias"], atol=1e-5)


def test_col_sums_the_best_cosines_of_each_label(folder):
    model, batch = create(folder, "col"), pairs()
    (a, mask_a), (b, mask_b) = hidden(model, batch)
    w = weights(model)

    def vectors(x: np.ndarray, side: str) -> np.ndarray:
        x = x @ w[f"{side}_projection.weight"] + w[f"{side}_projection.bias"]
        x = (x @ w["label_projection.weight"] + w["label_projection.bias"]).reshape(len(x), 3, 6)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    for row, logits in enumerate(run(model, batch)):
        q, d = vectors(a[row][mask_a[row] > 0], "query"), vectors(b[row][mask_b[row] > 0], "document")
        cosines = np.einsum("ncx,mcx->cnm", q, d)
        np.testing.assert_allclose(logits, cosines.max(axis=2).sum(axis=1) / np.sqrt(HIDDEN), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("model_type", ["deformer", "dipair"])
def test_joint_types_read_both_texts_by_one_layer(folder, model_type, pooling):
    model, batch = create(folder, model_type, pooling=pooling), pairs()
    (a, mask_a), (b, mask_b) = hidden(model, batch)
    most = (8, 16) if model_type == "dipair" else (99, 99)
    for row, logits in enumerate(run(model, batch)):
        both = [
            states[row][mask[row] > 0][:n] for (states, mask), n in zip(((a, mask_a), (b, mask_b)), most, strict=True)
        ]
        with paddle.no_grad():
            x = model.joint(paddle.to_tensor(np.concatenate(both)[None].astype("float32")))
            pooled = x.mean(axis=1) if pooling == "mean" else model.encoder.pooler(x)
            expected = model.classifier(pooled).numpy()[0]
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_deformer_reads_apart_with_all_layers_but_the_last(folder):
    whole, model, batch = load_bert(folder), create(folder, "deformer"), pairs()
    whole.eval()
    with paddle.no_grad():
        below = whole(batch["input_ids_a"], attention_mask=batch["mask_a"], output_hidden_states=True)[2][-2]
        kept = model.query_states(batch["input_ids_a"], batch["mask_a"])
    np.testing.assert_allclose(kept.numpy(), below.numpy(), atol=1e-6)
    last = {name: value.numpy() for name, value in whole.encoder.layers[-1].state_dict().items()}
    assert all(np.array_equal(last[name], value.numpy()) for name, value in model.joint.state_dict().items())
    assert model.encoder.config.num_hidden_layers == LAYERS - 1 == len(model.encoder.encoder.layers)
    assert whole.config.num_hidden_layers == LAYERS
    with pytest.raises(UserError, match="at least 2 layers"):
        create_dual_encoder("deformer", build_student(whole, 1), 2)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_padding_changes_nothing_wherever_it_stands(folder, model_type):
    """Padding between the tokens; the same tokens at the same positions with more padding after them; each row alone
    without any."""
    model, batch = create(folder, model_type), pairs()
    logits = run(model, batch)
    assert logits.shape == (4, 3) and np.isfinite(logits).all()
    moved = {}
    for x in "ab":
        values = compact(batch[f"input_ids_{x}"], batch[f"mask_{x}"])
        moved |= dict(zip((f"input_ids_{x}", f"mask_{x}", f"positions_{x}"), values, strict=True))
    np.testing.assert_allclose(run(model, moved), logits, atol=1e-5)
    for row in range(4):
        alone = {}
        for name, value in moved.items():
            tokens = int(moved[f"mask_{name[-1]}"][row].sum())
            alone[name] = value[row : row + 1, :tokens]
        np.testing.assert_allclose(run(model, alone)[0], logits[row], atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_logits_of_a_pair_are_the_score_of_its_states(folder, model_type):
    """Also with documents cut to the vectors that are kept of them, and with one query for all documents."""
    model, batch = create(folder, model_type), pairs()
    moved = compact(batch["input_ids_b"], batch["mask_b"])
    with paddle.no_grad():
        query = model.query_states(batch["input_ids_a"], batch["mask_a"])
        documents = model.document_states(moved[0], moved[1], moved[2])
        one = model.score(query[:1], batch["mask_a"][:1], documents, moved[1]).numpy()
        for row in range(4):
            kept = model.document_vectors(int(moved[1][row].sum()))
            assert kept <= documents.shape[1]
            cut, ones = documents[row : row + 1, :kept], paddle.ones([1, kept])
            for first, expected in ((row, run(model, batch)[row]), (0, one[row])):
                logits = model.score(query[first : first + 1], batch["mask_a"][first : first + 1], cut, ones)
                np.testing.assert_allclose(logits.numpy()[0], expected, atol=1e-5)
    repeated = {name: paddle.concat([value[:1]] * 4) if name.endswith("_a") else value for name, value in batch.items()}
    np.testing.assert_allclose(one, run(model, repeated), atol=1e-5)


def swapped(batch: dict[str, paddle.Tensor]) -> dict[str, paddle.Tensor]:
    return {name[:-1] + {"a": "b", "b": "a"}[name[-1]]: value for name, value in batch.items()}


def test_who_asks_and_who_answers(folder):
    """deformer cannot tell; where [u; v] is read, exchanging its weights is exchanging the texts; col and poly can."""
    batch = pairs()
    model = create(folder, "deformer")
    np.testing.assert_allclose(run(model, swapped(batch)), run(model, batch), atol=1e-5)
    for model_type in ("late_fusion", "sbert", "bi_encoder"):
        model = create(folder, model_type)
        logits, weight = run(model, batch), model.classifier[1].weight
        assert np.abs(run(model, swapped(batch)) - logits).max() > 1e-3
        u, v = weight[:HIDDEN], weight[HIDDEN : 2 * HIDDEN]
        weight.set_value(paddle.concat([v, u, weight[2 * HIDDEN :]]))
        np.testing.assert_allclose(run(model, swapped(batch)), logits, atol=1e-5)
    for model_type in ("poly", "col"):
        model = create(folder, model_type)
        assert np.abs(run(model, swapped(batch)) - run(model, batch)).max() > 1e-3


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_everything_but_an_unused_pooler_is_trained(folder, model_type):
    model = create(folder, model_type, num_outputs=1)
    model.train()
    loss = nn.functional.mse_loss(model(pairs()), paddle.ones([4, 1]))
    loss.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    # A shift of all scores of a softmax changes nothing, so the keys' biases have no gradient beyond rounding.
    assert {name for name in idle if "k_proj.bias" not in name} == {
        "encoder.pooler.dense.weight",
        "encoder.pooler.dense.bias",
    }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_folder_gives_the_same_logits_and_its_encoder_opens_with_paddlenlp(folder, tmp_path, model_type):
    from paddlenlp.transformers import BertModel

    model, batch = create(folder, model_type), pairs()
    save_dual_encoder(tmp_path, model, WordPiece.from_folder(folder), ("a", "b", "c"), (9, 21))
    loaded = load_dual_encoder(tmp_path)
    assert np.array_equal(run(loaded, batch), run(model, batch))
    assert (loaded.labels, loaded.lengths, loaded.config) == (("a", "b", "c"), (9, 21), model.config)
    encoder = BertModel.from_pretrained(str(tmp_path))
    encoder.eval()
    with paddle.no_grad():
        theirs = encoder(batch["input_ids_a"], attention_mask=batch["mask_a"])[0].numpy()
        ours = model.encoder(batch["input_ids_a"], attention_mask=batch["mask_a"])[0].numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


def test_new_weights_follow_the_seed_and_leave_paddles_random_state(folder):
    encoders = [load_bert(folder) for _ in range(3)]
    paddle.seed(5)
    expected = paddle.rand([3]).numpy()
    paddle.seed(5)
    models = [create_dual_encoder("dipair", encoder, 2, seed=s) for encoder, s in zip(encoders, (1, 1, 2), strict=True)]
    assert np.array_equal(paddle.rand([3]).numpy(), expected)
    first, same, other = (model.joint.linear1.weight.numpy() for model in models)
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    assert abs(first.std() / models[0].encoder.config.initializer_range - 1) < 0.1
    old = load_bert(folder).state_dict()
    assert all(np.array_equal(old[name], value) for name, value in models[0].encoder.state_dict().items())


def test_a_digest_is_that_of_all_that_decides(folder, tmp_path):
    wordpiece = WordPiece.from_folder(folder)
    digests = set()
    for number, settings in enumerate(({}, {"squared_max": True}, {"resnet_predict": True})):
        save_dual_encoder(tmp_path / str(number), create(folder, "late_fusion", 1, **settings), wordpiece, (), (9, 21))
        digests.add(model_digest(tmp_path / str(number)))
    save_dual_encoder(tmp_path / "again", create(folder, "late_fusion", 1), wordpiece, (), (9, 21))
    assert len(digests) == 3 and model_digest(tmp_path / "again") == model_digest(tmp_path / "0")


def test_folders_that_do_not_fit_are_refused(folder, tmp_path):
    wordpiece, model = WordPiece.from_folder(folder), create(folder, "sbert", 2)
    with pytest.raises(ValueError, match="3 labels for 2 outputs"):
        save_dual_encoder(tmp_path, model, wordpiece, ("a", "b", "c"), (9, 21))
    with pytest.raises(UserError, match="not a dual encoder's"):
        load_dual_encoder(folder)
    save_dual_encoder(tmp_path, model, wordpiece, ("a", "b"), (9, 21))
    config, path = read_json(tmp_path / "config.json"), tmp_path / "model.safetensors"
    for key, value, message in (
        ("model_type", "late_fusion", None),
        ("model_type", "colbert", "choose late_fusion, sbert"),
        ("num_outputs", 3, r"weights of another shape: classifier.1.weight \[128, 2\], the model's is \[128, 3\]"),
        ("model_type", "deformer", "weights missing: encoder.encoder.layers.3|weights missing: joint"),
        ("lengths", [3], "not a dual encoder's settings"),
    ):
        write_json(tmp_path / "config.json", config | {"dual_encoder": config["dual_encoder"] | {key: value}})
        if message is None:
            assert load_dual_encoder(tmp_path).model_type == "late_fusion"  # the same weights, read otherwise
            continue
        with pytest.raises(UserError, match=message):
            load_dual_encoder(tmp_path)
    write_json(tmp_path / "config.json", config)
    arrays = safetensors.numpy.load_file(path)
    for changed in (
        arrays | {"extra": np.ones(1, "f4")},
        {k: v for k, v in arrays.items() if k != "classifier.1.bias"},
    ):
        safetensors.numpy.save_file(changed, path, {"format": "np"})
        with pytest.raises(UserError, match="extra|classifier.1.bias"):
            load_dual_encoder(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "colbert"}, "--model_type colbert: choose late_fusion, sbert, bi_encoder, poly, col, deformer"),
        (
            {"model_type": "sbert", "resnet_predict": True},
            "--use_resnet_predict true belongs to late_fusion; pass --use_resnet_predict false for sbert",
        ),
        ({"model_type": "sbert", "plain_mean": True}, "--plain_mean belongs to late_fusion"),
        ({"model_type": "col", "squared_max": True}, "--squared_max belongs to late_fusion and sbert"),
        ({"model_type": "late_fusion", "pooling": "cls"}, "late_fusion compares all tokens; use mean"),
        ({"model_type": "sbert", "pooling": "max"}, "--pooling_strategy max: choose mean or cls"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        create_dual_encoder(settings.pop("model_type"), None, 2, **settings)


def specs(inputs: dict[str, tuple[int, str]], last: dict[str, int]) -> list[InputSpec]:
    return [InputSpec([None] * (rank - 1) + [last.get(name)], kind, name) for name, (rank, kind) in inputs.items()]


@pytest.mark.parametrize("model_type", ["late_fusion", "sbert", "col", "dipair"])
def test_towers_and_scoring_are_graphs_of_any_batch_and_length(folder, model_type):
    model = create_dual_encoder(model_type, build_student(load_bert(folder), 1), 3, **SHORT)
    width = 18 if model_type == "col" else HIDDEN
    with inference.evaluating(model):
        towers = [
            paddle.jit.to_static(Tower(model, side), specs(TOWER_INPUTS, {}), full_graph=True)
            for side in ("query", "document")
        ]
        scoring = paddle.jit.to_static(
            Scoring(model), specs(SCORING_INPUTS, {"query": width, "document": width}), full_graph=True
        )
        for rows, width_a, width_b in ((4, 9, 21), (1, 5, 3), (2, 3, 30)):
            batch = pairs(rows, width_a, width_b)
            positions = {x: paddle.arange(w).expand([rows, w]) for x, w in (("a", width_a), ("b", width_b))}
            states = [
                tower(batch[f"input_ids_{x}"], positions[x], batch[f"mask_{x}"])
                for tower, x in zip(towers, "ab", strict=True)
            ]
            logits = scoring(states[0], batch["mask_a"], states[1], batch["mask_b"])
            np.testing.assert_allclose(logits.numpy(), run(model, batch), atol=1e-5)
            one = scoring(states[0][:1], batch["mask_a"][:1], states[1], batch["mask_b"])
            assert one.shape == [rows, 3]
            np.testing.assert_allclose(one.numpy()[0], logits.numpy()[0], atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_score_begins_where_it_is_told(model_type, folder):
    def answers(start):
        model = create_dual_encoder(model_type, load_bert(folder), 1, start=start, seed=3)
        model.eval()
        ids, mask = paddle.to_tensor([[2, 7, 8, 3], [2, 9, 3, 0]]), paddle.to_tensor([[1.0, 1, 1, 1], [1, 1, 1, 0]])
        return model({"input_ids_a": ids, "mask_a": mask, "input_ids_b": ids, "mask_b": mask}).numpy()

    moved = 0.0 if model_type == "col" else 2.5
    np.testing.assert_allclose(answers(2.5) - answers(0.0), moved, atol=1e-6)
