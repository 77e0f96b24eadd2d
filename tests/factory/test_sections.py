"""Rules inside the sections of the factory file."""

from __future__ import annotations

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import parse_factory

ORDER = '[[site.orders]]\nchip = "h100-sxm"\ncount = 8\nplaced = 2024-01-01\nlead_weeks = 8\n'
X = '[[feed.sources]]\nname = "x"\nkind = "x"\ntoken_env = "X_TOKEN"\nrules = ["lang:en"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ORDER * 2 + "allocation_share = 0.6\n" + ORDER + "allocation_share = 0.6\n",
            "site.orders: the allocation shares of h100-sxm",
        ),
        (
            '[[site.power]]\nstart = 2024-01-01\nend = 2023-01-01\nkind = "grid"\npower_w = 1.0\n',
            "site.power[0]: end=2023-01-01 must be after start=2024-01-01",
        ),
        (
            '[[site.power]]\nstart = 2024-01-01\nkind = "grid"\npower_w = 1.0\nenergy_j = 1.0\n',
            "site.power[0]: energy_j is for kind='battery', got kind='grid'",
        ),
        ('[[site.activities]]\nname = "roof"\ndays = 3\n' * 2, "site.activities: each name once, got twice: roof"),
        ("[site]\nracks_per_day = { p10 = 3, p50 = 2, p90 = 4 }", "site.racks_per_day: needs p10 <= p50 <= p90"),
        ("[site]\nburn_in_days = -1", "site.burn_in_days: must not be negative, got p10=-1.0"),
        ("[site.money]\nchip_usd = { h100 = 3 }", "site.money.chip_usd: no entry 'h100' among the chips"),
        ("[supervise]\nworkers = 2\nleast_workers = 3", "supervise.least_workers: must be at most workers=2, got 3"),
        ('[supervise]\ntiers = ["spare", "spare"]', "supervise.tiers: each at most once"),
        (
            '[supervise.simulate]\nfailures = "llama"',
            "supervise.simulate.failures: no entry 'llama' among the failures",
        ),
        ('[cluster.fabric]\nname = "token-ring"', "cluster.fabric.name: no entry 'token-ring' among the fabrics"),
        (
            "[cluster.fabric]\nfacts = { link_bits_per_s = -1 }",
            "cluster.fabric.facts.link_bits_per_s: must not be negative",
        ),
        (X + "train_ok = true\n", "feed.sources[0].train_ok: X's terms forbid training on its posts"),
        (X.replace('rules = ["lang:en"]', ""), "feed.sources[0].rules: needed for kind='x'"),
        (X * 2, "feed.sources: each name once, got twice: x"),
        ('[feed.store]\nurl = "mysql://x"', "feed.store.url: must match"),
        ('[chat.server]\nhost = "0.0.0.0"', "chat.server.keys_file: needed where others can reach host='0.0.0.0'"),
    ],
)
def test_a_rule_that_is_broken_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_factory(text, "f")
    assert str(caught.value).startswith(f"f: {message}")


def test_own_facts_stand_in_for_those_of_the_catalogue() -> None:
    text = '[[cluster.chips]]\nname = "h100-sxm"\ncount = 8\nfacts = { price_usd = 20000 }\n'
    (group,) = parse_factory(text + "[cluster.fabric]\nfacts = { throughput_share = 0.9 }\n", "f").cluster.chips
    assert group.chip.price_usd is not None
    assert (group.chip.price_usd.value, group.chip.price_usd.source) == (20000, "the factory file")
    assert group.chip.hbm_bytes.value == 80e9


def test_sections_do_not_change_once_read() -> None:
    factory = Factory()
    with pytest.raises(ValueError, match="frozen"):
        factory.train.steps = 3  # type: ignore[misc]
