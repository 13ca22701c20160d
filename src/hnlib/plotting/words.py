"""Figures in words: what is plotted against what, for readers who do not see them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

#: Of a longer list of names the first ones are told, and how many follow.
MOST_NAMES = 16


def figure_words(figure: Figure) -> str:
    """Say what a figure plots against what: its panels, the words or the range of each axis, what the marks stand for.

    All of it is read from the figure, so that the words change with it.

    Examples
    --------
    >>> figure = Figure()
    >>> _ = figure.subplots().set(xlabel="step", ylabel="DSC", xlim=(0, 1000), ylim=(0, 1))
    >>> figure_words(figure)
    'Chart. Upwards: DSC from 0 to 1. Across: step from 0 to 1000.'
    """
    panels = [axes for axes in figure.axes if axes.get_visible()]
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in panels))]
    shared = figure.get_supylabel(), figure.get_supxlabel()
    written = [text.get_text() for text in chain(figure.texts, *(axes.texts for axes in panels))]
    parts = {
        "Panels": _listed(axes.get_title(place) for axes in panels for place in ("left", "center")),
        "Upwards": _listed([shared[0], *(_axis_words(axes, axes.yaxis) for axes in panels)]),
        "Across": _listed([shared[1], *(_axis_words(axes, axes.xaxis) for axes in panels)]),
        "Marks": _listed(text.get_text() for legend in legends for text in legend.get_texts()),
        "Written beside": _listed(text for text in written if text not in shared),
    }
    kind = "Picture" if any(axes.images for axes in panels) else "Chart"
    return ". ".join([kind, *(f"{name}: {words}" for name, words in parts.items() if words)]) + "."


def describe_figures() -> None:
    """Give every figure that the running notebook shows its words as alternative text; without a notebook, nothing."""
    from IPython.core.getipython import get_ipython

    formatter = getattr(get_ipython(), "display_formatter", None)
    if formatter is not None:
        formatter.mimebundle_formatter.for_type(
            Figure, lambda figure: ({}, {"image/png": {"alt": figure_words(figure)}})
        )


def _axis_words(axes: Axes, axis: Axis) -> str:
    """Return the label of an axis with the names along it, or with its range where there are none."""
    if not (axes.axison and axis.get_visible()):
        return ""
    label = _plain(axis.get_label_text())
    names = _listed(tick.get_text() for tick in axis.get_majorticklabels() if tick.get_visible())
    if names or not label:
        return ": ".join(filter(None, (label, names)))
    low, high = sorted(axis.get_view_interval())
    ticks = [place for place in axis.get_majorticklocs() if low <= place <= high]
    if len(ticks) < 2:
        return label
    return f"{label} from {ticks[0]:g} to {ticks[-1]:g}" + (" (logarithmic)" if axis.get_scale() == "log" else "")


def _plain(text: str) -> str:
    """Return a text in one line, mathematics without its marks."""
    return " ".join(re.sub(r"\\mathdefault|[${}\\]", "", text).split())


def _listed(texts: Iterable[str]) -> str:
    """Join texts, each once; what is only a number, such as the text at a tick, is left out."""
    plain = map(_plain, texts)
    names = list(dict.fromkeys(text for text in plain if re.search(r"[^\W\d_]", re.sub(r"\de[-+]?\d", "", text))))
    between = "; " if any(", " in name for name in names) else ", "
    more = [f"and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return between.join(names[:MOST_NAMES] + more)
