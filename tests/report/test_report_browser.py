"""The page in a real browser: it draws, at screen and phone width, and logs no error."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from report_driver import drive

from immunomod.claims import load_claims
from immunomod.programs import load_programs
from immunomod.report.answer import READOUT_ROLES
from immunomod.report.build import render
from immunomod.report.inputs import load_tables
from immunomod.report.palette import class_colours
from immunomod.report.words import interval, signed
from support.report_inputs import Study

pytestmark = pytest.mark.slow


def screenshot(chromium, url, path, width, height):
    result = chromium(f"--screenshot={path}", f"--window-size={width},{height}", url)
    from matplotlib.image import imread

    return np.asarray(imread(path))[..., :3], result.stderr


@pytest.mark.parametrize("name", ["coculture", "nasty", "empty", "one_sample"])
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


MAP = """
  var canvas = document.querySelector('.map canvas'), select = document.querySelector('.map select');
  await until(function () { return canvas.dataset.by; });
  function colours() {
    var data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, found = {};
    for (var i = 0; i < data.length; i += 4) {
      var hex = '#' + [data[i], data[i + 1], data[i + 2]].map(function (c) {
        return ('0' + c.toString(16)).slice(-2); }).join('');
      found[hex] = (found[hex] || 0) + 1;
    }
    return found;
  }
  async function choose(label) {
    var option = [].find.call(select.options, function (o) { return o.textContent === label; });
    select.value = option.value;
    select.dispatchEvent(new Event('change'));
    await until(function () { return canvas.dataset.by === label; });
    return colours();
  }
