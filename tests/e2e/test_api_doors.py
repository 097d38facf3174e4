"""Who may call the API, with what, and what is said of it: heads, queries, tokens, the log of changes, the Unix socket."""
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time

import pytest

import process
import scripts
import wire
from conftest import ROOT, require

DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"


def raw(api, request, timeout=15):
    client = wire.Client(api.address, timeout=timeout * process.SLOW)
    client.send(request)
    return client


def status(api, request):
    client = raw(api, request)
    head = client.read_head()
    client.close()
    return int(head.split()[1])


def token_file(folder, text, name="tokens"):
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def sesame(tmp_path_factory):
    """A file with this token."""
    return token_file(tmp_path_factory.mktemp("tokens"), "sesame\n")


# --- heads ---

@pytest.mark.parametrize("line", [b"Authorization: Bearer sesame\0", b"Authorization: Bearer sesame\0x", b"Authorization: \0Bearer sesame",
                                  b"Authorization: Bearer sesame\r\nX-More: a\0b", b"X-More: \0\r\nAuthorization: Bearer sesame",
                                  b"Authorization: Bearer sesame\r\nX-More: \0", b"Authorization: Bearer sesame\r\n more"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_fields_that_are_not_whole(shared_ruled, sesame, line, end):
    """What stands behind a zero octet, or on a second line, would be dropped without a word."""
    _, api = shared_ruled(DIRECT, "--api-token-file", sesame)
    line = line.replace(b"\r\n", end)
    request = b"GET /stats HTTP/1.1" + end + b"Host: localhost" + end + b"%s" + end + b"%s" + end
    assert status(api, request % (line, b"")) in (400, 401)
    if b"\0" in line and end == b"\n" and line.endswith(b"\0"):
        return  # in front of a bare LF it looks like CRLF, which nothing but a token has to fear
    assert status(api, request % (line, b"Accept: */*" + end)) in (400, 401)


def test_whole_fields_are_served(shared_ruled, sesame):
    _, api = shared_ruled(DIRECT, "--api-token-file", sesame)
    for fields in [b"Authorization: Bearer sesame\r\n", b"Authorization:Bearer sesame\r\nX: \r\nY:\r\n",
                   b"X:   much   blank   \r\nAuthorization:  \t Bearer sesame\r\nZ: z\r\n",
                   b"X: y\nAuthorization: Bearer sesame\r\nZ: z\n", b"A: " + b"x" * 7000 + b"\r\nAuthorization: Bearer sesame\r\n"]:
        assert status(api, b"GET /stats HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n") == 200, fields
    client = raw(api, b"GET /stats?nobanner=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sesame\r\n\r\n" * 3 +
                 b"GET /stats HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer sesame\r\n\r\n")
    assert client.read_all().count(b"HTTP/1.1 200 OK\r\n") == 4
    client = raw(api, b"").send_slowly(b"GET /stats HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sesame\r\n\r\n")
    assert client.read_head().startswith(b"HTTP/1.1 200")


def test_zero_octet_in_the_url(shared_ruled):
    _, api = shared_ruled(DIRECT)
    assert status(api, b"GET /stats\0/x HTTP/1.1\r\n\r\n") == 400
    assert status(api, b"GET /stats?format=json\0 HTTP/1.1\r\n\r\n") == 400
    assert status(api, b"POST /ruleset/invoke\0 HTTP/1.1\r\nContent-Length: 3\r\n\r\nx=1") == 400


@pytest.mark.parametrize("name,first,second", [
    ("Host", "localhost", "evil.test"), ("Origin", "http://localhost", "http://evil.test"), ("Origin", "http://localhost", "http://localhost"),
    ("Sec-Fetch-Site", "same-origin", "cross-site"), ("Content-Type", "text/plain", "text/html"), ("Content-Encoding", "identity", "gzip"),
    ("Authorization", "Bearer a", "Bearer b"), ("Expect", "100-continue", "100-continue")])
def test_fields_with_one_meaning(shared_ruled, name, first, second):
    """Of two only the first one was looked at, and the change was made."""
    _, api = shared_ruled(DIRECT)
    host = "" if name == "Host" else "Host: localhost\r\n"
    for one, two in [(first, second), (second, first)]:
        client = raw(api, f"POST /ruleset/invoke HTTP/1.1\r\n{host}{name}: {one}\r\n{name.lower()}: {two}\r\n"
                          "Content-Length: 6\r\n\r\n_G.x=1".encode())
        assert int(client.read_head().split()[1]) in (400, 403), (one, two)
        client.close()
    assert api.call("return x") == "return true,nil"


# --- queries of routes that change something ---

CHANGES = [("POST", "/ruleset/invoke", "_G.x = 1"), ("POST", "/ruleset/update", "_G.x = 1 return {}"), ("POST", "/ruleset/gc", ""),
           ("POST", "/scripts?name=one", "await.sleep(9)"), ("DELETE", "/sessions/0-0-0", None), ("DELETE", "/scripts/one", None),
           ("POST", "/profile?seconds=1", ""), ("PUT", "/limits/gold", '{"connections": 1}'), ("DELETE", "/limits/gold", None), ("PUT", "/upstreams/pool/h:1", '{"state": "up"}'), ("PUT", "/users/a", "{}"), ("DELETE", "/users/a", None), ("POST", "/lists/reload", ""), ("POST", "/sessions/judge", ""), ("POST", "/stats?server=1", "")]


@pytest.mark.parametrize("method,path,body", CHANGES)
def test_unknown_parameters_of_changes(ruled, method, path, body):
    proxy, api = ruled(DIRECT)
    for more in ["dryrun=1", "dryrun", "MODULE=x", "%6dodule2=1", "=1"]:
        answer = api.ask(method, path + ("&" if "?" in path else "?") + more, body)
        assert answer.status == 400 and "query parameters" in answer.text, (more, answer.status)
    for more in re.findall(r"\?.*", path):  # each once
        assert api.ask(method, path + more.replace("?", "&"), body).status == 400
    assert "sha256" not in proxy.log()
    assert api.call("return x") == "return true,nil" and api.get("/scripts").json() == {"scripts": []}
    assert api.get("/stats?dryrun=1").status == api.get("/sessions?_=1").status == 200  # nothing changes there


def test_empty_parameters(ruled):
    """`?module=` replaced package.loaded[""], and `?module` the whole ruleset."""
    proxy, api = ruled(DIRECT)
    for query in ["module", "module=", "chunkname", "chunkname=", "module=x&chunkname="]:
        assert api.post("/ruleset/update?" + query, "_G.x = 1 return {}").status == 400, query
    for query in ["limit", "limit=", "cursor", "cursor="]:
        assert api.get("/sessions?" + query).status == 400, query
    assert api.post("/scripts?name=", "x=1").status == api.post("/scripts?name", "x=1").status == 400
    assert api.call("return x, package.loaded['']") == "return true,nil,nil"
    assert api.get("/stats?format=json").json()["ruleset"]["revision"] == 1


# --- scopes ---

def rows_of_the_table():
    """(method, path, scope) of every route, as the source has them."""
    with open(os.path.join(ROOT, "api", "endpoints.c"), encoding="utf-8") as source:
        for row in re.findall(r"\{\.path = [^}]*\}", source.read()):
            path = re.search(r'\.path = "([^"]+)"', row).group(1) + ("/0-0-0" if "takes_id" in row else "")
            methods = re.search(r"\.methods = ([^,]+),", row).group(1)
            for name, flag in [("GET", "READ"), ("HEAD", "READ"), ("POST", "CALL_POST"), ("DELETE", "CALL_DELETE"), ("PUT", "CALL_PUT")]:
                if flag in methods:
                    yield name, path, re.search(r"\.scope = ACCESS_(\w+)", row).group(1)


# What a token of the scope `read` may do, and what nobody needs one for. Everything else changes something.
FOR_READERS = {("GET", path) for path in ["/stats", "/metrics", "/sessions", "/scripts", "/history", "/top", "/limits", "/limits/0-0-0", "/lists", "/lists/0-0-0", "/upstreams", "/usage", "/users", "/users/0-0-0"]}
FOR_READERS |= {("HEAD", path) for _, path in FOR_READERS}
FOR_ALL = {(method, path) for method in ["GET", "HEAD"] for path in ["/", "/healthy", "/ready"]} | {("POST", "/healthy")}


def test_scopes_of_all_routes(ruled, tmp_path):
    _, api = ruled(DIRECT, "--api-token-file", str(token_file(tmp_path, "reader read\nwriter admin\n")))
    rows = list(rows_of_the_table())
    assert len(rows) >= 19
    for method, path, _ in rows:
        body = "" if method == "POST" else None
        wanted = "none" if (method, path) in FOR_ALL else "read" if (method, path) in FOR_READERS else "admin"
        got = [api.ask(method, path, body, {"Authorization": f"Bearer {name}"} if name else {}).status for name in ["", "reader", "writer"]]
        refused = [code in (401, 403) for code in got]
        assert refused == {"none": [False] * 3, "read": [True, False, False], "admin": [True, True, False]}[wanted], (method, path, got)
        assert got[0] == 401 or wanted == "none"


# --- tokens ---

def test_token_withdrawn_between_head_and_body(ruled, tmp_path):
    tokens = token_file(tmp_path, "old-one\nsecond read\n")
    proxy, api = ruled(DIRECT, "--api-token-file", str(tokens))
    code = b"_G.done = true"
    head = b"POST /ruleset/invoke HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    client = raw(api, head % (b"old-one", len(code)))
    client.send(code[:3])
    time.sleep(0.2)
    tokens.write_text("new-one\nold-one read\n")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "2 tokens in force" in proxy.log())
    assert client.send(code[3:]).read_head().startswith(b"HTTP/1.1 403")  # its scope is another one now
    client = raw(api, head % (b"new-one", len(code)))
    client.send(code[:3])
    time.sleep(0.2)
    tokens.write_text("third\n")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "1 token in force" in proxy.log())
    assert client.send(code[3:]).read_head().startswith(b"HTTP/1.1 401")
    assert "/ruleset/invoke" not in proxy.log()
    answer = api.post("/ruleset/rpcall", "return done", {"Authorization": "Bearer third", "Content-Type": scripts.RPC_TYPE})
    assert answer.text == "return true,nil"


