"""The panels in a real browser: Chromium against a JupyterLab and a Voila that the tests start and end.

The pages' screenshots go to the folder that `$UNLEARN_SCREENSHOTS` names, where it names one.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium brings one"),
]


@contextmanager
def server(arguments, environment, log):
    """A server on a free port of the loopback address, up when it takes connections, ended whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *(part.format(port=port) for part in arguments)]
    with open(log, "w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.time() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=10).close()
                break
            except OSError:
                assert process.poll() is None and time.time() < deadline, Path(log).read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Jupyter's own folders in a scratch folder, with its news off; an empty folder of runs; progress bars on."""
    scratch = tmp_path_factory.mktemp("jupyter")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    folders = {name: str(scratch / name) for name in (*names, "UNLEARN_RUNS", "UNLEARN_FIGURES")}
    news = scratch / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    unwanted = ("MPLBACKEND", "UNLEARN_PRESET", "UNLEARN_PROGRESS")
    return {name: value for name, value in os.environ.items() if name not in unwanted} | folders


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def look(page, name):
    if folder := os.environ.get("UNLEARN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def accuracies(page):
    """Forget and retain accuracy before and after, as the page says them."""
    numbers = page.locator(".unlearn-numbers").inner_text()
    found = re.search(r"Forget accuracy ([\d.]+) % → ([\d.]+) %. Retain accuracy ([\d.]+) % → ([\d.]+) %", numbers)
    return tuple(map(float, found.groups()))


def run_and_wait(page):
    """Click Run and wait until the page says that it is done, with a picture that has been drawn."""
    page.locator(".unlearn-run").click()
    page.locator(".unlearn-status", has_text=re.compile(r"Done, [\d.]+ s with the evaluation\.\s*$")).wait_for()
    page.wait_for_function("document.querySelector('img.unlearn-picture').naturalWidth > 500")


def cut_off(page):
    """Labels and values of controls that are wider than their room, and the panel where it is wider than its place."""
    return page.evaluate(
        """() => [...document.querySelectorAll('[class*=unlearn-panel] label, [class*=unlearn-panel] button')]
           .concat([...document.querySelectorAll('.widget-readout')])
           .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)
           .concat([...document.querySelectorAll('div[class*=unlearn-panel]')]
           .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className))"""
    )


def place(page, name):
    """Where a widget lies in the window: left, top, right, bottom, in pixels."""
    box = page.locator(f".unlearn-{name}").bounding_box()
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def check_layout(page, name):
    """At both window sizes the chart stands to the right of the controls, all of both in sight, and nothing is cut."""
    for width, height in ((1280, 800), (1024, 768)):
        page.set_viewport_size({"width": width, "height": height})
        page.locator(".unlearn-class").first.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        look(page, f"{name}-{width}")
        _, above, controls, _ = place(page, "range")
        chart, top, right, bottom = place(page, "picture")
        assert above >= 0 and chart >= controls - 1
        assert top >= 0 and bottom <= height and right <= width
        assert all(place(page, name)[3] <= height for name in ("run", "status", "numbers"))
        assert not cut_off(page)
    assert page.locator("img.unlearn-picture").count() == 1


LESSON = """from unlearn_lib import from_preset, unlearning_panel
experiment = from_preset()
panel = unlearning_panel(experiment)
panel.start()
panel.wait()
panel.widget"""


def test_a_class_sees_the_panel_as_a_page_of_its_own(page, environment, tmp_path):
    assert not Path(environment["UNLEARN_RUNS"]).exists()  # the first start, with bars
    voila = f"voila {NOTEBOOKS / '00_classroom_panel.ipynb'} --no-browser --Voila.ip=127.0.0.1 --port={{port}}"
    with server(voila.split(), environment, tmp_path / "log") as address:
        page.goto(address, wait_until="commit")
        page.set_default_timeout(240_000)
        page.locator(".unlearn-run").wait_for()
        assert page.title() == "Forget a class with your own hands"
        run_and_wait(page)
        before_forget, after_forget, before_retain, after_retain = accuracies(page)
        assert before_forget > 90 and after_forget <= 2
        assert after_retain >= before_retain - 2
        check_layout(page, "voila")

        page.locator(".unlearn-golden").click()
        page.locator(".unlearn-status", has_text=re.compile("Golden: training LeNet5")).wait_for()
        page.locator(".unlearn-status", has_text=re.compile("Golden is trained")).wait_for()
        page.locator(".unlearn-save").click()
        page.locator(".unlearn-status", has_text=re.compile("Saved in .*unlearned-1-4-neggrad")).wait_for()
        content = page.locator("body").inner_text()
        assert "Error" not in content
        assert "import" not in content


def test_a_reader_forgets_classes_in_jupyterlab_with_mouse_and_keyboard(page, environment, tmp_path):
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LESSON)], metadata=kernel)
    nbformat.write(lesson, tmp_path / "lesson.ipynb")
    experiment = """jupyterlab --no-browser --allow-root --ip=127.0.0.1 --port={port} --ServerApp.port_retries=0
    --IdentityProvider.token=reader --LabApp.expose_app_in_browser=True --ServerApp.root_dir="""
    with server((experiment + str(tmp_path)).split(), environment, tmp_path / "log") as address:
        page.goto(f"{address}/lab/tree/lesson.ipynb?reset&token=reader")
        page.wait_for_function(
            """() => { const c = window.jupyterapp?.shell?.currentWidget?.sessionContext;
            return c?.isReady && c.session?.kernel?.connectionStatus === 'connected'
            && c.session.kernel.status === 'idle'; }"""
        )
        page.set_default_timeout(240_000)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.locator(".unlearn-run").wait_for()
        before_forget, after_forget, before_retain, after_retain = accuracies(page)
        assert before_forget > 90 and after_forget <= 2

        for digit in (1, 2, 3, 4, 0, 9):  # gives back 1 to 4, takes 0 and 9
            page.locator(".unlearn-class").nth(digit).click()
        page.locator(".unlearn-summary", has_text="Forget 2 of 10: 0, 9.").wait_for()
        page.locator(".unlearn-range .widget-readout", has_text=re.compile(r"0\s*–\s*9")).wait_for()
        assert "since the run that is shown" in page.locator(".unlearn-status").inner_text()

        rate = page.locator(".unlearn-lr .widget-readout")
        assert "the method's" in rate.inner_text()
        page.locator(".unlearn-lr .noUi-handle").focus()
        for shown in ("0.0001", "0.0002", "0.0003", "0.0005", "0.001", "0.002", "0.003"):
            page.keyboard.press("ArrowRight")
            rate.filter(has_text=re.compile(rf"^\s*{shown}\s*$")).wait_for()
        run_and_wait(page)
        before_forget, after_forget, before_retain, after_retain = accuracies(page)
        assert before_forget > 90 and after_forget <= 2
        assert abs(after_retain - before_retain) <= 5
        check_layout(page, "jupyterlab")
        assert "Error" not in page.locator("body").inner_text()
