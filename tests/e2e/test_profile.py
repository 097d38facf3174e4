"""Where scripts spend their time: sluice.profile() and POST /profile."""
import contextlib
import http.client
import re
import signal
import threading
import time

import pytest

import process

DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"
# A ruleset that works for a while in every 10 ms, in a function of its own.
BUSY = """
local function spin(seconds)
    local till = time.monotonic() + seconds
    while time.monotonic() < till do
        for i = 1, 1000 do local _ = i * i end -- line 5
    end
end
function _G.work()
    while not _G.enough do
        spin(0.02)
        await.sleep(0.005)
    end
end
return { resolve = function(a) return a end, route = function(a) return a end }
"""


def stacks(text):
    """{(frame, ...): count} of folded stacks."""
    found = {}
    for line in text.splitlines():
        stack, count = line.rsplit(" ", 1)
        assert stack not in found and int(count) > 0
        found[tuple(stack.split(";"))] = int(count)
    return found


def start_work(api):
    api.call("_G.enough = false neosocksd.async(function() end, work)")


def post(api, seconds):
    return api.post(f"/profile?seconds={seconds}")


def test_names_and_lines_of_what_spins(ruled):
    proxy, api = ruled(BUSY)
    start_work(api)
    answer = post(api, 2)
    assert answer.status == 200 and answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    found = stacks(answer.text)
    spinning = {stack: count for stack, count in found.items() if stack[-1].startswith("spin ")}
    assert spinning, answer.text
    for stack in spinning:
        assert re.fullmatch(r"spin ruleset\.lua:[2-7]|spin \S+:[2-7]", stack[-1])
        assert re.fullmatch(r"(function at 8|work) \S+:10", stack[-2])  # who called it
    assert max(spinning, key=spinning.get)[-1].endswith(":5")
    # The work is four fifths of the time or less; what else a thread does is not taken for it.
    assert sum(spinning.values()) > sum(found.values()) * 0.5
    assert sum(found.values()) <= 2000 * 1.5
    assert re.search(r"/profile profile, sha256 ", proxy.log())


def test_idle_time_is_nobodys(ruled):
    _, api = ruled(DIRECT)
    assert sum(stacks(post(api, 1).text).values()) < 500


def test_one_at_a_time_and_others_go_on(ruled):
    proxy, api = ruled(BUSY)
    start_work(api)
    answers = []
    first = threading.Thread(target=lambda: answers.append(post(api, 8)))
    first.start()
    assert process.wait_until(lambda: "/profile profile" in proxy.log())
    assert post(api, 1).status == 409
    assert api.get("/healthy").status == 200
    assert api.call("return pcall(sluice.profile, 1)").startswith('return true,false,"a profile is being taken already')
    assert not answers, "they have waited for it"
    first.join()
    assert answers[0].status == 200 and "spin " in answers[0].text
    assert post(api, 1).status == 200


@pytest.mark.parametrize("query", ["", "?seconds=", "?seconds=0", "?seconds=0.9", "?seconds=61", "?seconds=-1", "?seconds=x",
                                   "?seconds=1x", "?seconds=nan", "?seconds=inf", "?seconds=1e9", "?seconds=1e0", "?seconds=0x2", "?seconds=%2b2",
                                   "?seconds=%202", "?seconds=2."])
def test_wrong_lengths(ruled, query):
    _, api = ruled(None)
    answer = api.post("/profile" + query)
    assert (answer.status, answer.text) == (400, "seconds: give 1 to 60")


def test_without_a_ruleset_and_longer_than_the_timeout(ruled):
    _, api = ruled(None, "-t", "5")
    start = time.monotonic()
    assert post(api, 6).status == 200
    assert time.monotonic() - start >= 5.9


def test_from_a_script(ruled):
    _, api = ruled(BUSY)
    start_work(api)
    answer = api.call("local text = sluice.profile(0.5) return text:find('spin ', 1, true) ~= nil")
    assert answer == "return true,true"
    api.call("neosocksd.async(function() end, function() while not enough do pcall(string.rep, 'x', 3000000) await.sleep(0.001) end end)")
    assert ";pcall [C];rep [C]" in api.call("return sluice.profile(1)")  # a function that has no name where it is called
    for argument, part in [("0", "0.01 to 60 seconds"), ("61", "0.01 to 60 seconds"), ("0/0", "0.01 to 60 seconds"),
                           ("{}", "number expected, got table"), ("", "number expected, got no value")]:
        assert part in api.call(f"sluice.profile({argument})")
    assert "not in asynchronous routine" in api.post("/ruleset/invoke", "sluice.profile(1)").text


def test_stop_while_it_is_taken(ruled):
    proxy, api = ruled(BUSY)
    start_work(api)
    answers = []

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(post(api, 30).status)

    first = threading.Thread(target=ask)
    first.start()
    assert process.wait_until(lambda: "/profile profile" in proxy.log())
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    first.join()
    assert answers in ([503], [])


def test_coroutines_of_scripts_and_the_time_budget(ruled):
    """A coroutine that a script resumes, one that wrap() made, and a loop that the budget ends meanwhile."""
    _, api = ruled(BUSY, "--lua-budget", "300")
    code = """
    local function inner() local till = os.clock() + 0.03 while os.clock() < till do end end
    neosocksd.async(function() end, function()
        for i = 1, 10 do
            coroutine.resume(coroutine.create(inner))
            coroutine.wrap(inner)()
            await.sleep(0.005)
        end
    end)
    neosocksd.async(function() end, function() await.sleep(0.1) while true do end end)
    return sluice.profile(2.5)
    """
    answer = api.call(code)
    assert "function at 2 (rpc):2" in answer and "function at 10 (rpc):10" in answer
    assert "time budget" in api.call("return neosocksd.stats().lasterror")
