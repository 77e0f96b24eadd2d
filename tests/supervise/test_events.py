"""The vocabulary: what is encoded comes back as it was, through JSON."""

import json
from dataclasses import fields
from typing import get_args

import pytest

from gigafactory.supervise import events
from gigafactory.supervise.events import Decided, Offer, Prepared, Publish, decode, encode


def through_json(item):
    return decode(json.loads(json.dumps(encode(item), allow_nan=False)))


@pytest.mark.parametrize("kind", [*get_args(events.Event), *get_args(events.Action)], ids=lambda kind: kind.__name__)
def test_every_kind_survives_json(kind):
    made_of = {
        "tuple[str, ...]": ("a", "b"),
        "tuple[Offer, ...]": (Offer("memory", 3), Offer("start", 0)),
        "Offer": Offer("disk", 7),
        "tuple[tuple[str, float | int | str], ...]": (("step_s", 0.5), ("worker", "w1")),
        "tuple[tuple[str, float], ...]": (("restore", 1.5),),
        "bool": True,
        "int": 4,
        "float": 2.5,
    }
    item = kind(**{field.name: made_of.get(field.type, "memory") for field in fields(kind)})
    assert through_json(item) == item


def test_tuples_and_offers_keep_their_types():
    assert through_json(Prepared(1.0, 2, ("w1",), (Offer("memory", 5),))).offers[0] == Offer("memory", 5)
    assert through_json(Publish(2, ("w0", "w1"), Offer("start", 0), 0)).members == ("w0", "w1")
    assert through_json(Decided("GF1", "crash", "spare", "text", ("w1",), (("n", 1),))).inputs == (("n", 1),)


def test_a_kind_that_is_not_known_is_an_error():
    with pytest.raises(KeyError):
        decode({"is": "Nonsense"})
