"""What the adapters of this folder share: constraints on versions as events of OSV records."""

import re


def constraints(text):
    """`>= 1.0, < 2.0`, or Maven's `[1.0,2.0)`, as OSV's events."""
    introduced, end = "0", {}
    interval = re.fullmatch(r"\s*([\[(])([^,]*),([^,]*)([\])])\s*", text)
    if interval:
        _, first, last, closing = interval.groups()
        end = {"last_affected" if closing == "]" else "fixed": last.strip()} if last.strip() else {}
        return [{"introduced": first.strip() or "0"}] + ([end] if end else [])
    for sign, version in re.findall(r"(>=|<=|>|<|=)?\s*([^\s,<>=]+)", text):
        version = str(version)
        if sign in (">=", ">"):
            introduced = version
        elif sign == "<":
            end = {"fixed": version}
        elif sign == "<=":
            end = {"last_affected": version}
        else:
            introduced, end = version, {"last_affected": version}
    return [{"introduced": introduced}] + ([end] if end else [])
