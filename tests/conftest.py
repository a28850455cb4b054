"""Settings of all tests: no compilation, no look at a package index, one thread a process.

Several torch processes that take all cores each spend their time waiting for one another. No
example of a property has a time limit: what else a machine does is no defect.
"""

import os

from hypothesis import settings

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
