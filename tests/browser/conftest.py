"""The example project in a real browser: Debian's Chromium and its driver."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from dev.mails import Mailbox
from dev.procfile import ROOT, free_port

from ..deployment import Deployment, wait_until

PICTURES = ROOT / "docs/images"
SIZES = {"desktop": (1280, 900, 1), "phone": (390, 844, 1.25)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pictures", action="store_true", help="keep the pictures, in docs/images"
    )


class Browser:
    """Chromium, used by somebody who reads texts and clicks on them.

    Args:
        driver: Selenium's.
        pictures: the folder for the screenshots.
    """

    def __init__(self, driver: Chrome, pictures: Path) -> None:
        self.driver = driver
        self.pictures = pictures
        self.base = ""
        self.name = ""

    def shape(self, size: str, scheme: str) -> None:
        """Be a desktop or a phone, light or dark."""
        width, height, scale = SIZES[size]
        self.name = f"{size}-{scheme}"
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=size == "phone",
        )  # fmt: skip
        self._command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def open(self, path: str) -> None:
        self.driver.get(path if "://" in path else self.base + path)

    @property
    def text(self) -> str:
        """The visible text, on one line."""
        # While a page loads, there is a document without a body.
        return " ".join(self._run("return document.body?.innerText || ''").split())

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text)

    def find(self, selector: str) -> WebElement:
        """Return the first visible element that a CSS selector finds."""
        return self._first(
            f"return [...document.querySelectorAll({json.dumps(selector)})]"
            ".filter(each => each.checkVisibility())[0]"
        )

    def button(self, text: str) -> WebElement:
        """Return the first visible button or link with that text."""
        return self._first(
            """
            const words = each => (each.innerText || each.value || "").trim();
            const seen = [...document.querySelectorAll(
                "a, button, input[type=submit], summary"
            )].filter(each => each.checkVisibility());
            // The admin writes some of its own in capitals.
            return seen.find(each => words(each) == arguments[0])
                || seen.find(each => words(each) == arguments[0].toUpperCase());
            """,
            text,
        )

    def click(self, text: str) -> None:
        """Click on a button or link."""
        self._click(lambda: self.button(text))

    def press(self, selector: str) -> None:
        """Click on the first visible element that a CSS selector finds."""
        self._click(lambda: self.find(selector))

    def _click(self, find: Callable[[], WebElement]) -> None:
        def click() -> bool:
            element = find()
            try:
                # To where no bar of the page covers it.
                self._run("arguments[0].scrollIntoView({block: 'center'})", element)
                element.click()
            except StaleElementReferenceException:
                # It belonged to the previous page or list.
                return False
            return True

        wait_until(click)

    def choose(self, name: str, value: str) -> None:
        """Choose a value from a list in a form."""
        Select(self.find(f"select[name={name}]")).select_by_value(value)

    def select(self, text: str) -> None:
        """Tick the box of the row in the admin that has a link with that text."""
        self._run(
            "arguments[0].closest('tr').querySelector('input').click()",
            self.button(text),
        )

    def type(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def too_wide(self) -> list[str]:
        """Return what overflows the right edge of the page, or of what is around it."""
        return self._run(
            """
            const edge = document.documentElement.clientWidth;
            return [...document.querySelectorAll("main *, #content *")]
                .filter(each => each.checkVisibility())
                .filter(each => each.getBoundingClientRect().right > edge + 1
                    || (getComputedStyle(each).overflowX == "auto"
                        && each.scrollWidth > each.clientWidth + 1))
                .map(each => each.outerHTML.slice(0, 200));
            """
        )

    def contrast(self, element: WebElement) -> float:
        """Return the contrast of a text with its background, as WCAG defines it."""
        return self._run(
            """
            const light = color => {
                const [r, g, b] = color.match(/[0-9.]+/g).map(n => n / 255).map(
                    n => n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const style = getComputedStyle(arguments[0]);
            const both = [light(style.color), light(style.backgroundColor)].sort(
                (a, b) => b - a);
            return (both[0] + 0.05) / (both[1] + 0.05);
            """,
            element,
        )

    def log_in(self, user: str, password: str) -> None:
        self.find("#id_username").send_keys(user)
        self.find("#id_password").send_keys(password)
        self.click("Log in")

    def picture(self, subject: str) -> None:
        """Save a screenshot of the whole page, small enough for the repository."""
        png = self._command("Page.captureScreenshot", captureBeyondViewport=True)
        image = Image.open(io.BytesIO(base64.b64decode(png["data"])))
        self.pictures.mkdir(exist_ok=True)
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
            self.pictures / f"{subject}-{self.name}.png", optimize=True
        )

    def complaints(self) -> list[str]:
        """Return what the browser has logged: script errors, CSP violations, 404."""
        # Not a connection that it gave up itself: for an icon of a page that was left,
        # on a busy machine, or because a network interface came.
        own = ("net::ERR_CONNECTION_REFUSED", "net::ERR_NETWORK_CHANGED")
        messages = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        return [message for message in messages if not message.endswith(own)]

    def forget(self) -> None:
        """Forget the cookies, to be somebody else."""
        self._command("Network.clearBrowserCookies")

    def _first(self, script: str, *words: object) -> WebElement:
        element: WebElement = wait_until(lambda: self._run(script, *words))
        return element

    def _run(self, script: str, *words: object) -> Any:
        return self.driver.execute_script(script, *words)

    def _command(self, name: str, **words: object) -> dict[str, str]:
        return self.driver.execute_cdp_cmd(name, words)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def _browser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        # In CI a skipped run would look like one that passed.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no chromium and chromium-driver on this machine"
        )
    options = ChromeOptions()
    options.binary_location = chromium
    options.add_argument("--headless=new")
    # A container's /dev/shm is small.
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    keep = request.config.getoption("--pictures")
    pictures = PICTURES if keep else tmp_path_factory.mktemp("pictures")
    with Chrome(options=options, service=ChromeService(driver)) as chrome:
        yield Browser(chrome, pictures)


@pytest.fixture
def site(deployment: Deployment) -> Deployment:
    """The example project as `nox -s serve` runs it, with web started."""
    port = free_port()
    deployment.env |= {
        "DEBUG": "on",
        "EMAIL_URL": Mailbox(deployment.folder / "mails").url,
        "PORT": str(port),
        "SITE_URL": f"http://127.0.0.1:{port}",
    }
    deployment.shell(
        "from django.contrib.auth import get_user_model as u\n"
        "u().objects.create_superuser('miriam', 'miriam@example.org', 'amen')"
    )
    deployment.start("web").wait_until_ready()
    return deployment


@pytest.fixture
def browser(_browser: Browser, site: Deployment) -> Browser:
    _browser.base = site.env["SITE_URL"]
    _browser.forget()
    _browser.complaints()
    return _browser
