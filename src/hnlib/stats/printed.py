"""Tables as the papers print them, transcribed."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from hnlib.errors import unknown

PAPER_NEAREST = {"dsc": "dsc", "hd95_plastimatch_mm": "hd95_mm", "surface_dsc_axes_swapped": "surface_dsc"}
"""Metric of the paper's Table 1 to the metric of ours that comes nearest; only ``dsc`` is the same."""

PRINTED = ("gao2019", "hosseini2024", "pu2020", "tappeiner2022")
"""Papers whose tables are transcribed."""


def paper_table1() -> pd.DataFrame:
    """Return Table 1 of Tappeiner et al. 2022 as printed.

    Returns
    -------
    pandas.DataFrame
        ``configuration`` (our experiment name), ``organ``, ``metric``, ``mean``, ``sd``; 15 test cases.
        ``organ`` is ``average`` in the printed average rows, whose SD pools cases and organs.

    Notes
    -----
    ``hd95_plastimatch_mm`` is the mean of the two directed 95th percentiles, unweighted, with 1000 mm for a
    missed organ; ``surface_dsc_axes_swapped`` was computed with the spacing in reverse axis order. Neither is
    the metric of ours that ``PAPER_NEAREST`` puts beside it.

    Examples
    --------
    >>> table = paper_table1().set_index(["configuration", "organ", "metric"])
    >>> float(table.loc[("small_ca_dice_ce", "average", "dsc"), "mean"])
    0.8
    """
    return _read("tappeiner2022_table1")


def printed_table(paper: str) -> pd.DataFrame:
    """Return the result tables of a paper as printed.

    Parameters
    ----------
    paper
        One of ``PRINTED``.

    Returns
    -------
    pandas.DataFrame
        ``table`` (its number in the paper), ``method``, ``organ``, ``metric``, ``mean``, ``sd``. ``organ`` is
        ``average`` in printed average rows, ``small_average`` where these are over small organs only. ``sd`` is
        NaN where none is printed. Shares are as printed: per cent, except in Tappeiner et al. 2022.

    Raises
    ------
    ConfigError
        For a paper that is not transcribed.

    Notes
    -----
    Gao et al. 2019: Tables 1, 2, 3 and 5 (10 test scans each). Pu et al. 2020: Tables I to III. Hosseini 2024:
    Tables 1 to 3. Tappeiner et al. 2022: Table 1, see `paper_table1`.

    Examples
    --------
    >>> table = printed_table("gao2019")
    >>> table.query("table == '1' and method == 'atlas' and organ == 'average'")["mean"].item()
    62.3
    """
    if paper not in PRINTED:
        raise unknown("paper", paper, PRINTED)
    if paper == "tappeiner2022":
        return paper_table1().rename(columns={"configuration": "method"}).assign(table="1")
    return _read(f"{paper}_tables")


def _read(name: str) -> pd.DataFrame:
    with files("hnlib").joinpath(f"data/{name}.csv").open("r", encoding="utf-8") as handle:
        return pd.read_csv(handle, dtype={"table": str})
