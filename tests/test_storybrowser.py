"""The page in a real browser: it does nothing, fetches nothing, and can be read by everybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from orchestrator.stories.page import html_page
from orchestrator.stories.story import Story
from tests.browsers import CHROMIUM, chromium
from tests.test_storypage import evil, tale

__all__ = ["evil", "tale"]  # fixtures

# A browser takes longer to start than to look.
pytestmark = pytest.mark.xdist_group("story browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM and os.environ.get("TRAINSHED_REQUIRE_CHROMIUM") != "1":
        pytest.skip("chromium is not installed")
    with chromium() as browser:
        yield browser


def show(browser: Browser, story: Story, folder: Path, **how: object) -> Page:
    file = folder / "report.html"
    file.write_text(html_page(story), "utf-8")
    page = browser.new_page(**how)  # type: ignore[arg-type]  # a size, a scheme
    page.goto(file.as_uri())
    return page


def test_a_run_named_as_a_script_does_nothing_and_nothing_is_fetched(
    browser: Browser, evil: Story, tmp_path: Path
) -> None:
    asked: list[str] = []
    said: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    file = tmp_path / "report.html"
    file.write_text(html_page(evil), "utf-8")
    page.goto(file.as_uri())

    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("script").count() == 0
    assert "<script>hacked=1</script>" in page.locator("h1").inner_text()
    assert asked == [file.as_uri()]
    assert said == []


def test_a_script_that_slipped_in_would_not_run(
    browser: Browser, tale: Story, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    slipped = "<script>hacked=1</script><img src=x onerror='hacked=1'><p style='color:red'>"
    file.write_text(html_page(tale).replace("</main>", f"{slipped}</main>"), "utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())

    assert page.evaluate("typeof hacked") == "undefined"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).fontSize") != "32px"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_axe_finds_nothing(
    browser: Browser, tale: Story, tmp_path: Path, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    page = show(browser, tale, tmp_path, viewport=size, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = Axe().run(page)

    assert found.violations_count == 0, found.generate_report()
    # Its colours are those of the scheme, and no page is wider than its screen.
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 29)")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_pictures_have_a_name_and_say_what_they_show(
    browser: Browser, tale: Story, tmp_path: Path
) -> None:
    page = show(browser, tale, tmp_path)

    picture = page.get_by_role("img", name="Points over time")
    assert picture.count() == 1
    assert "0 at the start, 23 of 25 in the end" in picture.locator("desc").text_content()  # type: ignore[operator]


def test_everything_is_reached_by_the_keyboard(
    browser: Browser, tale: Story, tmp_path: Path
) -> None:
    page = show(browser, tale, tmp_path)
    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_on_paper_it_is_light_and_shows_what_was_open(
    browser: Browser, tale: Story, tmp_path: Path
) -> None:
    page = show(browser, tale, tmp_path, color_scheme="dark")
    page.locator("details").nth(1).evaluate("each => each.open = true")
    page.emulate_media(media="print")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [page.locator("details").nth(number).is_visible() for number in (0, 1, 2)] == [
        *(False, True, False)
    ]
    assert page.pdf().startswith(b"%PDF")
