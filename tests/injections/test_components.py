"""Components against scipy, which finds them by walking a graph."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixctl.injections.components import components


def by_scipy(n, one, other):
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    return np.unique(label, return_index=True)[1][label]


def test_the_label_is_the_lowest_node_that_a_chain_of_links_leads_to():
    labels = components(6, np.array([4, 1, 5]), np.array([3, 4, 5]))
    assert labels.tolist() == [0, 1, 2, 1, 1, 5]


def test_no_link_leaves_every_node_alone():
    none = np.empty(0, dtype=np.int64)
    assert components(3, none, none).tolist() == [0, 1, 2]
    assert components(0, none, none).tolist() == []


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40),
        )
    )
)
def test_components_are_those_of_scipy(drawn):
    n, pairs = drawn
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    assert components(n, one, other).tolist() == by_scipy(n, one, other).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_long_chains_in_any_order_are_one_component(seed):
    nodes = np.random.default_rng(seed).permutation(50_000)
    assert not components(50_000, nodes[:-1], nodes[1:]).any()
    apart = components(50_000, nodes[1:25_000], nodes[: 25_000 - 1])
    assert apart.tolist() == by_scipy(50_000, nodes[1:25_000], nodes[: 25_000 - 1]).tolist()
