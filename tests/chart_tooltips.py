"""Uses the tooltips of a load test report by pointer and by keyboard: chart_tooltips.py URL.

Prints as JSON, for each chart at widths of 360 and 1280 pixels: its name, its tooltip at the pointer and after the keys End, Home and
ArrowRight, whether all were inside the window, and whether Escape hides the tooltip; and the number of tooltips without scripts. Needs Playwright's Python package and Debian's Chromium.
"""

import json
import sys

from playwright.sync_api import sync_playwright

from docs_page import QUIET


def use(url):
    charts, errors = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        for width in (360, 1280):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(url)
            for plot in page.locator(".plot").all():
                charts.append(try_chart(page, plot, width))
            page.close()
        page = browser.new_page(java_script_enabled=False)
        page.goto(url)
        titles = page.locator(".plot .hit title").count()
        browser.close()
    return {"charts": charts, "titles_without_scripts": titles, "errors": errors}


def try_chart(page, plot, width):
    tip = plot.locator(".tip")
    inside = []

    def shown():
        if not tip.is_visible():
            return None
        box = tip.bounding_box()
        inside.append(box["x"] >= 0 and box["x"] + box["width"] <= width)
        return tip.inner_text()

    plot.scroll_into_view_if_needed()
    plot.hover()
    pointer = shown()
    page.mouse.move(0, 0)
    hidden = [not tip.is_visible()]
    # Keyboard users reach the chart with the Tab key.
    plot.evaluate("plot => { const stop = document.createElement('button'); stop.id = 'before'; plot.before(stop); stop.focus(); }")
    page.keyboard.press("Tab")
    focused = shown()
    keys = {}
    for key in ("End", "Home", "ArrowRight"):
        page.keyboard.press(key)
        keys[key] = shown()
    page.keyboard.press("Escape")
    hidden.append(not tip.is_visible())
    plot.evaluate("plot => document.getElementById('before').remove()")
    return {
        "name": plot.get_attribute("aria-label"),
        "width": width,
        "pointer": pointer,
        "focused": focused,
        "keys": keys,
        "inside": all(inside),
        "hidden": all(hidden),
    }


if __name__ == "__main__":
    print(json.dumps(use(sys.argv[1])))
