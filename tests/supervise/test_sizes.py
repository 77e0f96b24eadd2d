"""With how many workers a layout can be cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.supervise.sizes import layout_for, legal_sizes


def factory(workers=4, **layout):
    return Factory.model_validate({"layout": layout, "supervise": {"workers": workers}, "train": {"batch_rows": 8}})


def test_a_layout_of_one_device_gets_a_replica_for_each_worker():
    plain = factory(4, fsdp=False)
    assert layout_for(plain, 4).data == 4
    assert legal_sizes(plain, 4) == (4, 3, 2, 1), "batches that do not divide are padded"


def test_with_fsdp_the_width_must_divide():
    assert legal_sizes(factory(4, data=4), 4) == (4, 2, 1), "the model is 128 wide"


def test_only_whole_replicas():
    cut = factory(8, data=4, model=2, fsdp=False)
    assert legal_sizes(cut, 8) == (8, 6, 4, 2)
    assert layout_for(cut, 6).data == 3
    packed = factory(2, data=4, model=2, fsdp=False)  # four devices for each worker: two replicas
    assert legal_sizes(packed, 2) == (2, 1)
    assert layout_for(packed, 1).data == 2


@pytest.mark.parametrize(
    ("workers", "layout", "message"),
    [
        (3, {"data": 4}, r"layout: needs 4 devices \(data 4\), which 3 workers cannot share evenly"),
        (3, {}, "layout.data: with fsdp must divide model.width=128, got 3"),
        (4, {"data": 2, "model": 3}, "6 devices"),
        (2, {"model": 8}, "layout.model: must divide model"),
    ],
)
def test_what_does_not_fit_is_said_at_once(workers, layout, message):
    with pytest.raises(UserError, match=message):
        legal_sizes(factory(workers, **layout), workers)


def test_the_command_line_may_ask_for_other_workers_than_the_file():
    assert legal_sizes(factory(4, fsdp=False), 3) == (3, 2, 1)


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_each_legal_size_holds_its_layout_exactly(per_worker, replicas, model, stage):
    devices = replicas * model * stage
    workers = max(1, devices // per_worker)
    try:
        sizes = legal_sizes(factory(workers, data=replicas, model=model, stage=stage, fsdp=False), workers)
    except UserError:
        return
    assert sizes[0] == workers
    for size in sizes:
        cut = layout_for(factory(workers, data=replicas, model=model, stage=stage, fsdp=False), size)
        assert cut.devices * workers == size * layout_for_full(workers, replicas, model, stage)


def layout_for_full(workers, replicas, model, stage):
    full = replicas * model * stage
    return workers if full == 1 else full
