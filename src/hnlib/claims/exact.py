"""Rules that need no run: class shares that the authors' code holds, and what an equation says by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hnlib.claims.finding import NOT_TESTABLE, Finding, own_numbers
from hnlib.imbalance import PAPER_RATIOS, PAPER_SIGMA, sigma_of_mean
from hnlib.imbalance.measures import PAPER_CLASSES

SHARES = "class shares in the code of Tappeiner 2022"
IMBALANCE = "04_imbalance"
EPSILON = 1e-5


def _shares(patch: str) -> dict[str, float]:
    return dict(zip(PAPER_CLASSES, PAPER_RATIOS[patch], strict=True))


def sigma_is(patch: str, *, extreme: str) -> Finding:
    """Ask whether sigma of a patch is as printed, and the largest or the least of the four."""
    values = {name: sigma_of_mean(ratios) for name, ratios in PAPER_RATIOS.items()}
    chosen = {"largest": max, "least": min}[extreme](values, key=lambda name: values[name])
    text = f"σ = {values[patch]:.5f}, printed {PAPER_SIGMA[patch]}"
    holds = chosen == patch and abs(values[patch] - PAPER_SIGMA[patch]) < 2e-4
    return own_numbers(holds, text, row=SHARES, chapter=IMBALANCE)


def sigma_falls(patch: str, to: str) -> Finding:
    """Ask whether sigma falls from one patch to another, as printed."""
    first, second = sigma_of_mean(PAPER_RATIOS[patch]), sigma_of_mean(PAPER_RATIOS[to])
    text = f"{first:.5f} to {second:.5f}, {100 * (second / first - 1):+z.1f} %"
    return own_numbers(second < first, text, row=SHARES, chapter=IMBALANCE)


def sigma_is_mean_distance(patch: str) -> Finding:
    """Ask whether sigma is the mean distance of the shares to a uniform distribution."""
    ratios = np.asarray(PAPER_RATIOS[patch])
    mean, sigma = float(np.abs(ratios - 1 / len(ratios)).mean()), sigma_of_mean(ratios)
    text = f"the mean distance is {mean:.3f}; σ, a root mean square, is {sigma:.3f}"
    return own_numbers(abs(mean - sigma) < 1e-3, text, row=SHARES, chapter=IMBALANCE)


def sigma_chooses(patch: str) -> Finding:
    """Ask whether a patch has the least sigma of those that were measured."""
    values = {name: sigma_of_mean(ratios) for name, ratios in PAPER_RATIOS.items()}
    least = min(values, key=lambda name: values[name])
    text = f"σ is least at {least} ({values[least]:.4f}), not at {patch} ({values[patch]:.4f}), and falls with the size"
    return own_numbers(least == patch, text, row=SHARES, chapter=IMBALANCE)


def sigma_sees_organs(patch: str, to: str) -> Finding:
    """Ask whether sigma moves as the balance among the organs does.

    From the background share b alone sigma^2 = (b^2 + (1 - b)^2 H) / C - 1 / C^2 is known but for
    1 / (C - 1) <= H <= 1, whatever the organs share among themselves.
    """
    number, background = len(PAPER_CLASSES), PAPER_RATIOS[to][0]
    low, high = (
        math.sqrt((background**2 + (1 - background) ** 2 * spread) / number - 1 / number**2)
        for spread in (1 / (number - 1), 1.0)
    )
    imbalance = [max(PAPER_RATIOS[name][1:]) / min(PAPER_RATIOS[name][1:]) for name in (patch, to)]
    falls = sigma_of_mean(PAPER_RATIOS[to]) < sigma_of_mean(PAPER_RATIOS[patch])
    text = (
        f"the background share alone fixes σ to {low:.5f}–{high:.5f} for any organs; from {patch} to {to} σ falls "
        f"while the largest organ goes from {imbalance[0]:.0f} to {imbalance[1]:.0f} times the smallest"
    )
    return own_numbers(falls == (imbalance[1] < imbalance[0]), text, row=SHARES, chapter=IMBALANCE)


def small_classes_grow_more(patch: str, to: str, small: Sequence[str]) -> Finding:
    """Ask whether the shares of small classes grow more than those of the other organs."""
    first, second = _shares(patch), _shares(to)
    growth = {name: second[name] / first[name] for name in PAPER_CLASSES[1:]}
    of_all = [sum(part[name] for name in small) / (1 - part["background"]) for part in (first, second)]
    inside = float(np.mean([growth[name] for name in small]))
    outside = float(np.mean([value for name, value in growth.items() if name not in small]))
    text = (
        f"small organs grow {inside:.2f}-fold, the others {outside:.2f}-fold; "
        f"their part of the foreground goes from {100 * of_all[0]:.2f} to {100 * of_all[1]:.2f} %"
    )
    return own_numbers(inside > outside, text, row=SHARES, chapter=IMBALANCE)


def largest_are(organs: Sequence[str], patches: Sequence[str]) -> Finding:
    """Ask whether the organs named have the largest shares in the patches named (``full``: their volumes)."""
    holds, words = True, []
    for patch in patches:
        shares = _shares(patch)
        order = sorted(PAPER_CLASSES[1:], key=lambda name: -shares[name])
        holds &= set(order[: len(organs)]) == set(organs)
        words.append(f"{patch}: {' > '.join(order[:4])}")
    return own_numbers(holds, "; ".join(words), row=SHARES, chapter=IMBALANCE)


def absent_class_counts_as_perfect(mass_voxels: float = 1.0) -> Finding:
    """Ask what the Dice term of a class that is not in the patch is worth: eps / (S + eps), S its predicted mass."""
    values = {mass: EPSILON / (mass + EPSILON) for mass in (0.0, 1e-3, mass_voxels)}
    text = ", ".join(f"{value:.2g} at a predicted mass of {mass:g}" for mass, value in values.items()) + " (in voxels)"
    return own_numbers(
        values[mass_voxels] > 0.5,
        f"1 is perfect; {text}",
        row="Eq. 2 and 3, ε = 1e-5",
        chapter="../methods",
    )


def present_classes_give_the_dsc() -> Finding:
    """Ask whether Eq. 4 is the mean hard DSC of the classes present, where 50 voxels are given to a third class."""
    label = np.repeat([0, 1], [1000, 100])
    marked = label.copy()
    marked[:50] = 2
    true, said = ((values[None] == np.arange(3)[:, None]).astype(float) for values in (label, marked))
    present = true.sum(axis=1) > 0
    terms = 2 * (true * said).sum(axis=1) / ((true + said).sum(axis=1) + EPSILON)
    value = float(terms[present].mean())
    hard = float(
        np.mean([2 * np.sum((label == c) & (marked == c)) / (np.sum(label == c) + np.sum(marked == c)) for c in (0, 1)])
    )
    text = (
        f"Eq. 4 gives {value:.3f}, their mean DSC {hard:.3f}; with the absent class that was marked, {terms.mean():.3f}"
    )
    return own_numbers(abs(value - hard) < 1e-6, text, row="Eq. 4 on a patch of two classes", chapter="../methods")


def response_to_a_missed_object(patch: int = 64, large: int = 20, small: int = 4) -> Finding:
    """Ask how much a loss rises for a large and for a small cube that is missed in a patch that is right elsewhere.

    Dice of two classes, the label's probability in a missed cube 1e-3, edges in voxels.
    """
    p, voxels, sizes = 1e-3, patch**3, (large**3, small**3)
    # of a missed cube of n voxels Dice is 2 p n / (n + p n), of the background 2 (V - n) / (V - n + V - p n)
    dice = [1 - p / (1 + p) - (voxels - n) / (2 * voxels - n - p * n) for n in sizes]
    entropy = [-math.log(p) * n / voxels for n in sizes]
    ratios = [large_one / small_one for large_one, small_one in (dice, entropy)]
    text = (
        f"a missed cube of {large} voxels a side raises the Dice loss {ratios[0]:.2f} times and cross-entropy "
        f"{ratios[1]:.0f} times as much as one of {small}"
    )
    holds = abs(ratios[0] - 1) < 0.05 and ratios[1] > 10
    return own_numbers(holds, text, row="Dice and cross-entropy, computed", chapter="13_audit")


def cube_is_balanced(diameters: float, *, most: float = 0.9) -> Finding:
    """Ask whether a ball fills enough of a cube some diameters wide that background is no more than ``most`` of it."""
    share = math.pi / 6 / diameters**3
    text = f"a ball fills {100 * share:.1f} % of the cube, {100 * (1 - share):.1f} % is background"
    return own_numbers(1 - share <= most, text, row="a ball of one diameter in a cube of three", chapter="16_focusnet")


def weights_balance_at_start(patch: str) -> Finding:
    """Ask whether Eq. 2 of Pu et al. weighs classes apart when a network knows nothing: w_j = (N - N_j) / N_j.

    N_j is printed as the sum of what is predicted for class j. The labels are those of Tappeiner et al. 2022.
    """
    labels = np.asarray(PAPER_RATIOS[patch])
    predicted = np.full(len(labels), 1 / len(labels))
    printed, meant = ((1 - part) / part for part in (predicted, labels))
    text = (
        f"as printed, with predicted sums, weights start at {printed.min():.0f} to {printed.max():.0f}; "
        f"with label sums they would lie between {meant.min():.2g} and {meant.max():.2g}"
    )
    return own_numbers(
        bool(printed.max() > 1.01 * printed.min()),
        text,
        row="Eq. 2 at a uniform prediction",
        chapter="17_coarse_to_fine",
    )


def loss_grows_as_k_falls(percents: Sequence[int], trials: int = 200) -> Finding:
    """Ask whether TopK Dice on random predictions never falls when K does; squared form, hardest label voxels kept."""
    rng = np.random.default_rng(0)
    least, ends = math.inf, np.zeros(2)
    for _ in range(trials):
        number = int(rng.integers(10, 200))
        label = np.sort(rng.beta(rng.uniform(0.3, 3), rng.uniform(0.3, 3), number))
        background = rng.uniform(0, number)
        kept = [math.ceil(percent * number / 100) for percent in sorted(percents, reverse=True)]
        dice = [2 * label[:k].sum() / (k + (label[:k] ** 2).sum() + background) for k in kept]
        losses = 1 - np.array(dice)
        least, ends = min(least, float(np.diff(losses).min())), ends + losses[[0, -1]] / trials
    text = f"it rose in all of {trials} random cases, on average from {ends[0]:.2f} to {ends[1]:.2f}"
    return own_numbers(least >= -1e-12, text, row="Eq. 5 to 7, computed", chapter="13_audit")


def ties_spoil_the_share(voxels: int = 100, percent: int = 50) -> Finding:
    """Count what Eq. 3 and 4 keep of equal probabilities, with and without a random map that breaks ties."""
    rank = round((1 - percent / 100) * voxels)

    def kept(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> int:
        return voxels - int((values > np.sort(values)[::-1][rank - 1]).sum())

    equal = np.full(voxels, 0.9)
    broken = equal + 1e-6 * np.random.default_rng(0).random(voxels)
    text = (
        f"of {voxels} equal voxels {kept(equal)} are kept without the map and {kept(broken)} with it, for K = {percent}"
    )
    return own_numbers(kept(equal) != percent, text, row="Eq. 2 to 4, computed", chapter="13_audit")


def background_ratio(smallest_percent: float, claimed: float) -> Finding:
    """Say how many background voxels the printed share of the smallest organ means."""
    ratio = 100 / smallest_percent
    text = (
        f"scans not public; {smallest_percent} % means {ratio:,.0f} to 1 on average, {claimed / ratio:.1f} times less"
    )
    return Finding(NOT_TESTABLE, text, row="Gao 2019, Sec. 1", chapter="16_focusnet")
