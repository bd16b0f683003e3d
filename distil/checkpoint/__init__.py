"""Checkpoints: written aside, hashed, renamed when whole; read by any number of ranks; nothing but tensors and JSON."""
