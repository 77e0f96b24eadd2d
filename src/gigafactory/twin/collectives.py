"""Seconds of collectives on scale-up and scale-out links."""

from __future__ import annotations


from gigafactory.twin.case import Array, Machine
from gigafactory.twin.constants import Constants
from gigafactory.twin.operator import Message


def message_seconds(message: Message, machine: Machine, c: Constants) -> Array:
    """Seconds of one execution of a collective, alone on the links; 0 for a group of one. Broadcasts over cases."""
    raise NotImplementedError
