"""What every answer tells a browser it may do: next to nothing, but show pictures and films in anybody's page."""

from typing import Final

Pairs = list[tuple[bytes, bytes]]

SHOWN_ANYWHERE: Final = (b"image/", b"video/")
NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
NO_REFERRER: Final = (b"referrer-policy", b"no-referrer")  # a URL here may hold a prompt
# An answer is no page: nothing in it runs or loads, and nothing frames it. A route that answers with one says more.
POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
ANYWHERE: Final = (b"cross-origin-resource-policy", b"cross-origin")
HERE_ALONE: Final = (b"cross-origin-resource-policy", b"same-origin")  # requests that CORS allows are none of its cases


def complete(headers: Pairs) -> None:
    """Add what is missing of them to the headers of an answer."""
    given = dict(headers)
    shown = given.get(b"content-type", b"").startswith(SHOWN_ANYWHERE)
    for pair in (NO_SNIFFING, NO_REFERRER, POLICY, ANYWHERE if shown else HERE_ALONE):
        if pair[0] not in given:
            headers.append(pair)
