"""The style of the page at `/`, and the content security policy that allows it and nothing else.

On a narrow window the rows are stacked: name, verdict and phase, the whole reason, numbers.
"""

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--line:#d8dee4;--soft:#57606a;--back:#fff;--fore:#1f2328;
--good:#1a7f37;--warn:#9a6700;--bad:#cf222e;--note:#8250df;--band:#f6f8fa;--link:#0969da}
@media(prefers-color-scheme:dark){:root{--line:#30363d;--soft:#9198a1;--back:#0d1117;
--fore:#e6edf3;--good:#3fb950;--warn:#d29922;--bad:#f85149;--note:#a371f7;--band:#151b23;
--link:#58a6ff}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--fore);
font:14px/1.5 system-ui,sans-serif}main{max-width:76rem;margin:0 auto;padding:1rem 1.25rem 3rem}
a{color:var(--link)}header{display:flex;flex-wrap:wrap;gap:.1rem 1.5rem;align-items:baseline}
h1{font-size:1.3rem;margin:.5rem 0;overflow-wrap:anywhere}h2{font-size:1rem;margin:1.75rem 0 .5rem}
.soft{color:var(--soft)}.alarm{border:1px solid var(--bad);border-left-width:5px;
border-radius:6px;padding:.5rem .75rem;margin:.5rem 0;overflow-wrap:anywhere}
.alarm::first-letter{text-transform:uppercase}
form{display:flex;gap:.5rem;margin:1rem 0}
input,button{font:inherit;color:inherit;background:var(--back);border:1px solid var(--line);
border-radius:6px;padding:.25rem .6rem}input{flex:0 1 22rem;min-width:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(6.4rem,1fr));gap:.6rem;
margin:1rem 0;padding:0;list-style:none}
.cards li{border:1px solid var(--line);border-radius:8px;padding:.45rem .75rem;
background:var(--band)}
.cards b{display:block;font-size:1.45rem;line-height:1.25;font-variant-numeric:tabular-nums}
.wide{border:1px solid var(--line);border-radius:8px;overflow:hidden}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .75rem;
border-top:1px solid var(--line);vertical-align:top}thead th{border-top:0;font-weight:600;
color:var(--soft);background:var(--band);white-space:nowrap}
td.name{overflow-wrap:anywhere;min-width:11rem;max-width:26rem}
code{font-family:ui-monospace,monospace;font-size:.92em}td.name b+code{display:block;
color:var(--soft);font-size:.85em}
td.why{min-width:14rem;overflow-wrap:anywhere}
td.num,th.num{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.running,.stopped,.cleaned{color:var(--good)}.leftover,.waiting,.due{color:var(--warn)}
.blocked,.failed{color:var(--bad);font-weight:600}.orphaned,.abandoned,.held{color:var(--note)}
footer{margin-top:2rem;overflow-wrap:anywhere}
@media(max-width:46rem){main{padding:.5rem .75rem 2rem}
.cards{grid-template-columns:repeat(auto-fit,minmax(5.9rem,1fr));gap:.4rem}
.cards li{padding:.3rem .55rem;font-size:.9em}.cards b{font-size:1.25rem}
thead{position:absolute;clip-path:inset(50%);height:1px;width:1px;overflow:hidden}
table,tbody,td{display:block}tr{display:flex;flex-wrap:wrap;gap:0 .8rem;padding:.5rem .65rem;
border-top:1px solid var(--line)}tbody tr:first-child{border-top:0}
td,td.num{border:0;padding:0;text-align:left}td.none{display:none}
td.name,td.why{flex:1 0 100%;min-width:0;max-width:none}
td.num{color:var(--soft);font-size:.9em}td.num::before{content:attr(data-head) " "}}
"""

_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""The content security policy the page is sent with: its own style, and asking itself."""
