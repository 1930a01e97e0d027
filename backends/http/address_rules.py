"""Which addresses a connection may be made to, whatever name they were found by.

Rule: a link-local address, a multicast one, and those at which clouds keep a machine's credentials
are refused, unless networks are given: then these are the only ones that may be asked.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Of Alibaba, Oracle and AWS; the others' is link-local."""


class AddressRules:
    """What may be asked; `networks` None: everything that is not refused by default."""

    def __init__(self, networks: Iterable[str] | None = None) -> None:
        """Raises ValueError for what is no network."""
        self._networks = None if networks is None else tuple(map(ipaddress.ip_network, networks))
        self.allows = lru_cache(maxsize=1024)(self._allows)

    def _allows(self, address: str) -> bool:
        """Tell whether a connection may be made to an address."""
        found = ipaddress.ip_address(address)
        # An IPv4 address in IPv6's clothes is still that address.
        found = getattr(found, "ipv4_mapped", None) or found
        if self._networks is not None:
            return any(found in network for network in self._networks)
        return not (found.is_link_local or found.is_multicast or found in _METADATA)


ANY_BUT_LOCAL_LINK: Final = AddressRules()
