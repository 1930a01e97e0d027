"""Which addresses a connection may be made to."""

import pytest

from backends.http.address_rules import ANY_BUT_LOCAL_LINK, AddressRules


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "fe80::1", "fe80::1%lo",
        "fd00:ec2::254", "100.100.100.200", "::ffff:100.100.100.200", "192.0.0.192", "224.0.0.1",
        "ff02::1",
    ],
)  # fmt: skip
def test_what_is_refused_by_default(address):
    assert not ANY_BUT_LOCAL_LINK.allows(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "8.8.8.8", "::1", "fd12::1"])
def test_what_is_not(address):
    assert ANY_BUT_LOCAL_LINK.allows(address)


def test_networks_are_the_only_ones_that_may_be_asked():
    rules = AddressRules(["10.0.0.0/8", "169.254.7.0/24", "fd12::/16"])
    asked = {"10.1.1.1": True, "11.1.1.1": False, "169.254.7.1": True, "169.254.8.1": False}
    asked |= {"fd12::5": True, "::1": False, "::ffff:10.0.0.1": True}
    assert {address: rules.allows(address) for address in asked} == asked
    assert not AddressRules([]).allows("127.0.0.1")


def test_what_is_no_network():
    with pytest.raises(ValueError, match="nowhere"):
        AddressRules(["nowhere"])
