"""The one entry to the triple loss: checks, then the path that the device and the user choose."""

from __future__ import annotations

import math

from torch import Tensor

from distil.kernels import fused, paths, reference
from distil.kernels.contract import Head, LossOutput, Weights, check


def triple_loss(
    student_hidden_NH: Tensor,
    student_head: Head,
    teacher_hidden_NG: Tensor | None,
    teacher_head: Head | None,
    labels_N: Tensor,
    next_labels_N: Tensor | None = None,
    masked_rows_M: Tensor | None = None,
    *,
    attended_count: int,
    masked_count: int,
    next_count: int = 0,
    temperature: float,
    alpha_ce: float = 0.0,
    alpha_mlm: float = 0.0,
    alpha_clm: float = 0.0,
    alpha_cos: float = 0.0,
    alpha_mse: float = 0.0,
    restrict_ce_to_mask: bool = False,
    projected_hidden_NG: Tensor | None = None,
) -> LossOutput:
    """The weighted loss of one packed micro-batch as its share of a global batch; ``reference`` has its formulas.

    ``labels_N`` holds the original id at masked rows and -100 elsewhere, ``next_labels_N`` the id that follows a row
    and -100 where none does. ``masked_rows_M`` are the indices of the labelled rows, in order: to look for them, as is
    done where they are not given, makes the host wait for the device. The counts are rows of the whole global batch;
    0 stands for "no such row anywhere" and gives a term of 0. Without a teacher only the cross-entropies are possible.
    ``projected_hidden_NG`` are the student's hidden states taken to the teacher's width; where given, the cosine
    compares these, and its gradient goes to them alone.

    Which code computes it: ``paths``. Gradients are formed in the forward pass and cannot be differentiated again.
    Raises ValueError when shapes, devices, types or terms do not go together, and on a CPU for a label that is no id
    of the vocabulary and for ``masked_rows_M`` that are not the labelled rows. On a GPU, where a look would make the
    host wait, the loss of such a label is NaN (the definition's own code stops there), and the rows are believed.
    """
    weights = Weights(alpha_ce, alpha_mlm, alpha_clm, alpha_cos, alpha_mse)
    if not (0 < temperature < math.inf and all(0 <= alpha < math.inf for alpha in weights)):
        raise ValueError(f"triple_loss: temperature {temperature} must be above 0 and weights 0 or more: {weights}")
    check(
        student_hidden_NH, student_head, teacher_hidden_NG, teacher_head, labels_N, next_labels_N, masked_rows_M,
        weights, projected_hidden_NG,
    )  # fmt: skip
    path = paths.path_for(student_hidden_NH.device)
    code = reference.triple_loss if path.kernels is None else path.bound(fused.triple_loss)
    return code(
        student_hidden_NH, student_head, teacher_hidden_NG, teacher_head, labels_N, next_labels_N, masked_rows_M,
        attended_count=attended_count, masked_count=masked_count, next_count=next_count, temperature=temperature,
        weights=weights, restrict_ce_to_mask=restrict_ce_to_mask, projected_hidden_NG=projected_hidden_NG,
    )  # fmt: skip