def test_the_log_names_who_had_the_token(ruled, tmp_path):
    """The tokens change places in the file while the body comes."""
    tokens = token_file(tmp_path, "alpha\nbeta\n")
    proxy, api = ruled(DIRECT, "--api-token-file", str(tokens))
    client = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nAuthorization: Bearer alpha\r\nContent-Length: 3\r\n\r\nx")
    time.sleep(0.2)
    tokens.write_text("beta\nalpha\n")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "2 tokens in force" in proxy.log())
    assert client.send(b"=1").read_head().startswith(b"HTTP/1.1 200")
    assert f"token {hashlib.sha256(b'alpha').hexdigest()[:8]}: /ruleset/invoke" in proxy.log()


@pytest.mark.parametrize("text,part", [("one\ntwo\none\n", ", line 3: the same token"), ("one read\n# x\none admin\n", ", line 3: the same token"),
                                       ("", "tokens: there is no token in it"), ("# nothing\n\n", "tokens: there is no token in it")])
def test_token_files_that_are_refused(tmp_path, text, part):
    tokens = token_file(tmp_path, text)
    words = ["-l", f"127.0.0.1:{process.free_port()}", "--api", f"127.0.0.1:{process.free_port()}", "--api-token-file", str(tokens)]
    for mode in [[], ["--check"]]:
        code, out, err = process.run(*words, *mode)
        assert code == 1 and "valid" not in out and part in err and "line 0" not in err, err


