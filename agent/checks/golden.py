"""Does the model answer now as it did where it was made?"""

import json
from collections.abc import Iterator

from agent.checks import child
from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.model import fallen_back, in_force
from agent.checks.runner import Check

WRONG_ANSWER = ("bundle-golden", "model-output")
OF_THE_FILES = ("bundle-missing", "bundle-json", "bundle-file-missing", "bundle-digest", "bundle-path")
"""What the look at the files tells already."""
CANNOT_LOAD = ("model-load", "bundle-input", "bundle-label-count", "bundle-runtime")


def check(context: Context) -> Iterator[Finding]:
    """Run the golden inputs in a child process."""
    from agent.bench.choosing import chosen

    config = context.config
    if config is None:
        yield skipped("model", "self-test", "there is no configuration that names the model")
        return
    try:
        bundle = in_force(config)
        folder, setup = str(bundle.folder), chosen(config, bundle).setup
    except (OSError, ValueError):
        folder, setup = config.model.bundle, config.model.setup
    said = child.ask(context.left_s(), "model", folder, json.dumps(setup.to_json()))
    report = next(iter(said.reports), None)
    if report is None and said.ended:
        yield wrong("model", "MOD-3", "the process that loaded it crashed")
    elif report is None and not said.fair:
        yield skipped("model", "self-test", said.excuse)
    elif report is None:
        yield wrong("model", "MOD-7")
    elif report["code"] in OF_THE_FILES:
        yield skipped("model", "self-test", "the model's files are not as they were packed")
    elif not report["code"]:
        detail = f"loaded and tested in {report['took_s']:.1f} s"
        yield fine("model", f"{report['model']} answers as it should on {report['setup']}", detail)
        if context.vision_reports() is None:  # else the look at vision tells it
            yield from fallen_back(report["notes"])
    else:
        yield _failed(report)


def _failed(report: child.Report) -> Finding:
    code = "MOD-2" if report["code"] in WRONG_ANSWER else "MOD-3" if report["code"] in CANNOT_LOAD else "MOD-1"
    return wrong("model", code, f"{report['message']} [{report['code']}]", cure=report["hint"])


CHECK = Check("golden", "model", "the model's self-test, now", check, late="MOD-7", quick=False, turn=1)
