"""The programs that people use."""
import getpass
import hashlib
import os
import socket
import ssl
import subprocess

import pytest

import origins
import process
from conftest import HERE, require

CLEAN = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def output(*words, timeout=30, env=None, stdin=subprocess.DEVNULL, **options):
    """What a program prints; its failure is ours, with what it complained about."""
    done = subprocess.run([str(word) for word in words], stdin=stdin if "input" not in options else None,
                          capture_output=True, timeout=timeout * process.SLOW, env={**CLEAN, **(env or {})}, **options)
    assert done.returncode == 0, f"{words} exited with {done.returncode}:\n{done.stderr.decode(errors='replace')}"
    return done.stdout


@pytest.fixture
def web(origin):
    return origin(origins.pages)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    output(require("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
           "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2",
           "-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    return folder


@pytest.fixture
def tls_web(origin, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    def serve(one, connection):
        with context.wrap_socket(connection, server_side=True) as secured:
            head = origins.read_http_head(secured)
            body = b"secure page " + head.split(b" ")[1]
            secured.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            secured.unwrap()
        return head

    return origin(serve)


CURL_WAYS = {
    "socks4": ["--socks4", "{proxy}"],
    "socks4a": ["--socks4a", "{proxy}"],
    "socks5": ["--socks5", "{proxy}"],
    "socks5-hostname": ["--socks5-hostname", "{proxy}"],
    "socks5-user": ["-x", "socks5h://user:pass@{proxy}"],
    "http-tunnel": ["-p", "-x", "http://{proxy}"],
    "http-tunnel-user": ["-p", "-x", "http://user:pass@{proxy}"],
    "http": ["-x", "http://{proxy}"],
}


@pytest.mark.parametrize("way", CURL_WAYS)
def test_curl(shared, web, way):
    curl, proxy = require("curl", "curl"), shared()
    words = [word.format(proxy=proxy.url) for word in CURL_WAYS[way]]
    for name in ("127.0.0.1", "localhost"):
        url = f"http://{name}:{web.port}/{way}"
        assert output(curl, "-sS", "-4", "--max-time", 20, *words, url) == f"page /{way}".encode()


@pytest.mark.parametrize("way", CURL_WAYS)
def test_curl_https(shared, tls_web, certificate, way):
    curl, proxy = require("curl", "curl"), shared()
    words = [word.format(proxy=proxy.url) for word in CURL_WAYS[way]]
    got = output(curl, "-sS", "-4", "--max-time", 20, "--cacert", certificate / "cert.pem", *words,
                 f"https://localhost:{tls_web.port}/{way}")
    assert got == f"secure page /{way}".encode()


def test_curl_over_ipv6(shared, origin):
    curl, proxy, target = require("curl", "curl"), shared(listen="::1"), origin(origins.pages, host="::1")
    for way in ("socks5h", "socks4a", "http"):
        got = output(curl, "-sS", "-g", "-p", "--max-time", 20, "-x", f"{way}://{proxy.url}",
                     f"http://[::1]:{target.port}/{way}")
        assert got == f"page /{way}".encode()


@pytest.mark.parametrize("way, code", [("socks5", 97), ("socks4", 97), ("http-tunnel", 56)])
def test_curl_is_told_of_a_refusal(shared, way, code):
    """Exit codes of curl: 97 is "proxy handshake error", 56 what it makes of a CONNECT that was answered with 502."""
    curl, proxy = require("curl", "curl"), shared()
    words = [word.format(proxy=proxy.url) for word in CURL_WAYS[way]]
    done = subprocess.run([curl, "-sS", "--max-time", "20", *words, f"http://127.0.0.1:{process.free_port()}/"],
                          capture_output=True, text=True, env=CLEAN)
    assert done.returncode == code, done.stderr
    if way == "http-tunnel":
        assert "502" in done.stderr


def test_curl_uploads_and_downloads(sluice, origin, tmp_path):
    curl, proxy = require("curl", "curl"), sluice()
    content = os.urandom(20 << 20)
    (tmp_path / "up").write_bytes(content)

    def mirror(_origin, connection):
        head = origins.read_http_head(connection)
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        body = bytearray()
        while len(body) < size:
            body += connection.recv(1 << 20)
        connection.sendall(body)

    target = origin(mirror)
    got = output(curl, "-sS", "-x", f"socks5h://{proxy.url}", "-H", "Expect:", "--data-binary", f"@{tmp_path}/up",
                 f"http://127.0.0.1:{target.port}/")
    assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()


def test_wget_https(shared, tls_web, certificate):
    wget, proxy = require("wget", "wget"), shared()
    got = output(wget, "-q", "-O", "-", "--tries=1", f"--ca-certificate={certificate}/cert.pem",
                 f"https://localhost:{tls_web.port}/wget", env={"https_proxy": f"http://{proxy.url}"})
    assert got == b"secure page /wget"


def test_wget(shared, web):
    wget, proxy = require("wget", "wget"), shared()
    got = output(wget, "-q", "-O", "-", "--tries=1", f"http://localhost:{web.port}/wget",
                 env={"http_proxy": f"http://{proxy.url}"})
    assert got == b"page /wget"


REQUEST = b"GET /raw HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("kind, auth", [("socks4", None), ("socks5", None), ("socks5", "user:pass"), ("http", None),
                                        ("http", "user:pass")])
def test_ncat(shared, web, kind, auth):
    ncat, proxy = require("ncat", "ncat"), shared()
    words = [ncat, "--no-shutdown", "--proxy", proxy.url, "--proxy-type", kind, "127.0.0.1", web.port]
    if auth:
        words[1:1] = ["--proxy-auth", auth]
    assert output(*words, input=REQUEST).endswith(b"page /raw")


@pytest.mark.parametrize("kind", ["4", "5", "connect"])
def test_nc(shared, web, kind):
    nc, proxy = require("nc.openbsd", "netcat-openbsd"), shared()
    assert output(nc, "-X", kind, "-x", proxy.url, "127.0.0.1", web.port, input=REQUEST).endswith(b"page /raw")


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory):
    """sshd on a high port with keys that nobody keeps; (port, words of a client)."""
    sshd = require("sshd", "openssh-server")
    ssh = require("ssh", "openssh-client")
    folder = tmp_path_factory.mktemp("ssh")
    try:
        os.makedirs("/run/sshd", exist_ok=True)
    except PermissionError:
        pytest.skip("sshd wants /run/sshd, which only root can make")
    for key in ("host", "user"):
        output(require("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    port = process.free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile {folder}/pid\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n")
    server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=open(folder / "log", "wb"))
    listens = process.wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
    assert listens, (folder / "log").read_text()
    yield port, [ssh, "-F", "none", "-i", folder / "user", "-p", str(port), "-o", "StrictHostKeyChecking=no",
                 "-o", f"UserKnownHostsFile={folder}/known", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
                 "-o", "ConnectTimeout=20", "-l", getpass.getuser()]
    server.terminate()
    server.wait()


