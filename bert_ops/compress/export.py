"""A task model as an ONNX graph for ONNX Runtime, float32 or int8.

The graph is written node by node from the weights. Of the three ways that were measured, it is the best one: torch's
dynamo exporter takes 14 s and leaves 99 nodes, its older exporter is deprecated and leaves 202, and in both ONNX
Runtime does not recognise the joined query-key-value product as attention. Written out, an encoder layer is six
nodes, all of which ONNX Runtime has fused kernels for, the bytes depend on the weights alone, and int8 needs no
second pass. What it costs: a change to :mod:`bert_ops.model.encoder` must be made here as well; the parity check of
:mod:`bert_ops.compress.stage` fails if that is forgotten.

Operators of the domain ``com.microsoft`` are described in ONNX Runtime's ContribOperators.md. Shapes as in
:mod:`bert_ops.model.encoder`; L labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from bert_ops.compress.quantize import quantize_columns, quantize_rows
from bert_ops.model.encoder import ACTIVATIONS, EncoderLayer
from bert_ops.model.heads import TaskModel
from bert_ops.model.rotary import Rotation

#: Fused operators of ONNX Runtime.
FUSED = "com.microsoft"
INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def export(model: TaskModel, *, opset: int, int8: bool) -> bytes:
    """Write a task model as ONNX.

    Args:
        model: the model; dropout is left out, whatever its mode.
        opset: version of the standard operators; at least 17, the first with ``LayerNormalization``.
        int8: quantize embeddings and matrix products; otherwise all weights stay float32.

    Returns:
        A serialized graph with int64 inputs ``input_ids``, ``token_type_ids``, ``attention_mask`` (1 = attend), each
        (batch, tokens) and both sizes free, and float32 output ``logits``: (batch, L), or (batch, tokens, L) for
        token classification. Equal weights give equal bytes.

    """
    graph = _Graph(int8=int8)
    x = _embeddings(graph, model)
    mask = graph.add("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    angles = _angles(graph, model) if model.config.positions == "rotary" else None
    for number, layer in enumerate(model.encoder.layers):
        assert isinstance(layer, EncoderLayer)
        x = _layer(graph, layer, x, mask, angles, name=f"layer{number}")
    if model.encoder.final_norm is not None:
        x = graph.norm(x, model.encoder.final_norm, "final_norm")
    if model.pooler is not None:
        first = graph.add("Gather", [x, graph.constant("cls_position", np.int64(0))], "cls", axis=1)
        x = graph.add("Tanh", [graph.linear(first, model.pooler.dense, "pooler")], "pooled")
    graph.linear(x, model.classifier, "logits", keep=True)
    content: bytes = _finish(graph, model, opset=opset).SerializeToString(deterministic=True)
    return content


class _Graph:
    """Nodes and constants in the order in which they were added; a class because they are added from many places."""

    def __init__(self, *, int8: bool) -> None:
        self.int8 = int8
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def add(self, kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def weight(self, name: str, parameter: Any) -> str:
        return self.constant(name, _array(parameter))

    def linear(self, x: str, dense: Any, output: str, *, keep: bool = False) -> str:
        """Multiply by a weight and add a bias; ``keep`` leaves the weight float32 in an int8 graph."""
        weight_IO = np.ascontiguousarray(_array(dense.weight).T)
        bias = self.weight(f"{output}.bias", dense.bias)
        if not self.int8 or keep:
            product = self.add("MatMul", [x, self.constant(f"{output}.weight", weight_IO)], f"{output}.product")
            return self.add("Add", [product, bias], output)
        values, scale = quantize_columns(weight_IO)
        inputs = [x, self.constant(f"{output}.weight", values), self.constant(f"{output}.scale", scale), "", bias]
        return self.add("DynamicQuantizeMatMul", inputs, output, domain=FUSED)

    def thirds(self, size: int) -> str:
        """Lengths of the three equal parts of an axis of ``size``."""
        return self.constant(f"thirds_of_{size}", np.full(3, size // 3, dtype=np.int64))

    def norm(self, x: str, norm: Any, output: str) -> str:
        """Normalise over the last axis."""
        inputs = [x, self.weight(f"{output}.gamma", norm.weight), self.weight(f"{output}.beta", norm.bias)]
        return self.add("LayerNormalization", inputs, output, axis=-1, epsilon=norm.eps)

    def normalise(self, x: str, skip: str, norm: Any, output: str) -> str:
        """Add a residual and normalise, in one kernel."""
        inputs = [x, skip, self.weight(f"{output}.gamma", norm.weight), self.weight(f"{output}.beta", norm.bias)]
        return self.add("SkipLayerNormalization", inputs, output, domain=FUSED, epsilon=norm.eps)


def _array(parameter: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = parameter.detach().cpu().float().numpy()
    return array


def _lookup(graph: _Graph, table: Any, name: str, pick: Any) -> str:
    """Pick rows of an embedding table; ``pick(tensor, output)`` adds the node that picks."""
    if not graph.int8:
        return str(pick(graph.weight(f"{name}.table", table), name))
    values, scale = quantize_rows(_array(table))
    picked = pick(graph.constant(f"{name}.table", values), f"{name}.picked")
    cast = graph.add("Cast", [picked], f"{name}.cast", to=TensorProto.FLOAT)
    return graph.add("Mul", [cast, pick(graph.constant(f"{name}.scale", scale), f"{name}.picked_scale")], name)


def _embeddings(graph: _Graph, model: TaskModel) -> str:
    """Sum of token, segment and position embeddings, normalised: (B, T, D)."""
    part = model.encoder.embeddings
    shape = graph.add("Shape", ["input_ids"], "tokens", start=1, end=2)
    start, axis = graph.constant("zero", np.array([0])), graph.constant("first_axis", np.array([0]))
    token = _lookup(graph, part.token.weight, "token", lambda t, out: graph.add("Gather", [t, "input_ids"], out))
    rows = graph.weight("segment.table", part.segment.weight)
    # A single segment is added to every token, whatever the input says.
    segment = rows if part.segment.num_embeddings == 1 else graph.add("Gather", [rows, "token_type_ids"], "segment")
    x = graph.add("Add", [token, segment], "token_segment")
    if part.position is not None:
        position = _lookup(
            graph, part.position.weight, "position", lambda t, out: graph.add("Slice", [t, start, shape, axis], out)
        )
        x = graph.add("Add", [x, position], "embedded")
    return graph.norm(x, part.norm, "embeddings")


def _angles(graph: _Graph, model: TaskModel) -> list[str]:
    """Positions (B, T), and cosines and sines of all positions, as ONNX Runtime's ``RotaryEmbedding`` reads them."""
    config = model.config
    table = torch.zeros(1, config.max_positions, config.hidden_size)
    rotation = Rotation.of(config, table, None)
    size = config.hidden_size // config.heads // 2
    limits = [graph.constant(name, np.int64(value)) for name, value in (("first", 0), ("each", 1))]
    length = graph.add("Gather", [graph.add("Shape", ["input_ids"], "size"), limits[1]], "length", axis=0)
    counted = graph.add("Range", [limits[0], length, limits[1]], "counted")
    positions = graph.add("Expand", [counted, "size"], "positions")
    return [
        positions,
        graph.constant("cosines", _array(rotation.cos).reshape(-1, size)),
        graph.constant("sines", _array(rotation.sin).reshape(-1, size)),
    ]


