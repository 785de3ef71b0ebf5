"""Feeding commands: a stream of items into a swarm of long-running processes, through any number of channels.

from venvoy.feed import Swarm
with Swarm(["sort", "-n"], count=4, inputs={"stdin": lambda it: b"%d\\n" % it}, stdout="{id}.out") as swarm:
    swarm.feed_many(items)

It is independent of pools: any program can be fed.
"""

from __future__ import annotations

from ..errors import FeedStalled as FeedStalled
from ..errors import SwarmClosed as SwarmClosed
from ..errors import SwarmError as SwarmError
from .aio import AsyncSwarm as AsyncSwarm
from .channels import as_is as as_is
from .channels import blocks as blocks
from .channels import collect as collect
from .channels import fifo as fifo
from .channels import file as file
from .channels import handle as handle
from .channels import lines as lines
from .channels import pipe as pipe
from .report import ProcessReport as ProcessReport
from .report import SwarmReport as SwarmReport
from .swarm import Swarm as Swarm

__all__ = [
    "AsyncSwarm",
    "FeedStalled",
    "ProcessReport",
    "Swarm",
    "SwarmClosed",
    "SwarmError",
    "SwarmReport",
    "as_is",
    "blocks",
    "collect",
    "fifo",
    "file",
    "handle",
    "lines",
    "pipe",
]
