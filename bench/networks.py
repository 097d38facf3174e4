"""The networks in which proxies are measured. All are namespaces of the bench's own, which end with it.

    loopback   one namespace, in which client, proxy and origin are: the kernel does the peers' TCP work in the proxy's sends,
               on the proxy's core, and charges it to the proxy
    veth       the proxy has a namespace, client and origin another, and a pair of devices joins them. What a side receives
               is steered (RPS) to the core of that side, as the interrupts of a NIC are

Every proxy runs under the same congestion control. A namespace takes only what the host allows, and does not say so where it
does not; so it is allowed first and read back."""
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import re

from processes import Failed, command_output, must, read_setting

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 0x40000, 0x1000
ALLOWED = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"
SETTINGS = {"tcp_tw_reuse": "1",  # or ports run out
            "tcp_no_metrics_save": "1",  # nobody profits from what the kernel has learned in an earlier sample
            "ip_local_port_range": "32768\t65535"}
DEVICE = "path"  # both ends of the pair have this name


@dataclasses.dataclass
class Network:
    name: str
    proxy_space: str  # of `ip netns`; "": where we are
    ends_space: str
    proxy: str  # address of the proxy
    ends: str  # of the client, the name server and the hops of a chain
    targets: str  # the first two octets of the origin's addresses: there are as many as anybody wants
    device: str  # that the origin is bound to, so that no neighbour reaches it; "": it has none

    def target(self, number):
        """Of sample `number`: an address that no sample before it had."""
        return f"{self.targets}.{1 + number // 30 % 250}.{1 + number % 30 * 8}"

    def at_proxy(self, command):
        """The command that runs this one where the proxy lives."""
        prefix = ["nsenter", f"--net=/run/netns/{self.proxy_space}"] if self.proxy_space != self.ends_space else []
        return [*prefix, *command]

    def spaces(self):
        return list(dict.fromkeys([self.proxy_space, self.ends_space]))


HERE = Network("here", "", "", "127.0.0.1", "127.0.0.1", "127.77", "lo")  # without a namespace of its own
LOOPBACK = Network("loopback", "loopback", "loopback", "127.0.0.1", "127.0.0.1", "127.77", "")
VETH = Network("veth", "box", "ends", "10.98.0.1", "10.98.0.2", "10.99", "")
NETWORKS = {network.name: network for network in (LOOPBACK, VETH)}


def system_call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise Failed(f"{name}: {os.strerror(ctypes.get_errno())}: namespaces need root")


def enter_space(path):
    with open(path, "rb") as space:
        system_call("setns", space.fileno(), CLONE_NEWNET)


def open_private_mounts(directory):
    """Mounts that end with this process: names of namespaces that nobody else sees, and an /etc/resolv.conf. Returns the
    latter's file."""
    resolv = pathlib.Path(directory) / "resolv.conf"
    resolv.write_text("")
    resolv.chmod(0o644)
    pathlib.Path("/run/netns").mkdir(parents=True, exist_ok=True)
    system_call("unshare", CLONE_NEWNS)
    system_call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    system_call("mount", b"bench", b"/run/netns", b"tmpfs", 0, None)
    system_call("mount", bytes(resolv), os.path.realpath("/etc/resolv.conf").encode(), None, MS_BIND, None)
    return resolv


def allow_congestion_control(stack, names):
    """On the host, until the stack ends. From within a namespace it cannot be done."""
    if not os.path.exists(ALLOWED):
        return
    before = read_setting(ALLOWED)
    for name in names:
        command_output("modprobe", f"tcp_{name}")
    missing = [name for name in names if name not in before.split()]
    if not missing:
        return
    with contextlib.suppress(OSError):  # what comes of it is read back
        setting = os.open(ALLOWED, os.O_WRONLY | os.O_CLOEXEC)  # stays the host's, wherever we are at the end
        stack.callback(os.close, setting)
        stack.callback(os.pwrite, setting, before.encode(), 0)
        os.pwrite(setting, " ".join([before, *missing]).encode(), 0)


