"""The page in a real browser: it draws, at screen and phone width, and logs no error."""

import re

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def screenshot(chromium, url, path, width, height):
    result = chromium(f"--screenshot={path}", f"--window-size={width},{height}", url)
    from matplotlib.image import imread

    return np.asarray(imread(path))[..., :3], result.stderr


@pytest.mark.parametrize("name", ["coculture", "nasty", "empty"])
def test_page_draws_without_console_errors(built, chromium, tmp_path, name):
    pixels, log = screenshot(chromium, built(name).page.as_uri(), tmp_path / "page.png", 1280, 3000)
    assert not re.search(r"CONSOLE.*(error|refused|violat)", log, re.IGNORECASE), log
    assert 0.02 < (pixels.mean(axis=2) < 0.9).mean() < 0.6
    assert not np.allclose(pixels[:, :200], 1.0)


def test_script_runs_under_the_policy(built, chromium):
    dom = chromium("--dump-dom", built("coculture").page.as_uri()).stdout
    boxes = re.findall(r'<input class="filter"[^>]*>', dom)
    assert boxes and not any(re.search(r"\shidden", box) for box in boxes)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_hangs_over_the_edge(built, chromium, tmp_path, width):
    frame = tmp_path / "frame.html"
    probe = built("many_samples").html.replace(
        "<script>", "<script>/*", 1
    ).replace("</script>\n</body>", "*/</script>\n</body>")  # fmt: skip
    probe = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", probe)
    script = (
        "<script>addEventListener('load',function(){var w=document.documentElement.scrollWidth;"
        "document.body.setAttribute('data-width',w)})</script></body>"
    )
    page = tmp_path / "probe.html"
    page.write_text(probe.replace("</body>", script))
    frame.write_text(
        f"<iframe id=f src='{page.as_uri()}' style='border:0;width:{width}px;height:900px'></iframe>"
        "<script>addEventListener('message',function(e){document.title='width '+e.data})</script>"
    )
    page.write_text(page.read_text().replace("document.body.set", "parent.postMessage(w,'*');document.body.set"))
    dom = chromium("--virtual-time-budget=8000", "--dump-dom", frame.as_uri()).stdout
    found = re.search(r"<title>width (\d+)</title>", dom)
    assert found, dom[:300]
    assert int(found.group(1)) <= width
