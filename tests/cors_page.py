"""Calls the service from a page of another origin: cors_page.py SERVICE PAGE TOKEN KEY.

Loads the page in Chromium, writes a key from it, and prints as JSON the answer and the headers that the page can read. Needs
Playwright's Python package and Debian's Chromium.
"""

import json
import sys

from playwright.sync_api import sync_playwright

from docs_page import QUIET

WRITE = """
async ([service, token, key]) => {
  try {
    const response = await fetch(`${service}/locks/123/WriteKey`, {
      method: "POST",
      headers: {
        "Authorization": `Bearer ${token}`, "Content-Type": "application/json",
        "Idempotency-Key": `page-${key}`, "Prefer": "wait=5",
      },
      body: JSON.stringify({ keyUuid: key }),
    });
    const names = ["Location", "X-Request-Id", "Retry-After"];
    const headers = Object.fromEntries(names.map((name) => [name, response.headers.get(name)]));
    const location = headers["Location"];
    const withdrawn = location && await fetch(`${service}${location}`, {
      method: "DELETE", headers: { "Authorization": `Bearer ${token}` },
    });
    const refused = await fetch(`${service}/locks/123/details`);
    return { status: response.status, headers, withdrawn: withdrawn && withdrawn.status, refused: refused.status };
  } catch (error) {
    return { error: String(error) };
  }
}
"""


def main(service, page_url, token, key):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        page = browser.new_page()
        page.goto(page_url)
        seen = page.evaluate(WRITE, [service, token, key])
        browser.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
