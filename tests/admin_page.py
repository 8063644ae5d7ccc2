"""Uses the operators' page like a person: admin_page.py URL KEY WRITE AXE PICTURES.

Signs in by keyboard, finds the open write WRITE, reads why it is open, withdraws it while a second window shows the overview, and signs
out. Looks at every view at the widths of a phone and of a desktop, light and dark, and checks it with axe (the script AXE). Prints as
JSON what it saw. Screenshots go to the folder PICTURES. Needs Playwright's Python package and Debian's Chromium.
"""

import json
import re
import sys

from playwright.sync_api import sync_playwright

from docs_page import QUIET


def wait_for_open_writes(page, count):
    # The policy of the page forbids the evaluation of scripts, so that this waits for an element.
    card = page.locator("a.card", has_text="Open writes")
    card.locator(".value", has_text=re.compile(f"^{count}$")).wait_for()


def use(url, key, write, axe, pictures):
    seen = {"requests": [], "errors": [], "views": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        context = browser.new_context()
        page, overview = context.new_page(), context.new_page()
        for window in (page, overview):
            window.on("request", lambda request: seen["requests"].append(request.url))
            window.on("console", lambda message: message.type == "error" and seen["errors"].append(message.text))
            window.on("pageerror", lambda error: seen["errors"].append(str(error)))
        page.goto(f"{url}/admin")
        seen["first"] = page.url
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{url}/admin")
        overview.goto(f"{url}/admin")
        overview.get_by_text("live", exact=True).wait_for()
        wait_for_open_writes(overview, 1)
        page.locator("a.card", has_text="Open writes").click()
        page.get_by_role("link", name=write).click()
        page.get_by_role("heading", name=f"Write {write}").wait_for()
        seen["certainty"] = page.locator("main .panel").first.inner_text()
        seen["steps"] = page.locator("ol.steps li").all_inner_texts()
        look(browser, context, url, axe, pictures, page.url, seen)
        page.get_by_role("checkbox").check()
        page.get_by_role("button", name="Withdraw the write").click()
        page.get_by_text("WITHDRAWN").first.wait_for()
        seen["after_steps"] = page.locator("ol.steps li").all_inner_texts()
        wait_for_open_writes(overview, 0)
        cookies = context.cookies()
        seen["cookies"] = [[cookie["httpOnly"], cookie["sameSite"], cookie["path"]] for cookie in cookies]
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{url}/admin/sign-in")
        # A copy of the cookie from before is worth nothing.
        context.add_cookies(cookies)
        page.goto(f"{url}/admin/writes")
        seen["stolen"] = page.url
        browser.close()
    return seen


def look(browser, context, url, axe, pictures, write_url, seen):
    """Every view, with the session of the context."""
    paths = ["/admin/sign-in", "/admin", "/admin/writes", write_url.removeprefix(url), "/admin/locks", "/admin/locks/123", "/admin/locks/123/audit", "/admin/webhooks", "/admin/log", "/admin/nowhere"]
    for width, height, scheme in ((360, 740, "dark"), (1600, 1000, "light")):
        # The policy of the page would keep the script of axe out.
        looking = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            storage_state=context.storage_state(),
            bypass_csp=True,
        )
        window = looking.new_page()
        for path in paths:
            window.goto(f"{url}{path}")
            window.add_script_tag(path=axe)
            violations = window.evaluate("axe.run().then((found) => found.violations.map((v) => `${v.id}: ${v.nodes[0].html}`))")
            name = path.removeprefix("/").replace("/", "-")
            window.screenshot(path=f"{pictures}/{name}-{width}.png", full_page=True)
            seen["views"].append({
                "path": path,
                "window": width,
                "page": window.evaluate("document.documentElement.scrollWidth"),
                "violations": violations,
            })
        looking.close()


print(json.dumps(use(*sys.argv[1:])))
