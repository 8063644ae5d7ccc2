"""Opens a page at the widths of a phone and of a desktop, light and dark: page_width.py URL FOLDER.

Prints as JSON, for each view, the widths of the page and the window, overlapping texts of SVG pictures, the smallest size of
these texts, the requests, and the console messages. Screenshots go to the folder. Needs Playwright's Python package and
Debian's Chromium.
"""

import json
import sys

from playwright.sync_api import sync_playwright

from docs_page import QUIET

# Overlapping texts of an SVG picture, as "text / text".
OVERLAPPING = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
  const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  return texts.flatMap(([text, box], at) => texts.slice(at + 1)
    .filter(([, other]) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom)
    .map(([other]) => `${text} / ${other}`));
})"""

# The smallest font size of visible texts of SVG pictures, in CSS pixels after scaling; null without texts.
SMALLEST_TEXT = """() => {
  const sizes = [...document.querySelectorAll("svg text")]
    .filter((text) => text.getBoundingClientRect().width > 0)
    .map((text) => {
      const { a, d } = text.getScreenCTM();
      return parseFloat(getComputedStyle(text).fontSize) * Math.min(a, d);
    });
  return sizes.length > 0 ? Math.min(...sizes) : null;
}"""


def look(url, folder):
    views = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        for width, height in ((360, 740), (1280, 900)):
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                asked, errors = [], []
                page.on("request", lambda request: asked.append(request.url))
                page.on("console", lambda message: message.type == "error" and errors.append(message.text))
                page.on("pageerror", lambda error: errors.append(str(error)))
                page.goto(url, wait_until="networkidle")
                page.locator("h1").first.wait_for()
                views.append({
                    "width": width,
                    "scheme": scheme,
                    "page": page.evaluate("document.documentElement.scrollWidth"),
                    "window": page.evaluate("window.innerWidth"),
                    "overlapping": page.evaluate(OVERLAPPING),
                    "smallest_text": page.evaluate(SMALLEST_TEXT),
                    "asked": asked,
                    "errors": errors,
                })
                page.screenshot(path=f"{folder}/{width}-{scheme}.png", full_page=url.startswith("file:"))
                page.close()
        browser.close()
    return views


if __name__ == "__main__":
    print(json.dumps(look(*sys.argv[1:3])))
