"""Data: tokenizers, the binarizer and the memory-mapped token store."""
