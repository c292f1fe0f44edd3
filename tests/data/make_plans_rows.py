#!/usr/bin/env python3
"""Writes plans_rows.inc, the rows and plans of plans.json as C++ macro calls, next to itself.

ROW(number, pattern, name, matches): one row.
PLAN(number, tied, modules, keys, applied): one whole plan; tied is empty or two names of one module; lists are
LIST(...), an application is PAIR(key, module).
"""
import json
import pathlib

here = pathlib.Path(__file__).resolve().parent


def quote(text):
    out = ""
    for byte in text.encode():
        if byte in b'\\"?':
            out += "\\" + chr(byte)
        elif 32 <= byte < 127:
            out += chr(byte)
        else:
            out += f"\\{byte:03o}"
    return f'"{out}"'


def boolean(value):
    return "true" if value else "false"


def strings(texts):
    return f"LIST({', '.join(map(quote, texts))})"


data = json.loads((here / "plans.json").read_text(encoding="utf-8"))
lines = ["// Generated from plans.json by make_plans_rows.py."]
lines.append("#ifdef ROW")
for number, row in enumerate(data["rows"]):
    lines.append(f"ROW({number}, {quote(row['pattern'])}, {quote(row['name'])}, {boolean(row['matches'])})")
lines += ["#endif", "#ifdef PLAN"]
for number, plan in enumerate(data["plans"]):
    pairs = ", ".join(f"PAIR({quote(key)}, {quote(module)})" for key, module in plan["applied"])
    lines.append(f"PLAN({number}, {strings(plan.get('same_module', []))}, {strings(plan['modules'])}, "
                 f"{strings(plan['keys'])}, LIST({pairs}))")
lines.append("#endif")
(here / "plans_rows.inc").write_text("\n".join(lines) + "\n", encoding="utf-8")
