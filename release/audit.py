"""Asks OSV whether what the lock files name has known vulnerabilities.

    make audit

OSV (https://osv.dev) holds the advisories of PyPA that pip-audit reads, and takes all packages in
one request. Where it cannot be reached that is said, and nothing else happens.
"""

import argparse
import json
import pathlib
import re
import sys
import urllib.request
from collections.abc import Mapping, Sequence

from mmrec_tf.errors import MmrecError, run_command
from release.lock import PYTHONS, lock_path

URL = "https://api.osv.dev/v1/querybatch"
TIMEOUT_SECONDS = 3
# Advisories that do not concern this project, by id, each with the reason.
ACCEPTED = pathlib.Path(__file__).resolve().parent / "accepted.json"


def pins(pythons: Sequence[str] = PYTHONS) -> list[tuple[str, str]]:
    """Names and versions in the lock files, each pair once."""
    texts = [lock_path(python).read_text(encoding="utf-8") for python in pythons]
    found = (re.findall(r"^(\S+)==(\S+) \\$", text, re.MULTILINE) for text in texts)
    return sorted({pin for of_one in found for pin in of_one})


def ask(packages: Sequence[tuple[str, str]], *, url: str = URL) -> dict[tuple[str, str], list[str]]:
    """The ids of the advisories of packages that have any.

    Args:
      packages: names and versions.
      url: of OSV's API for many queries at once.

    Raises:
      OSError: where it cannot be reached.
      MmrecError: where it answers with something else.
    """
    queries = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
        for name, version in packages
    ]
    request = urllib.request.Request(
        url,
        data=json.dumps({"queries": queries}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        body = response.read()
    try:
        results = json.loads(body)["results"]
        found = [[one["id"] for one in result.get("vulns", [])] for result in results]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MmrecError(
            f"{url}: wanted results of {len(packages)} queries; got others."
        ) from error
    if len(found) != len(packages):
        raise MmrecError(f"{url}: wanted {len(packages)} results; got {len(found)}.")
    return {pin: ids for pin, ids in zip(packages, found, strict=True) if ids}


def report(
    found: Mapping[tuple[str, str], Sequence[str]], accepted: Mapping[str, str], *, total: int
) -> tuple[list[str], int]:
    """Lines that say what was found, and how many advisories are not accepted."""
    lines, count = [], 0
    for (name, version), ids in sorted(found.items()):
        fresh = [one for one in ids if one not in accepted]
        count += len(fresh)
        if fresh:
            lines.append(f"{name} {version}: {', '.join(fresh)}")
    known = {one for ids in found.values() for one in ids}
    stale = sorted(set(accepted) - known)
    if stale:
        lines.append(f"accepted.json: not found any more: {', '.join(stale)}. Take them out.")
    lines.append(
        f"audit: {total} packages, {count} advisories"
        + (f" beside {len(known & set(accepted))} accepted ones" if known & set(accepted) else "")
        + (". See https://osv.dev/vulnerability/ID; upgrade, or say in " if count else "")
        + ("release/accepted.json why it does not matter." if count else "")
    )
    return lines, count


def _main(strict: bool) -> int:
    packages = pins()
    try:
        found = ask(packages)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        print(f"audit: skipped, as {URL} could not be reached ({reason}).")
        return 0
    accepted = json.loads(ACCEPTED.read_text(encoding="utf-8"))
    lines, count = report(found, accepted, total=len(packages))
    print("\n".join(lines))
    return int(strict and count > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(prog="release.audit", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 for an advisory that is not accepted"
    )
    parsed = parser.parse_args(arguments)
    return run_command(lambda: _main(parsed.strict), name="release.audit")


if __name__ == "__main__":
    sys.exit(main())
