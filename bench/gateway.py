#!/usr/bin/env python3
"""Measure the device gateway beside other brokers, interleaved run by run.

usage: bench/gateway.py [--reps 5] [--peers flotilla,mosquitto,...] [--out FILE] [WORKLOAD ...]
       bench/gateway.py --table FILE [FILE ...]

Needs Go. Peers: mosquitto, flashmq and mochi are measured if a program of that
name is on PATH or given by --binary NAME=PATH; nats-server and the floors (Go
programs that relay or hold connections, and do nothing else) are built. Each run
gets a fresh server on loopback, which is ended by pid. A JSON line a run goes to
FILE; the table has medians [lowest..highest], and ratios of medians.
"""
import argparse, collections, json, os, signal, statistics, sys, tempfile, time

import peers
from peers import ROOT

# name: (what the generator does, messages or connections, figure that decides, its unit, who can take part)
BROKERS = ("flotilla", "mosquitto", "nats", "flashmq", "mochi")
TRAFFIC = BROKERS + ("floor",)
HELD = BROKERS + ("floor", "epollfloor")
WORKLOADS = {
    "fanin-q0-x16": ("fanin -pubs 100 -subs 1 -qos 0 -n {n} -cap 64 -batch 16", 1_500_000, "srv_us_msg", TRAFFIC),
    "fanin-q0": ("fanin -pubs 100 -subs 1 -qos 0 -n {n} -cap 64", 600_000, "srv_us_msg", TRAFFIC),
    "fanin-100to4": ("fanin -pubs 100 -subs 4 -qos 0 -n {n} -cap 64", 250_000, "srv_us_msg", TRAFFIC),
    "fanin-q1": ("fanin -pubs 100 -subs 1 -qos 1 -n {n} -cap 64 -window 16", 250_000, "srv_us_msg", TRAFFIC),
    "fanout-500": ("fanout -subs 500 -qos 0 -n {n} -cap 16", 1500, "srv_us_msg", TRAFFIC),
    "pairs-q1": ("pairs -k 200 -qos 1 -n {n} -cap 16 -window 16", 250_000, "srv_us_msg", BROKERS),
    "paced-20k": ("fanin -pubs 100 -subs 1 -qos 0 -n {n} -cap 64 -rate 20000", 100_000, "srv_us_msg", TRAFFIC),
    "subs-200k": ("subs -m 200000 -conns 200 -wild 0 -qos 0 -n {n} -pubs 10", 150_000, "srv_us_msg", BROKERS),
    "connect": ("connect -tls -n 3000 -c 16 -hold 1s -pings 50", 0, "srv_ms_conn", HELD),
    "connect-resumed": ("connect -tls -resume -n 3000 -c 16 -hold 1s -pings 50", 0, "srv_ms_conn", ("flotilla", "mosquitto", "nats", "flashmq", "mochi", "floor", "epollfloor")),
    "idle-10k": ("connect -tls -n 10000 -c 16 -hold 10s -pings 200", 0, "held_rss_kib", HELD),
    "idle-19k": ("connect -tls -n 19000 -c 16 -hold 10s -pings 200", 0, "held_rss_kib", HELD),
    "idle-wss-5k": ("connect -tls -ws -n 5000 -c 16 -hold 10s -pings 200", 0, "held_rss_kib", ("flotilla",)),
    "idle-plain-19k": ("connect -n 19000 -c 16 -hold 10s -pings 200", 0, "held_rss_kib", HELD),
}
HEADLINE = [w for w in WORKLOADS if not w.startswith("idle")]
SCALE = {"mosquitto": 0.4, "mochi": 0.4, ("nats", "pairs-q1"): 0.3, ("nats", "fanin-q1"): 0.4}  # slower: shorter runs
GOALS = {"fanin-q0-x16": 0.6, "fanin-q0": 2.5, "fanin-100to4": 0.65, "fanin-q1": 3.8, "fanout-500": 1.4, "pairs-q1": 4.5, "paced-20k": 15,
         "subs-200k": 5, "connect": 0.55, "connect-resumed": 0.40, "idle-10k": 12, "idle-19k": 12, "idle-plain-19k": 3}


