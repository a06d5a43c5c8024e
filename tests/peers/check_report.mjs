// Opens a page of `broker report --html` in Chromium, on a phone and on a wide screen, light and dark.
//
//     node check_report.mjs PAGE [FOLDER]
//
// Prints the figures that the page shows, as JSON. The exit status is 1 if something overflows, if the
// page loads anything or breaks its own policy, if a name of the log became an element, or if the four
// views differ in their figures. Writes a picture of each view into FOLDER.

import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

// Runs in the page.
const look = () => {
  const faults = [];
  const shown = (element) => element.checkVisibility() && getComputedStyle(element).clipPath === 'none'
    && !element.closest('thead');
  for (const element of document.body.querySelectorAll('*')) {
    if (!shown(element)) continue;
    const { left, right } = element.getBoundingClientRect();
    const is_outside = left < -0.5 || right > innerWidth + 0.5;
    const is_cut = element instanceof HTMLElement && element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1;
    if (is_outside || is_cut) faults.push(`${element.tagName} overflows: ${element.textContent.trim().slice(0, 60)}`);
  }
  for (const text of document.querySelectorAll('svg text')) {
    if (!text.checkVisibility()) continue;
    const [inner, outer] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
    if (inner.left < outer.left - 0.5 || inner.right > outer.right + 0.5) faults.push(`chart cuts ${text.textContent.trim()}`);
    if (inner.height < 10) faults.push(`chart has a text ${inner.height} px high`);
  }
  for (const figure of document.querySelectorAll('figure')) {
    const drawings = [...figure.querySelectorAll('svg')].filter((svg) => svg.checkVisibility());
    if (drawings.length !== 1) faults.push(`${drawings.length} drawings of a chart are visible`);
    if (!drawings.every((svg) => svg.getAttribute('aria-label'))) faults.push('a chart has no label');
  }
  const known = 'BODY HEADER MAIN SECTION H1 H2 H3 P DL DT DD DIV UL LI SPAN SMALL CODE BDI DATA FIGURE FIGCAPTION '
    + 'TABLE CAPTION THEAD TBODY TR TH TD DETAILS SUMMARY svg rect line polyline text';
  for (const { tagName } of document.body.querySelectorAll('*')) {
    if (!known.split(' ').includes(tagName)) faults.push(`the page has an element ${tagName}`);
  }
  // What is a number for people must be the one for programs.
  const number = (cell) => {
    const data = cell.querySelector('data');
    if (!data) return cell.textContent.trim();
    const [value, read] = [Number(data.value), parseFloat(data.textContent.replaceAll(',', ''))];
    const same = data.textContent.endsWith('%') ? (value * 100).toFixed(1) === read.toFixed(1) : value === read;
    if (!same) faults.push(`${data.outerHTML} differs`);
    return value;
  };
  const table = (element) => Object.fromEntries([...element.tBodies[0].rows].map((row) => {
    const name = row.cells[0].querySelector('bdi') ?? row.cells[0];
    return [name.textContent, [...row.cells].slice(1).map(number)];
  }));
  const tables = [...document.querySelectorAll('table')].map((element) => [element.caption.textContent, table(element)]);
  const tiles = [...document.querySelectorAll('.tiles > div')].map((tile) => [tile.children[0].textContent, number(tile)]);
  const names = [...document.querySelectorAll('.names li')].map((item) => item.textContent);
  const findings = [...document.querySelectorAll('.findings li bdi')].map((item) => item.textContent);
  const background = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)[0];
  return { faults, background, figures: { tables: Object.fromEntries(tables), tiles: Object.fromEntries(tiles), names, findings } };
};

const [page_file, folder] = process.argv.slice(2);
const url = pathToFileURL(page_file).href;
const faults = [];
const figures = new Set();
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium' });
for (const width of [400, 1400]) {
  for (const colorScheme of ['light', 'dark']) {
    const view = `${width} px, ${colorScheme}`;
    const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
    page.on('console', (message) => faults.push(`${view}: ${message.text()}`));
    page.on('dialog', (dialog) => faults.push(`${view}: a script opened ${dialog.message()}`));
    page.on('request', (request) => request.url() === url || faults.push(`${view}: loads ${request.url()}`));
    await page.goto(url);
    if (folder) await page.screenshot({ path: `${folder}/report-${width}-${colorScheme}.png`, fullPage: true });
    await page.evaluate(() => document.querySelectorAll('details').forEach((details) => { details.open = true; }));
    const seen = await page.evaluate(look);
    faults.push(...seen.faults.map((fault) => `${view}: ${fault}`));
    if ((seen.background < 128) !== (colorScheme === 'dark')) faults.push(`${view}: the background is ${seen.background}`);
    figures.add(JSON.stringify(seen.figures));
    await page.close();
  }
}
await browser.close();
if (figures.size !== 1) faults.push(`${figures.size} different sets of figures`);
faults.forEach((fault) => console.error(fault));
if (faults.length) process.exitCode = 1;
console.log([...figures][0]);
