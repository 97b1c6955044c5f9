"""Registry, errors, run folder, seeds, logging: nothing here knows a model."""
