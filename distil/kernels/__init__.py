"""The triple loss of distillation: one entry; ``reference`` defines it, ``paths`` says who computes it.

``host`` has what else a CPU computes by kernels of ours.
"""

from distil.kernels.contract import IGNORED, TERMS, WEIGHTED_TERMS, Head, LossOutput
from distil.kernels.triple import triple_loss

__all__ = ["IGNORED", "TERMS", "WEIGHTED_TERMS", "Head", "LossOutput", "triple_loss"]
