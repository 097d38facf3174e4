"""What a script may hold up, and for how long: nobody waits much longer than the time budget."""
import signal
import time

import pytest

import process
import wire
from test_limits import serves
from test_ruleset import echoes, refused

# Without a budget that counts what each of these does they take from half a minute to for ever.
LONG = {
    "pattern": "local name = ('a'):rep(250) name:find('.-.-.-.-.-b')",
    "move": "table.move({}, 1, 1 << 60, 2)",
    "finalizer": "setmetatable({}, {__gc = function() while true do end end}) collectgarbage()",
    "pipe": "while true do io.popen('sleep 60'):read('a') end",
    "shell": "while true do os.execute('sleep 60') end",
    "children": "while true do neosocksd.async(function() end, await.execute, 'sleep 60') end",
    "hook": "pcall(debug.sethook) while true do end",
}


@pytest.mark.parametrize("what", LONG)
def test_nothing_outlasts_the_budget(what, ruled, origin):
    target = origin()
    proxy, api = ruled("return { route = function(a) if a:find('^192') then %s end return a end }" % LONG[what],
                       "--lua-budget", "300")
    running = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    begin = time.monotonic()
    refused(proxy)
    assert process.wait_until(lambda: api.get("/healthy").status == 200)
    assert time.monotonic() - begin < 15
    echoes(running)
    assert serves(proxy, target)


def test_a_name_that_backtracks(ruled, origin):
    """Any client can send a name, and a ruleset looks for what it has to do with."""
    target = origin()
    proxy, _ = ruled("return { resolve = function(a) if a:find('^.-%..-%..-%..-%..-%..-example:1$') then return a end end, "
                     "route = function(a) return a end }", "--lua-budget", "300")
    begin = time.monotonic()
    refused(proxy, ".".join(["a"] * 120) + ".x")
    assert time.monotonic() - begin < 15
    assert serves(proxy, target)
    assert "time budget of 300 ms exceeded" in proxy.log()


def test_exit_is_an_orderly_stop(ruled, origin):
    target = origin()
    proxy, api = ruled("return { route = function(a) return a end }", "--drain", "20")
    running = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    answer = api.post("/ruleset/invoke", "pcall(os.exit, 7) _G.beyond = true")
    assert answer.status == 500 and "the script has ended the process" in answer.text
    echoes(running)  # the drain lets it finish
    proxy.expected_exit = 7
    assert proxy.wait(10) == 7
    assert "os.exit(): the process stops with status 7" in proxy.log()


def test_exit_while_loading(tmp_path):
    (tmp_path / "r.lua").write_text("os.exit(5)")
    code, out, err = process.run("-l", f"127.0.0.1:{process.free_port()}", "-r", str(tmp_path / "r.lua"))
    assert code == 5 and "the process stops with status 5" in out + err


def test_stop_while_a_script_waits(ruled):
    proxy, api = ruled("return { tick = function() while true do io.popen('sleep 60'):read('a') end end }", "--lua-budget", "300")
    api.post("/ruleset/invoke", "neosocksd.setinterval(0.05)")
    time.sleep(0.2)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait(15) == 0
