"""Servers that the benchmarks measure: built or found, started on loopback, ended by pid."""
import atexit, json, os, shutil, signal, socket, subprocess, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLOORS = ("floor", "epollfloor")  # Go programs that only relay, or only hold connections
ALL = ("flotilla", "mosquitto", "nats", "flashmq", "mochi") + FLOORS


class Bench:
    """What the runs of one program share: binaries, certificates, a scratch directory."""

    def __init__(self, work, binaries=()):
        self.work, self.bin, self.certs = work, os.path.join(work, "bin"), os.path.join(work, "certs")
        self.binaries = dict(b.split("=", 1) for b in binaries)
        os.chmod(work, 0o755)  # mosquitto and FlashMQ give up root and must read their certificates
        os.makedirs(self.bin)
        go_build("./cmd/flotilla", self.bin + "/flotilla")
        go_build("./bench/prepare", self.bin + "/prepare")
        go_build(".", self.bin + "/mqttload", "bench/mqttload")
        run([self.bin + "/prepare", "-certs", self.certs])

    def binary(self, peer):
        """The program of a peer, or None where it is not installed."""
        if peer in self.binaries:
            return self.binaries[peer]
        built = {"nats": (".", "github.com/nats-io/nats-server/v2"), "floor": ("bench/mqttload", "./floor"), "epollfloor": ("bench/mqttload", "./epollfloor")}
        if peer == "flotilla":
            return self.bin + "/flotilla"
        if peer in built:
            at, path = self.bin + "/" + peer, built[peer]
            if not os.path.exists(at):
                go_build(path[1], at, path[0])
            return at
        return shutil.which(peer)

    def start(self, peer, tls=False, port=0, data=None, flags=()):
        """Starts a server and waits until it answers. Gives the process and its address."""
        if peer == "flotilla":
            return self.flotilla(tls, port, data, flags)
        port = port or free_port()
        argv = self.command(peer, tls, port)
        log = open(os.path.join(self.work, peer + ".log"), "w")
        proc = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.work)
        wait_for(peer, lambda: proc.poll() is not None or opens(port))
        if proc.poll() is not None:
            raise SystemExit("%s ended with %d: see %s" % (peer, proc.returncode, log.name))
        return proc, "127.0.0.1:%d" % port

    def command(self, peer, tls, port):
        exe, addr, c = self.binary(peer), "127.0.0.1:%d" % port, self.certs
        conf = os.path.join(self.work, peer + ".conf")
        if peer in FLOORS:
            pair = ["-cert", c + "/server.crt", "-key", c + "/server.key", "-ca", c + "/ca.crt"] if tls else []
            return [exe, "-addr", addr] + pair + (["-mode", "relay"] if peer == "floor" and not tls else [])
        if peer == "mochi":
            other = "127.0.0.1:%d" % free_port()
            return [exe, "-addr", other if tls else addr, "-tls-addr", addr if tls else other, "-certs", c]
        with open(conf, "w") as f:
            f.write({"mosquitto": mosquitto_conf, "nats": nats_conf, "flashmq": flashmq_conf}[peer](port, tls, c, self.work))
        return [exe, "-c", conf]

    def flotilla(self, tls, port, data, flags):
        """Policies and lifecycle events are on, as in production."""
        fresh = data is None
        data = data or os.path.join(self.work, "data")
        if fresh:
            shutil.rmtree(data, ignore_errors=True)
        ends = os.path.join(data, "endpoints.json")
        if os.path.exists(ends):
            os.remove(ends)
        plain, sec = ("127.0.0.1:0" if tls and port else "127.0.0.1:%d" % (port or free_port())), "127.0.0.1:%d" % (port if tls else 0)
        log = open(self.work + "/flotilla.log", "a")
        proc = subprocess.Popen(
            [self.binary("flotilla"), "serve", "--data", data, "--limits", "unlimited", "--mqtt-addr", sec, "--https-addr", "127.0.0.1:0",
             "--api-addr", "127.0.0.1:0", "--nats-addr", "127.0.0.1:0", "--mqtt-plain-addr", plain, "--mqtt-plain-policy", "bench",
             "--log-level", "error", *flags], stdout=subprocess.DEVNULL, stderr=log)
        wait_for("flotilla", lambda: os.path.exists(ends) or proc.poll() is not None)
        if proc.poll() is not None:
            raise SystemExit("flotilla ended with %d: see %s" % (proc.returncode, log.name))
        if fresh:
            run([self.bin + "/prepare", "-data", data] + (["-certs", self.certs] if tls else []))
        e = json.load(open(ends))
        return proc, e["mqtt"] if tls else e["mqttPlain"]

    def load(self, args, addr, pid, tls=False, deadline=150):
        """Runs the generator and gives its report; what went wrong is in its "error"."""
        argv = [self.bin + "/mqttload", *args, "-addr", addr, "-pid", str(pid), "-deadline", "%ds" % deadline]
        out = subprocess.run(argv + (["-cert-dir", self.certs + "/clients"] if tls else []), capture_output=True, text=True, timeout=deadline + 30)
        lines = out.stdout.strip().splitlines()
        if not lines:
            return {"error": "the generator ended with %d: %s" % (out.returncode, out.stderr.strip())}
        return json.loads(lines[-1])


