"""Sets by their edges, against sets by their members."""

from hypothesis import given
from hypothesis import strategies as st

from fastpath.policy.edges import Blocks, Edges, common, first, last, size, union, without

TOP = 20
members = st.sets(st.integers(0, TOP - 1))


def edges(numbers: set[int]) -> Edges:
    return union((n, n + 1) for n in numbers)


def spelt(some: Edges) -> set[int]:
    assert list(some) == sorted(set(some))
    return {n for low, high in zip(some[::2], some[1::2], strict=True) for n in range(low, high)}


@given(members, members)
def test_as_sets_of_numbers(some: set[int], others: set[int]) -> None:
    one, other = edges(some), edges(others)
    assert spelt(union((one, other))) == some | others
    assert spelt(common(one, other)) == some & others
    assert spelt(without(one, other)) == some - others
    assert size(one) == len(some)


@given(members.filter(bool), st.integers(0, TOP))
def test_ends(some: set[int], at: int) -> None:
    if at <= max(some):
        assert first(edges(some), at) == min(n for n in some if n >= at)
    if at > min(some):
        assert last(edges(some), at) == max(n for n in some if n < at)


@given(st.lists(members, min_size=1), st.integers(0, TOP))
def test_which_hold_a_number_and_which_meet(sets: list[set[int]], at: int) -> None:
    blocks = Blocks([edges(each) for each in sets], lambda _: None)
    assert sorted(blocks.at(at)) == [n for n, each in enumerate(sets) if at in each]
    for own, numbers in enumerate(sets):
        for _ in range(2):  # the second time as it was kept
            assert blocks.near(own) == {n for n, each in enumerate(sets) if each & numbers}
