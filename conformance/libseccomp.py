#!/usr/bin/env python3
"""Seccomp profiles compiled by the libseccomp of this machine (package libseccomp2), for comparison.

Reads one JSON document a line, {"native": "x86_64" | "aarch64", "profile": <linux.seccomp of the runtime spec>}, and
writes one line each: the program as hexadecimal struct sock_filter, or "error: ..." where libseccomp refuses.
The profile becomes calls of libseccomp as the runtimes that use it do: rules that say what the default says are left
out, names it does not know too, and a rule that names an argument twice becomes one rule for each condition.

Exit status 77: there is no libseccomp here.
"""
import ctypes
import json
import os
import sys

try:
    lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(77)


class Argument(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_version.restype = ctypes.POINTER(Version)
ARCH = {"x86_64": 0xC000003E, "x86": 0x40000003, "x32": 0x4000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}
# What a kernel runs: the others would never be seen by a filter.
FAMILY = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}
OPS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
ACTIONS = {
    "KILL": 0, "KILL_THREAD": 0, "KILL_PROCESS": 0x80000000, "TRAP": 0x00030000, "ERRNO": 0x00050000,
    "TRACE": 0x7FF00000, "LOG": 0x7FFC0000, "ALLOW": 0x7FFF0000, "NOTIFY": 0x7FC00000,
}
SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_OPTIMIZE = 2, 8


def check(code, what):
    if code < 0:
        raise RuntimeError(f"{what}: {os.strerror(-code)}")


def action(name, errno):
    short = name.removeprefix("SCMP_ACT_")
    data = (1 if errno is None else errno) if short in ("ERRNO", "TRACE") else 0
    return ACTIONS[short] | data


def add(context, call, verdict, conditions):
    made = [
        Argument(c["index"], OPS[c["op"].removeprefix("SCMP_CMP_")], c["value"], c["valueTwo"]) for c in conditions
    ]
    array = (Argument * len(made))(*made)
    check(
        lib.seccomp_rule_add_array(ctypes.c_void_p(context), ctypes.c_uint32(verdict), call, len(made), array),
        f"add a rule for call {call}",
    )


def compile_profile(native, profile):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = lib.seccomp_init(ctypes.c_uint32(default))
    if not context:
        raise RuntimeError("seccomp_init refuses the default action")
    handle = ctypes.c_void_p(context)
    wanted = [native] + [name.removeprefix("SCMP_ARCH_").lower() for name in profile.get("architectures", [])]
    own = lib.seccomp_arch_native()
    for name in dict.fromkeys(wanted):
        if name in FAMILY[native] and lib.seccomp_arch_exist(handle, ARCH[name]) != 0:
            check(lib.seccomp_arch_add(handle, ARCH[name]), f"add {name}")
    if own & 0xFFFFFFFF != ARCH[native]:
        check(lib.seccomp_arch_remove(handle, ctypes.c_uint32(own & 0xFFFFFFFF)), "remove the native architecture")
    check(lib.seccomp_attr_set(handle, SCMP_FLTATR_ACT_BADARCH, ctypes.c_uint32(0x80000000)), "set the bad action")
    for rule in profile.get("syscalls", []):
        verdict = action(rule["action"], rule.get("errnoRet"))
        if verdict == default:
            continue
        conditions = rule.get("args", [])
        indexes = [c["index"] for c in conditions]
        for name in rule["names"]:
            call = lib.seccomp_syscall_resolve_name(name.encode())
            if call == -1:
                continue
            if len(set(indexes)) < len(indexes):
                for condition in conditions:
                    add(context, call, verdict, [condition])
            else:
                add(context, call, verdict, conditions)
    # A file and not a pipe: a program can be longer than what a pipe holds.
    file = os.memfd_create("program")
    check(lib.seccomp_export_bpf(handle, file), "export the program")
    length = os.lseek(file, 0, os.SEEK_CUR)
    program = os.pread(file, length, 0)
    os.close(file)
    lib.seccomp_release(handle)
    return program


def main():
    version = lib.seccomp_version().contents
    print(f"{version.major}.{version.minor}.{version.micro}", flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        try:
            print(compile_profile(case["native"], case["profile"]).hex(), flush=True)
        except RuntimeError as error:
            print(f"error: {error}", flush=True)


if __name__ == "__main__":
    main()
