"""The only room that knows DeepSpeed: ranks, devices, the wrapped student and its state."""
