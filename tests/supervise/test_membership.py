"""Ranks: kept by those who stay, whole in number, filled from other domains."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.decisions.layered import MOST_RECENT, Layered
from gigafactory.supervise.decisions.membership import natural, seat
from gigafactory.supervise.decisions.state import State

workers = st.integers(2, 12)


def state_of(members, spares, holes=(), going=(), sizes=None, replica=1):
    names = [f"w{n}" for n in range(members + spares)]
    sizes = sizes or tuple(range(members, 0, -replica))
    return State(
        SuperviseSection(workers=members),
        sizes,
        100,
        members=tuple(names[:members]),
        standby=dict.fromkeys(names[members:], 0.0),
        holes=tuple(names[n] for n in holes),
        going=tuple((names[n], "slow", must) for n, must in going),
        domains=Layered({name: f"d{n // 2}" for n, name in enumerate(names)}),
        ranks=Layered({name: rank for rank, name in enumerate(names[:members])}),
    )


@given(
    members=workers,
    spares=st.integers(0, 4),
    replica=st.sampled_from([1, 2, 3]),
    out=st.sets(st.integers(0, 11), max_size=6),
    musts=st.sets(st.integers(0, 11), max_size=2),
    may_shrink=st.booleans(),
    may_swap=st.booleans(),
)
def test_seats_are_whole_and_those_who_stay_keep_theirs(members, spares, replica, out, musts, may_shrink, may_swap):
    members *= replica
    holes = sorted(n for n in out if n < members)
    going = [(n, n % 2 == 0) for n in sorted(musts) if n < members and n not in holes]
    state = state_of(members, spares, holes, going, replica=replica)
    seating = seat(state, may_shrink=may_shrink, may_swap=may_swap, may_grow=may_shrink)
    if seating is None:
        return
    chosen = set(seating.members)
    assert len(chosen) == len(seating.members)
    assert len(chosen) in state.sizes
    assert not chosen & set(state.holes)
    assert not chosen & {worker for worker, _, must in state.going if must}
    assert all(seating.ranks[worker] == rank for rank, worker in enumerate(seating.members))
    assert chosen - set(state.members) == set(seating.joined) <= set(state.standby)
    healthy = set(state.members) - set(state.holes)
    assert {worker for worker, _ in seating.leaving} == healthy - chosen
    stay = [n for n, worker in enumerate(state.members[: len(chosen)]) if worker in chosen]
    assert all(seating.members[n] == state.members[n] for n in stay), "only the last ranks move"
    available = len(healthy) - sum(must for _, must in going) + (spares if may_swap or may_shrink else 0)
    if may_shrink:
        assert len(chosen) == max(size for size in state.sizes if size <= available)


def test_a_spare_from_another_domain_first():
    state = state_of(4, 3, holes=(3,))  # w4 and w5 share d2, w6 has d3, w2 and w3 share d1
    state = replace(state, domains=state.domains.extended({"w4": "d1"}))
    seating = seat(state, may_shrink=True, may_swap=True, may_grow=True)
    assert seating.members == ("w0", "w1", "w2", "w5")


def test_who_came_back_takes_its_own_rank():
    state = state_of(4, 1, holes=(2,))
    state = replace(state, standby={"w4": 0.0, "w2": 0.0})
    assert seat(state, may_shrink=True, may_swap=True, may_grow=True).members == ("w0", "w1", "w2", "w3")
    suspected = replace(state, notes=replace(state.notes, suspects=((0.0, "w2"),)))
    assert seat(suspected, may_shrink=True, may_swap=True, may_grow=True).members == ("w0", "w1", "w4", "w3")


def test_natural_order():
    assert sorted(["n10", "n9", "a2b10", "a2b9", "n", "7"], key=natural) == ["7", "a2b9", "a2b10", "n", "n9", "n10"]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers()), max_size=700))
def test_a_layered_mapping_is_a_mapping(pairs):
    layered, plain = Layered({}), {}
    for number, value in pairs:
        before, copy = layered, dict(layered) if number % 50 == 0 else None
        layered, plain = layered.extended({f"k{number}": value}), {**plain, f"k{number}": value}
        assert copy is None or dict(before) == copy, "the old one stays as it was"
    assert layered == plain
    assert len(layered) == len(plain)
    assert all(layered[key] == value == layered.get(key) for key, value in plain.items())
    assert "nobody" not in layered
    assert len(layered._recent) <= MOST_RECENT
