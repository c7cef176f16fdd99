"""What each stage is built from: the plant, cut into the specs that the rooms understand."""

from __future__ import annotations

from collections.abc import Collection

from connectors.journal.columns import TelemetrySpec
from flows.plant_file import Plant, Product
from flows.plant_rules import rule_product
from flows.plant_tables import DEVICE_COLUMNS
from flows.source_specs import source_spec
from operators.attributes import Attributes, Row
from operators.contract.spec import ProductContract
from operators.decode.master import master_device
from operators.decode.spec import (
    DecodeLimits,
    DecodePlan,
    MasterDevice,
    ProductDecode,
    RoutingSpec,
)
from operators.master import MasterSpec
from operators.parameters import ParameterSpec
from operators.state.references import FormulaRef, references
from operators.state.spec import FormulasSpec, ProductState
from operators.windows.spec import ProductWindows, device_windows
from rules.check import number_of, samples_of, scope_of
from rules.reported_values import report_specs
from rules.spec import RulesSpec


def decode(plant: Plant) -> DecodePlan:
    """Products' layouts, sources' addresses, and which device is of which product."""
    columns = _numeric_columns(plant)
    devices: dict[str, MasterDevice] = {}
    alike: dict[MasterDevice, MasterDevice] = {}  # one for all devices of which the same is said
    for name, row in plant.master.devices.items():
        device = master_device(row)
        devices[name] = alike.setdefault(device, device)
    return DecodePlan(
        products={name: _product_decode(plant, product, columns) for name, product in plant.products.items()},
        routing=RoutingSpec(
            sources=tuple(source_spec(name, config) for name, config in plant.sources.items()),
            devices=devices,
            unknown=plant.devices.unknown,
            hold_for=plant.devices.hold_for,
            reports=report_specs(
                plant.rules,
                {name: one.contract.timestamp.max_future for name, one in plant.products.items()},
            ),
            births=plant.devices.source == "stream",
        ),
        limits=DecodeLimits(
            plant.limits.devices,
            plant.limits.frame,
            plant.limits.depth,
            plant.limits.held,
            plant.limits.held_bytes,
        ),
        parameters=parameters(plant),
        master=MasterSpec(
            products=tuple(plant.products),
            numeric={name: tuple(_numeric(product)) for name, product in plant.products.items()},
            devices=plant.limits.devices,
        ),
    )


def _product_decode(plant: Plant, product: Product, columns: Collection[str]) -> ProductDecode:
    return ProductDecode(
        productId=product.productId,
        decode=product.decode,
        metrics=_metrics(product),
        topics=tuple(product.topics),
        params=_numeric(product),
        device_params=_device_params(plant, product, columns),
        reject_unknown=product.contract.on_unknown_metric == "reject",
    )


def _metrics(product: Product) -> tuple[tuple[str, str], ...]:
    return tuple((metric.name, metric.type) for metric in product.metrics.values())


def _numeric(product: Product) -> dict[str, float]:
    return {name: float(value) for name, value in product.params.items() if not isinstance(value, str)}


def parameters(plant: Plant) -> ParameterSpec:
    """What may be set by device: the parameters of its product, and the columns of devices.csv in which
    a number stands."""
    columns = _numeric_columns(plant)
    declared: dict[str, dict[str, float | str | None]] = {}
    for name, product in plant.products.items():
        own = {
            key: value if isinstance(value, str) else float(value) for key, value in product.params.items()
        }
        declared[name] = {**dict.fromkeys(columns), **own}
    return ParameterSpec(
        declared, {name: row.get("productId", "") for name, row in plant.master.devices.items()}
    )


def _numeric_columns(plant: Plant) -> tuple[str, ...]:
    """Columns of devices.csv that are parameters without a default."""
    samples = samples_of(plant.master.devices, former=plant.master.former())
    return tuple(name for name in samples["numeric"] if name not in DEVICE_COLUMNS)


def _device_params(plant: Plant, product: Product, columns: Collection[str]) -> dict[str, dict[str, float]]:
    """device_id -> the numbers that devices.csv says of it."""
    names = list({**_numeric(product), **dict.fromkeys(columns)})
    texts = {name for name, value in product.params.items() if isinstance(value, str)}
    found: dict[str, dict[str, float]] = {}
    for device, row in plant.master.devices.items():
        if row.get("productId") == product.productId:
            cells = {name: number_of(row[name]) for name in names if row.get(name) and name not in texts}
            own = {name: value for name, value in cells.items() if value is not None}
            if own:
                found[device] = own
    return found


def contract(plant: Plant) -> dict[str, ProductContract]:
    """Each product's checks."""
    retired = frozenset(name for name, row in plant.master.devices.items() if row.get("status") == "retired")
    return {
        name: ProductContract(product.metrics, product.contract, product.live_within, retired)
        for name, product in plant.products.items()
    }


def rules(plant: Plant, shard: int = 0) -> RulesSpec:
    """The rules, and what their conditions may name. shard: in which they are evaluated."""
    attributes: dict[str, Row] = dict(plant.master.devices)
    return RulesSpec(
        plant=plant.name,
        shard=str(shard),
        products={
            name: rule_product(product, plant.formulas.trees(name))
            for name, product in plant.products.items()
        },
        rules=plant.rules,
        attributes=attributes,
        columns=plant.master.columns,
        timezone=plant.timezone,
        joined=Attributes({**plant.master.tables(), "devices": attributes}, plant.master.past),
    )


def windows(plant: Plant) -> dict[str, ProductWindows]:
    """Each product's windows."""
    joined = Attributes(plant.master.tables(), plant.master.past)
    return {
        name: ProductWindows(product.metrics, tuple(product.windows), joined)
        for name, product in plant.products.items()
    }


def state(plant: Plant) -> dict[str, ProductState]:
    """What is kept of each product's devices."""
    return {
        name: ProductState(
            product.metrics,
            tuple(device_windows(product.windows)),
            product.aas,
            _formulas(plant, product),
            plant.master.devices,
        )
        for name, product in plant.products.items()
    }


def _formulas(plant: Plant, product: Product) -> FormulasSpec | None:
    """The formulas that a product's submodels show; None where there are none."""
    own = plant.formulas.of.get(product.productId, {})
    named = dict.fromkeys(one.formulaId for one in references(product.aas) if isinstance(one, FormulaRef))
    shown = tuple(own[name] for name in named if name in own)
    if not shown:
        return None
    samples = samples_of(plant.master.devices, plant.master.columns, plant.master.former())
    columns = {name for row in samples.values() for name in row}
    known = rule_product(product)
    scope = scope_of(known, columns, samples)
    scope.params = dict.fromkeys(scope.params)
    scope.formulas = {name: one.tree for name, one in own.items()}
    joined = Attributes(plant.master.tables(), plant.master.past)
    return FormulasSpec(shown, scope, product.params, plant.master.devices, known.stale_after, joined)


def telemetry(plant: Plant) -> dict[str, TelemetrySpec]:
    """What the output log writes of each product's readings."""
    return {name: TelemetrySpec(name, _metrics(product)) for name, product in plant.products.items()}
