"""All cases, {name: Case}. A new failure is one more line in the module of its kind."""

from harness import (
    cases_faults,
    cases_flags,
    cases_photos,
    cases_runs,
    cases_strangers,
    cases_tables,
)

MODULES = (
    cases_flags, cases_photos, cases_tables, cases_runs, cases_strangers, cases_faults,
)  # fmt: skip
CASES = {}
for module in MODULES:
    for one in module.CASES:
        if one.name in CASES:
            raise ValueError(f"two cases are called {one.name}")
        CASES[one.name] = one


def fast(count):
    """Names of `count` cases that end before any work, evenly from the whole table."""
    expected = {name: one.expected for name, one in CASES.items() if one.expected}
    quick = [name for name, how in expected.items() if how.code == 2 and not how.or_works]
    return [quick[len(quick) * i // count] for i in range(count)]
