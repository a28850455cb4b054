"""What the process that workers are forked from imports, before it forks any.

No garbage is collected meanwhile, which would go through all that is imported again and again; and
what is imported is frozen: no collection of a worker goes through it either, which would make a
copy of its memory in each of them.

    import mixctl.pipeline.preload    # only there: it sets the collector of the whole process

Price: none; a tenth of a second less of processor, and some megabytes a worker.
"""

from __future__ import annotations

import gc

gc.disable()
try:
    import numpy.ma  # noqa: F401  (when it first makes an array unique, 20 ms in each worker)

    import mixctl.pipeline.stages  # noqa: F401
finally:
    gc.freeze()
    gc.enable()
