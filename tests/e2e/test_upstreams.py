"""How the proxy dials: with TCP Fast Open, towards servers of every temper."""
import socket

import origins
import wire

BANNER = b"220 server.test\r\n"


def greeting_origin():
    """Speaks first, as SMTP and SSH servers do, and offers TCP Fast Open."""
    def greet(_origin, connection):
        connection.sendall(BANNER)
        return origins.echo(_origin, connection)

    server = origins.Origin(greet)
    server.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    return server


def carried_in_syn(connection):
    """Whether the kernel has taken octets with the SYN (TCPI_OPT_SYN_DATA)."""
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5] & 32)


def test_fastopen_and_servers_that_speak_first(sluice, namespace):
    """Once a cookie is known the kernel keeps the SYN back until there are octets: a client that waits for the server's
    first word would wait for ever."""
    inside = namespace()
    assert inside.run("sysctl", "-q", "-w", "net.ipv4.tcp_fastopen=3").returncode == 0
    proxy = sluice("--fastopen-connect", prefix=inside.prefix)
    server = inside.call(greeting_origin)
    try:
        eager = wire.socks4("127.0.0.1", server.port) + b"hello"
        for i in range(2):  # the first of them gets the cookie, the second uses it
            client = inside.call(wire.Client, proxy.address).send(eager)
            assert client.read(8 + len(BANNER) + 5) == wire.SOCKS4_GRANTED + BANNER + b"hello"
            carried = carried_in_syn(server.connection(i))  # which is open for as long as the client's
            client.close()
        assert carried
        client = inside.call(wire.Client, proxy.address).send(wire.socks4("127.0.0.1", server.port))
        assert client.read(8 + len(BANNER)) == wire.SOCKS4_GRANTED + BANNER
        client.close()
    finally:
        server.close()