SSH_WAYS = {
    "nc-socks5": ("nc.openbsd", "netcat-openbsd", "-X 5 -x {proxy} %h %p"),
    "nc-socks4": ("nc.openbsd", "netcat-openbsd", "-X 4 -x {proxy} %h %p"),
    "nc-connect": ("nc.openbsd", "netcat-openbsd", "-X connect -x {proxy} %h %p"),
    "ncat-socks5": ("ncat", "ncat", "--proxy {proxy} --proxy-type socks5 %h %p"),
    "ncat-http": ("ncat", "ncat", "--proxy {proxy} --proxy-type http %h %p"),
}


@pytest.mark.parametrize("way", SSH_WAYS)
def test_ssh(shared, ssh_server, way):
    program, package, words = SSH_WAYS[way]
    proxy, (_, ssh) = shared(), ssh_server
    command = f"{require(program, package)} {words.format(proxy=proxy.url)}"
    content = os.urandom(3 << 20)
    got = output(*ssh, "-o", f"ProxyCommand={command}", "127.0.0.1", "sha256sum; echo done", input=content)
    assert got.decode().split() == [hashlib.sha256(content).hexdigest(), "-", "done"]


def test_pysocks(shared, origin):
    import socks
    proxy, target = shared(), origin(host="::")  # who resolves localhost by itself tries one address, of either family
    kinds = [(socks.SOCKS4, None, False), (socks.SOCKS4, "me", True), (socks.SOCKS5, None, False),
             (socks.SOCKS5, None, True), (socks.SOCKS5, "user", True), (socks.HTTP, None, True)]
    for kind, user, remote in kinds:
        with socks.socksocket() as client:
            client.set_proxy(kind, proxy.host, proxy.port, rdns=remote, username=user, password=user and "secret")
            client.settimeout(20)
            client.connect(("localhost", target.port))
            client.sendall(b"hello")
            assert client.recv(5) == b"hello", (kind, user, remote)


