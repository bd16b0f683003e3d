"""What a job will take on a machine, computed before it runs: products, memory, seconds, and what they cost."""
