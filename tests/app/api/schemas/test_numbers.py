"""Whole numbers as clients send them."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.api.schemas.images import ImagesIn
from app.api.schemas.numbers import Whole


@pytest.mark.parametrize("sent", [3, "3", 3.0])
def test_three_is_three_however_it_is_written(sent: Any) -> None:
    assert TypeAdapter(Whole).validate_python(sent) == 3


@pytest.mark.parametrize("sent", [True, False, "true", 3.5, None, [3], {}])
def test_what_is_no_number_is_none(sent: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Whole).validate_python(sent)


@pytest.mark.parametrize("field", ["n", "seed", "best_of", "truncation_cutoff", "output_compression"])
def test_true_is_no_count_and_no_seed(field: str) -> None:
    with pytest.raises(ValidationError, match="should be a number"):
        ImagesIn.model_validate({field: True})
