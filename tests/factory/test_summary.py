"""What a factory file describes, and where its sections disagree."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import dump_factory, load_factory, parse_factory
from gigafactory.factory.summary import check_factory, describe_factory, state_bytes, state_bytes_per_device

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
GROK = '[model]\nbase = "grok-1"\n[train]\nsequence = 8192\nbatch_rows = 256\n'


def test_the_examples_are_those_that_the_readme_names() -> None:
    names = {path.stem for path in EXAMPLES}
    assert names >= {"laptop", "shakespeare", "grok-1", "llama-8b", "smollm2", "colossus"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_sound_and_survives_a_dump(path: Path) -> None:
    factory = load_factory(path)
    check_factory(factory)
    assert parse_factory(dump_factory(factory), "dumped") == factory
    assert {subject for subject, _ in describe_factory(factory)} >= {"model", "compute", "layout", "memory", "cluster"}


def test_the_colossus_example_is_the_public_one() -> None:
    factory = load_factory(next(path for path in EXAMPLES if path.stem == "colossus"))
    assert [(group.name, group.count) for group in factory.cluster.chips] == [
        ("h100-sxm", 150_000),
        ("h200-sxm", 50_000),
    ]
    assert sum(order.count for order in factory.site.orders) == 200_000
    powered = [phase for phase in factory.site.power if phase.start.isoformat() <= "2024-07-22"]
    assert sum(phase.power_w for phase in powered) == 43e6, "8 MW of grid and 35 MW of generators on the first day"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ("layout.data=3", "layout.fsdp=true", "train.batch_rows=18"),
            "layout.data: with fsdp must divide model.width=128, got 3",
        ),
        (("model.vocab=100",), "model.vocab: must be at least 258 for data.tokenizer='bytes', got 100"),
        (("data.tokenizer=bpe:4096",), "model.vocab: must be at least 4096 for data.tokenizer='bpe:4096', got 264"),
        (("data.tokenizer=bpe:many",), 'data.tokenizer: must be "bpe:SIZE"'),
        (("train.sequence=256",), "train.sequence: must be at most model.context=128, got 256"),
        (
            ("cluster.chips[0].name=h100-sxm", "cluster.chips[0].count=8", "layout.data=16"),
            "layout: needs 16 devices",
        ),
        (
            (
                "cluster.chips[0].name=h100-sxm",
                "cluster.chips[0].count=16",
                "supervise.pool=slurm",
                "supervise.spares=2",
            ),
            "supervise.spares: 3 nodes are asked for, but the cluster has 2",
        ),
    ],
)
def test_sections_that_disagree_are_named(sets: tuple[str, ...], message: str) -> None:
    laptop = next(path for path in EXAMPLES if path.stem == "laptop")
    with pytest.raises(UserError) as caught:
        check_factory(load_factory(laptop, sets))
    assert str(caught.value).startswith(message)


def test_devices_at_hand_count_where_there_is_no_cluster() -> None:
    factory = parse_factory("[layout]\ndata = 2\n", "f")
    check_factory(factory, available_devices=2)
    with pytest.raises(UserError, match="needs 2 devices"):
        check_factory(factory, available_devices=1)


def test_a_state_larger_than_the_chip_is_refused() -> None:
    text = GROK + '[[cluster.chips]]\nname = "h100-sxm"\ncount = 128\n'
    with pytest.raises(UserError, match=r"layout: .* take 4\.59 TiB per device, more than the 74\.5 GiB of h100-sxm"):
        check_factory(parse_factory(text, "f"))
    check_factory(parse_factory(text + "[layout]\ndata = 16\nexpert = 8\n", "f"))


def test_state_is_counted_per_parameter() -> None:
    base = parse_factory(GROK, "f")
    numbers = base.model.parameters()
    assert state_bytes(base.model, base.train) == 16 * numbers
    averaged = parse_factory(GROK + "[train.optimizer]\nema_decay = 0.9\n", "f")
    assert state_bytes(averaged.model, averaged.train) == 20 * numbers
    frozen = parse_factory(GROK + "[train.lora]\nrank = 4\n", "f")
    assert state_bytes(frozen.model, frozen.train) == 4 * numbers
    muon = parse_factory(GROK + '[train.optimizer]\nname = "muon"\n', "f")
    experts = 64 * 8 * 3 * 6144 * 32768
    assert state_bytes(muon.model, muon.train, "experts") == 12 * experts
    assert 12 * numbers < state_bytes(muon.model, muon.train) < 12.1 * numbers


def test_each_axis_takes_its_share_of_the_state() -> None:
    def held(**layout: int | bool) -> float:
        factory = parse_factory(GROK, "f")
        return state_bytes_per_device(factory.model_copy(update={"layout": factory.layout.model_copy(update=layout)}))

    whole = held()
    assert held(data=4) == pytest.approx(whole / 4)
    assert held(data=4, fsdp=False) == whole
    assert held(model=8, stage=2) == pytest.approx(whole / 16)
    assert whole / 8 < held(expert=8) < whole / 6, "attention and embeddings are not spread over experts"


def test_untouched_sections_are_not_described() -> None:
    assert {"site", "feed", "chat", "supervise"}.isdisjoint({subject for subject, _ in describe_factory(Factory())})
    text = '[[feed.sources]]\nname = "sky"\nkind = "jetstream"\n[chat.answer]\nposts = 5\n'
    lines = dict(describe_factory(parse_factory(text, "f")))
    assert lines["feed"] == "sky (jetstream) into sqlite:posts.db"
    assert lines["chat"] == "answered by quotes on 127.0.0.1:8765"
