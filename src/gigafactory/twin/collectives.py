"""Seconds of collectives on scale-up and scale-out links.

A group of n chips has ``inside`` members in each of its scale-up domains. Rings pass through every domain once and
leave it over the network cards of all members, so a ring runs at min(scale-up, inside x scale-out). An all-to-all
sends what its peers outside get over the chip's own card. Within a domain of Hopper or later, switches add: an
all-reduce then sends the array once instead of twice, at a rate that the kernels' own work limits.
A small all-reduce goes up and down a tree, whole at each level, where that is faster than round a ring twice.
Every hop costs time, and a collective reaches its full rate only after a while: w seconds at the full rate
take w + w ramp / (w + ramp). Checked against measured curves in tests/twin/test_twin_collectives.py.
"""

from __future__ import annotations

import numpy as np

from gigafactory.twin.case import Array, Machine
from gigafactory.twin.constants import Constants
from gigafactory.twin.operator import Message


def message_seconds(message: Message, machine: Machine, c: Constants) -> Array:
    """Seconds of one execution of a collective, alone on the links; 0 for a group of one. Broadcasts over cases."""
    n, payload = message.chips, message.payload_bytes
    inside = np.maximum(np.minimum(np.floor(machine.domain_chips / message.stride), n), 1.0)
    domains = np.ceil(n / inside)
    inside = n / domains  # as even as can be
    crosses = domains > 1
    outside = np.minimum(domains - 1, 1)
    up = c.scaleup_share * machine.domain_bytes_per_s
    out = _scaleout_rate(message, machine, c)
    outside_s = outside * (c.scaleout_hop_s + c.tier_hop_s * machine.tiers)
    if message.kind == "permute" or message.kind == "all-to-all":
        latency = np.minimum(n - 1, 1) * c.scaleup_hop_s + outside_s
        if message.kind == "permute":
            return latency + _ramped(message.wire_bytes / np.where(crosses, np.minimum(up, out), up), c)
        # All of it leaves by the chip's own ports, what is for another rail to the chip that has it.
        return latency + _ramped(payload / n * np.maximum((n - 1) / up, (n - inside) / out), c)
    wire_s = message.wire_bytes / np.where(crosses, np.minimum(up, inside * out), up)
    latency = (_hops(n, c) - 1) * c.scaleup_hop_s + _hops(domains, c) * outside_s
    if message.kind != "all-reduce":
        return latency + _ramped(wire_s, c)
    switches = ~crosses & (machine.generation >= 9)
    wire_s = np.minimum(wire_s, np.where(switches, payload * (1.0 / up + 1.0 / c.switch_bytes_per_s), np.inf))
    depth = np.log2(n)
    up_and_down = depth * c.scaleup_hop_s + np.log2(domains) * outside_s
    whole_s = depth * payload / np.where(crosses, np.minimum(up, out), up)
    return np.minimum(2.0 * latency + _ramped(wire_s, c), 2.0 * (up_and_down + whole_s))


def _hops(members: Array, c: Constants) -> Array:
    """Hops round a ring; a larger one than was measured is taken to be a hierarchy: a tree over such rings."""
    return np.minimum(members, c.ring_members) + np.log2(np.maximum(members / c.ring_members, 1.0))


def _ramped(seconds: Array, c: Constants) -> Array:
    """Seconds of what would take so long at the full rate: up to twice as long, up to ramp_s longer."""
    return seconds * (1.0 + c.ramp_s / (seconds + c.ramp_s))


def _scaleout_rate(message: Message, machine: Machine, c: Constants) -> Array:
    """Bytes/s that one chip gets between domains.

    Beyond one leaf switch collisions take their share, and so does oversubscription: of a leaf's servers those send
    over its uplinks whose neighbour in the group is elsewhere, in an all-to-all the peers that are elsewhere.
    """
    step = np.maximum(message.stride / machine.node_chips, 1.0)  # servers from one neighbour to the next
    span = message.chips * message.stride / machine.node_chips
    leaf = machine.leaf_nodes
    away = 1.0 - leaf / span if message.kind == "all-to-all" else step / leaf
    uplinks = np.maximum(machine.oversubscription * np.minimum(away, 1.0), 1.0)
    beyond = np.where(span > leaf, machine.throughput_share / uplinks, 1.0)
    return c.scaleout_share * machine.nic_bytes_per_s * beyond
