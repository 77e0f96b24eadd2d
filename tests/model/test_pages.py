"""Pages of the cache: nobody writes where another reads, nothing is lost, and a beginning is found again."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.model.pages import PAGE, Pages, page_keys

COUNT = 12
# few different texts, so that they share beginnings
TEXTS = st.lists(st.integers(0, 1), max_size=5).map(lambda bits: [bit for bit in bits for _ in range(PAGE)])


def test_keys_are_of_whole_pages_and_of_all_before_them() -> None:
    assert page_keys(range(PAGE - 1)) == []
    one, other = page_keys([0] * PAGE + [1] * PAGE), page_keys([2] * PAGE + [1] * PAGE)
    assert len(one) == 2
    assert one[1] != other[1]
    assert page_keys([0] * PAGE + [1] * (PAGE + 3)) == one


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(["take", "give"]), TEXTS, st.integers(0, 3), st.integers(0, 9)), max_size=30))
def test_a_cache_that_remembers_what_each_page_holds(calls: list[tuple[str, list[int], int, int]]) -> None:
    """The oracle writes into every page that is not shared what the text says, and looks at what it is promised."""
    pages = Pages(COUNT)
    content: dict[int, bytes] = {}
    held: list[list[int]] = []
    for call, text, more, which in calls:
        if call == "give" and held:
            pages.give(held.pop(which % len(held)))
        elif call == "take":
            keys, count = page_keys(text), len(text) // PAGE + more
            taken = pages.take(count, keys)
            used = {page for row in held for page in row}
            shared = [page for page in used if content.get(page) in keys]
            if taken is None:
                assert count > COUNT - 1 - len(used)
                continue
            row, known = taken
            assert len(row) == len(set(row)) == count
            assert 0 not in row
            assert [content[page] for page in row[:known]] == keys[:known]
            assert not used & set(row[known:]), "a page that another text holds was given away"
            assert known >= len(shared) or more == 0
            for page, key in zip(row[known:], [*keys[known:], *[b""] * more], strict=False):
                content[page] = key
            pages.name(row, keys)
            held.append(row)
        assert pages.available == COUNT - 1 - len({page for row in held for page in row})


def test_the_beginning_unused_for_longest_goes_first_and_its_end_before_its_start() -> None:
    pages = Pages(6)
    old, new = page_keys([1] * 2 * PAGE), page_keys([2] * 2 * PAGE)
    for keys in (old, new):
        row, known = pages.take(2, keys) or ([], -1)
        assert known == 0
        pages.name(row, keys)
        pages.give(row)
    taken = pages.take(2, [b"other"])
    assert taken is not None
    pages.give(taken[0])
    assert (pages.take(2, new) or ([], -1))[1] == 2
    assert (pages.take(2, old) or ([], -1))[1] == 1


def test_what_it_has_not_it_does_not_give() -> None:
    pages = Pages(4)
    keys = page_keys([1] * 2 * PAGE)
    first = pages.take(2, keys)
    assert first is not None
    pages.name(first[0], keys)
    assert pages.take(4, keys) is None
    assert pages.take(2, []) is None
    second = pages.take(3, keys)
    assert second == (second[0] if second else [], 2)
    pages.give(first[0])
    assert pages.take(1, []) is None, "the second text still holds the pages that it shares"
