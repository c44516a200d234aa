"""The bits: the engine's words, in several orders, through batteries of statistical tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from evidence import practrand, testu01
from evidence.report import Report, Result, Say
from evidence.words import SOURCES

BATTERIES = (*testu01.BATTERIES, "practrand")

SUSPECT = 1e-3
"""p-values nearer to 0 or 1 are reported as suspect, as in TestU01."""
FAILURE = 1e-10
"""p-values nearer to 0 or 1 are failures (L'Ecuyer and Simard 2007, section 7.1)."""


def run(
    sources: Iterable[str], battery: str, minutes: float, report: Report, say: Say, sub_command: str = "bits"
) -> list[str]:
    """Tests each source with a battery.

    Args:
        sources: Names of `evidence.words.SOURCES`.
        battery: One of `BATTERIES`.
        minutes: How long PractRand runs for each source; TestU01's batteries have fixed lengths.
        report: The report to add the results to.
        say: Shows the progress.
        sub_command: The subcommand in the commands of the report.

    Returns:
        The sources with an unexpected result: a good one failed, or a bad one passed.

    Raises:
        evidence.testu01.NotInstalledError: The battery's library is missing.
        evidence.practrand.NotInstalledError: The battery's program is missing.
    """
    wrong = []
    for name in sources:
        source = SOURCES[name]
        say(f"{battery}: {name}, {source.what}")
        report.folder.mkdir(parents=True, exist_ok=True)
        text = report.folder / f"{name}.{battery}.txt"
        options = f" --minutes {minutes:g}" if battery == "practrand" else ""
        result = _practrand(name, minutes, text) if battery == "practrand" else _testu01(name, battery, text)
        result = {"source": name, "what": source.what, "battery": battery, "is_good": source.is_good, **result}
        report.add(f"{name} {battery}", f"python -m evidence {sub_command} {name} --battery {battery}{options}", result)
        say(described(result))
        if bool(result["failures"]) == source.is_good:
            wrong.append(name)
    return wrong


def described(result: Result) -> str:
    """The result of a battery, in one line.

    >>> described({"is_good": True, "statistics": 15, "bytes": 10**9, "seconds": 7.0, "failures": [], "suspect": []})
    '  15 statistics of 0.93 GiB in 7 s: passed; 0 failures, 0 suspect p-values'
    """
    verdict = "failed" if result["failures"] else "passed"
    expected = "" if result["is_good"] else ", as it must" if result["failures"] else ", but must fail"
    suspect = "".join(f"; {test['name']}: p = {test['p']}" for test in result["suspect"])
    return (
        f"  {result['statistics']} statistics of {result['bytes'] / 2**30:.2f} GiB in {result['seconds']:.0f} s: "
        f"{verdict}{expected}; {len(result['failures'])} failures, {len(result['suspect'])} suspect p-values{suspect}"
    )


def _testu01(source: str, battery: str, text: Path) -> Result:
    return judged(testu01.run(source, battery, text))


def judged(result: Result) -> Result:
    """The result of a TestU01 battery, with its suspect statistics and its failures.

    >>> tests = [{"name": "Gap", "p": 0.0}, {"name": "Run", "p": 0.5}]
    >>> judged({"words": 8, "seconds": 1.0, "tests": tests})["failures"]
    [{'name': 'Gap', 'p': 0.0}]
    """
    tests = result["tests"]
    failures = [test for test in tests if _is_beyond(test["p"], FAILURE)]
    suspect = [test for test in tests if _is_beyond(test["p"], SUSPECT) and test not in failures]
    return {
        "bytes": 4 * result["words"],
        "seconds": round(result["seconds"], 1),
        "statistics": len(tests),
        "failures": failures,
        "suspect": suspect,
        "smallest_p": min(test["p"] for test in tests),
        "largest_p": max(test["p"] for test in tests),
    }


def _is_beyond(p: float, limit: float) -> bool:
    return not limit <= p <= 1 - limit


def _practrand(source: str, minutes: float, text: Path) -> Result:
    result = practrand.run(source, minutes, text)
    anomalies = result.pop("anomalies")
    failures = [anomaly for anomaly in anomalies if "FAIL" in anomaly["verdict"]]
    return {
        **result,
        "seconds": round(result["seconds"], 1),
        "failures": failures,
        "suspect": [anomaly for anomaly in anomalies if anomaly not in failures],
    }
