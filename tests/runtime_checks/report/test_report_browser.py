"""The report in a real browser: what it shows, that it works, and that it fetches nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.types import BundleContent
from runtime_checks.report import render_html, write_html
from runtime_checks.results import Timeline

pytestmark = pytest.mark.browser

SOURCES = ["reference", "pytorch", "segmentation.fp32.onnx", "segmentation.fp32.pte"]
BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


def open_browser(profile: Path) -> Any:
    """Headless Chromium with a fresh profile; skips the test where there is none."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("chromium or chromedriver is not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Any]) -> Iterator[Any]:
    """The report, opened from disk."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    write_html(path, **contents)
    assert [p.name for p in folder.iterdir()] == ["report.html"]
    driver = open_browser(folder / "profile")
    try:
        driver.get(path.as_uri())
        yield driver
    finally:
        driver.quit()


def texts(page: Any, selector: str) -> list[str]:
    """Visible text of all elements of a CSS selector."""
    return [element.text for element in page.find_elements("css selector", selector)]


def test_verdict_and_header(page: Any) -> None:
    verdict = page.find_element("id", "verdict")
    assert verdict.get_attribute("data-verdict") == "FAIL"
    sentence = "1 of 3 artifacts passes, 1 fails, 1 did not run"
    assert verdict.text.splitlines() == ["✗ FAIL", sentence]
    assert page.title == "sinc-1bi: FAIL – diarport"
    facts = dict(zip(texts(page, ".facts dt"), texts(page, ".facts dd"), strict=True))
    assert facts["Window"] == "5 s, 80,000 samples at 16 kHz"
    assert facts["Frames"] == "293, every 16.88 ms, each seeing 991 samples"
    assert facts["Checkpoint SHA-256"] == "abababababab"


def test_summary_tells_pass_fail_and_not_run_apart(page: Any) -> None:
    rows = texts(page, ".matrix tbody tr")
    assert [row.split()[0] for row in rows] == [
        "segmentation.fp32.onnx",
        "segmentation.fp32.pte",
        "segmentation.fp16.mlpackage",
    ]
    chips = page.find_elements("css selector", ".matrix .chip")
    assert [chip.text for chip in chips] == ["✓ PASS", "✗ FAIL", "– NOT RUN"]
    assert len({chip.value_of_css_property("background-color") for chip in chips}) == 3
    assert chips[2].value_of_css_property("border-top-style") == "dashed"
    assert texts(page, "#summary .gap") == [
        "segmentation.fp16.mlpackage did not run: Core ML runs on a Mac only; this is Linux"
    ]


def test_timeline_has_a_row_a_source_with_its_turns(page: Any, timelines: list[Timeline]) -> None:
    rows = page.find_elements("css selector", "#recording-0 .tracks .row")
    assert [row.get_attribute("data-source") for row in rows] == SOURCES
    for row, expected in zip(rows, timelines[0].rows, strict=True):
        turns = row.find_elements("css selector", ".turn")
        spans = [
            (float(t.get_attribute("data-start")), float(t.get_attribute("data-end")))
            for t in turns
        ]
        assert spans == sorted((t.start_s, t.end_s) for t in expected.turns)
        tracks = row.rect
        for turn, (start, end) in zip(turns, spans, strict=True):
            drawn = turn.rect
            assert (drawn["x"] - tracks["x"]) / tracks["width"] == pytest.approx(
                start / 30, abs=2e-3
            )
            assert drawn["width"] / tracks["width"] == pytest.approx((end - start) / 30, abs=3e-3)
        assert {turn.text for turn in turns} <= {"A", "B", ""}
    labels = texts(page, "#recording-0 .gutter .row")
    assert labels[2].splitlines() == ["segmentation.fp32.onnx", "same as pytorch"]
    assert labels[3].splitlines() == ["segmentation.fp32.pte", "differs from pytorch for 2.00 s"]
    assert texts(page, "#recording-0 .legend li") == [
        "A speaker90 (reference), 1 (pytorch)",
        "B speaker91 (reference), 0 (pytorch)",
    ]


def test_a_recording_without_reference_says_so(page: Any) -> None:
    assert "no reference covers it: used for parity only" in texts(page, "#recording-1 .meta")[0]
    rows = page.find_elements("css selector", "#recording-1 .tracks .row")
    assert [row.get_attribute("data-source") for row in rows] == ["pytorch"]


def test_score_differences_with_their_limit(page: Any) -> None:
    plots = page.find_elements("css selector", "#recording-0 .tracks .plot")
    assert [plot.get_attribute("data-source") for plot in plots] == SOURCES[1:]
    assert [plot.text for plot in plots] == ["", "limit 1e-4", "limit 1e-4"]
    for plot in plots:
        path = plot.find_element("css selector", "path").get_attribute("d")
        assert path.count(",") > 800
    limits = page.find_elements("css selector", "#recording-0 line.limit")
    heights = [float(limit.get_attribute("y1")) for limit in limits]
    assert heights[0] == heights[1] and 0 < heights[0] < 1000


def test_ladder_shows_value_limit_and_verdict_against_both(page: Any) -> None:
    pte = "article[data-artifact='segmentation.fp32.pte']"
    scores = f"{pte} tbody[data-rung=scores]"
    assert texts(page, f"{scores} tr[data-metric=max_abs] td") == [
        "0.31",
        "≤ 1e-4",
        "outside",
        "0.32",
        "≤ 1e-4",
        "outside",
    ]
    assert texts(page, f"{scores} tr.rung .chip") == ["✗ FAIL", "✗ FAIL"]
    onnx = "article[data-artifact='segmentation.fp32.onnx']"
    assert texts(page, f"{onnx} tr[data-metric=max_abs] td.value") == ["1.25e-7", "2.5e-7"]
    assert texts(page, f"{onnx} tr.rung th") == [
        "Contract",
        "Front-end features",
        "Scores",
        "Decisions",
        "Boundaries",
        "Diarization error",
    ]
    features = texts(page, f"{onnx} tbody[data-rung=features] td")
    assert features[:2] == ["the graph does not show its features", "– NOT RUN"]
    assert "recurrent.0" in texts(page, f"{pte} .diverges")[0]
    assert texts(page, "article[data-artifact='segmentation.fp16.mlpackage'] .gap") == [
        "Core ML runs on a Mac only; this is Linux"
    ]


def test_der_table_with_its_settings(page: Any) -> None:
    assert "collar 0.25 s, overlapping speech scored" in texts(page, "#der .lead")[0]
    cells = texts(page, "#der tr[data-source='segmentation.fp32.pte'] td")
    assert cells[:7] == ["19.75 %", "4.00", "10.75", "5.00", "21.25 %", "+2.50", "+2.50"]
    assert texts(page, "#der tbody th") == [
        "PyTorch, compressed",
        "PyTorch, float",
        "segmentation.fp32.onnx",
        "segmentation.fp32.pte",
    ]


def test_times_in_one_group_a_thread_count(page: Any) -> None:
    groups = page.find_elements("css selector", ".latency")
    assert [group.get_attribute("data-threads") for group in groups] == ["1", "2"]
    first = "article[data-threads='1']"
    assert texts(page, f"{first} tr[data-candidate='pytorch-eager'] td")[0] == "10.00"
    assert texts(page, f"{first} tr[data-candidate='segmentation.fp32.pte'] td")[8] == "14 of 101"
    assert texts(page, f"{first} .failures td")[0].startswith("1 failure load: OSError")
    dots = page.find_elements("css selector", f"{first} .strip:nth-of-type(2) circle")
    assert len(dots) > 90


def test_sizes_tools_and_notes(page: Any) -> None:
    assert texts(page, ".sizes td.size") == ["1.10 MB", "1.18 MB", "560.0 kB"]
    assert texts(page, "#notes li") == [
        "stereo.wav: mixed down from 2 channels",
        "</script><script>document.title='broken'</script> a|b & 'c' `d`",
    ]


def test_audio_plays_and_a_click_seeks(page: Any) -> None:
    duration = page.execute_async_script(
        "const done = arguments[0], a = document.querySelector('#recording-0 audio');"
        "if (a.readyState) done(a.duration); else {"
        " a.onloadedmetadata = () => done(a.duration); a.onerror = () => done(a.error.message); }"
    )
    assert duration == pytest.approx(30, abs=0.05)
    tracks = page.find_element("css selector", "#recording-0 .tracks")
    _click(page, tracks, fraction=0.4)
    now = "return document.querySelector('#recording-0 audio').currentTime"
    assert page.execute_script(now) == pytest.approx(12, abs=0.1)
    assert texts(page, "#recording-0 .clock") == ["0:12.0"]
    assert float(tracks.get_attribute("aria-valuenow")) == pytest.approx(12, abs=0.1)
    playhead = page.find_element("css selector", "#recording-0 .playhead").rect
    assert playhead["x"] == pytest.approx(tracks.rect["x"] + 0.4 * tracks.rect["width"], abs=8)
    readout = texts(page, "#recording-0 .readout")[0]
    assert readout.startswith("0:12.0: reference A · pytorch A (score off by ")


def _click(page: Any, element: Any, *, fraction: float) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    offset = round((fraction - 0.5) * element.size["width"])
    ActionChains(page).move_to_element_with_offset(element, offset, 0).click().perform()


def test_keyboard_moves_the_playhead(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    tracks = page.find_element("css selector", "#recording-0 .tracks")
    tracks.send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert texts(page, "#recording-0 .clock") == ["0:01.0"]
    tracks.send_keys(Keys.END)
    assert texts(page, "#recording-0 .clock") == ["0:30.0"]


def test_worst_window_leads_to_its_place(page: Any) -> None:
    link = page.find_element("css selector", "article a.seek")
    assert link.text == "sample@10.00s"
    page.execute_script("arguments[0].click()", link)
    assert texts(page, "#recording-0 .clock") == ["0:10.0"]
    assert page.current_url.endswith("#recording-0")


def test_zoom_widens_the_tracks(page: Any) -> None:
    tracks = page.find_element("css selector", "#recording-1 .tracks")
    before = tracks.size["width"]
    button = page.find_element("css selector", "#recording-1 [data-zoom='2']")
    page.execute_script("arguments[0].click(); arguments[0].click()", button)
    assert tracks.size["width"] == pytest.approx(4 * before, abs=2)


def test_dark_scheme_is_dark(page: Any) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    lightness = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        text = page.execute_script(colour)
        lightness.append(sum(int(v) for v in text.removeprefix("rgb(").rstrip(")").split(",")))
    assert lightness[0] > 650 and lightness[1] < 100


def test_no_script_errors_and_nothing_fetched(page: Any) -> None:
    """Last, so that everything that was done above is covered too."""
    import json

    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requested = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        # The browser's own start page asks for its parts too.
        and message["params"]["documentURL"].startswith("file:")
    ]
    embedded = [url for url in requested if url.startswith("data:")]
    assert [url for url in requested if url not in embedded] == [page.current_url.split("#")[0]]
    assert page.title == "sinc-1bi: FAIL – diarport"


def test_nothing_foreign_runs_or_is_fetched(
    tmp_path: Path, bundle: BundleContent, page: Any
) -> None:
    """The content policy refuses what is not the report's own, and the browser's log shows it."""
    text = render_html(bundle=bundle, reports=[], timelines=[], latencies=[], notes=[])
    foreign = "<script>document.title='broken'</script><img src='https://example.invalid/a.png'>"
    path = tmp_path / "tampered.html"
    path.write_text(text.replace("</main>", f"{foreign}</main>"))
    page.get(path.as_uri())
    assert page.title == "sinc-1bi: PASS, WITH GAPS – diarport"
    refused = [e["message"] for e in page.get_log("browser")]
    assert len(refused) == 2
    assert all("Content Security Policy" in message for message in refused)
