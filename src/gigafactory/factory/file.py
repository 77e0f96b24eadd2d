"""The whole factory file. Every section may be left out; the least file is an empty one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gigafactory.errors import UserError
from gigafactory.factory.catalog import resolve_model
from gigafactory.factory.chat import ChatSection
from gigafactory.factory.cluster import ClusterSection
from gigafactory.factory.feed import FeedSection
from gigafactory.factory.race import RaceSection
from gigafactory.factory.site import SiteSection
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.factory.training import DataSection, TrainSection
from gigafactory.factory.twin import TwinSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig, grok_config

SMALL_GROK = grok_config(
    layers=4, width=128, heads=4, kv_heads=2, head_dim=32, vocab=264, context=128, attention_multiplier=None
)


class Factory(BaseModel):
    """One compute factory: what it computes on, what it makes, how it is kept alive, what it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("factory", pattern=r"^[A-Za-z0-9 ._-]+$", description="of the factory, for reports")
    cluster: ClusterSection = Field(ClusterSection(), description="what it computes on; none is this machine")
    site: SiteSection = Field(SiteSection(), description="where it stands and how it is built")
    race: RaceSection = Field(RaceSection(), description="who will own how much compute, other than the data say")
    model: ModelConfig = Field(SMALL_GROK, description="the network; `base` names one of the catalogue to start from")
    layout: Layout = Field(Layout(), description="how the network is cut over chips")
    data: DataSection = Field(DataSection(), description="text in, tokens out")
    train: TrainSection = Field(TrainSection(), description="the run")
    twin: TwinSection = Field(TwinSection(), description="what is predicted of the run")
    supervise: SuperviseSection = Field(SuperviseSection(), description="how the run is kept alive")
    feed: FeedSection = Field(FeedSection(), description="live posts in")
    chat: ChatSection = Field(ChatSection(), description="questions answered")

    @field_validator("model", mode="before")
    @classmethod
    def _from_catalogue(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        try:
            return resolve_model(section)
        except UserError as error:
            raise ValueError(f"base: {str(error).removeprefix('catalogue: ')}") from None
