"""A page of somebody else, in a real browser, against a running host.

The browser loads a page from one origin and lets it try what a page that means harm would try. What it may see is told by
the browser, and what the host answered by a look at the same requests from outside. An origin that the owner allowed gets
through, so the browser is known to be able to.

Usage: browser.py BROWSER BASE ALLOWED_PORT. The host must allow http://allowed.internal:ALLOWED_PORT and no other origin that is
not on this machine.
"""

import html
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

BROWSER, BASE, ALLOWED_PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
PORT = BASE.rsplit(":", 1)[1]
CHAT = '{"model":"default","messages":[{"role":"user","content":"Hi"}],"max_tokens":4}'

# Each try says `read STATUS` when the page can read the answer, and `blocked` when the browser keeps it away.
PAGE = """<!doctype html><title>page</title><pre id="out">{}</pre><script>
const base = location.hash.slice(1), chat = %s, out = {};
const attempt = async (name, url, options) => {
  try { const answer = await fetch(url, options); await answer.text(); out[name] = "read " + answer.status; }
  catch (error) { out[name] = "blocked"; }
  document.getElementById("out").textContent = JSON.stringify(out);
};
(async () => {
  await attempt("models", base + "/v1/models");
  await attempt("chat as text", base + "/v1/chat/completions",
    { method: "POST", headers: { "content-type": "text/plain" }, body: chat });
  await attempt("chat as json", base + "/v1/chat/completions",
    { method: "POST", headers: { "content-type": "application/json" }, body: chat });
  out.done = true;
  document.getElementById("out").textContent = JSON.stringify(out);
})();
</script>""" % json.dumps(CHAT)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(port):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def load(page):
    """What is on a page in the end. Names ending in .test and .internal are this machine."""
    with tempfile.TemporaryDirectory() as profile:
        dom = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
             "--host-resolver-rules=MAP *.test 127.0.0.1, MAP *.internal 127.0.0.1", "--virtual-time-budget=30000", "--timeout=60000", "--dump-dom",
             page],
            capture_output=True, text=True, timeout=120,
        )
    assert dom.stdout, dom.stderr[-2000:]
    return html.unescape(dom.stdout)


def browse(page, base):
    """What the page could do, in the browser's own words."""
    dom = load(f"{page}#{base}")
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)
    assert found, dom[-500:]
    out = json.loads(found.group(1))
    assert out.pop("done", False), ("the page did not come to its end", out)
    return out


def answer(path, headers, body=None):
    """Status and the CORS header of the same request, sent by hand."""
    request = urllib.request.Request(BASE + path, body.encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers.get("access-control-allow-origin")
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("access-control-allow-origin")


BLOCKED = {"models": "blocked", "chat as text": "blocked", "chat as json": "blocked"}
READ = {"models": "read 200", "chat as text": "read 200", "chat as json": "read 200"}


def finished():
    """Answers that the host has given, from its own figures."""
    with urllib.request.urlopen(f"{BASE}/v1/batch/stats", timeout=60) as response:
        return sum(group["finished"] for group in json.load(response)["classes"])


def a_foreign_page_reads_nothing_and_makes_nothing_work():
    before = finished()
    page = f"http://evil.test:{serve(0)}/evil.html"
    seen = browse(page, f"http://127.0.0.1:{PORT}")
    assert seen == BLOCKED, seen
    assert finished() == before, "an answer was made for a page that may not ask"
    origin = {"origin": page.rsplit("/", 1)[0]}
    for path, headers, body in [
        ("/v1/models", {}, None),
        ("/v1/chat/completions", {"content-type": "text/plain"}, CHAT),
        ("/v1/chat/completions", {"content-type": "application/json"}, CHAT),
    ]:
        assert answer(path, {**headers, **origin}, body) == (403, None), path


def a_rebound_name_is_refused():
    # Once its name leads here, a page of evil.test has the host's origin: CORS stands in nobody's way then, `Host` does.
    before = finished()
    dom = load(f"http://evil.test:{PORT}/v1/models")
    assert "is not served here" in dom and "locara-tiny" not in dom, dom[-500:]
    assert "locara-tiny" in load(f"{BASE}/v1/models"), "by its own name the host answers the browser"
    assert answer("/v1/models", {"host": f"evil.test:{PORT}"}) == (403, None)
    same = {"host": f"evil.test:{PORT}", "origin": f"http://evil.test:{PORT}", "content-type": "text/plain"}
    assert answer("/v1/chat/completions", same, CHAT) == (403, None)
    assert finished() == before


def an_allowed_page_gets_through():
    seen = browse(f"http://allowed.internal:{serve(ALLOWED_PORT)}/page.html", f"http://127.0.0.1:{PORT}")
    assert seen == READ, seen


def main():
    checks = [a_foreign_page_reads_nothing_and_makes_nothing_work, a_rebound_name_is_refused, an_allowed_page_gets_through]
    failed = 0
    for function in checks:
        name = function.__name__.replace("_", " ")
        try:
            function()
            print(f"ok    browser {name}", flush=True)
        except Exception as error:  # noqa: BLE001: a check may fail in any way
            failed += 1
            print(f"FAIL  browser {name}: {error!r}", flush=True)
    print(f"browser: {len(checks) - failed} passed, {failed} failed")
    return failed


sys.exit(1 if main() else 0)
