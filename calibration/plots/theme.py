"""The report's page: markup and style sheet, light and dark."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Joulegate: what a profile means</title>
<style>
:root { --ink: $ink; --paper: $paper; --muted: $muted; --line: #d8dade; --link: #00558a;
  --blue: #0072b2; --green: #009e73; --vermillion: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceef0; --paper: #16181b; --muted: #a3a8ae; --line: #3a3f45; --link: #7cc4f5;
    --blue: #3a98dc; --green: #25c094; --vermillion: #f58638; }
}
body { margin: 0 auto; padding: 1.5rem; max-width: 74rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1.5rem; }
p, li { max-width: 52rem; }
a { color: var(--link); }
code { display: block; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: 4px;
  overflow-wrap: anywhere; font-size: .85rem; }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg { width: 100%; min-width: 40rem; height: auto; }
nav ul { columns: 2; max-width: 52rem; }
summary { cursor: pointer; font-weight: 600; }
nav li { break-inside: avoid; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.wide { overflow-x: auto; margin: 1rem 0; max-width: 100%; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
td.long { white-space: normal; max-width: 44rem; overflow-wrap: anywhere; }
thead th { color: var(--muted); font-weight: 500; }
thead th { white-space: normal; }
tbody th { font-weight: 500; }
.muted { color: var(--muted); font-size: .85rem; }
.phone { display: none; }
@media (max-width: 40rem) {
  body { padding: 1rem; }
  nav ul { columns: 1; padding-left: 1.2rem; }
  /* Whole, if small: they are drawn by lines, and stay sharp when they are enlarged. */
  figure svg { min-width: 0; }
  .phone { display: block; }
  .tables { display: block; }
  table { font-size: .78rem; }
  th, td { white-space: normal; overflow-wrap: break-word; padding-right: .5rem; }
}
@media print { details > * { display: block; } }
</style>
</head>
<body>
<header>
<h1>What a profile means</h1>
<p>Profile: $origin, version <b>$version</b>. Made by:</p>
<code>$command</code>
</header>
<nav><ul>$contents</ul></nav>
<p class="phone muted">Pictures are as wide as the screen: spread two fingers to enlarge one.</p>
<main>
$models
$pictures
<section id="weaknesses"><h2>Weaknesses</h2>
<p>Read these before trusting a number above.</p>
$weaknesses</section>
<section id="provenance"><h2>Provenance</h2>
$provenance</section>
</main>
<footer class="muted"><p>$made</p></footer>
</body>
</html>
"""
