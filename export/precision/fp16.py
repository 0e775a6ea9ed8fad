"""Networks in half precision."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def to_fp16(network: Network) -> Network:
    """Copy a network with float16 parameters; the submodules in its `kept_in_fp32` stay in float32.

    The forward steps of our networks follow the type of their parameters.
    """
    rounded = copy.deepcopy(network).half()
    for part in rounded.kept_in_fp32:
        rounded.get_submodule(part).float()
    return rounded
