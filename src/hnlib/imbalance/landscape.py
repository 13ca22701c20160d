"""The landscape of patch sizes: what every size of a grid shows a network, exactly, case by case.

Everything is linear in the law of centres, so a landscape of the parts of a mixture, such as
`organ_centres`, holds every mixture of them: `mix` weighs them afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hnlib.errors import ConfigError, DataError, unknown
from hnlib.files import write_atomically
from hnlib.imbalance.axes import Sizes
from hnlib.imbalance.basis import basis, organs_of
from hnlib.imbalance.boxes import expected_counts
from hnlib.imbalance.points import moments
from hnlib.imbalance.scans import Scan, ScanSource
from hnlib.sampling import CentreComponent, CentreDistribution, SingleClass, Triple, UniformPosition, as_triple

Quantity = Literal["ratio", "presence", "classes", "variance"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
#: Columns that name a row of the table.
KEYS = ["case", "patch_x", "patch_y", "patch_z", "padded", "centres", "class"]
BACKGROUND = "background"
#: Raise it when a number in a table changes, so that old caches are not used.
VERSION = 1


def size_grid(x: Sequence[int], y: Sequence[int], z: Sequence[int]) -> list[Triple]:
    """Return every patch size with these widths along X, Y, Z.

    Examples
    --------
    >>> size_grid([96, 192], [80], [48])
    [(96, 80, 48), (192, 80, 48)]
    """
    return list(itertools.product(x, y, z))


def organ_centres(organs: Sequence[str]) -> dict[str, CentreComponent]:
    """Return the parts of every rule that has no HU gate: uniform in position, and one organ each.

    Parameters
    ----------
    organs
        Organs in label order.

    Notes
    -----
    In a case without the organ its law is the uniform one, as in training.

    Examples
    --------
    >>> organ_centres(["brainstem"])
    {'uniform': UniformPosition(), 'brainstem': SingleClass(label=1)}
    """
    return {"uniform": UniformPosition(), **{organ: SingleClass(i) for i, organ in enumerate(organs, start=1)}}


def landscape(
    cases: Sequence[ScanSource],
    patch_sizes: Sequence[Sequence[int]],
    centres: Mapping[str, CentreDistribution | CentreComponent],
    *,
    quantities: Sequence[Quantity] = ("ratio",),
    workers: int = 1,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Return what patches of every size hold, exactly, for each case, law of centres and class.

    Parameters
    ----------
    cases
        Scans, or what reads them (`scan_sources`); all with one organ tuple.
    patch_sizes
        Sizes in voxels along X, Y, Z; `size_grid` gives a full grid.
    centres
        Laws of centres by name: a rule, or one part of it.
    quantities
        Of ``ratio`` (expected share of the patch), ``presence`` (probability that the patch holds the
        class), ``classes`` (expected number of labelled classes in the patch, background included;
        the same in every row of a patch) and ``variance`` (of the share, over patches).
    workers
        Number of processes, each with one case at a time and one thread; an accelerator serves one.
    cache
        Folder in which the result of each case is kept, named by a digest of labels and arguments.
    progress
        Called with (what, done, total).
    device
        Where the large products are done, as torch names it. None takes CUDA where there is one.

    Returns
    -------
    DataFrame
        One row a case, size, law and class: ``case, patch_x, patch_y, patch_z, padded, centres, class``
        and the quantities. ``padded`` says that the patch is longer than the scan along an axis: as in
        training it is then padded with background there. A class that nobody outlined in a case has no
        row there.

    Raises
    ------
    ConfigError
        When there is no size, law or known quantity, or a size is no three whole numbers of at least 1.
    DataError
        When cases differ in their organs, or an organ has no voxel in any of them.
    """
    sizes = _checked_sizes(patch_sizes)
    for quantity in quantities:
        if quantity not in QUANTITIES:
            raise unknown("quantity", quantity, QUANTITIES)
    if not centres or not quantities or not cases:
        raise ConfigError("a landscape needs at least one case, one law of centres and one quantity")
    rules = {
        name: law if isinstance(law, CentreDistribution) else CentreDistribution(((1.0, law),))
        for name, law in centres.items()
    }
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    task = _Task(sizes, rules, tuple(quantities), cache, place)
    found = []
    for measured in _run(task, cases, workers if place == "cpu" else 1):
        found.append(measured)
        if progress:
            progress("landscape", len(found), len(cases))
    _check_organs(found)
    return _joined([one.table for one in found])


