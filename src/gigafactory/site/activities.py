"""The planner's own list of activities, with the user's on top: from the first day of work to a hall that is ready."""

from __future__ import annotations

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.graph import Step

HALL = "hall"
NETWORK = "network"
"""The two activities that chips wait for: a first hall with power and cooling; a network that joins them."""


def steps(factory: Factory, draws: Draws) -> tuple[Step, ...]:
    """The catalogue's activities for this kind of site, times one pace for the whole site, and the user's own.

    An activity of the file with a name of the list replaces its days and, if given, what it waits for. UserError where
    an activity's earliest day lies before the one of something it waits for.
    """
    raise NotImplementedError
