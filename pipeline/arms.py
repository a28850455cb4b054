"""Items to arms, at random, exactly as many as asked.

Items are randomised within strata, and items of one cluster go to the same arm. Clusters of several
items go first, the largest before the smaller ones and in random order among equals, each to an arm
drawn in proportion to the room left there. Single
items
follow: sorted by stratum and by a random number within it, they meet a list of arm labels in which
every arm is spread evenly, so each stratum gets its share of every arm to within about one item,
and the totals are exact.

    strata a a a a b b, arms x: 3, y: 3  ->  two x and two y among the a's, one each among the b's

Given the counts, every assignment within a stratum is equally likely, which is what the permutation
tests of `evals` rely on. Price: a few microseconds an item.
"""

from __future__ import annotations

import numpy as np

from mixctl.shards.draws import I64, below, bits, stream

UNUSED = -1


class ClusterTooLargeError(Exception):
    """A cluster that fits into no arm whole."""

    def __init__(self, cluster: int, n_items: int) -> None:
        """Keeps the label of the cluster and its number of items."""
        self.cluster, self.n_items = cluster, n_items
        super().__init__(f"cluster {cluster} of {n_items} items fits into no arm")


def assign_arms(stratum: I64, cluster: I64, quotas: list[int], key: int) -> I64:
    """Returns the arm of each item, int64 of shape (n,); UNUSED for items in no arm.

    Args:
        stratum: int64 labels, shape (n,).
        cluster: int64 labels, shape (n,); a label that occurs once is no cluster.
        quotas: items of each arm; their sum is at most n.
        key: the stream of the randomisation.

    Raises:
        ClusterTooLargeError: when a cluster fits into no arm whole.
        ValueError: when the quotas ask for more items than there are.
    """
    n = len(stratum)
    if sum(quotas) > n:
        raise ValueError(f"the arms ask for {sum(quotas)} items, there are {n}")
    arm = np.full(n, UNUSED, dtype=np.int64)
    room = np.array([*quotas, n - sum(quotas)], dtype=np.int64)
    labels, group, counts = np.unique(cluster, return_inverse=True, return_counts=True)
    single = counts[group] == 1
    _place_clusters(arm, room, labels, group, counts, key)
    order = _stratified_order(stratum, np.flatnonzero(single), key)
    arm[order] = _spread_labels(room, key)
    return np.where(arm == len(quotas), UNUSED, arm)


def _place_clusters(arm: I64, room: I64, labels: I64, group: I64, counts: I64, key: int) -> None:
    """Gives each cluster of several items an arm, largest first; writes into `arm` and `room`."""
    several = np.flatnonzero(counts > 1)
    draws = bits(stream(key, "clusters"), several)
    for place in np.lexsort([draws, -counts[several]]):
        chosen, size = several[place], counts[several[place]]
        open_room = np.where(room >= size, room, 0)
        if not open_room.any():
            raise ClusterTooLargeError(int(labels[chosen]), int(size))
        ticket = below(bits(stream(key, "cluster arm"), chosen), int(open_room.sum()))
        target = int(np.searchsorted(np.cumsum(open_room), ticket, side="right"))
        arm[group == chosen] = target
        room[target] -= size


def _stratified_order(stratum: I64, items: I64, key: int) -> I64:
    """Returns the items sorted by stratum, in random order within each."""
    draws = bits(stream(key, "items"), items)
    return items[np.lexsort([draws, stratum[items]])]


def _spread_labels(room: I64, key: int) -> I64:
    """Returns every arm's label as often as it has room, each spread evenly over the list."""
    start = bits(stream(key, "labels"), np.arange(len(room))).astype(np.float64) / 2.0**64
    labels = np.repeat(np.arange(len(room)), room)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(room) - room, room)
    place = (turn + np.repeat(start, room)) / np.repeat(np.maximum(room, 1), room)
    return labels[np.lexsort([labels, place])]