"""


def test_the_map_takes_every_colouring(built, chromium, tmp_path):
    script = (
        MAP
        + """
      var options = [].map.call(select.options, function (o) { return o.textContent; }), all = {};
      for (var i = 0; i < options.length; i++) { all[options[i]] = await choose(options[i]); }
      var legend = [].map.call(document.querySelectorAll('.map .legend li'), function (l) { return l.textContent; });
      await choose('cell class');
      document.querySelector('.map button.level').click();
      var alone = colours();
      document.querySelector('.map button[data-zoom="1.6"]').click();
      await new Promise(function (go) { requestAnimationFrame(function () { requestAnimationFrame(go); }); });
      tell({errors: errors, options: options, all: all, alone: alone, zoomed: colours(), legend: legend,
            picture: getComputedStyle(document.querySelector('.map img')).display});
    """
    )
    told, log = drive(chromium, built("coculture").html, script, tmp_path)
    assert told.get("errors") == [], (told, log)
    assert told["options"][:5] == ["cell class", "condition", "donor", "sample", "cluster"]
    assert "IFN-gamma licensing response, MHC-free core" in told["options"]
    classes = class_colours(Study().cell_classes)
    assert {colour.lower() for colour in classes.values()} <= set(told["all"]["cell class"])
    drawings = [{colour: n for colour, n in drawn.items() if n > 20} for drawn in told["all"].values()]
    assert all(len(drawn) > 2 for drawn in drawings)
    assert all(first != second for first, second in pairwise(drawings))
    assert classes["MSC"].lower() in told["alone"] and classes["NK"].lower() not in told["alone"]
    assert told["zoomed"] != told["alone"] and told["picture"] == "none"


def test_the_map_answers_to_the_keyboard(built, chromium, tmp_path):
    script = (
        MAP
        + """
      async function press(key) {
        var before = canvas.dataset.view;
        canvas.dispatchEvent(new KeyboardEvent('keydown', { key: key, cancelable: true }));
        await until(function () { return canvas.dataset.view !== before; });
        return colours();
      }
      var all = colours(), near = await press('+'), beside = await press('ArrowRight'), whole = await press('0');
      tell({errors: errors, all: all, near: near, beside: beside, whole: whole, reached: canvas.tabIndex});
    """
    )
    told, log = drive(chromium, built("coculture").html, script, tmp_path)
    assert told.get("errors") == [], (told, log)
    assert told["near"] != told["all"] and told["beside"] != told["near"]
    assert told["whole"] == told["all"] and told["reached"] == 0


def test_tables_sort_and_filter(built, chromium, tmp_path):
    script = """
      var table = document.querySelector('table[id$="-pairs"]'), box = document.querySelector(
        'input.filter[data-table="' + table.id + '"]');
      function column(name) {
        var at = [].findIndex.call(table.tHead.rows[0].cells, function (c) { return c.textContent === name; });
        return [].map.call(table.tBodies[0].rows, function (r) { return r.cells[at].textContent; });
      }
      function press(name) {
        [].find.call(table.tHead.querySelectorAll('button'), function (b) { return b.textContent === name; }).click();
      }
      press('effect'); var up = column('effect'); press('effect'); var down = column('effect');
      press('ligand'); var named = column('ligand');
      box.value = 'cxcr3'; box.dispatchEvent(new Event('input'));
      var shown = [].filter.call(table.tBodies[0].rows, function (r) { return !r.hidden; }).length;
      var got = ''; document.getElementById('file-coculture_vs_alone_communication').addEventListener(
        'click', function (e) { got = this.download; e.preventDefault(); });
      [].find.call(document.querySelectorAll('a.get'), function (a) {
        return a.hash === '#file-coculture_vs_alone_communication'; }).click();
      tell({errors: errors, up: up, down: down, named: named, shown: shown, got: got});
    """
    told, log = drive(chromium, built("coculture").html, script, tmp_path)
    assert told.get("errors") == [], (told, log)
    pairs = pd.read_csv(built("coculture").inputs.contrasts["coculture_vs_alone"] / "communication.tsv", sep="\t")
    known = sorted(pairs["effect"].dropna())
    assert [float(value) for value in told["up"] if value] == pytest.approx(known, rel=1e-3)
    assert [float(value) for value in told["down"] if value] == pytest.approx(known[::-1], rel=1e-3)
    assert told["up"][-1] == told["down"][-1] == ""
    assert told["named"] == sorted(told["named"])
    assert told["shown"] == (pairs["receptor"] == "CXCR3").sum()
    assert told["got"].startswith("coculture_vs_alone_communication.tsv")


def test_names_stay_text_in_the_map_as_well(built, chromium, tmp_path):
    script = (
        MAP
        + """
      await choose('donor');
      var labels = [].map.call(document.querySelectorAll('.map button.level'), function (b) { return b.textContent; });
      tell({errors: errors, labels: labels, images: document.querySelectorAll('img[src="x"]').length,
            scripts: document.scripts.length});
    """
    )
    told, log = drive(chromium, built("nasty").html, script, tmp_path)
    assert told.get("errors") == [], (told, log)
    assert told["images"] == 0 and told["scripts"] == 2
    assert any(label.startswith("<script>alert(1)</script><img src=x") for label in told["labels"])


@pytest.mark.parametrize("name", ["one_sample", "untested", "old"])
def test_a_poor_run_opens_without_an_error(built, chromium, tmp_path, name):
    told, log = drive(chromium, built(name).html, "await until(function () { return document.body; });"
                      "tell({errors: errors, height: document.body.scrollHeight})", tmp_path)  # fmt: skip
    assert told["errors"] == [] and told["height"] > 1000, log


def test_the_text_of_the_page_is_that_of_the_tables(built, chromium, tmp_path):
    study = built("coculture")
    script = """tell({errors: errors, said: [].map.call(document.querySelectorAll('.said'), function (p) {
        return p.textContent; }), claims: document.querySelector('.claims').textContent,
        text: document.querySelector('main').textContent});"""
    told, _ = drive(chromium, study.html, script, tmp_path)
    effects = pd.read_csv(study.inputs.contrasts["coculture_vs_alone"] / "program_effects.tsv", sep="\t")
    readouts = effects[(effects["status"] == "tested") & effects["role"].isin(READOUT_ROLES)]
    for line, part in zip(
        told["said"],
        (readouts[readouts["cell_class"] == "MSC"], readouts[readouts["cell_class"] != "MSC"]),
        strict=False,
    ):
        moved = part[part["fdr"] < 0.05]
        most = moved.loc[moved["effect"].abs().idxmax()]
        assert f"{len(moved)} of {len(part)} programme" in line
        assert signed(most["effect"]) in line and interval(most["ci_low"], most["ci_high"]) in line
    assert "4 donor pairs" in told["said"][2]
    assert all(f"{claim.statement}." in told["claims"] for claim in load_claims().claims)
    for row in readouts.itertuples():
        assert signed(row.effect) in told["text"]


def test_an_atlas_of_200_000_cells_is_small_and_opens_fast(built, chromium, tmp_path):
    script = """
      var canvas = document.querySelector('.map canvas');
      await until(function () { return canvas.dataset.by; });
      var rare = [].find.call(document.querySelectorAll('.map button.level'), function (b) {
        return b.textContent.indexOf('Plasmacytoid') === 0; });
      tell({errors: errors, milliseconds: performance.now(), rare: rare.textContent});
    """
    source = built("old").inputs
    atlas = load_tables(source, load_programs()).atlases[0]
    rng = np.random.default_rng(1)
    cells = atlas.cells.sample(260_000, replace=True, random_state=1).reset_index(drop=True)
    cells["cell_class"] = cells["cell_class"].astype(str)
    cells.loc[:11, "cell_class"] = "pDC"
    scores = {f"score_{name}": rng.normal(size=len(cells)) for name in load_programs().table.index[:50]}
    cells = cells.drop(columns=[name for name in cells if name.startswith("score_")]).assign(**scores)
    cells["umap_1"] += rng.normal(0, 0.3, len(cells))
    tables = replace(load_tables(source, load_programs()), atlases=[replace(atlas, cells=cells)])
    html = render(tables, load_claims())
    assert len(html.encode()) < 25_000_000
    told, log = drive(chromium, html, script, tmp_path)
    assert told.get("errors") == [], (told, log)
    assert told["rare"].endswith("12")
    assert told["milliseconds"] < 5000


#: Makes a page look on the screen as it does on A4 paper within its margins (186 mm), by its own rules for print.
ON_PAPER = """
  var sheet = document.styleSheets[0], width = 703;
  for (var i = sheet.cssRules.length - 1; i >= 0; i--) {
    var rule = sheet.cssRules[i];
    if (!rule.media) { continue; }
    if (rule.media.mediaText === 'print') { rule.media.mediaText = 'all'; } else { sheet.deleteRule(i); }
  }
  document.body.style.width = width + 'px';
  function seen(e) { var box = e.getBoundingClientRect(); return box.width > 0 && box.height > 0; }
  function beyond() {
    return [].filter.call(document.querySelectorAll('main *'), function (e) {
      return !e.closest('svg') && !e.closest('.hidden') && seen(e) && e.getBoundingClientRect().right > width + 1;
    }).map(function (e) { return e.tagName + '.' + e.className + ' ' + e.textContent.trim().slice(0, 60); });
  }
