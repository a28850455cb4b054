"""Mapped arrays read the same after their memory was given back."""

import re

import numpy as np

from mixctl.pipeline.mapped import map_array, new_array, release


def resident(name):
    """Returns the kilobytes of a file that this process holds."""
    text = open("/proc/self/smaps").read()
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text)
    return sum(int(re.search(r"Rss: +(\d+)", p)[1]) for p in parts if name in p)


def test_released_memory_is_gone_and_the_content_stays(tmp_path):
    made = new_array(tmp_path / "released.npy", 1_000_000)
    made[:] = np.arange(1_000_000)
    assert resident("released.npy") > 7000
    release([made])
    assert resident("released.npy") < 100
    found = map_array(tmp_path / "released.npy")[10:]
    assert int(found.sum()) == 999_999 * 500_000 - 45
    release([found, np.arange(3)])
    assert resident("released.npy") < 100
    assert np.array_equal(found[:3], [10, 11, 12])


def test_an_empty_array_can_be_mapped(tmp_path):
    new_array(tmp_path / "none.npy", 0)
    assert len(map_array(tmp_path / "none.npy")) == 0
