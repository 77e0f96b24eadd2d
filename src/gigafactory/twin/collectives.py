"""Seconds of collectives on scale-up and scale-out links.

A group of n chips has ``inside`` members in each of its scale-up domains. Rings pass through every domain once and
leave it over the network cards of all members, so a ring runs at min(scale-up, inside x scale-out). An all-to-all
sends what its peers outside get over the chip's own card. Within a domain of Hopper or later, switches add: an
all-reduce then sends the array once instead of twice, at a rate that the kernels' own work limits.
Small messages: each hop of the ring costs time, and short pieces run at down to half the rate.
Checked against measured curves in tests/twin/test_collectives.py; the formulas are explained in docs/twin.md.
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
    up = c.scaleup_share * machine.domain_bytes_per_s
    if message.kind == "permute":
        rate = np.where(crosses, np.minimum(up, _scaleout_rate(message, machine, c)), up)
        latency = np.where(crosses, _hop_s(machine, c), c.scaleup_hop_s)
        return np.where(n > 1, latency + payload / rate * _ramp(payload, c), 0.0)
    if message.kind == "all-to-all":
        through_s = (n - 1) / n * payload / up * _ramp(payload / n, c)  # all of it leaves by the chip's own ports
        beyond_s = (n - inside) / n * payload / _scaleout_rate(message, machine, c) * _ramp(payload / inside, c)
        latency = np.where(crosses, _hop_s(machine, c), c.scaleup_hop_s)
        return np.where(n > 1, latency + np.maximum(through_s, beyond_s), 0.0)
    rate = np.where(crosses, np.minimum(up, inside * _scaleout_rate(message, machine, c)), up)
    wire_s = message.wire_bytes / rate
    # a larger ring than any that was measured is taken to be a hierarchy, whose hops grow as the logarithm
    rings = np.minimum(domains, c.ring_domains * (1.0 + np.log2(np.maximum(domains / c.ring_domains, 1.0))))
    latency = (inside - 1) * rings * c.scaleup_hop_s + np.where(crosses, rings * _hop_s(machine, c), 0.0)
    if message.kind == "all-reduce":
        latency = 2.0 * latency
        switched_s = payload * (1.0 / up + 1.0 / c.switch_bytes_per_s)
        wire_s = np.where(~crosses & (machine.generation >= 9), np.minimum(wire_s, switched_s), wire_s)
    return np.where(n > 1, latency + wire_s * _ramp(payload / n, c), 0.0)


def _ramp(piece_bytes: Array, c: Constants) -> Array:
    """Slowness of short pieces: 2 at none, 1.5 at half_bytes, 1 at many."""
    return 1.0 + c.half_bytes / (piece_bytes + c.half_bytes)


def _hop_s(machine: Machine, c: Constants) -> Array:
    return c.scaleout_hop_s + c.tier_hop_s * machine.tiers


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
