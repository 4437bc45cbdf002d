#!/usr/bin/env python3
"""Measure the device gateway beside mosquitto, interleaved in one run.

usage: bench/gateway.py [--reps 5] [--out bench/results/gateway.jsonl] [WORKLOAD ...]

Needs Go; the traffic workloads also need mosquitto (Debian) on PATH. Every
repetition starts fresh servers on loopback, and ends them by pid. Prints a table
of medians [lowest..highest] of server CPU per message, and messages a second.
"""
import argparse, json, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORKLOADS = {
    "fanin-q0": ("fanin -pubs 100 -subs 1 -qos 0 -n {n} -cap 64 -batch 1", 400_000),
    "fanin-q0-batch16": ("fanin -pubs 100 -subs 1 -qos 0 -n {n} -cap 64 -batch 16", 1_000_000),
    "fanin-q0-20k": ("fanin -pubs 100 -subs 1 -qos 0 -n {n} -cap 64 -rate 20000", 100_000),
    "fanin-q1": ("fanin -pubs 100 -subs 1 -qos 1 -n {n} -cap 64 -window 16 -batch 1", 200_000),
    "fanout-500": ("fanout -subs 500 -qos 0 -n {n} -cap 16 -batch 1", 1500),
    "idle-10k": ("connect -tls -n {n} -c 16 -hold 10s -pings 200", 10_000),
}
MOSQUITTO_SCALE = 0.4  # slower: shorter runs


def build(bindir):
    env = dict(os.environ, CGO_ENABLED="0")
    subprocess.run(["go", "build", "-trimpath", "-o", bindir + "/flotilla", "./cmd/flotilla"], cwd=ROOT, env=env, check=True)
    subprocess.run(["go", "build", "-o", bindir + "/prepare", "./bench/prepare"], cwd=ROOT, env=env, check=True)
    subprocess.run(["go", "build", "-o", bindir + "/mqttload", "."], cwd=ROOT + "/bench/mqttload", env=env, check=True)


def stop(proc):
    proc.send_signal(signal.SIGTERM)
    try:
        proc.wait(20)
    except subprocess.TimeoutExpired:
        proc.kill()
        proc.wait()


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


def flotilla(bindir, work, tls, certs):
    data = os.path.join(work, "data")
    shutil.rmtree(data, ignore_errors=True)
    plain = free_port()
    args = [bindir + "/flotilla", "serve", "--data", data, "--limits", "unlimited",
            "--mqtt-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0", "--nats-addr", "127.0.0.1:0",
            "--mqtt-plain-addr", "127.0.0.1:%d" % plain, "--mqtt-plain-policy", "bench", "--log-level", "error"]
    proc = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=open(work + "/flotilla.log", "w"))
    ends = os.path.join(data, "endpoints.json")
    wait_for("flotilla", lambda: os.path.exists(ends) or proc.poll() is not None)
    subprocess.run([bindir + "/prepare", "-data", data] + (["-certs", certs] if tls else []), check=True)
    return proc, json.load(open(ends))["mqtt"] if tls else "127.0.0.1:%d" % plain


def mosquitto(work, tls, certs):
    port = free_port()
    conf = work + "/mosquitto.conf"
    with open(conf, "w") as f:
        f.write("listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n"
                "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n" % port)
        if tls:
            ca = work + "/ca"
            if not os.path.exists(ca + ".crt"):
                run = lambda *a: subprocess.run(["openssl", *a], check=True, stderr=subprocess.DEVNULL)
                run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", ca + ".key")
                run("req", "-x509", "-new", "-key", ca + ".key", "-days", "30", "-subj", "/CN=localhost", "-out", ca + ".crt")
                os.chmod(ca + ".key", 0o644)
            bundle = work + "/clients.pem"  # the clients' certificates are self-signed: each is its own CA
            with open(bundle, "w") as b:
                for c in sorted(os.listdir(certs + "/clients")):
                    if c.endswith(".crt"):
                        b.write(open(certs + "/clients/" + c).read())
            f.write("cafile %s\ncertfile %s.crt\nkeyfile %s.key\nrequire_certificate true\n" % (bundle, ca, ca))
    proc = subprocess.Popen(["mosquitto", "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("mosquitto", lambda: opens(port))
    return proc, "127.0.0.1:%d" % port


def once(peer, name, a, bindir, work, certs):
    flags, n = WORKLOADS[name]
    tls = "-tls" in flags
    if peer == "mosquitto":
        proc, addr = mosquitto(work, tls, certs)
        n = int(n * (1 if tls else MOSQUITTO_SCALE))
    else:
        proc, addr = flotilla(bindir, work, tls, certs)
    try:
        time.sleep(1)
        args = [bindir + "/mqttload", *flags.format(n=int(n * a.scale)).split(), "-addr", addr, "-pid", str(proc.pid),
                "-label", peer + "/" + name, "-deadline", "150s"] + (["-cert-dir", certs + "/clients"] if tls else [])
        out = subprocess.run(args, capture_output=True, text=True)
        if out.returncode != 0:
            raise SystemExit("%s/%s: %s" % (peer, name, out.stderr or out.stdout))
        return json.loads(out.stdout.splitlines()[-1])
    finally:
        stop(proc)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workloads", nargs="*", default=["fanin-q0", "fanin-q0-batch16", "fanin-q1", "fanout-500"])
    p.add_argument("--reps", type=int, default=5)
    p.add_argument("--scale", type=float, default=1)
    p.add_argument("--peers", default="flotilla,mosquitto")
    p.add_argument("--out", default=ROOT + "/bench/results/gateway.jsonl")
    a = p.parse_args()
    os.makedirs(os.path.dirname(a.out), exist_ok=True)
    results = {}
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as work:
        os.chmod(work, 0o755)
        bindir, certs = work + "/bin", work + "/certs"
        os.makedirs(bindir)
        build(bindir)
        with open(a.out, "a") as out:
            for rep in range(a.reps):
                for name in a.workloads:
                    for peer in a.peers.split(","):
                        r = once(peer, name, a, bindir, work, certs)
                        r.update(peer=peer, workload=name, rep=rep)
                        out.write(json.dumps(r) + "\n")
                        out.flush()
                        results.setdefault((name, peer), []).append(r)
                        print(json.dumps(r), file=sys.stderr)
    keys = ["srv_us_msg", "msg_s", "rss_kib_conn", "srv_ms_conn", "conn_s"]
    for (name, peer), rows in results.items():
        cells = []
        for k in keys:
            v = [r[k] for r in rows if k in r]
            if v:
                cells.append("%s %.4g [%.4g..%.4g]" % (k, statistics.median(v), min(v), max(v)))
        print("| %s | %s | %s |" % (name, peer, " | ".join(cells)))


if __name__ == "__main__":
    main()
