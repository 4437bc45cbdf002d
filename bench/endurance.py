#!/usr/bin/env python3
"""Measure what the device gateway withstands.

usage: bench/endurance.py [--out FILE] [--minutes 10] [TEST ...]

  million   publish cost with 1,000,000 literal and 10,000 wildcard subscriptions held, beside the empty table
  storm     15,000 mutual-TLS devices return after kill -9 of the server
  slow      a quick subscriber beside others that never read, QoS 0 and 1; 99 beside one that never does
  flood     half-open connections and handshakes without end; how long a device's connect takes meanwhile
  soak      paced QoS 1 traffic beside devices that connect and leave; resident memory by the minute, goroutines, descriptors
            (a release is measured with --minutes 30)

Needs Go. Each test starts a server on loopback and ends it by pid. A JSON line a
measurement goes to FILE, and to standard output.
"""
import argparse, json, os, signal, statistics, subprocess, sys, tempfile, threading, time, urllib.request

import peers
from peers import ROOT


class Report:
    def __init__(self, out):
        self.out = out

    def add(self, test, **row):
        row = dict(test=test, **row)
        line = json.dumps(row)
        self.out.write(line + "\n")
        self.out.flush()
        print(line, flush=True)
        return row


def million(bench, report, a):
    literal = "subs -m {m} -conns 1000 -wild 0 -cold {cold} -qos 0 -n 150000 -warm 20000 -pubs 10".format
    fanin = "fanin -pubs 100 -subs 1 -qos 0 -n 400000 -warm 40000 -cap 64".split()
    for rep in range(a.reps):
        for name, m, cold in (("empty", 1000, 0), ("full", 1_000_000, 10)):
            proc, addr = bench.start("flotilla")
            try:
                row = bench.load(literal(m=m, cold=cold).split(), addr, proc.pid, deadline=280)
            finally:
                peers.stop(proc)
            report.add("million", table=name, publish="to the subscriptions", rep=rep, **pick(row, "subs srv_us_msg msg_s p99_ms srv_us_sub rss_b_sub lost other_cores error"))
        proc, addr = bench.start("flotilla")
        try:
            row = bench.load(fanin, addr, proc.pid)
            report.add("million", table="empty", publish="beside them, fan-in", rep=rep, **pick(row, "srv_us_msg msg_s p99_ms lost other_cores error"))
            holders = [subprocess.Popen([bench.bin + "/mqttload", "subs", "-m", "250000", "-conns", "250", "-cold", "10", "-wild", "0", "-hold", "60s", "-at", str(1_000_000 * i),
                                         "-id", "h%d" % i, "-addr", addr, "-deadline", "200s"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for i in range(4)]
            try:
                for h in holders:
                    if h.stderr.readline().strip() != "held":
                        raise SystemExit("a holder of subscriptions ended")
                rss = peers.rss_kib(proc.pid)
                row = bench.load(fanin, addr, proc.pid)
            finally:
                for h in holders:
                    peers.stop(h)
            report.add("million", table="full", publish="beside them, fan-in", rep=rep, rss_mib=rss // 1024, **pick(row, "srv_us_msg msg_s p99_ms lost other_cores error"))
        finally:
            peers.stop(proc)


def storm(bench, report, a):
    for rep in range(a.reps):
        for resume in ([], ["-resume"]):
            data, port = tempfile.mkdtemp(dir=bench.work), peers.free_port()
            proc, addr = bench.start("flotilla", tls=True, port=port, data=data)
            peers.run([bench.bin + "/prepare", "-data", data, "-certs", bench.certs])
            gen = subprocess.Popen([bench.bin + "/mqttload", "storm", "-tls", "-n", str(a.devices), "-addr", addr, "-pid", str(proc.pid), "-cert-dir", bench.certs + "/clients",
                                    "-deadline", "240s", *resume], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                first = gen.stderr.readline().strip()
                if first != "connected":
                    raise SystemExit("the fleet did not connect: " + first + gen.stdout.read())
                proc.kill()
                proc.wait()
                begin = time.time()
                proc, _ = bench.start("flotilla", tls=True, port=port, data=data)
                ready = time.time() - begin
                out, _ = gen.communicate("%d\n" % proc.pid, timeout=250)
                report.add("storm", rep=rep, resume=bool(resume), ready_secs=round(ready, 2), **json.loads(out.splitlines()[-1]))
            finally:
                peers.stop(gen)
                peers.stop(proc)


def slow(bench, report, a):
    for qos, rate, n, subs, stopped in ((0, 20000, 200_000, 1, 20), (1, 5000, 75_000, 1, 20), (1, 100, 1500, 99, 1)):
        for deaf in (0, stopped):
            for rep in range(a.reps):
                proc, addr = bench.start("flotilla")
                try:
                    args = "fanin -pubs 100 -subs {m} -qos {q} -n {n} -warm 100 -size {b} -cap 64 -window 64 -rate {r} -slow {s} -stall 15s".format(
                        m=subs, q=qos, n=n, r=rate, s=deaf, b=128 if subs == 1 else 16384)
                    row = bench.load(args.split(), addr, proc.pid)
                finally:
                    peers.stop(proc)
                report.add("slow", qos=qos, read=subs, never_read=deaf, rep=rep, **pick(row, "msg_s p50_ms p99_ms lost srv_us_msg rss0_mib rss_mib error"))


def flood(bench, report, a):
    for name, args in (("half-open", "-half 5000"), ("half-open, few", "-half 500"), ("handshakes", "-half 0 -storm 64")):
        for rep in range(a.reps):
            proc, addr = bench.start("flotilla", tls=True)
            try:
                row = bench.load(["flood", "-hold", "15s", *args.split()], addr, proc.pid, tls=True)
            finally:
                peers.stop(proc)
            row.pop("args", None), row.pop("cmd", None), row.pop("label", None)
            report.add("flood", attack=name, rep=rep, **row)


def soak(bench, report, a):
    """Traffic on plain TCP, and mutual-TLS devices that come and go."""
    proc, addr = bench.start("flotilla", tls=True)
    data = os.path.join(bench.work, "data")
    ends = json.load(open(data + "/endpoints.json"))
    plain, api = ends["mqttPlain"], ends["api"]
    secs = a.minutes * 60
    done = threading.Event()
    connects = []

    def churn():
        while not done.is_set():
            row = bench.load("connect -tls -n 200 -c 4 -hold 1s -pings 20".split(), addr, proc.pid, tls=True)
            connects.append(row)
            done.wait(1)

    traffic = subprocess.Popen([bench.bin + "/mqttload", "fanin", "-pubs", "100", "-subs", "2", "-qos", "1", "-rate", "3000", "-n", str(3000 * secs), "-warm", "0", "-addr", plain,
                                "-pid", str(proc.pid), "-deadline", "%ds" % (secs + 120)], stdout=subprocess.PIPE, text=True)
    t = threading.Thread(target=churn)
    t.start()
    memory, held, begin = [], [], time.time()
    try:
        while time.time() - begin < secs and proc.poll() is None and traffic.poll() is None:
            time.sleep(5)
            memory.append((time.time() - begin, peers.rss_kib(proc.pid) / 1024))
            held.append((time.time() - begin, metric(api, "go_goroutines"), len(os.listdir("/proc/%d/fd" % proc.pid))))
        done.set()
        t.join()
        out, _ = traffic.communicate(timeout=120)
        row = json.loads(out.splitlines()[-1])
    finally:
        done.set()
        peers.stop(traffic)
        peers.stop(proc)
    by_minute = [round(statistics.median(m for s, m in memory if int(s // 60) == i), 1) for i in range(int(memory[-1][0] // 60) + 1)]
    settled = [(s, m) for s, m in memory if s > secs / 3]
    slope = statistics.linear_regression([s / 3600 for s, _ in settled], [m for _, m in settled]).slope
    report.add("soak", minutes=a.minutes, rss_mib_by_minute=by_minute, slope_mib_hour=round(slope, 1), **thirds(held, secs), connects=sum(r.get("opened", 0) for r in connects),
               connects_failed=sum(r.get("failed", 1) for r in connects), **pick(row, "delivered lost misordered p50_ms p99_ms srv_us_msg error"))


def metric(api, name):
    """A figure that the server tells of itself."""
    url = api if "://" in api else "http://" + api
    for line in urllib.request.urlopen(url + "/metrics", timeout=30).read().decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise SystemExit("the server does not tell its " + name)


def thirds(held, secs):
    """The greatest number of goroutines and descriptors in each third of the time."""
    parts = [[h for h in held if int(3 * h[0] // secs) == i] or [(0, 0, 0)] for i in range(3)]
    return dict(goroutines_most=[int(max(g for _, g, _ in p)) for p in parts], descriptors_most=[max(d for _, _, d in p) for p in parts])


def pick(row, names):
    return {k: row[k] for k in names.split() if k in row}


TESTS = {f.__name__: f for f in (million, storm, slow, flood, soak)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tests", nargs="*", help="default: all")
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--devices", type=int, default=15000, help="of storm")
    p.add_argument("--minutes", type=int, default=10, help="of soak")
    p.add_argument("--out", default=ROOT + "/bench/results/endurance.jsonl")
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are ended too
    os.makedirs(os.path.dirname(a.out) or ".", exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as work, open(a.out, "a") as out:
        bench = peers.Bench(work)
        for name in a.tests or TESTS:
            if name not in TESTS:
                raise SystemExit("no test %s; there are: %s" % (name, ", ".join(TESTS)))
            TESTS[name](bench, Report(out), a)


if __name__ == "__main__":
    main()
