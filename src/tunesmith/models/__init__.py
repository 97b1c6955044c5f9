"""Load a pretrained model safely, open it at its seams, and run it over ragged batches."""

import logging as _logging

from tunesmith.core.importing import uncollected as _uncollected

# transformers imports torchao where it is installed, and torchao reports kernels that were built for other machines.
_before = _logging.root.manager.disable
_logging.disable(_logging.WARNING)
try:
    with _uncollected():
        import transformers.modeling_utils  # noqa: F401
finally:
    _logging.disable(_before)