def once(bench, peer, name, scale):
    flags, n, _, _ = WORKLOADS[name]
    tls, ws = "-tls" in flags, "-ws" in flags
    n = int(n * scale * SCALE.get((peer, name), SCALE.get(peer, 1)))
    args = flags.format(n=n).split()
    if n:
        args += ["-warm", str(max(n // 10, 200 if name.startswith("fanout") else 1000))]
    idle = busy()
    proc, addr = bench.start(peer, tls)
    if ws:
        addr = json.load(open(bench.work + "/data/endpoints.json"))["https"]
    try:
        time.sleep(0.5)
        row = bench.load(args, addr, proc.pid, tls)
        if proc.poll() is not None:
            row["error"] = "the server ended with %d; %s" % (proc.returncode, row.get("error", ""))
    finally:
        peers.stop(proc)
    row.update(peer=peer, workload=name, busy_before=idle)
    return row


def busy():
    """Share of the machine that others use, over a moment."""
    def read():
        v = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
        return sum(v), v[3] + v[4]
    t0, i0 = read()
    time.sleep(0.3)
    t1, i1 = read()
    return round(1 - (i1 - i0) / max(1, t1 - t0), 2)


def spread(values):
    m = statistics.median(values)
    digits = 3 if m < 1 else 2 if m < 10 else 1
    return "%.*f [%.*f..%.*f]" % (digits, m, digits, min(values), digits, max(values))


def table(rows, out=sys.stdout):
    by = collections.defaultdict(list)
    for r in rows:
        by[r["workload"], r["peer"]].append(r)
    used = [p for p in peers.ALL if any(k[1] == p for k in by)]
    print("| workload | " + " | ".join(used) + " | to mosquitto | to the best other broker | to floor | goal |", file=out)
    print("|---" * (len(used) + 5) + "|", file=out)
    notes = []
    for name in WORKLOADS:
        key, cells, med = WORKLOADS[name][2], [], {}
        if not any(k[0] == name for k in by):
            continue
        for p in used:
            runs = by[name, p]
            good = [r[key] for r in runs if key in r and "error" not in r]
            bad = [r for r in runs if "error" in r]
            cell = "-"
            if good:
                med[p] = statistics.median(good)
                cell = spread(good)
                if key == "srv_us_msg":
                    cell += " %.0fk/s" % (statistics.median(r["msg_s"] for r in runs if "error" not in r) / 1000)
                if name == "connect-resumed" and statistics.median(r["resumed"] for r in runs if "resumed" in r) < 0.99 * 3000:
                    cell += " (not resumed)"
            if bad:
                notes.append("%s/%s: %d of %d failed: %s" % (name, p, len(bad), len(runs), bad[0]["error"]))
            for what in ("lost", "misordered", "stalls"):
                if any(r.get(what) for r in runs):
                    notes.append("%s/%s: %s %s" % (name, p, what, [r.get(what) for r in runs]))
            cells.append(cell)
        ratio = lambda p: "%.2f" % (med["flotilla"] / med[p]) if p in med and "flotilla" in med else "-"
        best = min((p for p in BROKERS[1:] if p in med), key=med.get, default="")
        floor = "epollfloor" if "epollfloor" in med else "floor"
        print("| %s | %s | %s | %s %s | %s | %s |" % (name, " | ".join(cells), ratio("mosquitto"), ratio(best), best, ratio(floor), GOALS.get(name, "-")), file=out)
    others = [r["other_cores"] for r in rows if "other_cores" in r]
    if others:
        notes.append("other work on the machine, cores: median %.2f [%.2f..%.2f]" % (statistics.median(others), min(others), max(others)))
    for n in notes:
        print("- " + n, file=out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workloads", nargs="*", help="default: all but the idle ones; 'all': all of " + ", ".join(WORKLOADS))
    p.add_argument("--reps", type=int, default=5)
    p.add_argument("--scale", type=float, default=1, help="factor for the number of messages")
    p.add_argument("--peers", default=",".join(peers.ALL), help="default: all that are installed")
    p.add_argument("--binary", action="append", default=[], metavar="NAME=PATH", help="program of a peer that is not on PATH")
    p.add_argument("--out", default=ROOT + "/bench/results/gateway.jsonl")
    p.add_argument("--table", action="store_true", help="the arguments are files of results: print their table")
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are ended too
    if a.table:
        return table([json.loads(line) for f in a.workloads for line in open(f)])
    names = HEADLINE if not a.workloads else list(WORKLOADS) if a.workloads == ["all"] else a.workloads
    unknown = [n for n in names if n not in WORKLOADS]
    if unknown:
        raise SystemExit("no workload %s; there are: %s" % (", ".join(unknown), ", ".join(WORKLOADS)))
    os.makedirs(os.path.dirname(a.out) or ".", exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as work, open(a.out, "a") as out:
        bench = peers.Bench(work, a.binary)
        used = [p for p in a.peers.split(",") if bench.binary(p)]
        for name in names:
            for rep in range(a.reps):
                for peer in (p for p in used if p in WORKLOADS[name][3]):
                    r = once(bench, peer, name, a.scale)
                    r["rep"] = rep
                    rows.append(r)
                    out.write(json.dumps(r) + "\n")
                    out.flush()
                    print(name, peer, r.get(WORKLOADS[name][2]), r.get("error", ""), file=sys.stderr, flush=True)
    table(rows)


if __name__ == "__main__":
    main()
