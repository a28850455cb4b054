"""Settings of all tests: no compilation, no look at a package index, one thread a process.

Several torch processes that take all cores each spend their time waiting for one another.
"""

import os

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
