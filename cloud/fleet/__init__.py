"""Who belongs to the fleet: certificates, the codes by which devices enrol, and their revocation.

`authority` makes certificates, `registry` keeps devices, codes and certificates in the store, `peer` lets devices in by
their certificates, `keeper` tells the broker who is revoked. docs/enrolment.md has the protocol and what it is safe
against.
"""

from cloud.fleet.authority import Authority
from cloud.fleet.registry import Fleet

__all__ = ["Authority", "Fleet"]