@dataclass(frozen=True)
class _Measured:
    """The table of one case, and which organs have voxels there."""

    table: pd.DataFrame
    name: str
    organs: tuple[str, ...]
    present: frozenset[str]


@dataclass(frozen=True)
class _Task:
    """What is asked of every case."""

    sizes: list[Triple]
    rules: Mapping[str, CentreDistribution]
    quantities: tuple[Quantity, ...]
    cache: Path | None
    device: str

    def __call__(self, source: ScanSource) -> _Measured:
        scan = source if isinstance(source, Scan) else source()
        present = frozenset(scan.organs[organ.label - 1] for organ in organs_of(scan.labels))
        return _Measured(self._table(scan), scan.name, scan.organs, present)

    def _table(self, scan: Scan) -> pd.DataFrame:
        if self.cache is None:
            return _scan_table(scan, self.sizes, self.rules, self.quantities, self.device)
        path = self.cache / f"landscape-{self._digest(scan)}.parquet"
        if path.exists():
            with contextlib.suppress(OSError, ValueError):  # a damaged file is made again
                return pd.read_parquet(path)
        table = _scan_table(scan, self.sizes, self.rules, self.quantities, self.device)
        write_atomically(path, lambda part: table.to_parquet(part, index=False))
        return table

    def _digest(self, scan: Scan) -> str:
        """Return a digest of all that the table depends on."""
        rules = list(self.rules.items())
        said = (VERSION, scan.name, scan.organs, sorted(scan.labelled), scan.labels.shape, scan.labels.dtype.str)
        digest = hashlib.blake2b(repr((said, self.sizes, rules, self.quantities)).encode(), digest_size=12)
        digest.update(np.ascontiguousarray(scan.labels).data)
        if scan.image_hu is not None and any(rule.needs_image for rule in self.rules.values()):
            digest.update(np.ascontiguousarray(scan.image_hu).data)
        return digest.hexdigest()


