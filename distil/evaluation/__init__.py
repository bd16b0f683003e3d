"""What a model keeps of its teacher, measured on folders and models, never through the trainer."""
