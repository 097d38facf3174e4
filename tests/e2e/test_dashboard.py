"""The page at / in a real browser: against the program itself, and against figures of our own."""
import json
import os
import select
import socket
import subprocess
import threading
import time

import pytest

import fake_api
import origins
import process
import scripts
import wire
from conftest import HERE, require
from test_api_limits import swallow
from test_limits import serves
from test_users import hashed

DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"
PICTURES = "[...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"
INPUT = "input[type=password]"
TAGGED = """return { route = function(address, user) sluice.tag(user:find("<") and "slow" or "fast") return address end }"""


def drip(origin, connection):
    """200 kB/s at most."""
    while not origin.closing:
        connection.sendall(bytes(20000))
        time.sleep(0.1)


class Browser:
    """With one page at a time."""

    def __init__(self, chromium, modules):
        self.process = subprocess.Popen(["node", os.path.join(HERE, "browser.js"), chromium],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "NODE_PATH": os.path.join(modules, "node_modules")})

    def renew(self, options):
        """A page that knows nothing of the one before: with these options of playwright's newContext, or None for no page."""
        self.do(options)

    def do(self, code):
        """Runs JavaScript beside the page (playwright's `page` and `context`, our `log`): what it returns."""
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], 60 * process.SLOW)
        assert ready, f"the browser hangs in {code}"
        answer = json.loads(self.process.stdout.readline() or '{"error": "the browser is gone"}')
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def see(self, expression):
        """The value of an expression in the page."""
        return self.do(f"return page.evaluate({json.dumps(expression)})")

    def text(self, selector="body"):
        return self.see(f"document.querySelector({json.dumps(selector)}).innerText")

    def until(self, expression):
        value = process.wait_until(lambda: self.see(expression), 20, 0.2)
        assert value, f"{expression}: {self.text()}"
        return value

    def open(self, port):
        self.do(f"await page.goto('http://127.0.0.1:{port}/');")

    def open_live(self, port):
        self.open(port)
        self.until("document.querySelector('#status').className === 'live'")

    def moved(self, seconds):
        """How many of the plots look different after so many seconds."""
        before = self.see(PICTURES)
        self.do(f"await page.waitForTimeout({seconds * 1000});")
        return sum(a != b for a, b in zip(before, self.see(PICTURES)))

    def moves(self, least):
        """Whether so many of the plots look different in the end."""
        before = self.see(PICTURES)
        return process.wait_until(lambda: sum(a != b for a, b in zip(before, self.see(PICTURES))) >= least, 20, 0.3)

    def login(self, token):
        self.do(f"await page.fill('{INPUT}', {json.dumps(token)}); await page.press('{INPUT}', 'Enter');")

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


@pytest.fixture(scope="module")
def chromium(node_modules):
    """One for all: to start it takes longer than most tests do."""
    one = Browser(require("chromium", "chromium"), node_modules)
    yield one
    one.close()


@pytest.fixture
def browser(chromium):
    """browser(**options of playwright's newContext): a page of its own."""
    def start(**options):
        chromium.renew(options)
        return chromium

    yield start
    chromium.renew(None)


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
def busy(ruled, origin):
    """A proxy with traffic and failures, and the port of its API."""
    target, stop, closed = origin(), threading.Event(), process.free_port()
    proxy, api = ruled(DIRECT, "--workers", "2")

    def churn():
        with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
            while not stop.wait(0.05):
                client.send(b"x" * 5000)
                client.read(5000)
                serves(proxy, target)
                with wire.greet(wire.Client(proxy.address)) as refused:
                    refused.send(wire.socks5("127.0.0.1", closed))
                    refused.read(10)

    thread = threading.Thread(target=churn)
    thread.start()
    yield target, api.address[1]
    stop.set()
    thread.join()


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 360)])
def test_it_shows_a_busy_proxy(busy, browser, scheme, width):
    target, port = busy
    page = browser(colorScheme=scheme, viewport={"width": width, "height": 800})
    page.open_live(port)
    page.until(f"document.querySelector('#targets').innerText.includes('127.0.0.1:{target.port}')")
    page.until("document.querySelector('#failures').innerText.startsWith('refused')")
    assert page.moves(5), "the plots stand still"
    tiles = page.text("#tiles").split("\n")
    assert tiles[tiles.index("Down") + 1].endswith("kbit/s"), tiles
    assert float(tiles[tiles.index("Connections") + 1].split()[0]) > 1, tiles
    assert page.see("document.querySelectorAll('#workers tr').length") == 2
    assert "revision 1" in page.text("header")
    assert page.see("document.documentElement.scrollWidth") <= width
    assert page.errors() == []
    assert page.do("return Object.keys(log.hosts)") == [f"127.0.0.1:{port}"]


