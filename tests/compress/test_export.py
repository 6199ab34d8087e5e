"""The ONNX graphs: equal to PyTorch, deterministic, small."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.compress.export import export
from bert_ops.compress.quantize import MATMUL_MAX, quantize_columns, quantize_rows
from bert_ops.compress.scoring import onnx_scorer, pytorch_scorer
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import TaskModel

OPTIONS = [
    {"activation": "relu"},
    {"norm": "pre"},
    {"positions": "rotary"},
    {"activation": "relu", "norm": "pre", "positions": "rotary"},
    {"activation": "gelu_new"},
    {"layer_norm_eps": 0.1},
    {"segments": 1},
]


def random_model(kind="sequence_classification", *, seed=0, heads=4, layers=2, hidden=32, **options):
    """A model whose logits are far enough from zero for a difference to show."""
    torch.manual_seed(seed)
    config = EncoderConfig(
        vocab_size=200,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        feed_forward_size=48,
        max_positions=40,
        hidden_dropout=0.5,
        attention_dropout=0.5,
        **options,
    )
    model = TaskModel(config, labels=3, kind=kind, classifier_dropout=0.5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch(rng, size, tokens):
    """Random ids with a random number of padded tokens at each end of a row."""
    ids = rng.integers(5, 200, size=(size, tokens))
    lengths = rng.integers(1, tokens + 1, size=size)
    lengths[0] = tokens
    return ids, (np.arange(tokens) < lengths[:, None]).astype(np.int64)


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
@pytest.mark.parametrize("heads", [1, 4])
def test_float32_graph_gives_pytorchs_logits(kind, heads):
    model = random_model(kind, heads=heads)
    onnx_score, torch_score = onnx_scorer(export(model, opset=17, int8=False), threads=1), pytorch_scorer(model)
    rng = np.random.default_rng(1)
    for size, tokens in [(1, 1), (1, 2), (1, 40), (3, 7), (5, 23)]:
        ids, attend = batch(rng, size, tokens)
        got, expected = onnx_score(ids, np.zeros_like(ids), attend), torch_score(ids, np.zeros_like(ids), attend)
        assert got.shape == ((size, 3) if kind == "sequence_classification" else (size, tokens, 3))
        seen = attend.astype(bool) if kind == "token_classification" else slice(None)
        np.testing.assert_allclose(got[seen], expected[seen], atol=2e-5)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("int8", [False, True])
def test_every_architecture_is_exported(options, int8):
    model = random_model("token_classification", **options)
    onnx_score, torch_score = onnx_scorer(export(model, opset=17, int8=int8), threads=1), pytorch_scorer(model)
    for size, tokens in [(1, 1), (1, 40), (5, 23)]:
        ids, attend = batch(np.random.default_rng(1), size, tokens)
        got, expected = (
            onnx_score(ids, np.zeros_like(ids), attend)[attend > 0],
            torch_score(ids, np.zeros_like(ids), attend)[attend > 0],
        )
        if int8:
            assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.98
        else:
            np.testing.assert_allclose(got, expected, atol=5e-5)


def test_segments_reach_the_graph():
    import onnxruntime

    model = random_model().eval()
    ids = np.random.default_rng(0).integers(5, 200, size=(2, 9))
    segments = (np.arange(9) > 4).astype(np.int64)[None].repeat(2, axis=0)
    session = onnxruntime.InferenceSession(export(model, opset=17, int8=False), providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids, "token_type_ids": segments, "attention_mask": np.ones_like(ids)}
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids), torch.from_numpy(segments)).numpy()
    np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=2e-5)
    assert np.abs(session.run(None, feed | {"token_type_ids": np.zeros_like(ids)})[0] - expected).max() > 1e-3


@pytest.mark.parametrize("opset", [17, 18, 21, 23])
@pytest.mark.parametrize("int8", [False, True])
def test_every_allowed_opset_gives_the_same_answer(opset, int8):
    model = random_model(layers=1)
    ids, attend = batch(np.random.default_rng(2), 3, 11)
    reference = onnx_scorer(export(model, opset=17, int8=int8), threads=1)(ids, np.zeros_like(ids), attend)
    got = onnx_scorer(export(model, opset=opset, int8=int8), threads=1)(ids, np.zeros_like(ids), attend)
    np.testing.assert_allclose(got, reference, atol=1e-6)


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_int8_graph_stays_close_and_shrinks(kind):
    model = random_model(kind, hidden=64)
    fp32, int8 = export(model, opset=17, int8=False), export(model, opset=17, int8=True)
    ids, attend = batch(np.random.default_rng(3), 4, 20)
    expected = pytorch_scorer(model)(ids, np.zeros_like(ids), attend)
    difference = np.abs(onnx_scorer(int8, threads=1)(ids, np.zeros_like(ids), attend) - expected)[
        attend.astype(bool) if expected.ndim == 3 else ...
    ]
    assert 0 < difference.max() < 0.3 * expected.std()
    assert len(int8) < 0.4 * len(fp32)
    floats = sum(len(t.raw_data) for t in onnx.load_from_string(int8).graph.initializer if t.data_type == 1)
    assert floats < 0.15 * len(int8), "biases, norms and scales may stay float32, tables and weights may not"


@pytest.mark.parametrize("int8", [False, True])
def test_equal_weights_give_equal_bytes_that_name_no_machine(int8):
    first, second = export(random_model(), opset=17, int8=int8), export(random_model().eval(), opset=17, int8=int8)
    assert first == second
    assert first != export(random_model(seed=1), opset=17, int8=int8)
    proto = onnx.load_from_string(first)
    assert not any(node.doc_string for node in proto.graph.node)
    assert b"/" not in b"".join(node.SerializeToString() for node in proto.graph.node)


matrices = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(1e-20, 1e20))


@given(matrices)
@settings(max_examples=60, deadline=None)
def test_rounding_stays_within_half_a_step(shape):
    rows, columns, seed, spread = shape
    table = (np.random.default_rng(seed).normal(size=(rows, columns)) * spread).astype(np.float32)
    table[0] = 0
    values, scales = quantize_rows(table)
    assert values.dtype == np.int8 and (np.abs(values.astype(int)) <= 127).all()
    assert (values[0] == 0).all()
    assert (np.abs(values * scales - table) <= scales * 0.5001).all()


@given(matrices)
@settings(max_examples=30, deadline=None)
def test_products_of_bytes_cannot_saturate_16_bits(shape):
    rows, columns, seed, spread = shape
    weight = (np.random.default_rng(seed).normal(size=(rows, columns)) * spread).astype(np.float32)
    values, scales = quantize_columns(weight)
    assert values.shape == weight.shape and scales.shape == (columns,)
    assert 2 * 255 * int(np.abs(values.astype(int)).max()) < 2**15
    assert np.abs(values.astype(int)).max() <= MATMUL_MAX
    assert (np.abs(values * scales - weight) <= scales * 0.5001).all()
