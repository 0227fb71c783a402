"""`python -m serving.gateway estimate`: what another policy would earn, and which arm is better."""

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmrec_tf.errors import ConfigError
from serving.gateway.estimates import estimators
from serving.gateway.estimates.log_reading import Log, Policy, draws_of, read_log, rewards_by_arm
from serving.gateway.lists.arms import arm_name
from serving.gateway.settings import Settings, read_arms
from serving.gateway.stores import open_store, require_state

# Users that were dealt otherwise than they should be; nobody who deals fairly is so unlucky.
_LEAST_P = 0.001


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    defaults = Settings()
    made = argparse.ArgumentParser(
        prog="python -m serving.gateway estimate",
        description="Estimates from the log of a gateway: the clicks that the exploration slot "
        "would have got under another policy (IPS, SNIPS, doubly robust, each with a 95 % "
        "interval), or which arm's users click more.",
    )
    made.add_argument("--state", default="gateway.db", help="as of the gateway (%(default)s)")
    made.add_argument(
        "--exploration",
        type=float,
        default=defaults.exploration,
        help="of the policy in question (%(default)s)",
    )
    made.add_argument(
        "--temperature",
        type=float,
        default=defaults.temperature,
        help="of the policy in question (%(default)s)",
    )
    made.add_argument(
        "--arms",
        metavar="LABEL=SHARE,...",
        help="compare arms, the first with each other; shares as the gateway had them",
    )
    made.add_argument(
        "--since", type=int, default=0, metavar="MS", help="lists made since (ms since 1970 UTC)"
    )
    made.add_argument("--log", metavar="FILE", help="that `drain` moved the log of a Redis to")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(options: argparse.Namespace) -> int:
    """Prints estimates."""
    log = asyncio.run(_read(options))
    if options.arms is None:
        settings = Settings(exploration=options.exploration, temperature=options.temperature)
        told = policy_report(log, Policy(settings.exploration, settings.temperature))
    else:
        told = arms_report(log, read_arms(options.arms))
    if options.json:
        print(json.dumps(told))
        return 0
    for name, value in told.items():
        for row in value if isinstance(value, list) else [value]:
            cells = row.values() if isinstance(row, dict) else [row]
            print(
                "\t".join([name, *(f"{c:.4f}" if isinstance(c, float) else str(c) for c in cells)])
            )
    return 0


async def _read(options: argparse.Namespace) -> Log:
    require_state(options.state)
    store = open_store(options.state, log=options.log)
    await store.open()
    try:
        return await read_log(store, since=options.since)
    finally:
        await store.close()


def policy_report(log: Log, policy: Policy) -> dict[str, Any]:
    """What a policy would have earned.

    Raises:
      ConfigError: when the log says too little of it.
    """
    draws = draws_of(log, policy)
    effective = estimators.effective(estimators.weights(draws))
    if effective < estimators.LEAST_EFFECTIVE:
        raise ConfigError(
            f"wanted an effective sample size of {estimators.LEAST_EFFECTIVE:g} at least; got "
            f"{effective:.1f} of {len(draws.reward)} draws. Collect more, or ask for a policy that "
            "is nearer to the one that drew."
        )
    kinds = (estimators.ips, estimators.snips, estimators.doubly_robust)
    return {
        "draws": len(draws.reward),
        "effective": effective,
        "logged": float(draws.reward.mean()),
        "estimate": [kind(draws)._asdict() for kind in kinds],
    }


def arms_report(log: Log, shares: Mapping[str, float]) -> dict[str, Any]:
    """Each arm compared with the first.

    Raises:
      ConfigError: when users were dealt otherwise than said, or an arm has too few.
    """
    rewards = rewards_by_arm(log)
    names = [arm_name(label) for label in shares]
    if len(names) < 2:
        raise ConfigError("--arms: wanted two arms at least, such as stable=0.9,canary=0.1.")
    counts = np.array([len(rewards.get(name, ())) for name in names], np.float64)
    if unknown := sorted(set(rewards) - set(names)):
        raise ConfigError(f"--arms: the log has users of {', '.join(unknown)}, too; name all arms.")
    if counts.min() < estimators.LEAST_EFFECTIVE:
        told = ", ".join(f"{n} {c:.0f}" for n, c in zip(names, counts, strict=True))
        raise ConfigError(
            f"wanted {estimators.LEAST_EFFECTIVE:g} users of each arm at least; got {told}."
        )
    ratio = estimators.sample_ratio(counts, np.array(list(shares.values())))
    if ratio < _LEAST_P:
        raise ConfigError(
            f"wanted users dealt as {dict(shares)}; got {counts.astype(int).tolist()}, which "
            f"happens by chance with p = {ratio:.2g}. Something else chose them: no comparison of "
            "these arms means anything."
        )
    control = rewards[names[0]]
    return {
        "users": [{"arm": n, "users": int(c)} for n, c in zip(names, counts, strict=True)],
        "sample_ratio_p": ratio,
        "control": {"arm": names[0], "mean": float(control.mean())},
        "compared": [
            estimators.compare(name, control, rewards[name])._asdict() for name in names[1:]
        ],
    }
