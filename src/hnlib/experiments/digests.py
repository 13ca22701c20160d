"""What a run is: a digest of all that moves its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from hnlib.experiments.config import Experiment, Profile, Triple
from hnlib.systems import SYSTEMS


def run_digest(
    experiment: Experiment, profile: Profile, patch: Triple, cache_name: str, network_patch: Triple | None = None
) -> str:
    """Return a digest of all that moves the result of a run, apart from its seed.

    Titles, the list of experiments and seeds, and how much is evaluated are left out: to change them retrains
    nothing, unless the watched cases choose the weights. The organs are in the name of the cache. A field that an
    experiment leaves at its default is left out too, so that a new field keeps old digests. ``network_patch`` is the
    patch for which the network is planned where that is not its own.
    """
    compared = experiment.model_dump(exclude={"title", "takes"}, exclude_defaults=True)
    compared["centres"] = profile.centres or experiment.centres
    compared["loss"] = profile.loss or experiment.loss
    kept = {"width", "cap", "prior_bias", "deep_supervision", "precision"}
    kept |= {"augmentation"} if profile.augmentation != "none" else set()
    options = {**SYSTEMS[experiment.system].defaults, **experiment.options}
    kept |= {"validation_cases"} if options.get("checks") else set()  # they choose the weights
    settings = {k: v for k, v in asdict(profile.training).items() if not k.endswith("_every")}
    parts = [compared, profile.model_dump(include=kept), settings, patch, cache_name]
    text = json.dumps(parts if network_patch is None else [*parts, network_patch], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
