"""Distil large pre-trained language models into small ones, at scale, on DeepSpeed."""

__version__ = "0.1.0"
