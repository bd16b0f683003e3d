"""What a model is fine-tuned for and measured on: tasks, their text, their metrics."""
