"""Whole numbers as clients send them: in digits, or in a text of digits, and never as true or false."""

from typing import Annotated

from pydantic import BeforeValidator


def _no_truth(sent: object) -> object:
    """What was sent; Python would take true for 1."""
    if isinstance(sent, bool):
        raise ValueError("Input should be a number")
    return sent


Whole = Annotated[int, BeforeValidator(_no_truth)]
