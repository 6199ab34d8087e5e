"""Symmetric int8 quantization of weights: one scale for each output channel or embedding row.

A weight w becomes q = round(w / s) with s = max|w| / q_max over its channel, so that zero stays exactly zero
(Jacob et al. 2018, arXiv:1712.05877, section 2.1, with zero point 0). Activations are quantized at run time by
ONNX Runtime (``DynamicQuantizeMatMul``), which needs no calibration data.

Matrix products use 7 of the 8 bits. On x86 without VNNI the product of an unsigned and a signed byte is summed in
16 bits and saturates with full-range weights, so the same file would answer differently on another machine; with
weights in [-64, 64] two such products always fit: 2 * 255 * 64 < 2**15.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

#: Largest magnitude of a quantized weight of a matrix product, and of an embedding (which is only looked up).
MATMUL_MAX, LOOKUP_MAX = 64, 127


def quantize_rows(table_RD: Float, *, largest: int = LOOKUP_MAX) -> tuple[NDArray[np.int8], Float]:
    """Quantize each row of a matrix by itself.

    Args:
        table_RD: float32, R rows of D values.
        largest: magnitude that the largest value of a row is mapped to, 1 to 127.

    Returns:
        int8 values (R, D) and float32 scales (R, 1), with ``values * scales`` within half a scale of the input.

    """
    assert 1 <= largest <= 127
    peak_R1 = np.abs(table_RD).max(axis=1, keepdims=True)
    # A row of zeros has no scale of its own; any positive one represents it exactly.
    scale_R1 = np.where(peak_R1 > 0, peak_R1 / np.float32(largest), np.float32(1)).astype(np.float32)
    return np.rint(table_RD / scale_R1).clip(-largest, largest).astype(np.int8), scale_R1


def quantize_columns(weight_IO: Float) -> tuple[NDArray[np.int8], Float]:
    """Quantize each output column of a weight of a matrix product.

    Returns:
        int8 values (I, O) in [-64, 64] and float32 scales (O,).

    """
    values_OI, scale_O1 = quantize_rows(np.ascontiguousarray(weight_IO.T), largest=MATMUL_MAX)
    return np.ascontiguousarray(values_OI.T), scale_O1[:, 0]
