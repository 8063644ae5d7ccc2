"""Uses the reference page like a user: docs_page.py URL TOKEN KEY PICTURE.

Types a token and a body with this key, sends the request, and prints as JSON what the page showed, its requests, and its
console messages. Needs Playwright's Python package and Debian's Chromium.
"""

import json
import sys

from playwright.sync_api import sync_playwright

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def use(url, token, key, picture):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/docs")
        page.get_by_role("button", name="Select from all clients").first.click()
        page.get_by_role("option").first.wait_for()
        languages = [option.inner_text() for option in page.get_by_role("option").all()]
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Selected Auth Type").first.click()
        page.get_by_role("option").first.wait_for()
        credentials = [option.inner_text() for option in page.get_by_role("option").all()]
        page.keyboard.press("Escape")
        server = page.locator("input").first.input_value()
        page.get_by_role("button", name="Test Request").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Bearer Token", exact=True).wait_for()

        def type_into(editor, text):
            editor.click()
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.insert_text(text)

        type_into(dialog.get_by_placeholder("Token").or_(dialog.locator("[data-placeholder=Token], .cm-placeholder")).first, token)
        body = dialog.locator(".cm-content", has_text="keyUuid").first
        answers = []
        # A second request with another body.
        for name, index in ((f"{key}-second", 8), (key, 7)):
            type_into(body, json.dumps({"keyUuid": name, "keyIndexNumber": index}))
            with page.expect_response(lambda response: response.url.endswith("/WriteKey")) as sent:
                dialog.get_by_role("button", name="Send").first.click()
            answers.append(sent.value)
        headers = [sorted(answer.request.all_headers()) for answer in answers]
        dialog.get_by_text("aggregateId").first.wait_for()
        shown = dialog.inner_text()
        page.screenshot(path=picture)
        browser.close()
        return {
            "languages": languages,
            "credentials": credentials,
            "server": server,
            "statuses": [answer.status for answer in answers],
            "headers": headers,
            "sent": [answer.request.post_data for answer in answers],
            "shown": shown,
            "asked": asked,
            "errors": errors,
        }


if __name__ == "__main__":
    print(json.dumps(use(*sys.argv[1:])))
