"""What a network is cabled with, what it draws and costs, and designs for the same endpoints side by side."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.factory.catalog import Fabric, fabrics, part
from gigafactory.site.fabric import Design, Network, most_endpoints, network

GIGA = 1e9
THIN_TOP = 7.0
"""Meta's and others' islands: seven to one between them (SemiAnalysis, 100,000 H100 Clusters)."""


@dataclass(frozen=True)
class Cabling:
    """copper: links of copper, those to the leaves where the leaves stand beside the servers. transceivers: two of
    each other link."""

    copper: int
    transceivers: int

    @property
    def copper_share(self) -> float:
        """Of all links."""
        links = self.copper + self.transceivers / 2
        return self.copper / links if links else 0.0


def cabling(built: Network) -> Cabling:
    """Rail-optimised leaves stand up to 50 m away, so that all is optical; others reach their servers with copper."""
    copper = built.below[0] if built.design.rails == 1 and built.design.planes == 1 else 0
    return Cabling(copper, 2 * (built.links - copper))


def transceiver(fabric: Fabric) -> str:
    """The part at the ends of a link of this network, the next faster one where there is none of its speed."""
    speed = fabric.link_bits_per_s.value / GIGA
    return f"transceiver-{next((each for each in (200, 400, 800) if speed <= each), 800)}g"


@dataclass(frozen=True)
class Option:
    """One design for a number of endpoints. built, power_w, usd: none where the design does not reach them."""

    fabric: str
    design: Design
    most: int
    built: Network | None
    power_w: float | None
    usd: float | None

    @property
    def words(self) -> str:
        design = self.design
        kind = "fat tree" if design.rails == 1 else "rail-optimised"
        kind = f"{design.planes} separate planes" if design.planes > 1 else kind
        thin = f", {design.oversubscription:g}:1 at the top" if design.oversubscription > 1 else ""
        tiers = design.tiers if self.built is None else self.built.tiers
        return f"{kind} of {design.ports}-port switches in {tiers} tier{'s' if tiers > 1 else ''}{thin}"


def options(endpoints: int, bits_per_s: float, rails: int) -> tuple[Option, ...]:
    """All designs with the catalogue's switches for links of this speed, those that reach first, cheapest first."""
    found = []
    for fabric in fabrics().values():
        if fabric.link_bits_per_s.value != bits_per_s or fabric.switch_ports is None or fabric.switch_price_usd is None:
            continue
        ports = int(fabric.switch_ports.value)
        for tiers in (2, 3, 4):
            shapes = [Design(ports, tiers), Design(ports, tiers, oversubscription=THIN_TOP)]
            if 1 < rails <= ports // 2:
                shapes += [Design(ports, tiers, rails), Design(ports, tiers, planes=rails)]
            found += [_option(fabric, each, endpoints) for each in shapes]
    return tuple(sorted(found, key=lambda each: (each.usd is None, each.usd or 0.0)))


def _option(fabric: Fabric, design: Design, endpoints: int) -> Option:
    most = most_endpoints(design)
    if endpoints > most:
        return Option(fabric.name, design, most, None, None, None)
    built = network(endpoints, design)
    return Option(fabric.name, design, most, built, power_w(built, fabric, endpoints), usd(built, fabric, endpoints))


def power_w(built: Network, fabric: Fabric, nics: int) -> float:
    """Peak of switches (the lower figure is theirs, the upper with optics in all ports), optics and NICs' extra."""
    optics = part(transceiver(fabric)).power_w
    switch = fabric.switch_power_w
    own_w = 0.0 if switch is None else (switch.value if switch.low is None else switch.low)
    extra = fabric.nic_extra_power_w
    return (
        built.switch_count * own_w
        + cabling(built).transceivers * (optics.value if optics else 0.0)
        + nics * (extra.value if extra else 0.0)
    )


def usd(built: Network, fabric: Fabric, nics: int) -> float:
    """Switches, optics, copper and NICs' extra, at the catalogue's middle prices."""
    cables, switch, extra = cabling(built), fabric.switch_price_usd, fabric.nic_extra_price_usd
    return (
        built.switch_count * (switch.value if switch else 0.0)
        + cables.transceivers * part(transceiver(fabric)).price_usd.value
        + cables.copper * part("copper-cable").price_usd.value
        + nics * (extra.value if extra else 0.0)
    )
