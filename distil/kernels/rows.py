"""What a set of kernels offers, and the same in plain torch operations: for any device, with no compiler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from distil.kernels.contract import IGNORED, statistics_dtype

ROWS_SCALED_AT_ONCE = 8192
VALUES = ("ce", "mlm", "clm", "teacher_mlm", "mse")  # the numbers of a row, in this order; of csrc/loss.h too


class Slopes(NamedTuple):
    """What the gradient of the logits is made of: a factor for each term's sum over rows. ``temperature`` is KL's."""

    temperature: float
    ce: float
    mlm: float
    clm: float
    mse: float


class Kernels(ABC):
    """The passes over logits and hidden states that no library fuses."""

    @abstractmethod
    def bytes_per_logit(self, dtype: torch.dtype) -> int:
        """Memory that a logit needs, of student or teacher, temporaries included."""

    def empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory for logits, of the type and on the device of ``like``."""
        return like.new_empty(shape)

    @abstractmethod
    def loss_rows_(
        self, student_RV: Tensor, teacher_RV: Tensor | None, labels_R: Tensor, next_labels_R: Tensor | None,
        slopes: Slopes, bias_gradient_V: Tensor | None, with_gradient: bool,
    ) -> Tensor:  # fmt: skip
        """Unweighted VALUES of each row, shape (R, 5), in fp32 (fp64 of fp64).

        With a gradient, ``student_RV`` is overwritten with it and its column sums are added to ``bias_gradient_V``.
        Without a teacher there is no KL and no MSE; without a slope MSE may be told as 0. Both logits are contiguous
        and of one type.
        """

    @abstractmethod
    def cosines(self, student_NH: Tensor, teacher_NH: Tensor) -> tuple[Tensor, Tensor]:
        """1 - cos of each pair of rows, shape (N,), and what the gradient needs, shape (N, 2)."""

    @abstractmethod
    def cosine_gradients(self, student_NH: Tensor, teacher_NH: Tensor, factors_N2: Tensor, scale: Tensor) -> Tensor:
        """``scale`` times the gradient of the sum of ``cosines`` by the student's rows, in their type."""

    def add_(self, sum_fp32: Tensor, part: Tensor) -> None:
        """Add a tensor of 16 bits to a sum in fp32."""
        sum_fp32 += part

    def scaled(self, tensor: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
        """``tensor`` times a scalar tensor, rounded once: some rows at a time, lest the factor be cast to 16 bits."""
        result = torch.empty_like(tensor, dtype=dtype)
        for first in range(0, len(tensor), ROWS_SCALED_AT_ONCE):
            rows = slice(first, first + ROWS_SCALED_AT_ONCE)
            torch.mul(tensor[rows].to(statistics_dtype(tensor.dtype)), factor, out=result[rows])
        return result


class TorchKernels(Kernels):
    """Several passes and temporaries of a chunk's size where the compiled kernels have one pass and none."""

    def bytes_per_logit(self, dtype: torch.dtype) -> int:
        return dtype.itemsize + 3 * statistics_dtype(dtype).itemsize

    def loss_rows_(
        self, student_RV: Tensor, teacher_RV: Tensor | None, labels_R: Tensor, next_labels_R: Tensor | None,
        slopes: Slopes, bias_gradient_V: Tensor | None, with_gradient: bool,
    ) -> Tensor:  # fmt: skip
        dtype = statistics_dtype(student_RV.dtype)
        s_RV, t = student_RV.to(dtype), slopes.temperature
        values_R5 = s_RV.new_zeros(len(s_RV), len(VALUES))
        gradient_RV = torch.zeros_like(s_RV)
        if teacher_RV is not None:
            t_RV = teacher_RV.to(dtype)
            log_sum_R, teacher_log_sum_R = (s_RV / t).logsumexp(-1), (t_RV / t).logsumexp(-1)
            p_RV = (t_RV / t).softmax(-1)
            apart_RV = t_RV - s_RV  # of equal logits exactly 0, and so is their divergence
            values_R5[:, 0] = t * t * ((p_RV * apart_RV).sum(-1) / t + (log_sum_R - teacher_log_sum_R))
            values_R5[:, 4] = apart_RV.square().sum(-1)
            if with_gradient:
                gradient_RV += ((s_RV / t).softmax(-1) - p_RV) * (slopes.ce * t)
                gradient_RV -= apart_RV * (2 * slopes.mse)
        hard_R = torch.zeros_like(s_RV[:, 0])
        log_sum_R = s_RV.logsumexp(-1)
        for column, labels, slope in ((1, labels_R, slopes.mlm), (2, next_labels_R, slopes.clm)):
            if labels is None:
                continue
            is_R, at_R1 = labels != IGNORED, labels.clamp(0, s_RV.shape[1] - 1)[:, None]
            valid_R = is_R & (labels == at_R1[:, 0])
            nan_R = torch.where(valid_R, 0.0, torch.nan).to(dtype)  # a label beyond the vocabulary
            values_R5[:, column] = torch.where(is_R, log_sum_R - s_RV.gather(1, at_R1)[:, 0] + nan_R, 0.0)
            if column == 1 and teacher_RV is not None:
                own_R = t_RV.logsumexp(-1) - t_RV.gather(1, at_R1)[:, 0]
                values_R5[:, 3] = torch.where(is_R, own_R + nan_R, 0.0)
            hard_R += is_R * slope
            gradient_RV.scatter_add_(1, at_R1, (valid_R * -slope).to(dtype)[:, None])
        if with_gradient:
            gradient_RV += s_RV.softmax(-1) * hard_R[:, None]
            student_RV.copy_(gradient_RV)
            if bias_gradient_V is not None:
                bias_gradient_V += gradient_RV.sum(0)
        return values_R5

    def cosines(self, student_NH: Tensor, teacher_NH: Tensor) -> tuple[Tensor, Tensor]:
        dtype = statistics_dtype(student_NH.dtype)
        s_NH, t_NH = student_NH.to(dtype), teacher_NH.to(dtype)
        student_N, teacher_N = s_NH.square().sum(-1).clamp(min=1e-16), t_NH.square().sum(-1).clamp(min=1e-16)
        per_norms_N = 1 / (student_N.sqrt() * teacher_N.sqrt())
        cosine_N = (s_NH * t_NH).sum(-1) * per_norms_N
        return 1 - cosine_N, torch.stack((per_norms_N, cosine_N / student_N), dim=1)

    def cosine_gradients(self, student_NH: Tensor, teacher_NH: Tensor, factors_N2: Tensor, scale: Tensor) -> Tensor:
        of_teacher_N1, of_student_N1 = (factors_N2 * scale).split(1, dim=1)
        return (student_NH * of_student_N1 - teacher_NH * of_teacher_N1).to(student_NH.dtype)