def set_in_space(space, path, value):
    must("ip", "netns", "exec", space, "sh", "-c", f"printf %s '{value}' > {path}")


def read_in_space(space, path):
    return command_output("ip", "netns", "exec", space, "cat", path)[1]


def set_congestion_control(spaces, name):
    for space in spaces:
        with contextlib.suppress(Failed):
            set_in_space(space, CONGESTION, name)
        found = read_in_space(space, CONGESTION)
        if found != name:
            raise Failed(f"namespace {space} has the congestion control {found}, not {name}: is it compiled into this kernel, or"
                         f" a module that can be loaded, and listed in the host's {ALLOWED}?")


def add_space(stack, name):
    must("ip", "netns", "add", name)
    stack.callback(command_output, "ip", "netns", "delete", name)
    must("ip", "-n", name, "link", "set", "lo", "up")
    for setting, value in SETTINGS.items():
        set_in_space(name, f"/proc/sys/net/ipv4/{setting}", value)
        found = read_in_space(name, f"/proc/sys/net/ipv4/{setting}")
        if found.split() != value.split():
            raise Failed(f"namespace {name}: {setting} is {found}, not {value}")


def core_mask(core):
    """As sysfs wants it: groups of 32 bits, divided by commas."""
    number, groups = 1 << int(core), []
    while number or not groups:
        groups.insert(0, f"{number & 0xffffffff:x}")
        number >>= 32
    return ",".join([groups[0]] + [group.zfill(8) for group in groups[1:]])


def steer(space, core):
    """What the device in this namespace receives is worked on by that core."""
    queues = f"/sys/class/net/{DEVICE}/queues"
    mask = core_mask(core)
    must("ip", "netns", "exec", space, "sh", "-c", f"for q in {queues}/rx-*; do echo {mask} > $q/rps_cpus; done")
    found = read_in_space(space, f"{queues}/rx-0/rps_cpus")
    if int(found.replace(",", "") or "0", 16) != 1 << int(core):
        raise Failed(f"received packets are not steered: rps_cpus of {space} is {found}, not {mask}")


def connect_spaces(network, proxy_core, load_core):
    box, ends = network.proxy_space, network.ends_space
    must("ip", "link", "add", DEVICE, "netns", box, "type", "veth", "peer", "name", DEVICE, "netns", ends)
    for space, address in (box, network.proxy), (ends, network.ends):
        must("ip", "-n", space, "address", "add", f"{address}/30", "dev", DEVICE)
        must("ip", "-n", space, "link", "set", DEVICE, "up")
    must("ip", "-n", ends, "route", "add", "local", f"{network.targets}.0.0/16", "dev", "lo")
    must("ip", "-n", box, "route", "add", f"{network.targets}.0.0/16", "via", network.ends)
    steer(box, proxy_core)
    steer(ends, load_core)


def open_networks(stack, names, proxy_core, load_core):
    """Makes them. This process is still where it was: enter() goes into one."""
    networks = [NETWORKS[name] for name in names]
    for network in networks:
        for space in network.spaces():
            add_space(stack, space)
        if len(network.spaces()) > 1:
            connect_spaces(network, proxy_core, load_core)
    return networks


@contextlib.contextmanager
def entered(network, resolv):
    """This process, and so what it starts, is among the ends, and finds the name server there."""
    with open("/proc/self/ns/net", "rb") as before:
        resolv.write_text(f"nameserver {network.ends}\noptions timeout:2\n")
        enter_space(f"/run/netns/{network.ends_space}")
        try:
            yield
        finally:
            system_call("setns", before.fileno(), CLONE_NEWNET)


def time_wait_count(network):
    """Of the end that has most."""
    most = 0
    for prefix in ([], network.at_proxy([])):
        text = command_output(*prefix, "cat", "/proc/net/sockstat")[1]
        match = re.search(r"^TCP:.* tw (\d+)", text, re.M)
        most = max(most, int(match.group(1)) if match else 0)
    return most
