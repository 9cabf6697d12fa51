"""The demo: a broker, the cloud and one device, as the processes that they are in a shop, on this machine alone.

`child` keeps a process alive, `device` writes the device's configuration, `stage` starts and stops everything in order,
`counts` puts the two sides' books together, and `closing` tells them to a person.
"""

from cloud.demo.stage import Demo, Options

__all__ = ["Demo", "Options"]
