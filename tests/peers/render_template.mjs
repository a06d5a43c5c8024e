// Renders a file of a Spin template with LiquidJS, and prints the result.
//
//     node render_template.mjs FILE NAME=VALUE...
//
// The values are those of the template's parameters and of Spin itself. `kebab_case` is a filter
// that Spin adds to Liquid. A name without a value and an unknown filter are errors.

import { readFileSync } from 'node:fs';
import { Liquid } from 'liquidjs';

const [file, ...pairs] = process.argv.slice(2);
const engine = new Liquid({ strictVariables: true, strictFilters: true });
engine.registerFilter('kebab_case', (text) => text.trim().toLowerCase().replace(/[^a-z0-9]+/g, '-'));
const values = Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]));
process.stdout.write(engine.parseAndRenderSync(readFileSync(file, 'utf8'), values));
