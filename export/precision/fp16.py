"""Networks in half precision."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def to_fp16(network: Network) -> Network:
    """A copy with float16 parameters, but for what the network names in `kept_in_fp32`.

    The networks' forward steps go by the type of their parameters.
    """
    rounded = copy.deepcopy(network).half()
    for part in rounded.kept_in_fp32:
        rounded.get_submodule(part).float()
    return rounded