def _layer(graph: _Graph, layer: EncoderLayer, x: str, mask: str, angles: list[str] | None, *, name: str) -> str:
    """Self-attention and feed-forward with residuals: (B, T, D) to (B, T, D)."""
    if layer.pre_norm:
        attended = _attention(
            graph, layer, graph.norm(x, layer.attention_norm, f"{name}.attention_norm"), mask, angles, name=name
        )
        x = graph.add("Add", [x, attended], f"{name}.attended")
        fed = _feed_forward(graph, layer, graph.norm(x, layer.norm, f"{name}.norm"), name=name)
        return graph.add("Add", [x, fed], f"{name}.out")
    attended = _attention(graph, layer, x, mask, angles, name=name)
    x = graph.normalise(x, attended, layer.attention_norm, f"{name}.attention_norm")
    return graph.normalise(x, _feed_forward(graph, layer, x, name=name), layer.norm, f"{name}.norm")


def _attention(graph: _Graph, layer: EncoderLayer, x: str, mask: str, angles: list[str] | None, *, name: str) -> str:
    qkv = graph.linear(x, layer.qkv, f"{name}.qkv")
    parts = [f"{name}.query", f"{name}.key", f"{name}.value"]
    graph.nodes.append(
        helper.make_node("Split", [qkv, graph.thirds(layer.qkv.out_features)], parts, name=f"{name}.split", axis=2)
    )
    if angles is not None:
        parts[:2] = [
            graph.add(
                "RotaryEmbedding",
                [part, *angles],
                f"{part}.turned",
                domain=FUSED,
                num_heads=layer.heads,
                # The whole head is turned; the size has to be said where heads are not an axis of their own.
                rotary_embedding_dim=layer.qkv.out_features // 3 // layer.heads,
            )
            for part in parts[:2]
        ]
    mixed = graph.add("MultiHeadAttention", [*parts, "", mask], f"{name}.mixed", domain=FUSED, num_heads=layer.heads)
    return graph.linear(mixed, layer.attention_out, f"{name}.attention")


def _feed_forward(graph: _Graph, layer: EncoderLayer, x: str, *, name: str) -> str:
    up = graph.linear(x, layer.up, f"{name}.up")
    if layer.activation is ACTIVATIONS["relu"]:
        active = graph.add("Relu", [up], f"{name}.relu")
    elif layer.activation is ACTIVATIONS["gelu_new"]:
        active = graph.add("FastGelu", [up], f"{name}.gelu", domain=FUSED)
    else:
        active = graph.add("Gelu", [up], f"{name}.gelu", domain=FUSED)
    return graph.linear(active, layer.down, f"{name}.down")


def _finish(graph: _Graph, model: TaskModel, *, opset: int) -> ModelProto:
    free: list[str | int] = ["batch", "tokens"]
    kept = free if model.kind == "token_classification" else free[:1]
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert_ops",
            [helper.make_tensor_value_info(name, TensorProto.INT64, free) for name in INPUTS],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*kept, model.classifier.out_features])],
            initializer=list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(FUSED, 1)],
        producer_name="bert_ops",
    )
    # The oldest file format that the operators allow, so that older runtimes load it too.
    proto.ir_version = helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    checker.check_model(proto)
    return proto
