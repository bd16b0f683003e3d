"""Families of models as data, how a student is made from its teacher, and how both run on packed batches."""
