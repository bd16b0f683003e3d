"""Programs that are several: each command has its options, light to import, and what it does, imported late."""
