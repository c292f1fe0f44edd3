#!/usr/bin/env python3
"""Writes plans_rows.inc, the rows and plans of plans.json as C++ macro calls, next to itself.

ROW(number, pattern, name, matches, trailing_dot): one row; trailing_dot marks PyTorch's oddity that a key which ends
in a dot means the module reached so far.
PLAN(number, trailing_dot, tied, modules, keys, applied): one whole plan; lists are LIST(...), an application is PAIR(key, module).
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
    lines.append(f"ROW({number}, {quote(row['pattern'])}, {quote(row['name'])}, {boolean(row['matches'])}, "
                 f"{boolean(row.get('differs_from_plain_rule'))})")
lines += ["#endif", "#ifdef PLAN"]
for number, plan in enumerate(data["plans"]):
    pairs = ", ".join(f"PAIR({quote(key)}, {quote(module)})" for key, module in plan["applied"])
    dotted = any(key.endswith(".") for key in plan["keys"])
    lines.append(f"PLAN({number}, {boolean(dotted)}, {boolean('same_module' in plan)}, {strings(plan['modules'])}, "
                 f"{strings(plan['keys'])}, LIST({pairs}))")
lines.append("#endif")
(here / "plans_rows.inc").write_text("\n".join(lines) + "\n", encoding="utf-8")
