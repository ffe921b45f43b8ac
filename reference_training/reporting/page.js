"use strict";
// Tables sort by their headers, and the reader chooses the methods of the figures.

const ABSENT = "–";
const NUMBER = /^[+−-]?\d+(\.\d+)?(e[+-]?\d+)?( ± \d+(\.\d+)?)?( [▲▼])?$/;

const textOf = (row, column) => row.cells[column].textContent.trim();
const numberOf = (text) => parseFloat(text.replace("−", "-"));
const isMissing = (text) => text === "" || text === ABSENT;

function sort(table, column) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const given = rows.map((row) => textOf(row, column)).filter((text) => !isMissing(text));
  const numeric = given.every((text) => NUMBER.test(text));
  // First the best: the highest number, unless the header says that lower is better; then in turn.
  const before = headers[column].getAttribute("aria-sort");
  const lowerIsBetter = headers[column].textContent.trim().endsWith("↓");
  const rising = before ? before === "descending" : !numeric || lowerIsBetter;
  const compare = (a, b) =>
    numeric ? numberOf(a) - numberOf(b) : a.localeCompare(b, "en", { numeric: true });
  rows.sort((one, other) => {
    const [a, b] = [textOf(one, column), textOf(other, column)];
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    return rising ? compare(a, b) : compare(b, a);
  });
  body.append(...rows);
  for (const header of headers) header.removeAttribute("aria-sort");
  headers[column].setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table:not(.text)")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, column));
    header.append(button);
  });
}

for (const chooser of document.querySelectorAll(".chooser")) {
  chooser.hidden = false;
  chooser.addEventListener("change", (event) => {
    const { value, checked } = event.target;
    const scope = chooser.closest("section") ?? document;
    for (const drawn of scope.querySelectorAll(`[data-method="${value}"]`)) {
      drawn.classList.toggle("off", !checked);
    }
  });
}
