"""The page at / in a real browser: it loads, its plots move, and it stays within itself."""
import json
import os
import subprocess
import threading

import pytest

import process
import wire
from conftest import HERE, require
from test_limits import serves

DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"


@pytest.fixture
def look(node_modules):
    """look(api, scheme, width, token): what the page shows under load."""
    chromium, node = require("chromium", "chromium"), require("node", "nodejs")

    def run(api, scheme="light", width=1280, token="", seconds=2.5):
        done = subprocess.run(
            [node, os.path.join(HERE, "dashboard.js"), "http://%s:%d/" % api.address, scheme, str(width), str(seconds), token],
            capture_output=True, text=True, timeout=90 * process.SLOW,
            env={**os.environ, "CHROMIUM": chromium, "NODE_PATH": os.path.join(node_modules, "node_modules")}, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture
def busy(ruled, origin):
    """A proxy with traffic: (proxy, api)."""
    target, stop = origin(), threading.Event()
    proxy, api = ruled(DIRECT)

    def churn():
        with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
            while not stop.wait(0.05):
                client.send(b"x" * 5000)
                client.read(5000)
                serves(proxy, target)

    thread = threading.Thread(target=churn)
    thread.start()
    yield proxy, api
    stop.set()
    thread.join()


@pytest.mark.parametrize("scheme,width", [("light", 1280), ("dark", 1280), ("light", 360)])
def test_dashboard(busy, look, scheme, width):
    proxy, api = busy
    seen = look(api, scheme, width)
    assert seen["errors"] == [] and seen["foreign"] == [], seen
    assert seen["width"] <= width
    assert seen["drawings"] >= 4 and seen["moved"] >= 3, seen
    channels = [int(value) for value in seen["background"].strip("rgba()").split(",")[:3]]
    assert (sum(channels) < 300) == (scheme == "dark"), seen["background"]
    for word in ["Throughput", "Sessions", "revision 1"]:
        assert word in seen["text"]
    assert proxy.alive()


def test_token_form(ruled, look, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("let-me-in read\n")
    tokens.chmod(0o600)
    _, api = ruled(DIRECT, "--api-token-file", str(tokens))
    seen = look(api, token="let-me-in")
    assert seen["errors"] == [] and "revision 1" in seen["text"], seen


def test_policy(ruled):
    _, api = ruled(None)
    answer = api.get("/")
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "innerHTML" not in answer.text and "http://" not in answer.text.replace("http://www.w3.org", "")
