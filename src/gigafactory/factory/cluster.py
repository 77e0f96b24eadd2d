"""The cluster section: chips, nodes, fabric and storage of the machine that a factory computes on."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from gigafactory.factory.catalog import Chip, Fabric, chip, fabric
from gigafactory.factory.quantity import check_facts, known, with_facts
from gigafactory.factory.training import Section


class ChipGroup(Section):
    """Chips of one kind. A cluster may mix kinds."""

    name: str = Field(description="name in the catalogue: `gigafactory catalog list chips`")
    count: int = Field(ge=1, description="chips of this kind")
    power_cap_w: float | None = Field(None, gt=0, description="limit set on each chip; none is its rated power")
    facts: dict[str, float] = Field(
        {}, description="your own numbers for facts of the catalogue's chip, e.g. price_usd"
    )

    @field_validator("name")
    @classmethod
    def _catalogued(cls, name: str) -> str:
        return known(chip, name)

    @model_validator(mode="after")
    def _own_facts(self) -> ChipGroup:
        check_facts(Chip, self.facts)
        return self

    @property
    def chip(self) -> Chip:
        """The catalogue's chip with the user's own facts."""
        return with_facts(chip(self.name), self.facts)


class NodeSection(Section):
    """One server and how servers are racked."""

    chips: int = Field(8, ge=1, description="chips per server")
    nics: int = Field(8, ge=1, description="network cards per server on the chips' fabric")
    host_memory_bytes: float = Field(2e12, gt=0, description="memory of the server's processors")
    disk_bytes: float = Field(30e12, gt=0, description="local disks of the server")
    disk_bytes_per_s: float = Field(10e9, gt=0, description="write speed of the local disks together")
    per_rack: int = Field(8, ge=1, description="servers per rack")
    racks_per_group: int = Field(8, ge=1, description="racks that are delivered, cooled and switched as one group")


class FabricSection(Section):
    """The network between nodes."""

    name: str = Field("infiniband-ndr", description="name in the catalogue: `gigafactory catalog list fabrics`")
    tiers: int = Field(3, ge=1, le=4, description="levels of switches")
    rails: int = Field(8, ge=1, description="separate planes, one per chip of a server; 1 is one plane")
    oversubscription: float = Field(1.0, ge=1, description="capacity below the top tier over capacity above it")
    scaleup_chips: int | None = Field(
        None, ge=1, description="chips that share the scale-up fabric (NVLink domain); none is the catalogue's figure"
    )
    facts: dict[str, float] = Field({}, description="your own numbers for facts of the catalogue's fabric")

    @field_validator("name")
    @classmethod
    def _catalogued(cls, name: str) -> str:
        return known(fabric, name)

    @model_validator(mode="after")
    def _own_facts(self) -> FabricSection:
        check_facts(Fabric, self.facts)
        return self

    @property
    def fabric(self) -> Fabric:
        """The catalogue's fabric with the user's own facts."""
        return with_facts(fabric(self.name), self.facts)


class StorageSection(Section):
    """The durable store that checkpoints and data live in."""

    write_bytes_per_s: float = Field(100e9, gt=0, description="of the whole store")
    read_bytes_per_s: float = Field(200e9, gt=0, description="of the whole store")
    capacity_bytes: float = Field(10e15, gt=0, description="of the whole store")


class ClusterSection(Section):
    """What a factory computes on. Without chips it is the machine that the command runs on."""

    chips: tuple[ChipGroup, ...] = Field((), description="kinds of chips and how many; none is this machine")
    node: NodeSection = Field(NodeSection(), description="one server")
    fabric: FabricSection = Field(FabricSection(), description="the network between nodes")
    storage: StorageSection = Field(StorageSection(), description="the durable store")

    @model_validator(mode="after")
    def _whole_nodes(self) -> ClusterSection:
        for index, group in enumerate(self.chips):
            if group.count > self.node.chips and group.count % self.node.chips:
                raise ValueError(
                    f"chips[{index}].count: must be whole servers of node.chips={self.node.chips}, got {group.count}"
                )
        return self

    @property
    def chip_count(self) -> int:
        """Chips of all kinds; 0 when the cluster is the machine at hand."""
        return sum(group.count for group in self.chips)

    @property
    def node_count(self) -> int:
        return sum(-(-group.count // self.node.chips) for group in self.chips)
