"""The compiled kernels seen from Python: their arguments, the same for the CPU's library and the GPU's module."""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from ctypes import c_double, c_float, c_int, c_longlong, c_uint, c_void_p

import torch
from torch import Tensor

from distil.kernels.contract import statistics_dtype
from distil.kernels.rows import VALUES, Kernels, Slopes

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}  # with_type in csrc/cpu.h


class Rows(ctypes.Structure):
    """``struct Rows`` of csrc/loss.h."""

    _fields_ = [
        ("student", c_void_p), ("teacher", c_void_p), ("labels", c_void_p), ("next_labels", c_void_p),
        ("values", c_void_p), ("columns", c_void_p), ("bias_gradient", c_void_p), ("rows", c_longlong),
        ("vocabulary", c_longlong), ("temperature", c_double), ("kl_weight", c_double), ("label_weight", c_double),
        ("next_weight", c_double), ("square_weight", c_double), ("with_gradient", c_int), ("threads", c_int),
    ]  # fmt: skip


class Cosines(ctypes.Structure):
    """``struct Cosines`` of csrc/loss.h."""

    _fields_ = [
        ("student", c_void_p), ("teacher", c_void_p), ("values", c_void_p), ("factors", c_void_p),
        ("gradient", c_void_p), ("scale", c_void_p), ("rows", c_longlong), ("width", c_longlong), ("threads", c_int),
    ]  # fmt: skip


class Dropout(ctypes.Structure):
    """``struct Dropout`` of csrc/dropout.cpp."""

    _fields_ = [
        ("out", c_void_p), ("in", c_void_p), ("count", c_longlong), ("keys", c_uint * 2), ("least", c_uint),
        ("scale", c_float), ("threads", c_int),
    ]  # fmt: skip


class Attention(ctypes.Structure):
    """``struct Attention`` of csrc/attention.h."""

    _fields_ = [
        ("in", c_void_p * 4), ("out", c_void_p * 3), ("logs", c_void_p), ("ends", c_void_p),
        ("strides", c_longlong * 2 * 4), ("sequences", c_longlong), ("heads", c_longlong), ("tokens", c_longlong),
        ("width", c_longlong), ("window", c_longlong), ("scale", c_double), ("kept_scale", c_float),
        ("keys", c_uint * 2), ("least", c_uint), ("causal", c_int), ("threads", c_int),
    ]  # fmt: skip


class NativeKernels(Kernels):
    """``rows.Kernels`` by compiled code; a subclass says how a kernel is called."""

    def bytes_per_logit(self, dtype: torch.dtype) -> int:
        return dtype.itemsize

    @abstractmethod
    def _run(self, kernel: str, arguments: Rows | Cosines, of: Tensor) -> None:
        """Run a kernel for tensors of the type and on the device of ``of``."""

    @abstractmethod
    def _columns(self, vocabulary: int, like: Tensor) -> Tensor | None:
        """Scratch for sums over rows, where the kernel makes them."""

    def loss_rows_(
        self, student_RV: Tensor, teacher_RV: Tensor | None, labels_R: Tensor, next_labels_R: Tensor | None,
        slopes: Slopes, bias_gradient_V: Tensor | None, with_gradient: bool,
    ) -> Tensor:  # fmt: skip
        rows, vocabulary = student_RV.shape
        assert labels_R.shape == (rows,) and (teacher_RV is None or teacher_RV.shape == student_RV.shape)
        values_R5 = student_RV.new_empty(rows, len(VALUES), dtype=statistics_dtype(student_RV.dtype))
        labels_R = labels_R.contiguous()
        next_labels_R = None if next_labels_R is None else next_labels_R.contiguous()
        with_bias = with_gradient and bias_gradient_V is not None
        columns = self._columns(vocabulary, bias_gradient_V) if with_bias else None
        bias = None if columns is None else bias_gradient_V
        arguments = Rows(
            *(_address(t) for t in (student_RV, teacher_RV, labels_R, next_labels_R, values_R5, columns, bias)),
            rows, vocabulary, *slopes, with_gradient, torch.get_num_threads(),
        )  # fmt: skip
        self._run("loss_rows", arguments, student_RV)
        if with_bias and columns is None:
            bias_gradient_V += student_RV.sum(0, dtype=bias_gradient_V.dtype)
        return values_R5

    def cosines(self, student_NH: Tensor, teacher_NH: Tensor) -> tuple[Tensor, Tensor]:
        values_N = student_NH.new_empty(len(student_NH), dtype=statistics_dtype(student_NH.dtype))
        factors_N2 = values_N.new_empty(len(student_NH), 2)
        arguments = _cosines(student_NH, teacher_NH, values_N, factors_N2, None, None)
        self._run("cosines", arguments, student_NH)
        return values_N, factors_N2

    def cosine_gradients(self, student_NH: Tensor, teacher_NH: Tensor, factors_N2: Tensor, scale: Tensor) -> Tensor:
        gradient_NH, scale = torch.empty_like(student_NH), scale.to(factors_N2.dtype)
        arguments = _cosines(student_NH, teacher_NH, None, factors_N2, gradient_NH, scale)
        self._run("cosine_gradients", arguments, student_NH)
        return gradient_NH


def _cosines(student_NH: Tensor, teacher_NH: Tensor, *others: Tensor | None) -> Cosines:
    addresses = (_address(tensor) for tensor in (student_NH, teacher_NH, *others))
    return Cosines(*addresses, *student_NH.shape, torch.get_num_threads())


def _address(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return tensor.data_ptr()