def test_pysocks_names_the_reason(shared):
    import socks
    proxy = shared()
    with socks.socksocket() as client:
        client.set_proxy(socks.SOCKS5, proxy.host, proxy.port)
        with pytest.raises(socks.GeneralProxyError, match="0x05: Connection refused"):
            client.connect(("127.0.0.1", process.free_port()))


@pytest.mark.parametrize("kind, scheme, secure", [
    ("socks", "socks4://", False), ("socks", "socks5://", False), ("socks", "socks5://u:p@", False),
    ("agent", "http://", False), ("agent", "http://", True), ("agent", "http://u:p@", True),
    ("undici", "http://", False), ("undici", "http://", True)])
def test_node(shared, web, tls_web, node_modules, kind, scheme, secure):
    proxy = shared()
    url = f"https://localhost:{tls_web.port}/node" if secure else f"http://127.0.0.1:{web.port}/node"
    got = output("node", os.path.join(HERE, "clients.js"), kind, scheme + proxy.url, url,
                 env={"NODE_PATH": os.path.join(node_modules, "node_modules")})
    assert got == (b"secure page /node" if secure else b"page /node")


@pytest.mark.parametrize("kind", ["socks4", "socks5", "http"])
def test_proxychains(sluice, web, tmp_path, kind):
    proxychains, curl = require("proxychains4", "proxychains4"), require("curl", "curl")
    proxy = sluice()
    conf = tmp_path / "proxychains.conf"
    conf.write_text(f"strict_chain\nquiet_mode\nproxy_dns\n[ProxyList]\n{kind} {proxy.host} {proxy.port}\n")
    got = output(proxychains, "-q", "-f", conf, curl, "-sS", "--max-time", 20, f"http://127.0.0.1:{web.port}/chained")
    assert got == b"page /chained"


def test_proxychains_through_two_of_ours(sluice, web, tmp_path):
    proxychains, curl = require("proxychains4", "proxychains4"), require("curl", "curl")
    first, second = sluice(), sluice()
    conf = tmp_path / "proxychains.conf"
    conf.write_text(f"strict_chain\n[ProxyList]\nsocks5 {first.host} {first.port}\nhttp {second.host} {second.port}\n")
    got = output(proxychains, "-q", "-f", conf, curl, "-sS", "--max-time", 20, f"http://127.0.0.1:{web.port}/chained")
    assert got == b"page /chained"


def socksify_conf(folder, proxy, protocols, commands):
    conf = folder / "socks.conf"
    conf.write_text(
        "debug: 0\nlogoutput: /dev/null\n"
        f"route {{ from: 0.0.0.0/0 to: 0.0.0.0/0 via: {proxy.host} port = {proxy.port}\n"
        f"  proxyprotocol: socks_v5\n  protocol: {protocols}\n  command: {commands}\n  method: none\n}}\n")
    return {"SOCKS_CONF": str(conf), "SOCKS_AUTOADD_LANROUTES": "no"}  # loopback would be dialled directly


def test_socksify(sluice, web, tmp_path):
    socksify, nc = require("socksify", "dante-client"), require("nc.openbsd", "netcat-openbsd")
    proxy = sluice("--loglevel", "6")
    env = socksify_conf(tmp_path, proxy, "tcp", "connect")
    got = output(socksify, nc, "127.0.0.1", web.port, input=REQUEST, env=env)
    assert got.endswith(b"page /raw")
    assert process.wait_until(lambda: f"127.0.0.1:{web.port}': connected" in proxy.log()), proxy.log()
