"""The ``compress`` section of ``params.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bert_ops.schema import Section, Threads


class LatencyParams(Section):
    """How latency is measured: one text at a time, all runtimes in turn in one process."""

    runs: Annotated[int, Field(ge=10, le=100_000, description="timed calls of each runtime")]
    warmup: Annotated[int, Field(ge=0, le=10_000, description="calls of each runtime before the timed ones")]
    tokens: Annotated[
        int,
        Field(
            ge=3,
            le=8192,
            description="tokens of the text, [CLS] and [SEP] included; fewer where the task's max_tokens is lower",
        ),
    ]


class CompressParams(Section):
    """Export to ONNX, quantization and the checks of both."""

    threads: Threads
    quantization: Annotated[
        Literal["dynamic_int8", "none"],
        Field(
            description="dynamic_int8: int8 weights, activations quantized at run time, no calibration data; "
            "none: ship the float32 graph"
        ),
    ]
    onnx_opset: Annotated[
        int, Field(ge=17, le=23, description="version of ONNX's standard operators; 17 brought LayerNormalization")
    ]
    parity_tolerance: Annotated[
        float,
        Field(
            gt=0.0,
            le=1.0,
            description="largest difference of logits between PyTorch and ONNX in float32, to the largest logit or 1",
        ),
    ]
    latency: LatencyParams
