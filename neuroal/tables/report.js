// Sort a table by the column of a clicked head: ascending, descending, original order. Missing
// entries stay last. Filter the rows of a table by words. The script makes no requests.
"use strict";

function entry(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  return one.localeCompare(other, "en", { numeric: true });
}

function sort(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const before = head.getAttribute("aria-sort");
  const order = { ascending: "descending", descending: "none" }[before] || "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  if (order !== "none") head.setAttribute("aria-sort", order);
  table.classList.toggle("sorted", order !== "none");
  const sign = order === "descending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const original = Number(a.dataset.row) - Number(b.dataset.row);
    if (order === "none") return original;
    const missing = (row) => row.cells[column].classList.contains("none");
    if (missing(a) || missing(b)) return missing(a) - missing(b) || original;
    return sign * compare(entry(a, column), entry(b, column)) || original;
  });
  table.tBodies[0].append(...rows);
}

function filter(table, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of table.tBodies[0].rows) {
    const content = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" ");
    row.hidden = !words.every((word) => content.includes(word));
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(table, column));
  });
  const field = document.querySelector(`input[data-for="${table.id}"]`);
  if (field) field.addEventListener("input", () => filter(table, field.value));
}
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
