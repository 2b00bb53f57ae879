"""Runs cases, and says how they came out; see scripts/harness.sh."""

import argparse
import os
import re
import sys
import time
from collections import defaultdict
from multiprocessing import get_context

from harness import engine, fuzz, soak, table
from harness.serve import make_template, own_folder, run_by_name


def run_cases(home, names, workers, tell):
    """[Result] of cases by workers side by side; tell(result) is called as each ends."""
    results = []
    with get_context("fork").Pool(workers) as pool:
        jobs = [pool.apply_async(run_by_name, (home, name)) for name in names]
        for job in jobs:
            results.append(job.get())
            tell(results[-1])
        end(pool)
    return results


def end(pool):
    """Lets its processes end by themselves: a signal may reach one that holds their lock."""
    pool.close()
    pool.join()


JOBS = []


def run_fuzz(home, count, only, workers):
    """Prints the table of mutated inputs; True if one failed."""
    start, chosen, found = time.monotonic(), fuzz.jobs(home / "template", home, count, only), []
    JOBS[:] = [job for _, job in chosen]  # before the fork: a Reader cannot be sent to a process
    with get_context("fork").Pool(workers) as pool:
        running = [(kind, pool.apply_async(run_job, (n,))) for n, (kind, _) in enumerate(chosen)]
        for kind, job in running:
            found.append((kind, job.get()))
            for failure in found[-1][1].failures:
                print(f"FAILED   fuzz: {failure}", flush=True)
        end(pool)
    print(fuzz.summary(found))
    print(f"{time.monotonic() - start:.0f} s with {workers} workers")
    return any(tally.failures for _, tally in found)


def run_job(number):
    return fuzz.run_chunk(JOBS[number])


def summary(results):
    """The table of cases by kind."""
    kinds = defaultdict(list)
    for result in results:
        kinds[result.kind].append(result)
    rows = [f"{'kind':12} {'cases':>6} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}"]
    for kind, some in [*kinds.items(), ("all", results)]:
        failed, skipped = sum(bool(r.complaints) for r in some), sum(bool(r.skipped) for r in some)
        passed, seconds = len(some) - failed - skipped, sum(r.seconds for r in some)
        rows.append(f"{kind:12} {len(some):6} {passed:7} {failed:7} {skipped:8} {seconds:8.1f}")
    return "\n".join(rows)


def tell(result):
    if result.skipped:
        print(f"skipped  {result.name}: {result.skipped}", flush=True)
    elif result.complaints:
        print(
            f"FAILED   {result.name}: {'; '.join(result.complaints)}\n    {result.said}", flush=True
        )


def parse_args():
    parser = argparse.ArgumentParser(prog="harness", description=__doc__)
    parser.add_argument("--cases", action="store_true", help="the table of cases")
    parser.add_argument("--soak", action="store_true", help="random commands, killed at random")
    parser.add_argument("--fuzz", type=int, nargs="?", const=20000, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the soak")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases of these names")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--list", action="store_true", help="names the cases, and stops")
    return parser.parse_args()


def main():
    args = parse_args()
    names = [name for name in table.CASES if re.search(args.only, name)]
    if args.list:
        return print("\n".join(names))
    every = not (args.cases or args.soak or args.fuzz)
    engine.import_packages()
    engine.adopt()
    failed = False
    with own_folder() as home:
        start = time.monotonic()
        make_template(home)
        print(f"template: {time.monotonic() - start:.0f} s", flush=True)
        if args.cases or every:
            start = time.monotonic()
            results = run_cases(home, names, args.workers, tell)
            print(summary(results))
            print(f"{time.monotonic() - start:.0f} s with {args.workers} workers")
            failed |= any(result.complaints for result in results)
        if args.soak or every:
            said, complaints = soak.soak(home / "template", home / "soak", 150, args.seed)
            for complaint in complaints:
                print(f"FAILED   soak: {complaint}", flush=True)
            print(f"soak: {said}; {len(complaints)} complaints", flush=True)
            failed |= bool(complaints)
        if args.fuzz or every:
            failed |= run_fuzz(home, args.fuzz or 20000, args.only, args.workers)
    return sys.exit(failed)


if __name__ == "__main__":
    main()