def mosquitto_conf(port, tls, certs, work):
    text = ("listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n"
            "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n" % port)
    if tls:
        text += "cafile %s/ca.crt\ncertfile %s/server.crt\nkeyfile %s/server.key\nrequire_certificate true\n" % (certs, certs, certs)
    return text


def nats_conf(port, tls, certs, work):
    # MQTT needs JetStream, which keeps QoS 1 messages in files: in memory, where there is such a place.
    store = os.path.join("/dev/shm" if os.access("/dev/shm", os.W_OK) else work, "flotilla-bench-nats-%d" % os.getpid())
    atexit.register(shutil.rmtree, store, ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)
    pair = 'tls { cert_file: "%s/server.crt", key_file: "%s/server.key", ca_file: "%s/ca.crt", verify: true, timeout: 30 }' % (certs, certs, certs)
    return ('server_name: bench\nlisten: "127.0.0.1:%d"\njetstream { store_dir: "%s", max_mem: 2G, max_file: 8G }\n'
            'mqtt { listen: "127.0.0.1:%d", max_ack_pending: 20000\n%s }\n'
            'max_connections: 300000\nmax_pending: 268435456\nmax_subscriptions: 0\nlogtime: false\n' % (free_port(), store, port, pair if tls else ""))


def flashmq_conf(port, tls, certs, work):
    pair = ("fullchain %s/server.crt\nprivkey %s/server.key\nclient_verification_ca_file %s/ca.crt\n"
            "client_verification_still_do_authn false\nminimum_tls_version tlsv1.2\n" % (certs, certs, certs))
    return ("allow_anonymous true\nlog_file %s/flashmq-server.log\nlog_level error\nmax_qos_msg_pending_per_client 65535\n"
            "max_qos_bytes_pending_per_client 268435456\nclient_max_write_buffer_size 268435456\nrlimit_nofile 20000\n"
            "listen {\nprotocol mqtt\ninet4_bind_address 127.0.0.1\ninet_protocol ip4\nport %d\n%s}\n" % (work, port, pair if tls else ""))


def stop(proc):
    if proc.poll() is not None:
        return
    proc.send_signal(signal.SIGTERM)
    try:
        proc.wait(20)
    except subprocess.TimeoutExpired:
        proc.kill()
        proc.wait()


def go_build(package, output, at="."):
    subprocess.run(["go", "build", "-trimpath", "-o", output, package], cwd=os.path.join(ROOT, at), env=dict(os.environ, CGO_ENABLED="0"), check=True)


def run(argv):
    subprocess.run(argv, check=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, ok, secs=30):
    end = time.time() + secs
    while time.time() < end:
        if ok():
            return
        time.sleep(0.05)
    raise SystemExit(what + ": not within %d s" % secs)


def opens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def rss_kib(pid):
    for line in open("/proc/%d/status" % pid):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])


def cpu_seconds(pid):
    f = open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")
