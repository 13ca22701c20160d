"""The built book: no warning while it builds, no dead link, nothing from the network, formulas and search that work.

The site is the one under build/site where there is one (`make book` and `make site` put it there). Otherwise a small
one is built from the prose and stand-in chapters, which tests everything but the chapters.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
SOURCES = ROOT / "build" / "book_src"
SITE = ROOT / "build" / "site" / "_build" / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text())
FILES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
CHAPTERS = [name for name in FILES if name.startswith("executed/")]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
AXE = ROOT / "build" / "node" / "node_modules" / "axe-core" / "axe.min.js"
VIOLATIONS = """async () => (await axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})).violations
    .flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 120)}`))"""
BROKEN_PICTURES = """async () => {
    const pictures = [...document.images];
    pictures.forEach(picture => { picture.loading = "eager"; });
    await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
    return pictures.filter(picture => !picture.naturalWidth).map(picture => picture.src);
}"""
#: Whatever has no words of its own for those who do not see it: a path, or nothing.
WITHOUT_WORDS = """() => [
    ...[...document.querySelectorAll(".bd-article img:not(.toggler)")]
        .filter(({alt}) => !/[a-z] [a-z]/i.test(alt) || /[.](png|svg|jpe?g)$/.test(alt))
        .map(picture => picture.outerHTML.slice(0, 120)),
    ...[...document.querySelectorAll(".plotly-graph-div")].filter(plot => !plot.closest("[role=group][aria-label]"))
        .map(plot => plot.id),
]"""
FIRST_FIGURE = """() => {
    const picture = document.querySelector(".bd-article img");
    return picture && picture.complete && picture.naturalWidth > 0;
}"""
#: What makes a page wider than the window; a table or a line of code that scrolls by itself does not.
STICKS_OUT = """() => document.documentElement.scrollWidth <= innerWidth + 1 ? [] : [
    document.documentElement.scrollWidth,
    ...[...document.querySelectorAll(".bd-article *")].filter(part => part.getBoundingClientRect().right > innerWidth)
        .map(part => part.outerHTML.slice(0, 80)),
].slice(0, 6)"""
TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll("div.math, .bd-article table")]
    .filter(box => box.scrollWidth > box.clientWidth + 1 || box.offsetWidth > box.parentElement?.clientWidth + 1)
    .map(box => `${box.tagName} ${box.id} ${box.textContent.trim().slice(0, 60)}`)"""

SANDBOX = ["--no-sandbox"]
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("book")]  # one worker builds the site once


def stand_in(chapter: str, glued: set[str], figures: set[str]) -> Any:
    """Return an executed notebook that has the values and figures to which the prose refers."""
    cells = [new_markdown_cell(f"# Stand-in for {Path(chapter).name}\n\nIt says imbalance.")]
    for name in sorted(figures):
        picture = new_output("display_data", data={"image/png": PIXEL})
        words = {"figure": {"caption": "A stand-in.", "name": name}, "image": {"alt": "Nothing to see."}}
        cells.append(new_code_cell("plot()", metadata={"mystnb": words}, outputs=[picture], execution_count=1))
    for name in sorted(glued):
        kept = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
        value = new_output("display_data", data={"application/papermill.record/text/plain": "0.5"}, metadata=kept)
        cells.append(new_code_cell(f"glue({name!r}, 0.5)", outputs=[value], execution_count=1))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def stage(folder: Path) -> Path:
    """Copy the book's sources with its executed chapters, or stand-ins for those that nobody has executed yet."""
    shutil.copytree(SOURCES if SOURCES.exists() else BOOK, folder)
    prose = "".join(path.read_text() for path in BOOK.glob("*.md"))
    own_labels = set(re.findall(r"^(?::label:|:name:|\(([\w-]+)\)=)\s*([\w-]*)", prose, re.MULTILINE))
    labels = set(re.findall(r"\{numref\}`(?:[^`<]*<)?([\w-]+)", prose)) - {a or b for a, b in own_labels}
    (folder / "executed").mkdir(exist_ok=True)
    for chapter in CHAPTERS:
        path = folder / f"{chapter}.ipynb"
        if not path.exists():
            glued = set(re.findall(rf"{chapter}\.ipynb::([\w.-]+)", prose))
            nbformat.write(stand_in(chapter, glued, labels if chapter == CHAPTERS[0] else set()), path)
    return folder


def build(sources: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build the site with every warning an error."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(sources), "--path-output", str(target)]
    return subprocess.run([*command, "--all", "-W", "-n", "--keep-going"], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A site built now from the prose and the chapters that there are."""
    folder = tmp_path_factory.mktemp("book")
    return build(stage(folder / "sources"), folder / "site"), folder / "site" / "_build" / "html"


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Path:
    """The folder of the site: what make has built, else a fresh one."""
    return SITE if (SITE / "index.html").exists() else request.getfixturevalue("fresh")[1]


class Page(HTMLParser):
    """What a page links to, what it loads and the places in it that a link may name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.leads_on = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            self.leads_on = True
            self.links.append(values.get("content", "").partition("url=")[2])
        elif tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.loads.append(values["href"])
        elif tag in ("script", "img", "iframe", "source", "video") and "src" in values:
            self.loads.append(values["src"])


def pages(site: Path) -> list[Path]:
    """Every page that a reader can open."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def readable(site: Path) -> list[Path]:
    """The pages that show something: `index.html` does nothing but lead on to the introduction."""
    return [path for path in pages(site) if not Page(path).leads_on]


def outside(address: str) -> bool:
    """Whether an address leads out of the site."""
    return bool(urlsplit(address).netloc) or urlsplit(address).scheme not in ("", "file", "data", "about")


def test_builds_without_a_warning(fresh: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """Jupyter Book with warnings as errors accepts prose, references, equations, citations and chapters."""
    result, _ = fresh
    assert result.returncode == 0, result.stderr[-4000:]


def test_every_file_of_the_contents_is_a_page(site: Path) -> None:
    """Each entry of _toc.yml became a page, so that a green build has published what it promises."""
    missing = [name for name in FILES if not (site / f"{name}.html").exists()]
    assert not missing


def test_notebooks_are_numbered_in_reading_order() -> None:
    """The folder lists the chapters as _toc.yml does, each of them and no other."""
    assert [Path(name).name for name in CHAPTERS] == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_pages_load_only_what_lies_beside_them(site: Path) -> None:
    """No script, style or picture comes from elsewhere, and each exists."""
    for path in pages(site):
        for address in Page(path).loads:
            assert not outside(address), f"{path.name} loads {address}"
            if not address.startswith("data:"):
                assert (path.parent / unquote(urlsplit(address).path)).exists(), f"{path.name} loads {address}"


def test_links_lead_somewhere(site: Path) -> None:
    """Each link within the site names a file that exists and, if it names a place, a place that is in it."""
    seen = {path.resolve(): Page(path) for path in pages(site)}
    for path, page in seen.items():
        for address in page.links:
            name, place = urldefrag(address)
            if outside(address) or address.startswith(("mailto:", "javascript:")):
                continue
            target = (path.parent / unquote(urlsplit(name).path)).resolve() if name else path
            assert target.exists(), f"{path.name} links to {address}"
            if place and target in seen:
                assert unquote(place) in seen[target].places | {"top"}, f"{path.name} links to {address}"


def test_chapters_show_results_and_no_logs(site: Path) -> None:
    """A chapter built from an executed notebook shows outputs, without a traceback, warning or error text."""
    for chapter in CHAPTERS:
        html = (site / f"{chapter}.html").read_text()
        assert "cell_output" in html, f"{chapter} shows no output"
        assert not re.search(r"Traceback \(most recent|Warning:|output stderr|output traceback", html), chapter


def weight(*paths: Path) -> float:
    """Megabytes of files."""
    return sum(path.stat().st_size for path in paths) / 1e6


def test_pages_and_the_site_are_light(site: Path) -> None:
    """No page with all that it loads weighs more than 8 MB, the whole site less than 80 MB."""
    for path in pages(site):
        loads = {
            (path.parent / unquote(urlsplit(load).path)).resolve() for load in Page(path).loads if load[:5] != "data:"
        }
        assert weight(path, *(load for load in loads if load.is_file())) <= 8, path.name
    assert weight(*(path for path in site.rglob("*") if path.is_file())) < 80


def test_the_reference_says_of_every_name_where_it_is_used(site: Path) -> None:
    """Each function and class names pages of the book, or says that no chapter calls it."""
    for path in sorted((site / "reference").glob("*.html")):
        text = path.read_text()
        names = len(re.findall(r'<dl class="py (?:function|class|exception)"', text))
        assert names, path.name
        assert len(re.findall(r"<p>(?:Used in|Behind what is used in|Used by the library itself)", text)) >= names, path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium from the system's packages."""
    if not os.environ.get("HNLIB_FULL"):
        pytest.skip("opens a browser; set HNLIB_FULL=1")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=[*SANDBOX, *SOFTWARE_WEBGL])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[tuple[Any, list[str]]]:
    """A tab and the list of everything in it that went wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, faults = context.new_page(), []
    page.on("request", lambda request: faults.append(f"asks for {request.url}") if outside(request.url) else None)
    page.on("requestfailed", lambda request: faults.append(f"cannot load {request.url}"))
    page.on("pageerror", lambda error: faults.append(f"script error {error}"))
    page.on("console", lambda line: faults.append(f"console: {line.text}") if line.type == "error" else None)
    yield page, faults
    context.close()


@pytest.mark.browser
@pytest.mark.full
def test_pages_open_from_disk(site: Path, tab: tuple[Any, list[str]]) -> None:
    """Opened as a file, no page asks the network, fails in a script, breaks a picture or formula, or overflows."""
    page, faults = tab
    for path in readable(site):
        page.goto(path.as_uri(), wait_until="load")
        faults += [f"without words: {what}" for what in page.evaluate(WITHOUT_WORDS)]
        faults += [f"broken picture {source}" for source in page.evaluate(BROKEN_PICTURES)]
        if page.query_selector(".math"):
            page.evaluate("() => MathJax.startup.promise")
            faults += ["no formula drawn"] * (page.locator("mjx-container svg").count() == 0)
            faults += ["formula with an error"] * page.locator("mjx-merror, [data-mjx-error]").count()
        faults += [f"wider than its column: {text}" for text in page.evaluate(TOO_WIDE)]
        assert not faults, f"{path.relative_to(site)}: {faults}"


@pytest.mark.browser
@pytest.mark.full
def test_pages_fit_a_telephone(site: Path, tab: tuple[Any, list[str]]) -> None:
    """At 390 x 800 points no page scrolls sideways; wide tables and lines of code do so in their own box."""
    page, _ = tab
    page.set_viewport_size({"width": 390, "height": 800})
    for path in readable(site):
        page.goto(path.as_uri(), wait_until="load")
        if page.query_selector(".math"):
            page.evaluate("() => MathJax.startup.promise")
        found = page.evaluate(STICKS_OUT)
        assert not found, f"{path.relative_to(site)}: {found}"


@pytest.mark.browser
@pytest.mark.full
def test_the_first_figure_shows_within_two_seconds(site: Path, tab: tuple[Any, list[str]]) -> None:
    """From disk, on every page with a figure: the best of five, and so much longer as others wait for the cores."""
    page, _ = tab
    for path in readable(site):
        if "<img" not in path.read_text().partition("bd-article")[2]:
            continue
        seconds: list[float] = []
        while len(seconds) < 5 and min(seconds, default=2.0) >= 2:
            began = time.monotonic()
            page.goto(path.as_uri(), wait_until="commit")
            page.wait_for_function(FIRST_FIGURE)
            seconds.append(time.monotonic() - began)
        crowd = max(1.0, 1.5 * os.getloadavg()[0] / (os.cpu_count() or 1))
        assert min(seconds) < 2 * crowd, f"{path.relative_to(site)}: {seconds}"


@pytest.mark.browser
@pytest.mark.full
def test_search_finds_a_word(site: Path, tab: tuple[Any, list[str]]) -> None:
    """The search page, opened from disk, lists pages that hold the word, and the first of them exists."""
    page, faults = tab
    page.goto(f"{(site / 'search.html').as_uri()}?q=imbalance", wait_until="load")
    page.wait_for_selector("#search-results li a", timeout=15_000)
    first = page.locator("#search-results li a").first.get_attribute("href")
    assert first is not None
    assert (site / unquote(urlsplit(first).path)).exists()
    assert not faults


@pytest.mark.browser
@pytest.mark.full
def test_no_page_breaks_a_rule_of_accessibility(site: Path, tab: tuple[Any, list[str]]) -> None:
    """axe-core finds no violation of WCAG 2.1, level A or AA, on any page, once its viewers run."""
    if not AXE.exists():
        pytest.skip("axe-core is not there; make site installs it where there is node")
    page, _ = tab
    running = (site / "_static" / "local" / "niivue.umd.js").exists()
    for path in readable(site):
        page.goto(path.as_uri(), wait_until="load")
        for viewer in page.locator(".hn-viewer").all() if running else []:
            start(page, viewer)
        page.evaluate(AXE.read_text())
        found = page.evaluate(VIOLATIONS)
        assert not found, f"{path.relative_to(site)}: {found}"


def start(page: Any, viewer: Any) -> None:
    """Bring a viewer into sight and wait until it runs."""
    viewer.scroll_into_view_if_needed()
    page.wait_for_function("box => box.dataset.ready", arg=viewer.element_handle(), timeout=60_000)
    assert viewer.get_attribute("data-ready") == "yes", page.url


def on_screen(page: Any, box: Any) -> bool:
    """Whether a part of the page is in sight."""
    sides = box.evaluate("box => { const b = box.getBoundingClientRect(); return [b.top, b.bottom]; }")
    return bool(sides[0] < page.viewport_size["height"] and sides[1] > 0)


def viewers(site: Path) -> list[Path]:
    """The pages with a scan to scroll through, where the library for it was there when they were built."""
    if not (site / "_static" / "local" / "niivue.umd.js").exists():
        pytest.skip("built without node: viewers are still pictures")
    return [path for path in pages(site) if 'class="hn-viewer"' in path.read_text()]


@pytest.mark.browser
@pytest.mark.full
def test_viewers_turn_with_the_wheel_and_follow_a_click(site: Path, tab: tuple[Any, list[str]]) -> None:
    """Each starts, shows another slice after a turn of the wheel, another voxel after a click and after a slider."""
    page, faults = tab
    for path in viewers(site):
        page.goto(path.as_uri(), wait_until="load")
        viewer = page.locator(".hn-viewer").first
        start(page, viewer)
        canvas = viewer.locator("canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        seen = [viewer.get_attribute("data-voxel")]
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 4)
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(1000)
        seen.append(viewer.get_attribute("data-voxel"))
        page.mouse.click(box["x"] + box["width"] / 3 + 20, box["y"] + box["height"] / 4 + 20)
        page.wait_for_timeout(1000)
        seen.append(viewer.get_attribute("data-voxel"))
        viewer.locator("input").last.press("ArrowRight")
        page.wait_for_timeout(1000)
        seen.append(viewer.get_attribute("data-voxel"))
        assert all(before != after for before, after in pairwise(seen)), f"{path.name}: {seen}"
        assert not faults, f"{path.name}: {faults}"


@pytest.mark.browser
@pytest.mark.full
def test_on_paper_the_still_picture_stands_in_for_the_viewer(site: Path, tab: tuple[Any, list[str]]) -> None:
    """On screen a running viewer hides it; print shows it, and neither canvas nor controls."""
    page, _ = tab
    for path in viewers(site):
        page.emulate_media(media="screen")
        page.goto(path.as_uri(), wait_until="load")
        viewer = page.locator(".hn-viewer").first
        start(page, viewer)
        assert not viewer.locator("img").is_visible(), path.name
        page.emulate_media(media="print")
        assert viewer.locator("img").is_visible(), path.name
        assert not [part for part in viewer.locator("canvas, button, input").all() if part.is_visible()], path.name


@pytest.mark.browser
@pytest.mark.full
def test_what_is_drawn_for_paper_shows_there_alone(site: Path, tab: tuple[Any, list[str]]) -> None:
    """The points of all outlines, for which the screen has an interactive picture."""
    page, _ = tab
    page.goto((site / "executed" / "12_failures.html").as_uri(), wait_until="load")
    picture = page.locator(".tag_print-only img")
    assert not picture.is_visible()
    page.emulate_media(media="print")
    assert picture.is_visible()


@pytest.mark.browser
@pytest.mark.full
@pytest.mark.parametrize(
    ("chapter", "figure", "label", "shown"),
    [
        ("05_sigma", "landscape", "Quantity:", "plot => JSON.stringify(plot.data[0].z)"),
        ("09_evaluation", "surfaces", "Shown:", "plot => plot.data.map(part => part.visible)"),
    ],
)
def test_interactive_pictures_follow_their_menu_by_keys(
    chapter: str, figure: str, label: str, shown: str, site: Path, tab: tuple[Any, list[str]]
) -> None:
    """The keyboard turns the menu, which changes what the traces hold; the wheel, or a drag, moves the view."""
    page, faults = tab
    page.goto((site / "executed" / f"{chapter}.html").as_uri(), wait_until="load")
    plot, menu = page.locator(f"#{figure}"), page.get_by_label(label)
    before = plot.evaluate(shown)
    menu.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    assert plot.evaluate(shown) != before
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    view = """plot => JSON.stringify([plot._fullLayout.scene?._scene?.getCamera(),
        Object.entries(plot._fullLayout).filter(([key]) => /^xaxis/.test(key)).map(([, axis]) => axis.range)])"""
    seen = plot.evaluate(view)
    x, y = box["x"] + box["width"] / 8, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    if figure == "surfaces":
        page.mouse.wheel(0, 300)
    else:
        page.mouse.down()
        page.mouse.move(x + 60, y + 40, steps=5)
        page.mouse.up()
    page.wait_for_timeout(1000)
    assert plot.evaluate(view) != seen
    assert not faults, faults


@pytest.mark.browser
@pytest.mark.full
@pytest.mark.parametrize(("chapter", "figure"), [("11_confidence", "drift-of-cases"), ("12_failures", "every-outline")])
def test_linked_points_show_the_chosen_patient(
    chapter: str, figure: str, site: Path, tab: tuple[Any, list[str]]
) -> None:
    """By the menu, which keys reach, and by a click: the patient's points are joined in the last trace."""
    page, faults = tab
    page.goto((site / "executed" / f"{chapter}.html").as_uri(), wait_until="load")
    menu = page.get_by_label("Patient:")
    menu.select_option(index=1)
    plot = page.locator(f"#{figure}")
    chosen = plot.get_attribute("data-chosen")
    assert chosen == menu.input_value()
    assert page.evaluate("id => document.getElementById(id).data.at(-1).x.length", figure) > 1
    if chapter == "12_failures":  # the worst outlines have pictures, to which a choice leads by either way
        worst = page.evaluate(
            "id => document.getElementById(id).data.flatMap(t => t.customdata || []).find(c => c[1])", figure
        )
        menu.select_option(worst[0])
        page.wait_for_timeout(2000)
        assert any(box.is_visible() and on_screen(page, box) for box in page.locator("figure[id^=worst-]").all())
    point = plot.locator(".points path").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(500)
    assert menu.input_value()
    assert plot.get_attribute("data-chosen") == menu.input_value()
    assert not faults, faults


@pytest.mark.browser
@pytest.mark.full
def test_without_webgl_the_still_picture_stays(site: Path, browser: Any) -> None:
    """A browser without WebGL shows what print shows."""
    chromium = browser.browser_type.launch(executable_path=CHROMIUM, args=[*SANDBOX, "--disable-3d-apis"])
    try:
        for path in viewers(site):
            page = chromium.new_page()
            page.goto(path.as_uri(), wait_until="load")
            page.locator(".hn-viewer").first.scroll_into_view_if_needed()
            page.wait_for_timeout(1000)
            assert page.locator(".hn-viewer img").first.is_visible(), path.name
            assert page.locator(".hn-viewer canvas").count() == 0, path.name
    finally:
        chromium.close()
