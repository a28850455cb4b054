"""`make fuzz`: 10,000 broken inputs a parser; prints its counts, ends with 1 when one is a finding.

python -m tests.fuzz                               all parsers
python -m tests.fuzz corpora --count 500           one of them
python -m tests.fuzz corpora --first 77 --count 1  a finding met again
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz import PARSERS
from tests.fuzz.process import fuzz_apart


def main() -> int:
    """Returns 1 when there are findings."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz")
    options.add_argument("parsers", nargs="*", choices=[[], *PARSERS], help=", ".join(PARSERS))
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0)
    asked = options.parse_args()
    n_findings = 0
    for name in asked.parsers or PARSERS:
        begin = time.monotonic()
        counts = fuzz_apart(name, asked.seed, range(asked.first, asked.first + asked.count))
        print(f"{name:12} {counts}; {time.monotonic() - begin:.0f} s in all", flush=True)
        for finding in counts.findings:
            print(f"{finding}\n", flush=True)
        n_findings += len(counts.findings)
    return int(n_findings > 0)


if __name__ == "__main__":
    sys.exit(main())
