"""The options of how proxies on one store notice that one of them is gone. Part of ``config.Settings``."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict

from ..cluster.rules import StoreOutage
from .kinds import LIVE, Duration, Group


class LeaseSettings(BaseModel):
    """The part of the settings that is about being alive among other proxies."""

    # Only the whole is ever made.
    model_config = ConfigDict(defer_build=True)

    lease: Annotated[Duration, Group.CLUSTER] = 5.0
    """How soon the other proxies on the same store notice that this one is gone, if it was not stopped and
    its machine does not tell. Until then, requests for callers that it has served wait. It is told to the
    store five times in that time. The same for all."""

    store_outage: Annotated[StoreOutage, Group.CLUSTER, LIVE] = StoreOutage.SERVE
    """What to do while the store cannot be reached. serve goes on: callers notice nothing, unless the proxy
    that serves them ends meanwhile, too. refuse answers 503 to all once the lease has run out, for those who
    would rather stop than risk that two proxies serve one caller at a time."""
