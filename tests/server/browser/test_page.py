"""The built-in page in a real browser; `make test-browser` runs this."""

import os
import re
import shutil

import pytest
from running import running
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from arrowembed import Embedder
from arrowembed.server.security.keys import new_key
from arrowembed.store import open_store

CSP_VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (e) => window.violations.push(e.blockedURI));
"""


def path_of(*programs):
    """Where the first of some programs is that is installed."""
    path = next(filter(None, map(shutil.which, programs)), None)
    assert path, f"none of {programs} is installed; see the Makefile"
    return path


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = path_of("chromium", "chromium-browser", "google-chrome")
    options.add_argument("--headless=new")
    options.add_argument("--disable-dev-shm-usage")
    if os.geteuid() == 0:
        # Chromium does not run as root otherwise.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.ChromeService(path_of("chromedriver"))
    browser = webdriver.Chrome(options, driver)
    yield browser
    browser.quit()


class Page:
    """What a user sees and does."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        found = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return [element.text for element in found]

    def wait(self, condition):
        # The page may replace what is being read.
        ignored = [StaleElementReferenceException]
        waiting = WebDriverWait(self.browser, 20, ignored_exceptions=ignored)
        return waiting.until(lambda _: condition())

    def type(self, *lines):
        field = self.find("#texts")
        field.clear()
        field.send_keys("\n".join(lines))

    def map(self):
        """The similarities, by rows."""
        rows = self.browser.find_elements(By.CSS_SELECTOR, "#map tbody tr")
        return [[float(td.text) for td in row.find_elements(By.TAG_NAME, "td")] for row in rows]

    def facts(self):
        return dict(zip(self.texts("#facts dt"), self.texts("#facts dd"), strict=True))


@pytest.fixture
def page(browser, service):
    browser.execute_cdp_cmd("Page.enable", {})
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": CSP_VIOLATIONS}
    )
    browser.get(service.url)
    page = Page(browser)
    page.wait(page.map)
    yield page
    assert browser.execute_script("return window.violations") == []
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


def test_the_map_shows_the_similarities(page, tiny):
    lines = ["the cat sleeps", "rain is expected tomorrow", "<b>the cat</b> sleeps & dreams"]
    page.type(*lines)
    page.wait(lambda: len(page.map()) == 3)
    expected = tiny.similarity(lines, lines)
    for row, values in zip(page.map(), expected, strict=True):
        assert row == [float(f"{value:.2f}") for value in values]
    assert page.texts("#map tbody th") == [f"{i + 1} {line}" for i, line in enumerate(lines)]
    colours = [
        cell.value_of_css_property("background-color")
        for cell in page.browser.find_elements(By.CSS_SELECTOR, "#map tbody tr:first-child td")
    ]
    assert colours[0] != colours[1]


def test_latency_and_facts(page, tiny):
    assert re.fullmatch(r"\d+\.\d ms", page.find("#last").text)
    assert int(page.find("#count").text) >= 1
    page.find("button").click()
    page.wait(lambda: page.find("#cached").text == "5 of 5")
    facts = page.facts()
    assert facts["Length of a vector"] == str(tiny.dimension)
    assert facts["Longest input, in tokens"] == str(tiny.max_seq_length)
    assert facts["Other names"] == "small"


def test_another_model(page):
    select = Select(page.find("#model"))
    assert [option.text for option in select.options] == ["tiny", "prompted"]
    select.select_by_visible_text("prompted")
    page.wait(lambda: page.facts()["Other names"] == "\u2013")
    page.wait(lambda: page.find("#count").text == "1")


def test_it_repeats_when_told(page):
    page.find("#repeat").click()
    page.wait(lambda: int(page.find("#count").text) >= 3)
    assert len(page.find("#trace polyline").get_attribute("points").split()) >= 3


def test_errors_are_shown(page):
    page.type(*["a"] * 101)
    page.wait(lambda: "101 texts; send at most 100" in page.find("[role=alert]").text)
    page.type("a", "b")
    page.wait(lambda: page.find("[role=alert]").text == "")
    assert len(page.map()) == 2
    logged = page.browser.get_log("browser")
    assert all("422" in entry["message"] for entry in logged), logged


def test_every_field_has_a_name_and_is_reached_by_the_keyboard(page):
    page.find("#model").send_keys("")
    reached = []
    for _ in range(5):
        active = page.browser.switch_to.active_element
        reached.append((active.aria_role, active.accessible_name))
        active.send_keys(Keys.TAB)
    assert reached == [
        ("combobox", "Model"),
        ("textbox", "Texts, one a line"),
        ("button", "Compare"),
        ("checkbox", "every second"),
        ("region", "Similarity"),
    ]


def contrast(page, selector):
    """The ratio of luminance between an element's text and what is behind it (WCAG 2)."""
    return page.browser.execute_script(
        """
        const canvas = document.createElement("canvas").getContext("2d");
        function luminance(colour) {
          canvas.fillStyle = colour;
          canvas.fillRect(0, 0, 1, 1);
          const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => {
            const part = v / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        }
        let element = document.querySelector(arguments[0]);
        const text = luminance(getComputedStyle(element).color);
        while (/^rgba\\(.*, 0\\)$|^transparent$/.test(getComputedStyle(element).backgroundColor)) {
          element = element.parentElement;
        }
        const ground = luminance(getComputedStyle(element).backgroundColor);
        return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        """,
        selector,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_the_light_and_in_the_dark(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ground = page.find("body").value_of_css_property("background-color")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3]))
    assert brightness > 600 if scheme == "light" else brightness < 150
    # The first cell of the map is that of a text with itself: the strongest colour.
    for selector in ("h1", "header p", "a", "button", "caption", "#hint", "dt", "tbody td"):
        assert contrast(page, selector) >= 4.5, selector


def test_a_key_is_asked_for(browser, bert_mean_folder):
    key, kept = new_key("someone", ["embed"])
    with running(models=[str(bert_mean_folder)], api_keys=kept.entry()) as service:
        browser.get(service.url)
        page = Page(browser)
        page.wait(page.find("#key").is_displayed)
        assert "this needs credentials" in page.find("[role=alert]").text
        page.find("#key").send_keys(key, Keys.ENTER)
        page.wait(lambda: len(page.map()) == 5)
        assert page.find("[role=alert]").text == ""
    assert all("401" in entry["message"] for entry in browser.get_log("browser"))


def test_there_is_no_search_without_a_store(page):
    assert not page.find("#search").is_displayed()


def test_a_search_where_there_is_a_store(browser, bert_mean_folder, tmp_path, tiny):
    texts = ["the cat sleeps", "rain is expected", "<b>the cat</b> & more"]
    with open_store(tmp_path / "docs", model=tiny) as store:
        store.add(["a", "b", "c"], texts, metadata=[{"year": 2024, "lang": "en"}, {}, {}])
        expected = store.search("a cat")
    with running(models=[str(bert_mean_folder)], stores=[str(tmp_path / "docs")]) as service:
        browser.get(service.url)
        page = Page(browser)
        page.wait(lambda: page.find("#search").is_displayed())
        assert page.texts("#store option") == ["docs, 3 entries"]
        page.find("#query").send_keys("a cat", Keys.ENTER)
        page.wait(lambda: page.texts("#hits li"))
        assert page.texts("#hits .found") == [hit.text for hit in expected]
        assert page.texts("#hits .score") == [f"{hit.score:.3f}" for hit in expected]
        assert 'a · year: 2024 · lang: "en"' in page.texts("#hits .quiet")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
