"""The serverless way: a device's picture goes to the function, and the device hears when the answer is in the store.

`function` calls the function's URL; `gateway` is the page: look up, call, judge the answer, commit, and then say so.
"""

from cloud.gateway.function import Function
from cloud.gateway.gateway import Gateway, NoAnswer

__all__ = ["Function", "Gateway", "NoAnswer"]