# --- what is said ---

def test_the_log_tells_failed_changes_from_good_ones(ruled):
    proxy, api = ruled(DIRECT)

    def lines(code):
        digest = hashlib.sha256(code.encode()).hexdigest()
        return [line[2:] for line in proxy.log().splitlines() if digest in line]

    good, bad = "return { good = 1 }", "return nothing.there"
    assert api.post("/ruleset/update", good).status == 200 and api.post("/ruleset/update", bad).status == 500
    assert len(lines(good)) == 1 and len(lines(bad)) == 2 and lines(bad)[1].endswith(": failed with 500")
    assert api.post("/ruleset/invoke", "error('x')").status == 500 and lines("error('x')")[-1].endswith(": failed with 500")
    assert api.ask("DELETE", "/sessions/0-0-0").status == 404
    assert re.search(r"/sessions 0-0-0, sha256 \w+: failed with 404", proxy.log())
    assert api.post("/ruleset/rpcall", "(", {"Content-Type": scripts.RPC_TYPE}).status == 500 and len(lines("(")) == 2


def test_the_hash_stands_behind_any_name(ruled):
    proxy, api = ruled(DIRECT)
    code = "return { long = true }"
    for name in ["m" * 3000, "m" * 90, "a%0aN%20b"]:
        assert api.post("/ruleset/update?module=" + name, code).status == 200
    digest = hashlib.sha256(code.encode()).hexdigest()
    logged = [line for line in proxy.log().splitlines() if "/ruleset/update" in line]
    assert len(logged) == 3 and all(line.endswith(f", sha256 {digest}") for line in logged)


