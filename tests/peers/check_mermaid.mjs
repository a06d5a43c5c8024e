// Parses every Mermaid diagram of Markdown pages with Mermaid's own parser.
//
//     node check_mermaid.mjs PAGE...
//
// Prints `PAGE:LINE ok` for each diagram; LINE is that of the opening fence. The exit status is 1
// if a diagram does not parse or if the pages have no diagram at all.

import { readFileSync } from 'node:fs';
import { parseHTML } from 'linkedom';

// Mermaid cleans labels with DOMPurify, which needs a window when it is imported. linkedom has one
// without layout.
globalThis.window = parseHTML('<html><body></body></html>');
globalThis.document = window.document;
const { default: mermaid } = await import('mermaid');

// Lists each diagram of a page with the line of its opening fence. A fence in a list item is
// indented.
const diagrams = (text) => {
  const found = [];
  let fence;
  text.split('\n').forEach((line, index) => {
    const mark = line.match(/^\s*(`{3,})\s*(\S*)/);
    if (!fence) {
      if (mark) fence = { ticks: mark[1], language: mark[2], line: index + 1, content: [] };
    } else if (mark && mark[1].length >= fence.ticks.length && !mark[2]) {
      if (fence.language === 'mermaid') found.push(fence);
      fence = undefined;
    } else {
      fence.content.push(line);
    }
  });
  // A fence that is never closed runs to the end of the page.
  if (fence?.language === 'mermaid') found.push(fence);
  return found;
};

const pages = process.argv.slice(2);
let count = 0;
for (const page of pages) {
  for (const { line, content } of diagrams(readFileSync(page, 'utf8'))) {
    count += 1;
    try {
      await mermaid.parse(content.join('\n'));
      console.log(`${page}:${line} ok`);
    } catch (error) {
      console.log(`${page}:${line} ${error.message}`);
      process.exitCode = 1;
    }
  }
}
if (count === 0) {
  console.log(`check_mermaid.mjs: no Mermaid diagram in ${pages.join(', ') || 'no page'}`);
  process.exitCode = 1;
}
