"""Fine-tuning: a model for a task, from its labels, from a fitted teacher, or from both."""