def test_token(ruled, browser, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("let-me-in read\n")
    tokens.chmod(0o600)
    _, api = ruled(DIRECT, "--api-token-file", str(tokens))
    page = browser()
    page.open(api.address[1])
    page.do(f"await page.waitForSelector('{INPUT}', {{ state: 'visible' }});")
    assert not page.see("document.querySelector('main').checkVisibility()")
    page.login("wrong")
    page.until("document.querySelector('#login').innerText.includes('does not accept')")
    page.login("w\u00f6rd")
    assert "ASCII" in page.text("#login")
    page.login("let-me-in")
    page.until("document.querySelector('#status').className === 'live'")
    assert not page.see("document.querySelector('#login').checkVisibility()")
    page.do("await page.reload();")
    page.until("document.querySelector('#status').className === 'live'")
    assert page.see("localStorage.length") == 0 and page.see("document.cookie") == ""
    page.do("await page.click('#forget');")
    page.do(f"await page.waitForSelector('{INPUT}', {{ state: 'visible' }});")
    assert page.see("sessionStorage.length") == 0
    assert all("401" in error for error in page.errors()), page.errors()


def test_policy(ruled):
    _, api = ruled(None)
    answer = api.get("/")
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy == {"default-src": "'none'", "script-src": "'unsafe-inline'", "style-src": "'unsafe-inline'", "connect-src": "'self'",
                      "img-src": "'self' data:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    assert answer.headers["content-security-policy"] == fake_api.POLICY, "what the tests with a browser are served"
    assert "innerHTML" not in answer.text and "http://" not in answer.text.replace("http://www.w3.org", "")


def test_a_server_that_is_lost_and_comes_back(fake, browser):
    server, page = fake(), browser()
    page.open_live(server.port)
    server.status = 503
    page.until("document.querySelector('#trouble').innerText.includes('answers 503: not <b>now</b>')")
    assert page.see("document.querySelector('main').classList.contains('stale')")
    assert "refused" in page.see("document.title")
    server.status, server.body = None, b'{"uptime": 1'
    page.until("document.querySelector('#trouble').innerText.includes('something else')")
    server.close()
    page.until("document.querySelector('#trouble').innerText.includes('does not answer')")
    assert "no answer" in page.see("document.title")
    again = fake(server.port)
    again.start += 86400  # it began anew: its counters are lower
    page.until("document.querySelector('#status').className === 'live'")
    page.until("document.querySelector('#tiles b').innerText.endsWith('bit/s')")
    assert not page.see("document.querySelector('#trouble').checkVisibility()")
    assert page.see("samples.some((sample) => !('down' in sample)) && !samples.some((sample) => sample.down < 0)")


def test_restart_and_revision_are_marked(fake, browser):
    server, page = fake(), browser()
    page.open_live(server.port)
    server.revision = 8
    page.until("marks.some((mark) => mark.text === 'revision 8')")
    server.start += 3600
    page.until("marks.some((mark) => mark.text === 'restart')")
    page.until("document.querySelector('#tiles b').innerText.endsWith('bit/s')")
    assert page.see("samples.every((sample) => !(sample.down < 0))")
    assert page.errors() == []


def test_it_shows_what_happened_before(fake, browser):
    """The server's history is in the charts at once: seconds, then minutes; and it fills what a lost connection has left out."""
    server, page = fake(), browser()
    page.open_live(server.port)
    first = page.see("samples.map((sample) => [sample.t - Date.now() / 1000, sample.down, sample.active, sample.connect99])")
    times, down = [sample[0] for sample in first], [sample[1] for sample in first if sample[1] is not None]
    assert times == sorted(times) and -4300 < times[0] < -3500 and len([t for t in times if t > -200]) > 190
    old = [sample for sample in first if sample[0] < -10 and sample[1] is not None]
    assert all(abs(sample[1] / (180e6 * 8) - 1) < 0.05 and sample[2:] == [2000, 0.1] for sample in old), old[:3]
    assert page.see("marks.map((mark) => mark.text)") == ["revision 7"] and len(down) > 250
    label = "document.querySelector('canvas').getAttribute('aria-label')"
    assert "the last 5 minutes" in page.see(label)
    page.do("await page.selectOption('#span', '3600');")
    page.until(f"{label}.includes('the last hour')")
    server.status = 503
    page.until("document.querySelector('#status').className === 'lost'")
    page.do("await page.waitForTimeout(3000);")
    server.status = None
    page.until("document.querySelector('#status').className === 'live'")
    assert page.see("samples.filter((sample) => sample.t > lostAt + 0.5 && 'down' in sample).length") >= 2
    assert page.see("samples.every((sample, i) => !i || sample.t >= samples[i - 1].t)")
    assert [error for error in page.errors() if "503" not in error] == []


def test_history_of_the_program_itself(busy, browser):
    _, port = busy
    api = scripts.Api(("127.0.0.1", port))
    assert process.wait_until(lambda: len(api.get("/history").json()["seconds"]["uptime"]) >= 4)
    page = browser()
    page.open_live(port)
    assert page.see("samples.filter((sample) => sample.down > 0 && sample.connect50 > 0).length") >= 3
    tiles = page.text("#tiles").split("\n")
    assert tiles[tiles.index("Connect p99") + 1].endswith("s") and "–" not in tiles[tiles.index("Connect p99") + 1], tiles
    page.until("document.querySelector('#targets').innerText.includes('127.0.0.1:')")
    page.do("await page.selectOption('#group', 'client');")
    page.until("document.querySelector('#targets th').textContent === '127.0.0.1'")
    assert page.see("document.querySelectorAll('#targets tr').length") == 1  # one address, whatever its ports
    shown, newest = page.see("(() => { const n = plots.find((plot) => plot.title === 'Connections'); return "
                             "[document.querySelectorAll('#tiles .card')[4].querySelector('b').textContent, n.outputs[2].textContent]; })()")
    assert shown == newest  # the tile and the chart speak of the same second
    assert page.errors() == []


def test_names_of_strangers_are_text(fake, browser):
    server, page = fake(), browser(viewport={"width": 360, "height": 740})
    page.open_live(server.port)
    for by, name in [("target", fake_api.HOSTILE[0]), ("user", fake_api.HOSTILE[0]), ("client", "192.0.2."), ("rule", "rule 4")]:
        page.do(f"await page.selectOption('#group', '{by}');")
        page.until(f"document.querySelector('#targets').textContent.includes({json.dumps(name)})")
        assert page.see("document.documentElement.scrollWidth") <= 360
    page.do("await page.selectOption('#group', 'target');")
    names = page.see("[...document.querySelectorAll('#targets th')].map((cell) => cell.textContent)")
    assert "evil\ufffdtxt.exe" in names and "(none)" in names, names
    assert page.see("document.querySelectorAll('img, main script').length") == 0
    assert any("cursor=" in path for path in server.asked)
    assert page.errors() == []


ROWS = "[...document.querySelectorAll('%s tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"


def test_groups_of_upstreams(fake, browser):
    """Not there without groups; whoever is not up comes first."""
    server, page = fake(), browser(viewport={"width": 1280, "height": 800})
    page.open_live(server.port)
    page.until("document.querySelectorAll('#keys-rows tr').length === 50")  # asked for behind the groups
    assert page.see("document.querySelector('#upstreams-card').hidden")
    server.groups = [{"name": "pool", "members": [server.member(1), server.member(2), server.member(3, "out", out_seconds=2.2, failed=3, max=3,
                                                                                                   last_failure="<b>refused")]},
                     {"name": "web", "members": [server.member(4, checked="up", checks_passed=7, checks_failed=1)]}]
    page.until("document.querySelectorAll('#upstreams tr').length === 4")
    assert page.see(ROWS % "#upstreams") == [
        ["192.0.2.3:1080", "pool", "out, 3 s", "3 of 3", "30", "3", "–", "<b>refused"], ["192.0.2.1:1080", "pool", "up", "1", "10", "0", "–", "–"],
        ["192.0.2.2:1080", "pool (backup)", "up", "2", "20", "0", "–", "–"], ["192.0.2.4:1080", "web", "up", "4", "40", "0", "7, 1", "–"]]
    assert page.see("!document.querySelector('#upstreams-card').hidden && document.querySelectorAll('#upstreams .warn').length") == 2
    server.groups = [{"name": "pool", "members": [server.member(i) for i in range(60)]}]
    page.until("document.querySelectorAll('#upstreams tr').length === 50")
    assert page.text("#upstreams-note") == "50 of 60" and page.errors() == []


def test_users_rules_and_keys(fake, browser):
    """What limits leave, in figures; pages of 10,000 keys; and a name is never more than text."""
    server, page = fake(), browser(viewport={"width": 1280, "height": 800})
    page.open_live(server.port)
    for table in ["#users", "#rules"]:
        page.until(f"document.querySelectorAll('{table} tr').length === 10")
        rows = page.see(ROWS % table)
        assert [row[0] for row in rows[:5]] == [fake_api.HOSTILE[0], "evil\ufffdtxt.exe", "a" * 200, "\ufffd\ufffd", "(none)"], rows
        assert rows[0][1:] == ["8.00 Mbit/s", "160 kbit/s", "0", "–", "–"]
        assert rows[1][1:] == ["7.60 Mbit/s", "152 kbit/s", "1 of 6", "95 % of 8.00 Mbit/s", "4.00 GB of 5.37 GB/month"]
        assert rows[3][5] == "0 B of 5.37 GB/month" and rows[9][1:5] == ["–", "–", "9 of 6", "–"]
        assert page.see(f"document.querySelectorAll('{table} .warn').length") == 4  # two have no quota left, two as many connections as they may
    page.until("document.querySelectorAll('#keys-rows tr').length === 50")
    server.missed = 12
    page.until("document.querySelector('#users-note').innerText.includes('12 requests')")
    assert page.see("document.querySelector('#previous').disabled && !document.querySelector('#next').disabled")
    page.do("await page.click('#next');")
    page.until("document.querySelector('#keys-rows th').textContent === 'user:50'")
    page.do("await page.click('#next');")
    page.until("document.querySelector('#keys-rows th').textContent === 'user:100'")
    assert page.text("#keys-note") == "page 3"
    page.do("await page.click('#previous');")
    page.until("document.querySelector('#keys-rows th').textContent === 'user:50'")
    page.do("await page.selectOption('#kind', 'user:'); await page.fill('#prefix', '99');")
    page.until("document.querySelector('#keys-rows th').textContent === 'user:99'")
    assert page.see("document.querySelectorAll('#keys-rows tr').length") == 50 and page.text("#keys-note") == "page 1"
    page.do("await page.fill('#prefix', '999 %\u00fc');")
    page.until("document.querySelector('#keys-rows').innerText === 'No key begins so.'")
    assert "/limits?limit=50&prefix=user%3A999%2520%2525%25C3%25BC" in server.asked
    page.do("await page.click('#pause'); await page.fill('#prefix', '999'); await page.selectOption('#order', 'rate');")
    page.until("document.querySelectorAll('#keys-rows tr').length === 11")  # a paused page answers whoever asks it
    assert page.see("document.querySelector('#next').disabled") and any("sort=rate" in path and "cursor" not in path for path in server.asked)
    assert max(page.see(f"document.querySelectorAll('{table} tr').length") for table in ["#users", "#rules", "#keys-rows"]) <= 50
    assert page.see("document.querySelectorAll('img, main script').length") == 0
    assert page.errors() == []


def test_ten_thousand_users(ruled, browser, origin, tmp_path):
    """The program itself: who moves most is in front, whoever is without a limit is seen, and one of 10,000 is found."""
    bulk, drops, hostile = origin(origins.flood), origin(drip), "<img/src=x/onerror=alert(1)>"
    lines = [f"{name}:{hashed(b'right')}{rest}" for name, rest in [("alice", "::down=2MB/s quota=100GB/month connections=5"),
                                                                  ("bob", "::down=20kB/s connections=1"), (hostile, "")]]
    users = tmp_path / "users"
    users.write_text("\n".join(lines + [f"u{i}:*::connections=5" for i in range(10000)]) + "\n")
    proxy, api = ruled(TAGGED, "--workers", "2", "--users", str(users))
    page = browser(colorScheme="dark", viewport={"width": 1280, "height": 800})
    page.open_live(api.address[1])
    clients, threads = [], []
    for name, target in [(hostile, drops), ("bob", bulk), ("alice", bulk), ("alice", bulk)]:
        clients.append(wire.greet(wire.Client(proxy.address), name.encode(), b"right").send(wire.socks5("127.0.0.1", target.port)))
        threads.append(threading.Thread(target=swallow, args=(clients[-1],)))
        threads[-1].start()
    try:
        wanted = json.dumps("|".join(["alice", hostile, "bob"]))
        rows = page.until(f"(() => {{ const rows = {ROWS % '#users'}; return rows.every((row) => row.length > 1 && row[1].endsWith('bit/s'))"
                          f" && rows.map((row) => row[0]).join('|') === {wanted} && rows; }})()")
        page.until(f"{ROWS % '#rules'}.map((row) => row[0]).join('|') === 'fast|slow'")
        rows = {row[0]: row[1:] for row in rows}
        assert [rows[name][2] for name in ["alice", "bob", hostile]] == ["2 of 5", "1 of 1", "1"], rows
        assert rows["alice"][3].endswith("% of 16.0 Mbit/s") and " of 100 GB/month" in rows["alice"][4] and rows[hostile][3:] == ["–", "–"], rows
        page.until("document.querySelectorAll('#keys-rows tr').length === 50")
        page.do("await page.selectOption('#kind', 'user:'); await page.fill('#prefix', 'u9999');")
        page.until(f"{ROWS % '#keys-rows'}.map((row) => row[0]).join() === 'user:u9999'")
        page.do("await page.fill('#prefix', ''); await page.selectOption('#order', 'rate');")
        page.until("document.querySelector('#keys-rows th').textContent === 'user:alice'")
        assert page.see("document.querySelectorAll('main tr').length") < 120
        assert page.see("document.querySelectorAll('img').length") == 0
        assert page.errors() == []
    finally:
        for client in clients:
            client.socket.shutdown(socket.SHUT_RDWR)  # who reads comes back
        for thread in threads:
            thread.join()


def test_many_sessions_are_not_all_asked_for(fake, browser):
    server, page = fake(), browser()
    server.rows = 9000
    page.open_live(server.port)
    page.until("document.querySelector('#targets-note').innerText === 'of the first 4,000 sessions only'")
    assert "/sessions?limit=1000&cursor=0-fa0" not in server.asked


@pytest.mark.parametrize("stats", [
    {"failures": {}, "workers": [], "ruleset": {"loaded": False}, "connect_latency": {"count": 0}},
    {"failures": None, "workers": None, "ruleset": None, "connect_latency": None, "sessions": None, "bytes": None,
     "dns": None, "api": None, "version": None, "last_minute": None, "refusals": None, "descriptors": None, "decision_latency": {"p50": "x", "count": "many"}}])
def test_figures_that_are_missing(fake, browser, stats):
    server, page = fake(), browser()
    server.stats, server.rows = stats, 0
    page.open_live(server.port)
    page.until("document.querySelector('#targets').innerText === 'No session is open.'")
    page.until("samples.length > 2")
    assert page.text("#failures") == "No connection has failed since start."
    assert "none" in page.text("header")
    assert page.errors() == []


def test_pause_and_reading_by_keyboard(fake, browser):
    server, page = fake(), browser()
    page.open_live(server.port)
    page.until("samples.length > 3")
    page.do("await page.focus('canvas');")
    spoken = []
    while not spoken or ("bit/s" not in spoken[-1] and len(spoken) < 10):  # a second that a busy machine left out has no rate
        page.do("await page.keyboard.press('ArrowLeft'); await page.waitForTimeout(100);")
        spoken.append(page.text("#spoken"))
    assert "down" in spoken[-1] and "bit/s" in spoken[-1] and ":" in spoken[-1], spoken
    label = page.see("document.querySelector('canvas').getAttribute('aria-label')")
    assert label.startswith("Throughput, by direction, the last 5 minutes"), label
    page.do("await page.keyboard.press('Escape'); await page.click('#pause'); await page.waitForTimeout(300);")
    before = page.text("#tiles")
    assert page.moved(2.5) == 0 and page.text("#tiles") == before
    page.do("await page.click('#pause');")
    page.until(f"document.querySelector('#tiles').innerText !== {json.dumps(before)}")
    assert page.moves(6)


def test_reduced_motion(fake, browser):
    server, page = fake(), browser(reducedMotion="reduce")
    page.open_live(server.port)
    page.until("samples.length > 2")
    page.until(f"drawnAt > {page.see('drawnAt')}")  # just now: for ten seconds they rest
    before = page.text("#tiles")
    assert page.moved(3) == 0, "the plots move each second"
    page.until(f"document.querySelector('#tiles').innerText !== {json.dumps(before)}")
    assert page.moves(6)


# Relative luminance and contrast: WCAG 2.2, section 1.4.3.
CONTRAST = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.body.appendChild(document.createElement('i'));
  const named = (name) => { probe.style.color = `var(--${name})`; return light(getComputedStyle(probe).color); };
  const pairs = [['ink', 'card'], ['dim', 'card'], ['dim', 'page'], ['good', 'card'], ['bad', 'card'], ['bad', 'bad-page'],
    ['ink', 'bar'], ['a', 'card'], ['b', 'card'], ['c', 'card']];
  return pairs.map(([x, y]) => {
    const [high, low] = [named(x), named(y)].sort((p, q) => q - p);
    return [x, y, (high + 0.05) / (low + 0.05)];
  });
})()"""


def test_colours(fake, browser):
    server, backgrounds = fake(), {}
    for scheme in ["light", "dark"]:
        page = browser(colorScheme=scheme)
        page.open_live(server.port)
        backgrounds[scheme] = page.see("getComputedStyle(document.body).backgroundColor")
        weak = [pair for pair in page.see(CONTRAST) if pair[2] < 4.5]
        assert not weak, (scheme, weak)
    assert backgrounds["light"] != backgrounds["dark"]
