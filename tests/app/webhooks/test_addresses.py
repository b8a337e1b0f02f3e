"""Webhooks go to public names and addresses, whatever form the others are given in."""

import asyncio

import pytest

from app.webhooks.addresses import Destination, WebhookRefused, destination, is_public, require_public, resolve


def test_a_public_url_is_read_into_the_parts_that_are_connected_to() -> None:
    assert destination("https://Studio.Example/hooks?a=1#x", ()) == Destination(
        "https", "studio.example", 443, "/hooks?a=1", listed=False
    )
    assert destination("http://example.com#@127.0.0.1:6379/", ()) == Destination(
        "http", "example.com", 80, "/", listed=False
    )
    assert destination("http://xn--bcher-kva.example:8080?a", ()).target == "/?a"
    assert destination("http://93.184.216.34:8080/", ()).authority == "93.184.216.34:8080"
    assert destination("https://[2606:2800:220:1::1]/", ()).authority == "[2606:2800:220:1::1]"
    assert destination("https://[2606:2800:220:1::1]:8443/", ()).authority == "[2606:2800:220:1::1]:8443"


def test_a_host_that_the_operator_lists_may_be_private_on_any_port_and_no_other_form_of_it() -> None:
    listed = ("LocalHost", "[::1]", "192.168.1.5")
    assert destination("http://localhost:3000/hooks", listed).listed
    assert destination("http://[::1]:9/", listed).listed
    require_public(destination("http://192.168.1.5:3000/", listed), ["192.168.1.5"])
    for other in ("http://127.0.0.1:3000/", "http://localhost.:3000/", "http://192.168.1.6:3000/", "ftp://localhost/"):
        with pytest.raises(WebhookRefused):
            destination(other, listed)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),  # the same behind a NAT64
        ("64:ff9b::a00:1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:5db8:d822::1", False),
        ("100.127.255.255", False),
        ("192.88.99.1", False),
        ("239.1.2.3", False),
        ("240.0.0.1", False),
        ("ff0e::1", False),
        ("fec0::1", False),
        ("3fff::1", False),
        ("fe80::1%lo", False),
        ("127.1", False),
        ("", False),
    ],
)
def test_an_address_is_public_only_if_everybody_may_reach_it(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_name_is_refused_when_any_of_its_addresses_is_private_or_it_has_none() -> None:
    found = destination("http://studio.example/", ())
    require_public(found, ["93.184.216.34", "2606:2800:220:1::1"])
    for addresses in (["93.184.216.34", "10.0.0.1"], ["::ffff:169.254.169.254"], []):
        with pytest.raises(WebhookRefused, match=r"studio\.example"):
            require_public(found, addresses)


def test_a_name_is_looked_up_once_into_its_addresses_and_one_that_has_none_gives_none() -> None:
    assert set(asyncio.run(resolve("localhost", 80))) <= {"127.0.0.1", "::1"}
    assert asyncio.run(resolve("127.0.0.1", 80)) == ["127.0.0.1"]
    assert asyncio.run(resolve("nobody.invalid", 80)) == []