def _run(task: _Task, cases: Sequence[ScanSource], workers: int) -> Iterator[_Measured]:
    """Yield the cases' results in their order; several processes have one thread each."""
    if workers <= 1 or len(cases) <= 1:
        yield from map(task, cases)
        return
    with ProcessPoolExecutor(min(workers, len(cases)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(task, cases)


def _check_organs(found: Sequence[_Measured]) -> None:
    organs = found[0].organs
    for one in found:
        if one.organs != organs:
            raise DataError(
                f"case {one.name}: its organs are {', '.join(one.organs)}, those of case {found[0].name} "
                f"{', '.join(organs)}; give all cases the same organ tuple"
            )
    names = [one.name for one in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"case {twice[0]} is given {names.count(twice[0])} times; give every case a name of its own")
    missing = [organ for organ in organs if not any(organ in one.present for one in found)]
    if missing:
        raise DataError(
            f"{', '.join(missing)}: no voxel in any of {len(found)} cases; leave out what nobody outlined, or check "
            "the names of the files"
        )


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables one after the other; concat alone would turn names that differ into objects."""
    joined = pd.concat([table.astype({"case": object, "class": object}) for table in tables], ignore_index=True)
    return joined.astype({"case": "category", "class": "category"})


def _checked_sizes(patch_sizes: Sequence[Sequence[int]]) -> list[Triple]:
    try:
        sizes = [as_triple("patch size", size) for size in patch_sizes]
    except ValueError as fault:
        raise ConfigError(str(fault)) from None
    if not sizes:
        raise ConfigError("there is no patch size; give at least one")
    return list(dict.fromkeys(sizes))


def _scan_table(
    scan: Scan,
    sizes: list[Triple],
    rules: Mapping[str, CentreDistribution],
    quantities: Sequence[Quantity],
    device: str,
) -> pd.DataFrame:
    values = scan_quantities(scan, sizes, list(rules.values()), quantities, device)
    kept = [0, *(i for i, organ in enumerate(scan.organs, start=1) if organ in scan.labelled)]
    names = (BACKGROUND, *scan.organs)
    shape = (len(sizes), len(rules), len(kept))
    size, rule, label = (index.reshape(-1) for index in np.indices(shape))
    widths = np.asarray(sizes)[size]
    columns: dict[str, Any] = {"case": _coded(np.zeros_like(size), [scan.name])}
    columns |= {f"patch_{axis}": widths[:, i].astype(np.int32) for i, axis in enumerate("xyz")}
    columns |= {"padded": (widths > scan.labels.shape).any(axis=1)}
    columns |= {"centres": _coded(rule, list(rules)), "class": _coded(label, [names[i] for i in kept])}
    return pd.DataFrame(columns | {q: values[q][:, :, kept].reshape(-1) for q in quantities})


def _coded(codes: NDArray[np.intp], names: Sequence[str]) -> pd.Categorical[str]:
    return pd.Categorical.from_codes(codes, pd.Index(names))


def scan_quantities(
    scan: Scan,
    sizes: Sequence[Triple],
    rules: Sequence[CentreDistribution],
    quantities: Sequence[Quantity],
    device: str = "cpu",
) -> dict[Quantity, NDArray[np.float64]]:
    """Return the quantities of one scan as arrays of shape (sizes, rules, classes).

    Parameters are those of `landscape`.
    """
    parts, table = basis(scan.labels, rules, scan.image_hu), Sizes.of(sizes)
    present = [0, *(organ.label for organ in parts.organs)]
    kept = np.array([i == 0 or organ in scan.labelled for i, organ in enumerate((BACKGROUND, *scan.organs))])

    def spread(found: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((len(sizes), len(rules), scan.num_classes))
        out[:, :, present] = np.einsum("rp,spk->srk", parts.weights, found)
        return out

    out: dict[Quantity, NDArray[np.float64]] = {}
    if {"ratio", "variance"} & set(quantities):
        counts = expected_counts(parts, table, device)
        both = np.concatenate([counts.sum(axis=2, keepdims=True), counts], axis=2)
        held = spread(both) / table.volumes[:, None, None]  # class 0: all foreground together
        out["ratio"] = held.copy()
        out["ratio"][:, :, 0] = np.maximum(1 - held[:, :, 0], 0.0)
    if {"presence", "classes", "variance"} & set(quantities):
        found = moments(parts, table, squares="variance" in quantities, device=device)
        out["presence"] = np.clip(spread(found.presence), 0.0, 1.0)
        total = out["presence"][:, :, kept].sum(axis=2, keepdims=True)
        out["classes"] = np.broadcast_to(total, out["presence"].shape)
        if "variance" in quantities:
            squared = spread(found.squares) / table.volumes[:, None, None] ** 2
            out["variance"] = np.maximum(squared - held**2, 0.0)
    return out


def mix(table: pd.DataFrame, weights: Mapping[str, float], name: str = "mix") -> pd.DataFrame:
    """Return the landscape of a mixture of laws whose landscapes are in the table.

    Parameters
    ----------
    table
        As from `landscape`.
    weights
        Weight of each law by its name in ``centres``; at least 0, scaled to the sum 1.
    name
        The name of the mixture in ``centres``.

    Raises
    ------
    ConfigError
        When a law is not in the table, a weight is negative, or all are 0.

    Notes
    -----
    Share, presence and number of classes are linear in the law. The variance is not: the second
    moment is, so it is mixed and the squared mean taken off; the table must hold ``ratio`` for it.
    """
    known = list(table["centres"].unique())
    for law in weights:
        if law not in known:
            raise unknown("law of centres", law, known)
    total = sum(weights.values())
    if min(weights.values(), default=0.0) < 0 or not total > 0:
        raise ConfigError(f"weights {dict(weights)}: numbers of at least 0, not all of them 0, are needed")
    found = [q for q in QUANTITIES if q in table]
    if "variance" in found and "ratio" not in found:
        raise ConfigError("the variance of a mixture needs the ratio too; ask the landscape for both")
    keys = [key for key in KEYS if key != "centres"]
    parts = [table[table["centres"] == law] for law in weights]
    mixed = parts[0][KEYS].reset_index(drop=True).assign(centres=name)
    values = dict.fromkeys(found, np.zeros(len(mixed)))
    for part, weight in zip(parts, weights.values(), strict=True):
        if not part[keys].reset_index(drop=True).equals(mixed[keys]):
            raise ConfigError("the laws of the mixture have different rows in the table; give it whole and in order")
        for quantity in found:
            moment = part[quantity].to_numpy() + (part["ratio"].to_numpy() ** 2 if quantity == "variance" else 0)
            values[quantity] = values[quantity] + weight / total * moment
    if "variance" in found:
        values["variance"] = np.maximum(values["variance"] - values["ratio"] ** 2, 0.0)
    return mixed.assign(**values)
