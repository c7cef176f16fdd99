"""Every product file of examples/products passes `check`, and its golden vectors come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.check_command import check_product

LIBRARY = Path(__file__).parents[2] / "examples" / "products"
FILES = sorted(LIBRARY.glob("*.yaml"))


def test_the_library_is_there() -> None:
    names = {path.stem for path in FILES}
    assert names >= {"modbus-rtu-meter", "modbus-tcp-drive", "cayenne-lpp", "senml-pack", "mbus-heat-meter"}
    assert names >= {"plc-struct", "ascii-telegram"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_passes_check_and_its_vectors(path: Path) -> None:
    products, problems = check_product(path)
    assert problems.render() == ""
    (product,) = products
    assert product.productId == path.stem
    assert len(product.vectors) >= 3
    assert any(vector.reject is not None for vector in product.vectors)
    told = {name for vector in product.vectors for name in vector.values or {}}
    for vector in product.vectors:
        told |= {name for reading in vector.readings or () for name in reading.values or {}}
    assert told == set(product.metrics), "a vector for every metric"
