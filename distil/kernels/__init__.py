"""The triple loss of distillation: one entry, ``triple_loss``, whose definition is ``reference``."""

from distil.kernels.reference import IGNORED, TERMS, WEIGHTED_TERMS, Head, LossOutput, triple_loss

__all__ = ["IGNORED", "TERMS", "WEIGHTED_TERMS", "Head", "LossOutput", "triple_loss"]
