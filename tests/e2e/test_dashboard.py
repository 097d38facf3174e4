"""The page that GET / serves, in a real browser: against the program itself, and against figures of our own."""
import json
import os
import select
import socket
import subprocess
import threading

import fake_api
import origins
import process
import pytest
import wire
from conftest import HERE, require

LIVE = "await page.waitForSelector('#status.live'); "
TILE = "page.locator('#tiles .card', {{hasText: '{0}'}}).locator('b').innerText()"


class Browser:
    def __init__(self, modules, **options):
        words = ["node", os.path.join(HERE, "browser.js"), require("chromium", "chromium"), json.dumps(options)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "NODE_PATH": os.path.join(modules, "node_modules")})

    def do(self, code):
        """Runs JavaScript beside the page (playwright's `page`, `context`, our `log`): what it returns."""
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, f"the browser hangs in {code}"
        answer = json.loads(self.process.stdout.readline() or '{"error": "the browser is gone"}')
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def see(self, expression):
        """The value of an expression in the page."""
        return self.do(f"return page.evaluate({json.dumps(expression)})")

    def until(self, expression, timeout=20):
        value = process.wait_until(lambda: self.see(expression), timeout, 0.2)
        assert value, f"{expression}: {self.see('document.body.innerText')}"
        return value

    def open(self, port):
        self.do(f"await page.goto('http://127.0.0.1:{port}/');")

    def errors(self):
        return self.do("return log.errors")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def browser(node_modules):
    started = []

    def start(**options):
        started.append(Browser(node_modules, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def fake():
    started = []

    def start(port=0):
        started.append(fake_api.FakeApi(port))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def traffic():
    """traffic(proxy, target) moves data and fails now and then, until the test ends."""
    stop, threads = threading.Event(), []

    def move(proxy, target):
        with wire.socks5(proxy, "127.0.0.1", target) as client:
            while not stop.is_set():
                client.sendall(b"x" * 100000)
                left = 100000
                while left:
                    left -= len(client.recv(left))
                stop.wait(0.01)

    def refuse(proxy):
        while not stop.is_set():
            with socket.create_connection(proxy.address) as client:
                client.sendall(b"\x05\x01\x00")
                client.recv(2)
                client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01")
                client.recv(10)
            stop.wait(0.05)

    def start(proxy, target):
        for function, words in [(move, (proxy, target)), (refuse, (proxy,))]:
            threads.append(threading.Thread(target=function, args=words))
            threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)