def test_caches_and_heads(ruled, origin):
    """Nothing is kept by caches, what may be coded says so, and the body that HEAD leaves out is not counted."""
    proxy, api = ruled(DIRECT, "--workers", "1")
    for path in ["/stats", "/stats?format=json", "/metrics", "/sessions", "/scripts", "/healthy", "/nothing"]:
        assert api.get(path).headers["cache-control"] == "no-store", path
    for accept in ["identity", "gzip"]:
        assert api.get("/metrics", Accept_Encoding=accept).headers["vary"] == "Accept-Encoding"
        assert "vary" not in api.get("/healthy", Accept_Encoding=accept).headers

    def sent():
        return api.get("/stats?format=json").json()["api"]["bytes_out"]

    one = sent()
    step = sent() - one
    before = sent()
    for _ in range(50):
        assert api.ask("HEAD", "/metrics").status == 200
    assert sent() - before < 2 * step + 50 * 1000 < len(api.get("/metrics").raw) * 25


def test_time_between_requests_is_not_the_next_ones(ruled):
    """A request on a kept connection has as much time as on a new one."""
    _, api = ruled(DIRECT, "-t", "9")
    client = raw(api, b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.read_head()
    time.sleep(5)
    code = b"x=1"
    client.send(b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
    time.sleep(5)
    assert client.send(code).read_head().startswith(b"HTTP/1.1 200")


# --- the Unix socket ---

@pytest.mark.parametrize("mask,mode", [(0o000, 0o770), (0o022, 0o750), (0o077, 0o700)])
def test_mode_of_the_unix_socket(sluice, tmp_path, mask, mode):
    path = str(tmp_path / "api")
    proxy = sluice("--api", f"unix:{path}", prefix=("sh", "-c", f'umask {mask:o}; exec "$@"', "sh"))
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    assert scripts.Api(path).get("/healthy").status == 200
    proxy.finish()
    assert not os.path.exists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_unix_sockets_of_another_user(sluice, tmp_path):
    """In a folder for everybody, such as /tmp, both sockets are gone at the end; in root's own a line says that they stay."""
    require("setpriv", "util-linux")
    for mode, gone in [(0o1777, True), (0o755, False)]:
        folder = f"/tmp/sluice-e2e-{os.getpid()}-{gone}"
        os.mkdir(folder)
        os.chmod(folder, mode)
        try:
            proxy = sluice("-l", f"unix:{folder}/proxy", "--api", f"unix:{folder}/api", "-u", "nobody:")
            assert os.stat(f"{folder}/api").st_uid == os.stat(f"{folder}/proxy").st_uid != 0
            as_nobody = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", f"""
import socket
s = socket.socket(socket.AF_UNIX)
s.connect("{folder}/api")
s.sendall(b"GET /healthy HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
assert s.recv(100).startswith(b"HTTP/1.1 200")"""], capture_output=True, text=True, timeout=30)
            assert as_nobody.returncode == 0, as_nobody.stderr
            proxy.finish()
            assert os.listdir(folder) == ([] if gone else os.listdir(folder))
            assert proxy.log().count("stays behind: Permission denied; put it into a folder") == (0 if gone else 2), proxy.log()
        finally:
            shutil.rmtree(folder)
