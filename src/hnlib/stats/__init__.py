"""From tables of single cases to means, intervals, comparisons and verdicts.

The unit of sampling is the patient. Seeds of one case are averaged first, organs of one patient stay together,
and the spread over seeds is reported beside the interval, never inside it. Functions read rows of
``metrics.csv`` and raise a ValueError of one line where a table does not serve.
"""

from hnlib.stats.association import LEAST_CONFIGURATIONS, pair_agreement, rank_correlations
from hnlib.stats.equivalence import (
    Group,
    Interval,
    NonInferiority,
    mean_difference,
    mean_ratio,
    non_inferiority,
    spread_ratio,
    verdict,
    welch_p,
)
from hnlib.stats.layout import latex, paper_layout, table_one
from hnlib.stats.paired import (
    OverSeeds,
    PairedDifference,
    case_differences,
    over_seeds,
    paired_difference,
    paired_non_inferiority,
    seed_interval,
)
from hnlib.stats.permutation import DRIFT_COLUMNS, drift_tests
from hnlib.stats.power import detectable_differences, least_p, minimum_detectable_effect
from hnlib.stats.printed import PAPER_NEAREST, PRINTED, paper_table1, printed_table
from hnlib.stats.ranking import Ranking, rank_experiments
from hnlib.stats.tables import (
    COLUMNS,
    choose_by_validation,
    lower_is_better,
    mean_over_organs,
    organ_summary,
    seed_averaged,
    seed_spread,
)
from hnlib.stats.testing import ALL_ORGANS, SignedRank, compare_experiments, gatekept, holm, planned_tests, signed_rank

__all__ = [
    "ALL_ORGANS",
    "COLUMNS",
    "DRIFT_COLUMNS",
    "LEAST_CONFIGURATIONS",
    "PAPER_NEAREST",
    "PRINTED",
    "Group",
    "Interval",
    "NonInferiority",
    "OverSeeds",
    "PairedDifference",
    "Ranking",
    "SignedRank",
    "case_differences",
    "choose_by_validation",
    "compare_experiments",
    "detectable_differences",
    "drift_tests",
    "gatekept",
    "holm",
    "latex",
    "least_p",
    "lower_is_better",
    "mean_difference",
    "mean_over_organs",
    "mean_ratio",
    "minimum_detectable_effect",
    "non_inferiority",
    "organ_summary",
    "over_seeds",
    "pair_agreement",
    "paired_difference",
    "paired_non_inferiority",
    "paper_layout",
    "paper_table1",
    "planned_tests",
    "printed_table",
    "rank_correlations",
    "rank_experiments",
    "seed_averaged",
    "seed_interval",
    "seed_spread",
    "signed_rank",
    "spread_ratio",
    "table_one",
    "verdict",
    "welch_p",
]
