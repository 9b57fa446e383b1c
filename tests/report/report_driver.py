"""Drives a report in a real browser, under the page's own content security policy."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

#: What every script may use: wait for a condition, then go on; and `tell`, which ends the script.
#: Without a screen frames need not come, so what waits for one waits for the page's clock.
HELPERS = """
function until(what) { return new Promise(function (go) {
  (function look() { if (what()) { go(); } else { setTimeout(look, 10); } })(); }); }
function tell(value) { document.documentElement.setAttribute('data-told', encodeURIComponent(JSON.stringify(value))); }
var loaded = new Promise(function (go) { addEventListener('load', go); }), errors = [];
window.requestAnimationFrame = function (draw) { return setTimeout(draw, 16); };
addEventListener('error', function (e) { errors.push(String(e.message)); });
addEventListener('securitypolicyviolation', function (e) { errors.push('policy: ' + e.violatedDirective); });
"""


def drive(chromium: Callable[..., Any], html: str, script: str, folder: Path) -> tuple[Any, str]:
    """Run ``script`` (the body of an async function) in the page; returns what it told, and the console's log.

    The page keeps its policy; this one script is let in beside the page's own by its hash.
    """
    failed = "function (e) { tell({failed: String(e)}); }"
    body = f"{HELPERS}(async function () {{ await loaded; {script} }})().catch({failed});"
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    # Before the page's own script, so that no error of that one is missed.
    driven = html.replace("script-src 'sha256-", f"script-src 'sha256-{digest}' 'sha256-", 1)
    head, script_tag, rest = driven.rpartition("<script>")
    page = folder / "driven.html"
    page.write_text(f"{head}<script>{body}</script>{script_tag}{rest}", encoding="utf-8")
    # Data are inflated and pictures decoded in real time beside the page's own clock: the budget is wide, and costs
    # nothing once the script has told, since an idle page's clock runs on at once.
    result = chromium("--virtual-time-budget=60000", "--window-size=1280,2000", "--dump-dom", page.as_uri())
    found = re.search(r'data-told="([^"]*)"', result.stdout)
    assert found, f"the script told nothing; console: {result.stderr[-2000:]}"
    return json.loads(unquote(found.group(1))), result.stderr
