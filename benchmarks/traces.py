"""What tracing adds to a request: ours with MLflow's store up, hanging and gone, beside MLflow's autolog.

Each case runs in a process of its own, one after the other. A paced loop does the same work (1 ms of CPU, or a
three-step LangChain chain) with and without tracing in turn, request by request, so that both meet the same machine.
`added` is the difference of the medians (and of the 99th percentiles) of the two; `exit` is what the end of the
process takes beyond the end of its work.

    python benchmarks/traces.py [--requests 300] [--pace-ms 20]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES = ("ours, sqlite up", "ours, server hangs", "ours, server gone", "autolog, sqlite up")


def spin(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def rounds_for(seconds: float) -> int:
    """Rounds of `spin` that take so long when nothing disturbs them."""
    trials = []
    for _ in range(50):
        started = time.perf_counter()
        spin(2000)
        trials.append(time.perf_counter() - started)
    return int(2000 * seconds / min(trials))


def chain():
    from langchain_core.runnables import RunnableLambda

    return RunnableLambda(lambda q: q + "?") | RunnableLambda(lambda q: q.upper()) | RunnableLambda(lambda q: q[::-1])


def record(number: int) -> dict:
    usage = {"input_tokens": 900, "output_tokens": 60, "total_tokens": 960}
    kinds = ["chain", "guard", "cache", "retrieve", "fallback", "model"]
    stages = [
        {"id": at, "parent": at - 1 or None, "name": kind, "kind": kind, "start_s": at / 1e3, "duration_s": 0.1}
        for at, kind in enumerate(kinds, 1)
    ]
    stages[-1] |= {"usage": usage, "model": "gpt-4o-mini", "cost_usd": 0.001, "input": "passage " * 300}
    return {
        "request_id": f"{os.getpid()}-{number}",
        "chain": "bench",
        "started_at": time.time(),
        "duration_s": 0.1,
        "status": "ok",
        "input": {"question": "What does yield from do?"},
        "output": "It delegates. " * 20,
        "usage": usage,
        "cost_usd": 0.001,
        "caller": {"user": "ann"},
        "stages": stages,
        "events": [],
    }


def paced(requests: int, pace_s: float, plain, traced) -> tuple[list[float], list[float]]:
    """Seconds of each request without and with tracing, in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * requests):
        which = number % 2
        started = time.perf_counter()
        (plain, traced)[which](number)
        times[which].append(time.perf_counter() - started)
        time.sleep(pace_s)
    return times


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def compared(times: tuple[list[float], list[float]]) -> dict[str, float]:
    plain, traced = times
    return {
        "plain_p50_ms": 1e3 * statistics.median(plain),
        "added_p50_ms": 1e3 * (statistics.median(traced) - statistics.median(plain)),
        "added_p99_ms": 1e3 * (percentile(traced, 0.99) - percentile(plain, 0.99)),
    }


def run_ours(uri: str, requests: int, pace_s: float, folder: Path) -> dict:
    from chainops.observe.traces import TraceWriter

    traces = TraceWriter(uri, "bench", log_file=folder / "traces.log", life_s=5)
    records = iter([record(number) for number in range(5 * requests + 10)])
    traces.write(next(records))
    traces.flush(20)
    rounds = rounds_for(1e-3)
    steps = chain()
    steps.invoke("warm")

    def traced_spin(number: int) -> None:
        spin(rounds)
        traces.write(next(records))

    def traced_chain(number: int) -> None:
        steps.invoke("what")
        traces.write(next(records))

    result = {
        "cpu": compared(paced(requests, pace_s, lambda _: spin(rounds), traced_spin)),
        "chain": compared(paced(requests, pace_s, lambda _: steps.invoke("what"), traced_chain)),
    }
    writes = []
    for _ in range(requests):
        one = next(records)
        started = time.perf_counter()
        traces.write(one)
        writes.append(time.perf_counter() - started)
        time.sleep(0.002)
    result["write_p50_us"], result["write_p99_us"] = (1e6 * percentile(writes, share) for share in (0.5, 0.99))
    traces.flush(30 if uri.startswith("sqlite") else 0)
    return result | {"written": traces.written, "dropped": traces.dropped, "waiting": traces.waiting}


def run_autolog(uri: str, requests: int, pace_s: float) -> dict:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow
    import mlflow.langchain

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("autolog")
    steps = chain()
    steps.invoke("warm")
    mlflow.langchain.autolog(log_traces=True)
    steps.invoke("warm")
    on: list[float] = []
    off: list[float] = []
    for number in range(2 * requests):
        is_on = number % 2 == 1
        mlflow.langchain.autolog(disable=not is_on, silent=True)
        started = time.perf_counter()
        steps.invoke("what")
        (on if is_on else off).append(time.perf_counter() - started)
        time.sleep(pace_s)
    return {"chain": compared((off, on))}


def run_case(case: str, requests: int, pace_s: float) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if "hangs" in case:
            listener.listen(64)
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if "sqlite" in case:
            uri = f"sqlite:///{folder}/mlflow.db"
        ours = case.startswith("ours")
        result = run_ours(uri, requests, pace_s, Path(folder)) if ours else run_autolog(uri, requests, pace_s)
        print(json.dumps(result | {"ended_at": time.time()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--pace-ms", type=float, default=20)
    parser.add_argument("--data", help="taken like by every benchmark; this one needs none")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        run_case(asked.case, asked.requests, asked.pace_ms / 1000)
        return
    results = {}
    print(
        f"{'case':22}{'chain alone':>12}{'added p50':>11}{'added p99':>11}{'to 1 ms CPU':>13}{'write() p50':>13}"
        f"{'p99':>10}{'written':>9}{'waiting':>9}{'dropped':>9}{'exit':>8}"
    )
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--requests", str(asked.requests)]
        command += ["--pace-ms", str(asked.pace_ms)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        one["exit_s"] = time.time() - one.pop("ended_at")
        results[case] = one
        steps = one["chain"]
        line = f"{case:22}{steps['plain_p50_ms']:9.3f} ms{steps['added_p50_ms']:8.3f} ms{steps['added_p99_ms']:8.3f} ms"
        if "cpu" in one:
            line += f"{one['cpu']['added_p50_ms']:10.3f} ms{one['write_p50_us']:10.1f} µs{one['write_p99_us']:7.1f} µs"
            line += f"{one['written']:9}{one['waiting']:9}{one['dropped']:9}"
        else:
            line += f"{'':63}"
        print(f"{line}{one['exit_s']:6.2f} s", flush=True)
    print(json.dumps({"benchmark": "traces", "target_added_ms": 0.2, "cases": results}))


if __name__ == "__main__":
    main()