"""


@pytest.mark.parametrize("name", ["coculture", "large"])
def test_paper_shows_whole_tables_what_is_folded_and_the_picture_of_the_map(built, chromium, tmp_path, name):
    script = (
        MAP.split("function colours")[0]
        + ON_PAPER
        + """
      var folded = [].slice.call(document.querySelectorAll('details.print'));
      var closed = folded.filter(function (d) { return !d.open; }).length;
      dispatchEvent(new Event('beforeprint'));
      function shown() { return [seen(document.querySelector('.map img')), seen(canvas)]; }
      var first = shown(), open = folded.every(function (d) { return d.open; }), over = beyond();
      select.value = 1; select.dispatchEvent(new Event('change'));
      await until(function () { return canvas.dataset.by === 'condition'; });
      var second = shown();
      dispatchEvent(new Event('afterprint'));
      tell({errors: errors, first: first, second: second, open: open, closed: closed, over: over,
            again: folded.filter(function (d) { return !d.open; }).length,
            links: [].filter.call(document.querySelectorAll('nav.contents, .downloads, .filter'), seen).length});
    """
    )
    told, log = drive(chromium, built(name).html, script, tmp_path)
    assert told.get("errors") == [], (told, log)
    assert told["over"] == []
    assert told["open"] and told["closed"] > 0 and told["again"] == told["closed"]
    # the picture while the map shows the classes; the map itself once it shows something else
    assert told["first"] == [True, False] and told["second"] == [False, True]
    assert told["links"] == 0


def test_it_prints(built, chromium, tmp_path):
    chromium(f"--print-to-pdf={tmp_path / 'page.pdf'}", "--virtual-time-budget=20000", built("coculture").page.as_uri())
    paper = (tmp_path / "page.pdf").read_bytes()
    assert 15 < len(re.findall(rb"/Type\s*/Page\b", paper)) < 60


def test_sixty_samples_and_twelve_questions_stay_small_and_fast(built, chromium, tmp_path):
    study = built("large")
    assert len(study.html.encode()) < 15_000_000
    script = """
      var canvas = document.querySelector('.map canvas');
      await until(function () { return canvas.dataset.by; });
      tell({errors: errors, milliseconds: performance.now(), answers: document.querySelectorAll('.answer').length,
            listed: document.querySelectorAll('nav.contents ol ol a').length,
            samples: document.querySelectorAll('table.samples')[0].tBodies[0].rows.length,
            names: [].map.call(document.querySelectorAll('.bars .name'), function (n) {
              return n.scrollWidth <= n.clientWidth + 1; }),
            width: document.documentElement.scrollWidth});
    """
    told, log = drive(chromium, study.html, script, tmp_path)
    assert told.get("errors") == [], (told, log)
    assert told["milliseconds"] < 10_000 and told["width"] <= 1280
    assert told["answers"] == told["listed"] == 12 and told["samples"] == 60
    assert all(told["names"])
