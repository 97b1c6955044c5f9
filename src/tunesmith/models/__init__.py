"""Load a pretrained model safely, open it at its seams, and run it over ragged batches."""
